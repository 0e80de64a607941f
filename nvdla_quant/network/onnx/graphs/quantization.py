"""Take QuantizeLinear and DequantizeLinear out of a graph, and keep what they say.

Exporters put a pair around each tensor that is to be computed in int8: onnxruntime and PyTorch around all, TensorRT's
Model-Optimizer around some. The pairs of activations vanish, and their range stays with the value that they quantize.
Weights become the floats that integer hardware multiplies by, whole numbers times a scale, and that scale stays with
them. Semantics are those of the ONNX operator specification (QuantizeLinear and DequantizeLinear 10, 13, 19, 21, 23),
and of onnxruntime's operators of the same names in the domain ``com.microsoft``.

onnxruntime leaves a ReLU out where the range behind it begins at 0, since the integers then do the same. It comes back
here, as without the pair nothing would hold negative values off.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import Weights
from nvdla_quant.network.onnx.values.nodes import Array, constant, finite
from nvdla_quant.network.onnx.values.quantized import RANGES, REFUSED, SCALES
from nvdla_quant.network.quantized import Range, dequantized

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_DOMAINS = ("", "ai.onnx", "com.microsoft")
_INT8, _INT32 = ir.DataType.INT8, ir.DataType.INT32
_TYPES = {_INT8: (-128, 127), ir.DataType.UINT8: (0, 255)}
"""Types of activations and weights, and their integers."""
_LARGEST_STEP = 128
"""Of a weight in int8."""


def is_quantization(node: ir.Node) -> bool:
    """Whether a node is one of these; folding constants would take the scales of weights away."""
    return node.domain in _DOMAINS and node.op_type in (QUANTIZE, DEQUANTIZE)


def take_quantization(graph: ir.Graph) -> tuple[str, ...]:
    """Take the pairs out, in place, and return remarks for the user.

    A node that cannot be taken out stays, with the reason in its `meta`, for the reader to tell.

    Raises
    ------
    NetworkError
        A scale is no finite number above 0, or constants do not fit each other.
    """
    remarks: list[str] = []
    for node in list(graph):
        if not is_quantization(node) or node.graph is None:
            continue
        try:
            if node.op_type == QUANTIZE:
                remarks += _quantize(graph, node)
            elif node.inputs[0] is not None and constant(node.inputs[0]) is not None:
                remarks += _dequantize_constant(graph, node)
            elif (before := _quantizer(node)) is None or REFUSED not in before.meta:
                raise UnsupportedError(
                    f"dequantizes {node.inputs[0].name if node.inputs[0] else ''!r}, which no QuantizeLinear made and "
                    "no constant is; keep float operators between pairs, and a float input"
                )
        except UnsupportedError as error:
            node.meta[REFUSED] = str(error)
        except NetworkError as error:
            raise NetworkError(f"node {node.name or node.outputs[0].name!r} ({node.op_type}): {error}") from error
    return tuple(remarks)


@dataclass(frozen=True)
class _Mapping:
    """How a node maps numbers to integers; arrays broadcast to what it maps."""

    scale: Weights
    zero_point: NDArray[np.int64]
    type: ir.DataType

    def same_as(self, other: "_Mapping") -> bool:
        """Whether both map alike."""
        return (
            self.type == other.type
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


def _mapping(node: ir.Node, kind: ir.DataType | None) -> _Mapping:
    """Return what a node says; `kind` is the type of the integers where they are there."""
    scale = None if len(node.inputs) < 2 else constant(node.inputs[1])
    if scale is None:
        raise UnsupportedError("its scale is computed by the network (dynamic quantization); quantize statically")
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if kind is None:
        kind = _type_of(node, given)
    zero = np.zeros(scale.shape, np.int64)
    if given is not None:
        found = constant(given)
        if found is None:
            raise UnsupportedError("its zero point is computed by the network; quantize statically")
        zero = np.asarray(found, np.float64).astype(np.int64)
    block = node.attributes.get("block_size")
    if (block is not None and block.as_int()) or scale.ndim > 1:
        raise UnsupportedError("scales of blocks of an axis; NVDLA has one scale for each output of a layer")
    if zero.size != scale.size:
        raise NetworkError(f"{zero.size} zero points for {scale.size} scales")
    factors = finite(scale, "the scale")
    if not (factors > 0).all():
        raise NetworkError(f"scale {float(factors.min()):g}, expected above 0")
    shape = _spread(node, scale.size)
    return _Mapping(factors.reshape(shape), zero.reshape(shape), kind)


def _type_of(node: ir.Node, zero_point: ir.Value | None) -> ir.DataType:
    """Type of the integers that a QuantizeLinear makes."""
    if zero_point is not None and zero_point.const_value is not None:
        return zero_point.const_value.dtype
    wanted = node.attributes.get("output_dtype")
    return ir.DataType(wanted.as_int()) if wanted is not None and wanted.as_int() else ir.DataType.UINT8


def _spread(node: ir.Node, count: int) -> tuple[int, ...]:
    """Shape in which so many scales broadcast to the input: one, or one for each index of the node's axis."""
    if count == 1:
        return ()
    value = node.inputs[0]
    sizes = () if value is None or value.shape is None else tuple(value.shape)
    axis = node.attributes.get("axis")
    number = 1 if axis is None else axis.as_int()
    if not -len(sizes) <= number < len(sizes) or sizes[number] != count:
        raise NetworkError(f"{count} scales along axis {number} of the shape {sizes}")
    return tuple(count if index == number % len(sizes) else 1 for index in range(len(sizes)))


