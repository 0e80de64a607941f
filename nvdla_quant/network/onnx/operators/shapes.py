"""Operators that pass values on in another shape, and concatenation.

Semantics are those of the ONNX operator specification (Flatten-1, 9, 11, 13, 21; Reshape-5, 13, 14, 19, 21;
Transpose-1, 13; Concat-4, 11, 13).
"""

import numpy as np
import onnx_ir as ir

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import Concat
from nvdla_quant.network.onnx.values.layouts import reshaped, transposed
from nvdla_quant.network.onnx.values.nodes import Node, shape_of
from nvdla_quant.network.onnx.values.reading import MOVED, Reading


def same(node: Node, reading: Reading) -> None:
    """Read what passes its input on."""
    reading.show(node.output, reading.view(node.input()))


def cast(node: Node, reading: Reading) -> None:
    """Read Cast between types of real numbers: here all are float32."""
    floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
    wanted, source = ir.DataType(node.integer("to", 0)), node.input().dtype
    if wanted not in floats:
        raise UnsupportedError(f"to {wanted.name} rounds values, expected to FLOAT: networks here are of float32")
    if source is not None and source not in floats and not node.input().is_graph_input():
        raise UnsupportedError(f"from {source.name}, expected from a type of real numbers, or the network's input")
    if source is not None and source != wanted:
        reading.remarks.append(f"node {node.name!r}: Cast from {source.name} to {wanted.name}; all is float32 here")
    same(node, reading)


def dropout(node: Node, reading: Reading) -> None:
    """Read Dropout as nothing, which it is at inference."""
    if len(node.node.outputs) > 1 and node.node.outputs[1].uses():
        raise UnsupportedError("its mask is read, which is for training; export the model for inference (model.eval())")
    if node.given(2) is not None:
        reading.remarks.append(f"node {node.name!r}: Dropout in its form for training is read as nothing")
    same(node, reading)


def view(node: Node, reading: Reading) -> None:
    """Read Flatten, Reshape, Squeeze and Unsqueeze: the shape that onnx infers says what they do."""
    shape, source = shape_of(node.output), reading.view(node.input())
    if np.prod(shape, dtype=object) != np.prod(source.shape, dtype=object):
        raise NetworkError(f"shape {shape} does not hold as many values as the input {source.shape}")
    result = reshaped(source, shape)
    if result is None:
        raise UnsupportedError(f"from {source.shape} to {shape} after an exchange of axes, {MOVED}")
    reading.show(node.output, result)


def transpose(node: Node, reading: Reading) -> None:
    """Read Transpose: another order of axes, which nothing computes."""
    rank = len(shape_of(node.input()))
    order = node.integers("perm", tuple(reversed(range(rank))))
    if sorted(order) != list(range(rank)):
        raise NetworkError(f"perm {order}, expected each of 0 to {rank - 1} once")
    reading.show(node.output, transposed(reading.view(node.input()), order))


def concat(node: Node, reading: Reading) -> None:
    """Read Concat along the channels, whichever axis they are."""
    rank = len(shape_of(node.output))
    axis = axis_of(node.integer("axis", 1), rank)
    sources = [value for value in node.node.inputs if value is not None]
    if any(value.const_value is not None for value in sources):
        raise UnsupportedError("appends a constant; NVDLA concatenates what it has computed")
    if axis == 0:
        raise UnsupportedError("along the axis of the batch, expected the channels")
    if len(sources) == 1:
        same(node, reading)
        return
    tensors = [reading.image(value, axis, vectors=rank == 2) for value in sources]
    shapes = {reading.shape(tensor)[1:] for tensor in tensors}
    if len(shapes) > 1 and rank == 2:  # Vectors, and images of one pixel.
        tensors = [reading.image(value, axis) for value in sources]
    reading.emit(node.output, Concat(), *tensors, axis=axis)


def axis_of(axis: int, rank: int) -> int:
    """Return the number of an axis, which counts from the end where it is negative.

    Raises
    ------
    NetworkError
        There is no such axis.
    """
    if not -rank <= axis < rank:
        raise NetworkError(f"axis {axis} of {rank} axes")
    return axis % rank
