"""Where an ONNX graph could end, before nodes that cannot be read."""

from collections.abc import Collection, Iterator

import onnx_ir as ir

from nvdla_quant.network.cutting import Node, ends_before
from nvdla_quant.network.onnx.files.load import Loaded
from nvdla_quant.network.onnx.values.reading import Reading

_LEARNED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_SHAPE_ALONE = {"Shape", "Size"}
"""Operators to which the values of what they read mean nothing."""


def ends_before_unread(loaded: Loaded, graph: ir.Graph, reading: Reading) -> list[str]:
    """Return values of the file that its network could end at, so that nothing is left that could not be read.

    None where that would drop the greater part of it. Whether what is left can be read is another question: a reason
    may have hidden behind another.

    Parameters
    ----------
    loaded : Loaded
        The file, whose names count.
    graph : ir.Graph
        Its graph without exporter noise, in an order of execution.
    reading : Reading
        What was read of it.
    """
    nodes = [
        Node(
            () if node.op_type in _SHAPE_ALONE else tuple(_reads(node)),
            tuple(value.name or "" for value in node.outputs),
            node.op_type in _LEARNED
            and any(value is not None and value.const_value is not None for value in node.inputs),
        )
        for node in graph
    ]
    numbers = {id(node): number for number, node in enumerate(graph)}
    bad = {numbers[id(node)] for node in reading.unread if id(node) in numbers}
    known = {value.name or "" for node in graph for value in node.outputs if reading.is_known(value)}
    written = {name for node in loaded.model.graph.node for name in node.output}
    while True:
        ends = ends_before(nodes, bad, {value.name or "" for value in graph.outputs}, known)
        # What is computed within a function has no name in the file: then the network ends before the function.
        unnamed = set(ends) - written
        if not unnamed:
            return list(dict.fromkeys(_origin(end, reading, written) for end in ends))
        bad.update(number for number, node in enumerate(nodes) if unnamed.intersection(node.writes))


def _origin(end: str, reading: Reading, written: Collection[str]) -> str:
    """Return what writes the values of `end`: what only moves them is left to whoever takes the result."""
    origin = reading.origin(end)
    return origin if origin in written else end


def _reads(node: ir.Node) -> Iterator[str]:
    """Yield the values that a node and its subgraphs read."""
    yield from (value.name or "" for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = [attribute.as_graph()]
        else:
            graphs = list(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else []
        for graph in graphs:
            for inner in graph:
                yield from _reads(inner)
            yield from (value.name or "" for value in graph.outputs)