def _check_type(kind: ir.DataType, *more: ir.DataType) -> None:
    if kind not in (*_TYPES, *more):
        names = ", ".join(expected.name for expected in (*_TYPES, *more))
        raise UnsupportedError(f"quantizes to {kind.name}, expected {names}: NVDLA computes in int8")


# Constants.


def _dequantize_constant(graph: ir.Graph, node: ir.Node) -> list[str]:
    """Make integers that are stored the floats that they stand for."""
    value = node.inputs[0]
    assert value is not None
    assert value.const_value is not None, "as the caller has seen"
    _check_type(value.const_value.dtype, _INT32)
    mapping = _mapping(node, value.const_value.dtype)
    return _put(graph, node, np.asarray(constant(value)), mapping)


def _quantize_constant(graph: ir.Graph, node: ir.Node, array: Array, mapping: _Mapping) -> list[str]:
    """Round floats that are stored, as training with simulated quantization leaves them, to what they stand for."""
    remarks = []
    for reader, (low, high) in list(_pairs(node, mapping)):
        steps = np.rint(np.asarray(array, np.float32) / mapping.scale) + mapping.zero_point
        remarks += _put(graph, reader, np.clip(steps, low, high).astype(np.int64), mapping)
    _remove_unread(graph, node)
    return remarks


def _put(graph: ir.Graph, node: ir.Node, integers: Array, mapping: _Mapping) -> list[str]:
    """Put a constant in place of a DequantizeLinear, with its scales where an int8 weight could have them."""
    if (mapping.zero_point != 0).any() and mapping.type == _INT32:
        raise UnsupportedError("an INT32 constant with a zero point; expected the bias of a layer, around 0")
    steps = integers.astype(np.int64) - mapping.zero_point
    floats = dequantized(steps, mapping.scale)
    value = _constant(graph, node, floats)
    if mapping.type == _INT32:
        return []
    if np.abs(steps).max(initial=0) > _LARGEST_STEP:
        return [
            f"weights {value.name!r}: their zero point is not in the middle of their range, so that int8 without one "
            "does not hold them; their scales are chosen anew"
        ]
    value.meta[SCALES] = mapping.scale.reshape(mapping.scale.shape or (1,) * steps.ndim)
    return _carry(graph, value)


