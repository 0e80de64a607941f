"""Cut the tail of a Caffe network off, before anything in its layers is looked at; and find where it could be cut."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nvdla_quant.errors import NetworkError
from nvdla_quant.network.caffe import caffe_pb2 as pb
from nvdla_quant.network.caffe.layers import SPLIT
from nvdla_quant.network.caffe.phases import is_restricted
from nvdla_quant.network.cutting import Node, check_ends, ends_before, independent, needed

_LEARNED = {"Convolution", "Deconvolution", "InnerProduct"}
_SHAPE_ALONE = {"PriorBox"}
"""Types of layers to which the values of what they read mean nothing."""


@dataclass(frozen=True)
class _Flow:
    """What layers hand to each other.

    Attributes
    ----------
    layers : tuple[LayerParameter, ...]
        Layers that run at test time, the inputs' not among them.
    nodes : tuple[Node, ...]
        The same, as far as cutting is concerned. A blob is a value of its own each time that it is written: ``:blob``
        of an input, else ``number:blob``.
    latest : dict[str, str]
        Value that each blob holds in the end.
    given : frozenset[str]
        Blobs that are inputs.
    """

    layers: tuple[pb.LayerParameter, ...]
    nodes: tuple[Node, ...]
    latest: dict[str, str]
    given: frozenset[str]

    @property
    def blobs(self) -> dict[str, str]:
        """Values that blobs hold in the end, those of layers."""
        return {blob: value for blob, value in self.latest.items() if value != _input(blob)}

    @property
    def names(self) -> dict[str, str]:
        """Values by what they can be called: blobs, else the layers that write them."""
        by_layer = zip(self.layers, self.nodes, strict=True)
        return {layer.name: node.writes[0] for layer, node in by_layer if len(node.writes) == 1} | self.blobs


def _input(blob: str) -> str:
    return f":{blob}"


def _flow(message: pb.NetParameter) -> _Flow:
    given = set(message.input)
    latest = {blob: _input(blob) for blob in given}
    layers: list[pb.LayerParameter] = []
    nodes: list[Node] = []
    for layer in message.layer:
        if is_restricted(layer):
            continue
        if layer.type == "Input":
            given.update(layer.top)
            latest.update({top: _input(top) for top in layer.top})
            continue
        reads = tuple(latest.get(blob, f"?{blob}") for blob in layer.bottom)
        latest.update({top: f"{len(layers)}:{top}" for top in layer.top})
        nodes.append(Node(reads, tuple(latest[top] for top in layer.top), layer.type in _LEARNED))
        layers.append(layer)
    return _Flow(tuple(layers), tuple(nodes), latest, frozenset(given))


def cut_message(message: pb.NetParameter, names: Sequence[str]) -> tuple[pb.NetParameter, tuple[str, ...]]:
    """Let a network end at tensors; layers and inputs that nothing needs any more are dropped.

    Parameters
    ----------
    message : NetParameter
        In the modern format.
    names : Sequence[str]
        Blobs, of which the last that is written counts, or layers.

    Returns
    -------
    NetParameter, tuple[str, ...]
        What is left, and the layers that write these tensors, in the same order.

    Raises
    ------
    NetworkError
        As `check_ends`, or a tensor does not depend on an input.
    """
    flow = _flow(message)
    given = {*flow.given, *(layer.name for layer in message.layer if layer.type == "Input")}
    check_ends(names, flow.names, given)
    values = [flow.names[name] for name in names]
    for name, value in zip(names, values, strict=True):
        read = {source for number in needed(flow.nodes, [value]) for source in flow.nodes[number].reads}
        # What nothing writes is told by the reader.
        if not any(source.startswith((":", "?")) for source in read):
            raise independent(name)
    kept = needed(flow.nodes, values)
    used = {source for number in kept for source in flow.nodes[number].reads}
    left = pb.NetParameter()
    left.CopyFrom(message)
    _drop_inputs(left, used)
    positions = [index for index, layer in enumerate(message.layer) if not is_restricted(layer)]
    running = [index for index in positions if message.layer[index].type != "Input"]
    dropped = {index for number, index in enumerate(running) if number not in kept}
    dropped |= {index for index in positions if left.layer[index].type == "Input" and not left.layer[index].top}
    for index in sorted(dropped, reverse=True):
        del left.layer[index]
    return left, tuple(_written_by(flow, name, value) for name, value in zip(names, values, strict=True))


def _written_by(flow: _Flow, name: str, value: str) -> str:
    """Return the layer that writes a value; a Split passes on what another has written."""
    writers = {value: number for number, node in enumerate(flow.nodes) for value in node.writes}
    while (number := writers.get(value)) is not None and flow.layers[number].type == SPLIT and flow.nodes[number].reads:
        value = flow.nodes[number].reads[0]
    if number is None:
        raise NetworkError(f"cut_at names {name!r}, a copy of an input, of which nothing is computed; name another one")
    return flow.layers[number].name


def _drop_inputs(message: pb.NetParameter, used: Collection[str]) -> None:
    """Drop the inputs that nothing reads, with their shapes, where they have one each."""
    for layer in message.layer:
        if layer.type == "Input" and not is_restricted(layer):
            _drop([layer.top, layer.input_param.shape], layer.top, used)
    if message.input_dim:
        dims = [tuple(message.input_dim[i : i + 4]) for i in range(0, len(message.input_dim), 4)]
        if len(message.input_dim) == 4 * len(message.input):
            _drop([dims], message.input, used)
            del message.input_dim[:]
            message.input_dim.extend(size for shape in dims for size in shape)
        else:
            return  # The reader tells.
    _drop([message.input_shape, message.input], message.input, used)


def _drop(fields: Sequence[Any], blobs: Sequence[str], used: Collection[str]) -> None:
    """Drop what belongs to the blobs that are not used, of fields that have something for each."""
    count = len(blobs)
    unused = [index for index, blob in enumerate(blobs) if _input(blob) not in used]
    for field in fields:
        if len(field) == count:
            for index in reversed(unused):
                del field[index]


def ends_before_unread(message: pb.NetParameter, cut_at: Sequence[str], unread: Collection[str]) -> list[str]:
    """Return tensors that a network could end at, so that nothing is left of the layers called `unread`.

    None where that would drop the greater part of it, or where a tensor has no name. Whether what is left can be read
    is another question: a reason may have hidden behind another.

    Parameters
    ----------
    message : NetParameter
        In the modern format.
    cut_at : Sequence[str]
        Where it ends already; empty where as its file does.
    unread : Collection[str]
        Names of layers.
    """
    flow = _flow(message)
    read = {value for node in flow.nodes for value in node.reads}
    outputs = {value for node in flow.nodes for value in node.writes} - read
    if cut_at:
        outputs = {flow.names[name] for name in cut_at}
    kept = needed(flow.nodes, outputs)
    nodes = [
        _counted(layer, node, number in kept)
        for number, (layer, node) in enumerate(zip(flow.layers, flow.nodes, strict=True))
    ]
    bad = [number for number, layer in enumerate(flow.layers) if layer.name in unread]
    ends = ends_before(nodes, bad, outputs, {value for node in nodes for value in node.writes})
    called = {value: name for name, value in flow.names.items()} | {value: blob for blob, value in flow.blobs.items()}
    return [called[value] for value in ends] if all(value in called for value in ends) else []


def _counted(layer: pb.LayerParameter, node: Node, is_kept: bool) -> Node:
    """Return a layer as far as it counts for where a network could end."""
    if not is_kept:
        return Node((), ())
    return replace(node, reads=()) if layer.type in _SHAPE_ALONE else node
