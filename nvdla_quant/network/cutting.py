"""End a network before its file does: what is left in front of some of its tensors, and where it could end.

What the tail of a network computes (box decoding, suppression of boxes, the largest score of each pixel) is no work for
NVDLA. It is cut off as early as a file is read, so that nothing has to know what is dropped.
"""

import difflib
import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nvdla_quant.errors import NetworkError
from nvdla_quant.network.graph import Dropout, Layer, Learned, Network, OnnxTensors, Tensor
from nvdla_quant.network.views import viewed

_YAML_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
"""Words that YAML 1.1 takes for something else than a text, in any case (yaml.org/type/bool.html, null.html)."""


@dataclass(frozen=True)
class Node:
    """A layer of a file or a node of a graph, as far as cutting is concerned.

    Attributes
    ----------
    reads, writes : tuple[str, ...]
        Values, each of which has one writer: a Caffe blob that is overwritten is several.
    is_learned : bool
        Whether it is a convolution or an inner product.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    is_learned: bool = False


def needed(nodes: Sequence[Node], ends: Iterable[str]) -> frozenset[int]:
    """Return the numbers of the nodes that the values `ends` are computed by, in whatever order they stand."""
    writers = {value: number for number, node in enumerate(nodes) for value in node.writes}
    found: set[int] = set()
    waiting = list(ends)
    while waiting:
        number = writers.get(waiting.pop())
        if number is not None and number not in found:
            found.add(number)
            waiting.extend(nodes[number].reads)
    return frozenset(found)


def check_ends(names: Sequence[str], computed: Collection[str], given: Collection[str]) -> None:
    """Refuse names that are no place to cut at.

    Parameters
    ----------
    names : Sequence[str]
        Where the network is to end.
    computed : Collection[str]
        What can be named of the network.
    given : Collection[str]
        Its inputs and constants.

    Raises
    ------
    NetworkError
        A name stands twice, is an input's or a constant's, or nothing in the network has it.
    """
    for name in names:
        if names.count(name) > 1:
            raise NetworkError(f"cut_at names {name!r} twice; name each tensor once")
        if name in computed:
            continue
        if name in given:
            raise NetworkError(
                f"cut_at names {name!r}, an input or a constant of the network, before which nothing is computed; "
                "name a tensor that a layer writes"
            )
        close = difflib.get_close_matches(name, sorted(computed), 3, 0.5)
        near = f"; near it are {', '.join(map(repr, close))}" if close else ""
        raise NetworkError(f"cut_at names {name!r}, which nothing in the network writes{near}; check the name")


def independent(name: str) -> NetworkError:
    """Return the error of a tensor that does not follow from the network's input."""
    return NetworkError(
        f"cut_at names {name!r}, which does not depend on the network's input; name a tensor that is computed from it"
    )


def cut(network: Network, names: Sequence[str]) -> Network:
    """Let a network end at tensors that are called as in its file.

    Parameters
    ----------
    network : Network
        The network.
    names : Sequence[str]
        In the order of the outputs: blobs, of which the last that is written counts, or layers. In an ONNX file the
        layers' names come first, as its values have them.

    Raises
    ------
    NetworkError
        As `check_ends`.
    """
    given = {name for tensor in network.inputs for name in (tensor.name, tensor.blob)}
    layers = {name: name for name in network.by_name}
    blobs = {network.tensors[name].blob: name for name in layers}
    computed = layers | blobs if network.onnx is None else blobs | layers
    check_ends(names, computed, given)
    return ending_at(network, [computed[name] for name in names])


def ending_at(network: Network, names: Sequence[str]) -> Network:
    """Let a network end at tensors of its own: the outputs are these, in this order.

    An output is what no layer reads. Layers that write one move to the end, and one that others read as well gets a
    view behind all of them.

    Parameters
    ----------
    network : Network
        The network.
    names : Sequence[str]
        Names of its layers; of several tensors that are views of one another the first counts.
    """
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(viewed(network, name), name)
    ends = list(first.values())
    nodes = [Node(layer.inputs, (layer.name,)) for layer in network.layers]
    kept = [network.layers[number] for number in sorted(needed(nodes, ends))]
    read = {name for layer in kept for name in layer.inputs}
    layers = [layer for layer in kept if layer.name in read]
    tensors = dict(network.tensors)
    for name in ends:
        if name not in read:
            layers.append(network.by_name[name])
            continue
        view = _free(f"{name}_output", tensors)
        tensors[name] = replace(tensors[name], blob=_own_blob(name, kept, tensors))
        tensors[view] = Tensor(view, tensors[name].shape, tensors[name].blob)
        layers.append(Layer(view, Dropout(), (name,)))
    used = {name for layer in layers for name in layer.inputs}
    inputs = tuple(tensor for tensor in network.inputs if tensor.name in used)
    order = [tensor.name for tensor in inputs] + [layer.name for layer in layers]
    left = {name: tensors[name] for name in order}
    return Network(network.name, inputs, tuple(layers), left, _called(network.onnx, left))