def _constant(graph: ir.Graph, node: ir.Node, array: Weights) -> ir.Value:
    """Put a constant in place of what `node` writes."""
    old = node.outputs[0]
    if old.is_graph_output():
        raise UnsupportedError("an output of the network is a constant")
    array.flags.writeable = False
    value = ir.Value(
        name=old.name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(array, name=old.name),
    )
    ir.convenience.replace_all_uses_with(old, value)
    graph.remove(node, safe=True)
    graph.register_initializer(value)
    return value


def _carry(graph: ir.Graph, value: ir.Value) -> list[str]:
    """Transpose the scales of weights with them; whatever else computes weights takes the scales away."""
    remarks = []
    for use in list(value.uses()):
        node = use.node
        if node.op_type == "Transpose" and len(node.inputs) == 1:
            array, scales = constant(value), value.meta[SCALES]
            assert array is not None, "weights are"
            order = node.attributes.get("perm")
            axes = tuple(reversed(range(array.ndim))) if order is None else tuple(order.as_ints())
            moved = _constant(graph, node, np.ascontiguousarray(array.transpose(axes), np.float32))
            moved.meta[SCALES] = scales.transpose(axes)
            remarks += _carry(graph, moved)
        elif all(other is None or other.const_value is not None for other in node.inputs):
            remarks.append(
                f"weights {value.name!r}: node {node.name or node.outputs[0].name!r} ({node.op_type}) makes others of "
                "them, so that their scales are chosen anew"
            )
    return remarks


# Activations.


def _quantize(graph: ir.Graph, node: ir.Node) -> list[str]:
    """Take the pairs out that a QuantizeLinear begins."""
    value = node.inputs[0]
    if value is None:
        raise NetworkError("input 0 is missing")
    mapping = _mapping(node, None)
    _check_type(mapping.type)
    if (array := constant(value)) is not None:
        return _quantize_constant(graph, node, array, mapping)
    if mapping.scale.size > 1:
        raise UnsupportedError(
            f"{mapping.scale.size} scales for {value.name!r}; NVDLA has one for an activation: quantize it per tensor"
        )
    for reader, bounds in list(_pairs(node, mapping)):
        given = Range(float(mapping.scale.item()), int(mapping.zero_point.item()), *bounds, mapping.type.name)
        target = _clamped(graph, value) if given.low == 0 and not _is_nonnegative(value) else value
        target.meta.setdefault(RANGES, []).append(given)
        _pass_over(graph, reader, target)
    _remove_unread(graph, node)
    return []


def _quantizer(node: ir.Node) -> ir.Node | None:
    """Return the QuantizeLinear whose integers a DequantizeLinear reads, if any."""
    value = node.inputs[0]
    before = None if value is None else value.producer()
    if before is not None and before.op_type == "Clip" and before.inputs[0] is not None:
        before = before.inputs[0].producer()
    return before if before is not None and is_quantization(before) and before.op_type == QUANTIZE else None


def _pairs(node: ir.Node, mapping: _Mapping) -> Iterator[tuple[ir.Node, tuple[int, int]]]:
    """Yield each DequantizeLinear of a QuantizeLinear, and the least and largest integers that reach it.

    A Clip may stand between, which holds integers off that fewer bits or a symmetric range do not have (PyTorch).
    """
    found: list[tuple[ir.Node, tuple[int, int]]] = []
    waiting = [(node.outputs[0], _TYPES[mapping.type])]
    while waiting:
        value, bounds = waiting.pop()
        if value.is_graph_output():
            raise UnsupportedError("an output of the network is integers; dequantize it in the file")
        for use in value.uses():
            reader = use.node
            if reader.op_type == "Clip" and value is node.outputs[0]:
                waiting.append((reader.outputs[0], _clipped(reader, bounds)))
            elif is_quantization(reader) and reader.op_type == DEQUANTIZE and use.idx == 0:
                if not _mapping(reader, mapping.type).same_as(mapping):
                    raise UnsupportedError(
                        f"{reader.name or reader.outputs[0].name!r} dequantizes with another scale or zero point than "
                        "this node quantizes with"
                    )
                found.append((reader, bounds))
            else:
                raise UnsupportedError(
                    f"{reader.op_type} reads its integers; keep float operators between pairs (onnxruntime: "
                    "quant_format=QuantFormat.QDQ)"
                )
    yield from found


