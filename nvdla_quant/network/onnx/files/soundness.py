"""Structure of an ONNX graph: every value has one writer, which stands before its readers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

import onnx

from nvdla_quant.errors import NetworkError, UnsupportedError

_DEEPEST = 16
"""Functions within functions, and graphs within graphs."""


def check_graph(graph: onnx.GraphProto) -> None:
    """Check the outer graph, and put its nodes into an order of execution where they are in none.

    Subgraphs of ``If`` and ``Loop`` are left to the checker of onnx.

    Raises
    ------
    NetworkError
        A value has two writers or none, nodes wait for each other, or an output is not written.
    """
    given = Counter(item.name for item in graph.input)
    initial = Counter(item.name for item in graph.initializer)
    written = Counter(name for node in graph.node for name in node.output if name)
    for what, names in (("input", given), ("initialiser", initial), ("output of a node", written)):
        if twice := [name for name, count in names.items() if count > 1]:
            raise NetworkError(f"the name {twice[0]!r} stands {names[twice[0]]} times as {what}; rename one")
    if both := [name for name in written if name in given or name in initial]:
        raise NetworkError(f"a node writes {both[0]!r}, which is also an input or initialiser; rename one")
    if "" in given or "" in initial:
        raise NetworkError("an input or initialiser has no name; give it one")
    known = {*given, *initial, *written}
    for node in graph.node:
        if not node.op_type.isidentifier() or not node.domain.isprintable():
            raise NetworkError(
                f"node {_called(node)!r} has the operator {node.op_type!r} of {node.domain!r}, expected a name; the "
                "file is damaged"
            )
        if missing := [name for name in reads(node) if name not in known]:
            raise NetworkError(
                f"node {_called(node)!r} ({node.op_type}) reads {missing[0]!r}, which is no input, no initialiser and "
                "no node's output; the file is damaged, or its weights were taken out: export it again"
            )
    if missing := [item.name for item in graph.output if item.name not in known]:
        raise NetworkError(f"no node writes the graph's output {missing[0]!r}")
    if not graph.output:
        raise NetworkError("the graph has no output")
    _sort(graph)


def _called(node: onnx.NodeProto) -> str:
    return node.name or next(iter(node.output), "")


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the values of its own graph that a node reads, those that its subgraphs read not counted."""
    return (name for name in node.input if name)


def _sort(graph: onnx.GraphProto) -> None:
    """Put the nodes into an order of execution; as it is where it is one."""
    writer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    needs = [[writer[name] for name in (*reads(node), *captured(node)) if name in writer] for node in graph.node]
    if all(before < index for index, nodes in enumerate(needs) for before in nodes):
        return
    try:
        order = list(TopologicalSorter(dict(enumerate(needs))).static_order())
    except CycleError as error:
        around = [graph.node[index] for index in reversed(error.args[1])]
        names = " -> ".join(repr(_called(node)) for node in around[:5]) + (" -> ..." if len(around) > 5 else "")
        raise NetworkError(f"nodes wait for each other: {names}; a network for inference has no cycle") from error
    nodes = [graph.node[index] for index in order]
    copies = onnx.GraphProto()
    copies.node.extend(nodes)
    del graph.node[:]
    graph.node.extend(copies.node)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs within a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the values that the subgraphs of a node read or pass on, whichever graph they are of."""
    for graph in subgraphs(node):
        for inner in graph.node:
            yield from reads(inner)
            yield from captured(inner)
        yield from (item.name for item in graph.output)


def expanded_nodes(model: onnx.ModelProto) -> int:
    """Return the number of nodes once functions are written out, without writing them out.

    Raises
    ------
    NetworkError
        A function calls itself, two have the same name, or they are nested too deeply.
    """
    functions: dict[tuple[str, str, str], onnx.FunctionProto] = {}
    for function in model.functions:
        key = function.domain, function.name, getattr(function, "overload", "")
        if key in functions:
            raise NetworkError(f"two functions are called {function.domain}::{function.name}; rename one")
        functions[key] = function
    counts: dict[tuple[str, str, str], int] = {}

    def counted(nodes: Sequence[onnx.NodeProto], depth: int) -> int:
        if depth > _DEEPEST:
            raise UnsupportedError(
                f"functions or subgraphs are nested more than {_DEEPEST} deep, or a function calls itself"
            )
        total = 0
        for node in nodes:
            key = node.domain, node.op_type, getattr(node, "overload", "")
            if key in functions:
                if key not in counts:
                    counts[key] = counted(functions[key].node, depth + 1)
                total += counts[key]
            total += 1 + sum(counted(graph.node, depth + 1) for graph in subgraphs(node))
        return total

    return counted(model.graph.node, 0)
