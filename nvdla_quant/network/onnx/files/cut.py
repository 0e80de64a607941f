"""Cut the tail of an ONNX graph off, before anything in it is looked at."""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from nvdla_quant.network.cutting import Node, check_ends, independent, needed
from nvdla_quant.network.onnx.files.soundness import captured, reads, subgraphs


def cut_graph(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Let a model's graph end at the values `names`, in place: these are its outputs, in this order.

    Nodes, inputs, constants and functions that nothing needs any more are dropped. Subgraphs may hold anything: of them
    only the names of values are read.

    Raises
    ------
    NetworkError
        As `check_ends`, or a value does not depend on an input.
    """
    graph = model.graph
    initial = {tensor.name for tensor in graph.initializer} | {item.values.name for item in graph.sparse_initializer}
    fed = {item.name for item in graph.input} - initial
    nodes = [Node((*reads(node), *captured(node)), tuple(filter(None, node.output))) for node in graph.node]
    check_ends(names, {value for node in nodes for value in node.writes}, fed | initial)
    for name in names:
        if not fed.intersection(value for number in needed(nodes, [name]) for value in nodes[number].reads):
            raise independent(name)
    kept = needed(nodes, names)
    used = {value for number in kept for value in nodes[number].reads}
    typed = {item.name: item for item in (*graph.value_info, *graph.output)}
    outputs = [_output(name, typed) for name in names]
    _keep(graph.node, [number in kept for number in range(len(nodes))])
    _keep(graph.input, [item.name in used for item in graph.input])
    _keep(graph.initializer, [tensor.name in used for tensor in graph.initializer])
    _keep(graph.sparse_initializer, [tensor.values.name in used for tensor in graph.sparse_initializer])
    graph.ClearField("value_info")  # Shapes follow from the input's.
    graph.ClearField("quantization_annotation")
    graph.ClearField("output")
    graph.output.extend(outputs)
    _drop_functions(model)


def _keep(items: Any, which: Sequence[bool]) -> None:
    """Drop the other messages of a repeated field, in place: constants may be too large to copy."""
    for number in reversed([number for number, is_kept in enumerate(which) if not is_kept]):
        del items[number]


def _output(name: str, typed: Mapping[str, onnx.ValueInfoProto]) -> onnx.ValueInfoProto:
    """Return an output, of the type that the file says or of floats; its shape follows from the input's."""
    given = typed[name].type.tensor_type.elem_type if name in typed else TensorProto.UNDEFINED
    return helper.make_tensor_value_info(name, given or TensorProto.FLOAT, None)


def _drop_functions(model: onnx.ModelProto) -> None:
    """Drop the functions that no node calls any more."""
    functions = {_key(function): function for function in model.functions}
    called: set[tuple[str, str, str]] = set()
    waiting = list(model.graph.node)
    while waiting:
        node = waiting.pop()
        key = node.domain, node.op_type, getattr(node, "overload", "")
        if key in functions and key not in called:
            called.add(key)
            waiting.extend(functions[key].node)
        waiting.extend(inner for graph in subgraphs(node) for inner in graph.node)
    _keep(model.functions, [_key(function) in called for function in model.functions])


def _key(function: onnx.FunctionProto) -> tuple[str, str, str]:
    return function.domain, function.name, getattr(function, "overload", "")