def _clipped(node: ir.Node, bounds: tuple[int, int]) -> tuple[int, int]:
    """Return the integers that a Clip lets through."""
    given = [None if len(node.inputs) <= index else node.inputs[index] for index in (1, 2)]
    limits = []
    for value, bound in zip(given, bounds, strict=True):
        array = constant(value)
        if value is not None and (array is None or array.size != 1):
            raise UnsupportedError("a Clip of its integers has bounds that are no constants")
        limits.append(bound if array is None else int(array.item()))
    return max(bounds[0], limits[0]), min(bounds[1], limits[1])


def _pass_over(graph: ir.Graph, node: ir.Node, target: ir.Value) -> None:
    """Let the readers of a DequantizeLinear read `target`; as an output of the graph that keeps the output's name."""
    old = node.outputs[0]
    name = (
        old.name if old.is_graph_output() and target.producer() is not None and not target.is_graph_output() else None
    )
    between = node.inputs[0].producer() if node.inputs[0] is not None else None
    ir.convenience.replace_all_uses_with(old, target, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if between is not None and between.op_type == "Clip":
        _remove_unread(graph, between)
    if name is not None:
        old.name = f"{name}_dequantized"  # Nothing has it any more; two values of one name would be confused.
        target.name = name


def _remove_unread(graph: ir.Graph, node: ir.Node) -> None:
    if not any(value.uses() or value.is_graph_output() for value in node.outputs):
        graph.remove(node, safe=True)


_RELU = "nvdla_quant.relu"
"""Key of a value's ReLU that stands for its integers' bound."""


def _clamped(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Return a value without what is below 0; an image has nothing there, or a range that says so is wrong.

    The result has the name of the value, where nothing else reads that: that is the tensor with the scale.
    """
    producer = value.producer()
    if producer is None:
        return value
    if _RELU in value.meta:
        relu: ir.Value = value.meta[_RELU]
        return relu
    node = ir.Node("", "Relu", [value])
    result = node.outputs[0]
    result.shape, result.type = value.shape, value.type
    graph.insert_after(producer, node)
    alone = all(use.node is node or is_quantization(use.node) for use in value.uses()) and not value.is_graph_output()
    name = value.name or ""
    if alone:
        value.name, result.name = f"{name}:sum", name
    else:
        result.name = f"{name}:relu"
    value.meta[_RELU] = result
    return result


_POSITIVE = frozenset({"Relu", "Sigmoid", "Softmax", "HardSigmoid"})
_CARRYING = frozenset(
    {
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Concat", "Pad"),
        *("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout", "Slice", "Split", "Gather"),
        *("Add", "Sum", "Mul", "Max", "Min", "SpaceToDepth", "DepthToSpace"),
    }
)
"""Operators whose result is at least 0 where all that they read is."""


def _is_nonnegative(value: ir.Value) -> bool:
    """Whether nothing in a value is below 0, by the operators before it."""
    waiting, seen = [value], set[int]()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        array, node = constant(current), current.producer()
        if array is not None:
            if prod(array.shape) and array.dtype.kind == "f" and array.min() < 0:
                return False
        elif node is None:
            return False
        elif node.op_type == "Clip":
            low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
            given = node.attributes.get("min")
            bound = given.as_float() if given is not None else -np.inf if low is None else float(low.item())
            if bound < 0:
                return False
        elif node.op_type in _CARRYING:
            waiting.extend(item for item in node.inputs if item is not None)
        elif node.op_type not in _POSITIVE:
            return False
    return True
