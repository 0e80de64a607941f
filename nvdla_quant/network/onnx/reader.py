"""Read ONNX files into the graph of `network.graph`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import onnx_ir as ir

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.cutting import ending_at
from nvdla_quant.network.graph import Network, OnnxTensors
from nvdla_quant.network.onnx.files.load import Loaded, load
from nvdla_quant.network.onnx.graphs.edges import takes_channels_last
from nvdla_quant.network.onnx.graphs.ends import ends_before_unread
from nvdla_quant.network.onnx.graphs.inputs import Input, fix_inputs
from nvdla_quant.network.onnx.graphs.normalise import normalise
from nvdla_quant.network.onnx.operators.table import READERS, advice
from nvdla_quant.network.onnx.values.layouts import View, along, plain
from nvdla_quant.network.onnx.values.names import printable
from nvdla_quant.network.onnx.values.nodes import Node, check_sizes
from nvdla_quant.network.onnx.values.quantized import REFUSED, ranges_of
from nvdla_quant.network.onnx.values.reading import Reading
from nvdla_quant.network.problems import LayersError, Problem, rule_of
from nvdla_quant.network.quantized import Range
from nvdla_quant.network.views import viewed

SUPPORTED = tuple(READERS)
"""Operators that are read."""


@dataclass(frozen=True)
class Imported:
    """What an ONNX file holds.

    Attributes
    ----------
    network : Network
        The network, each layer named after the ONNX tensor that its last node writes.
    names : Mapping[str, str]
        Name of the ONNX tensor of each of our tensors, in order; layers within one node have none.
    remarks : tuple[str, ...]
        What was changed or dropped, for the user.
    opset : int
        Version of the file's ONNX operators.
    producer : str
        Who wrote the file, as it says.
    files : tuple[Path, ...]
        Files that were read: the model and its external data.
    ranges : Mapping[str, tuple[Range, ...]]
        Of each of our tensors that the file quantizes, in order, the ranges that it does so to: one, unless readers of
        it have their own.
    """

    network: Network
    names: Mapping[str, str]
    remarks: tuple[str, ...]
    opset: int
    producer: str
    files: tuple[Path, ...]
    ranges: Mapping[str, tuple[Range, ...]] = field(default_factory=dict)


def read_onnx(path: Path, input_shape: tuple[int, ...] | None = None, cut_at: Sequence[str] = ()) -> Imported:
    """Read a network with its weights.

    Parameters
    ----------
    path : Path
        An ONNX file, with its external data beside it, if it has any.
    input_shape : tuple[int, ...], optional
        Shape of the only input, in the file's order of axes, with the batch or without; needed where the file leaves
        sizes open. An open batch is fixed to one image.
    cut_at : Sequence[str], optional
        Values of the file that the network is to end at, its outputs in this order; what is behind is not looked at.

    Raises
    ------
    NetworkError
        The file is malformed, or asks for more than it says.
    UnsupportedError
        It is sound, and as a whole of a kind that is not read.
    LayersError
        Nodes cannot be read; the message names all of them, and where the network could end before they begin.
    """
    loaded = load(path, cut_at)
    try:
        inputs, remarks = fix_inputs(loaded.model.graph, input_shape)
        model, said = normalise(loaded.model)
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: {error}") from error
    except NetworkError as error:
        raise NetworkError(f"{path}: {error}") from error
    reading = Reading(batch=inputs[0].shape[0])
    reading.remarks.extend((*remarks, *said))
    network = _read(loaded, model, inputs, bool(cut_at), reading)
    if reading.problems or network is None:
        problems = reading.problems or [Problem("", "structure", "the graph computes nothing from its input")]
        ends = _readable(path, input_shape, ends_before_unread(loaded, model.graph, reading), cut_at)
        raise LayersError(str(path), problems, network, SUPPORTED, ends)
    names = MappingProxyType(dict(reading.names))
    return Imported(
        replace(network, onnx=OnnxTensors(names, loaded.tensors - set(names.values()))),
        names,
        tuple(dict.fromkeys(reading.remarks)),
        loaded.opset,
        printable(" ".join(part for part in (model.producer_name, model.producer_version) if part)),
        loaded.files,
        MappingProxyType(_ranges(model.graph, reading, network)),
    )


def _readable(
    path: Path, input_shape: tuple[int, ...] | None, ends: Sequence[str], cut_at: Sequence[str]
) -> tuple[str, ...]:
    """Return where a file could end, `ends` or before them, so that it can be read; nothing where it cannot."""
    if not ends or set(ends) == set(cut_at):
        return ()
    try:
        read_onnx(path, input_shape, ends)
    except LayersError as error:
        return error.ends
    except NetworkError:
        return ()
    return tuple(ends)


def _read(loaded: Loaded, model: ir.Model, inputs: Sequence[Input], is_cut: bool, reading: Reading) -> Network | None:
    """Read a graph; None where nothing could be read."""
    _add_inputs(model.graph, inputs, reading)
    for node in model.graph:
        _read_node(Node(node, loaded.opset), reading)
    ends: list[str] = []
    if not reading.problems:
        for output in model.graph.outputs:
            ends.extend(_read_output(output, reading, is_cut))
    for name, layers in reading.preprocessing().items():
        told = ", ".join(map(repr, layers))
        reading.remarks.append(
            f"input {name!r}: the network itself shifts and scales it ({told}); feed it what it expects"
        )
    network = _network(model, reading)
    if network is None or reading.problems or not is_cut:
        return network
    return ending_at(network, ends)


def _ranges(graph: ir.Graph, reading: Reading, network: Network) -> dict[str, tuple[Range, ...]]:
    """Return the ranges that tensors are quantized to; a view of a tensor says them for that, which it shares."""
    found: dict[str, tuple[Range, ...]] = {}
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        # A node that the next one took into itself writes no tensor of ours.
        if (given := ranges_of(value)) and reading.is_known(value):
            name = viewed(network, reading.view(value).source)
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *given)))
    return {name: found[name] for name in network.tensors if name in found}


def _network(model: ir.Model, reading: Reading) -> Network | None:
    try:
        return reading.network(model.graph.name or "")
    except NetworkError as error:
        reading.problems.append(Problem("", "structure", str(error)))
        return None


def _add_inputs(graph: ir.Graph, inputs: Sequence[Input], reading: Reading) -> None:
    """Add the inputs; one of images with channels last is one with channels first here."""
    values = {value.name: value for value in graph.inputs}
    for item in inputs:
        value = values[item.name]
        if item.shape[0] != reading.batch:
            message = (
                f"input {item.name!r} has a batch of {item.shape[0]}, another one {reading.batch}; expected the same"
            )
            reading.problems.append(Problem("", "structure", message))
        if len(item.shape) == 4 and takes_channels_last(value):
            _, height, width, channels = item.shape
            axes = along(item.shape, 3)
            reading.add_input(item.name, (channels, height, width), View(item.name, axes))
            reading.remarks.append(
                f"input {item.name!r}: {item.shape[1:]} in the file, channels last; here {(channels, height, width)}, "
                "channels first"
            )
        elif len(item.shape) == 3:
            reading.add_input(item.name, (1, *item.shape[1:]), View(item.name, plain(item.shape)))
            reading.remarks.append(f"input {item.name!r}: {item.shape[1:]} in the file, here an image of one channel")
        else:
            reading.add_input(item.name, item.shape[1:])
        if item.type != "FLOAT":
            reading.remarks.append(f"input {item.name!r}: of type {item.type} in the file, FLOAT here")


def _read_node(node: Node, reading: Reading) -> None:
    """Read one node; what is wrong is kept, and what reads its result is passed over."""
    if all(value.const_value is not None for value in node.node.outputs):
        return  # It is left for an output alone, which is told by itself.
    reader = READERS.get(node.kind)
    if reader is None:
        message = f"operator {node.kind!r} is not supported"
        reading.fail(node.node, Problem(node.name, "layer-type", message, advice(node.kind)))
        _stand_in(node, reading)
        return
    needed = [value for value in node.node.inputs if value is not None and value.const_value is None]
    if any(not reading.is_known(value) for value in needed) and REFUSED not in node.node.meta:
        return
    try:
        check_sizes(node.node.outputs)
        reader(node, reading)
    except NetworkError as error:
        reading.fail(node.node, Problem(node.name, rule_of(error), str(error), kind=node.kind))
        _stand_in(node, reading)


def _stand_in(node: Node, reading: Reading) -> None:
    """Let what reads the results of a node be read all the same, to tell all problems at once."""
    try:
        for value in node.node.outputs:
            reading.stand_in(node.given(0), value)
    except NetworkError as error:  # Of what was put off for the input of the node.
        reading.fail(node.node, Problem(node.name, rule_of(error), str(error), kind=node.kind))


def _read_output(output: ir.Value, reading: Reading, is_cut: bool) -> tuple[str, ...]:
    """Return the tensor of ours that is an output; none where nothing can be."""
    try:
        if output.const_value is not None or not reading.is_known(output):
            raise NetworkError(f"output {output.name!r} does not depend on the network's input")
        tensor = reading.output(output)
        if is_cut and reading.is_input(tensor):
            raise NetworkError(f"output {output.name!r} is the input as it is, of which nothing is computed")
    except NetworkError as error:
        reading.fail(output.producer(), Problem("", rule_of(error), str(error)))
        return ()
    if output.uses() and not is_cut:
        reading.remarks.append(f"output {output.name!r} is read by layers as well, and is no output here")
    return (tensor,)