def _called(onnx: OnnxTensors | None, left: Collection[str]) -> OnnxTensors | None:
    """Return what the tensors that are left are called in their ONNX file, which still has the others."""
    if onnx is None:
        return None
    names = {name: called for name, called in onnx.names.items() if name in left}
    return OnnxTensors(names, onnx.others | (set(onnx.names.values()) - set(names.values())))


def _own_blob(name: str, layers: Sequence[Layer], tensors: Mapping[str, Tensor]) -> str:
    """Return a blob for a tensor that no layer behind it overwrites: its own, unless one does."""
    blob = tensors[name].blob
    behind = layers[[layer.name for layer in layers].index(name) + 1 :]
    if all(tensors[layer.name].blob != blob for layer in behind):
        return blob
    return _free(name, {tensor.blob for tensor in tensors.values()})


def _free(wanted: str, taken: Collection[str]) -> str:
    while wanted in taken:
        wanted += "_"
    return wanted


# Where a network could end.


def ends_before(
    nodes: Sequence[Node], bad: Iterable[int], outputs: Collection[str], data: Collection[str]
) -> list[str]:
    """Return the values that are left as a network's outputs where some of its nodes, and all behind them, are dropped.

    Parameters
    ----------
    nodes : Sequence[Node]
        The network, in an order of execution.
    bad : Iterable[int]
        Numbers of nodes that cannot stay.
    outputs : Collection[str]
        The network's outputs.
    data : Collection[str]
        Values that can be outputs.

    Returns
    -------
    list[str]
        In the order of the nodes that write them; none where nothing is dropped, and where the greater part of the
        convolutions and inner products is, so that it is no tail.
    """
    dropped = set(bad)
    if not dropped:
        return []
    lost = {value for number in dropped for value in nodes[number].writes}
    for number, node in enumerate(nodes):
        if number in dropped or lost.intersection(node.reads):
            dropped.add(number)
            lost.update(node.writes)
    wanted = {*outputs, *(value for number in dropped for value in nodes[number].reads)} - lost
    ends = [value for node in nodes for value in node.writes if value in wanted and value in data]
    left = sum(nodes[number].is_learned for number in needed(nodes, ends))
    return ends if 2 * left > sum(node.is_learned for node in nodes) else []


def ends_before_layers(network: Network, bad: Collection[str]) -> list[str]:
    """Return what `ends_before` does of a network's layers that are called `bad`, by the names that `cut` takes.

    None as well where a tensor has no name in the file.
    """
    nodes = [Node(layer.inputs, (layer.name,), isinstance(layer.operation, Learned)) for layer in network.layers]
    numbers = [number for number, layer in enumerate(network.layers) if layer.name in bad]
    found = ends_before(nodes, numbers, {tensor.name for tensor in network.outputs}, network.by_name)
    names = [_name_in_file(network, name) for name in dict.fromkeys(viewed(network, end) for end in found)]
    return [name for name in names if name is not None] if None not in names else []


def _name_in_file(network: Network, name: str) -> str | None:
    """Return what `cut` calls a tensor; None where it has no name for it."""
    if name not in network.by_name or network.by_name[name].inner:
        return None
    blobs = {tensor.blob: tensor.name for tensor in network.tensors.values()}
    if blobs[network.tensors[name].blob] == name:
        return network.tensors[name].blob
    return name if network.onnx is None and name not in blobs else None


def as_option(ends: Sequence[str]) -> str:
    """Return how to cut at tensors, in the configuration and on the command line, ready to paste."""
    options = " ".join(f"--cut-at {shlex.quote(end)}" for end in ends)
    return f"cut_at: [{', '.join(map(_yaml, ends))}] in the model's record, {options} on the command line"


def _yaml(name: str) -> str:
    """Return a name as YAML has it in a list; numbers and words that mean something else are quoted."""
    is_plain = re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", name) and name.lower() not in _YAML_WORDS
    return name if is_plain else json.dumps(name)
