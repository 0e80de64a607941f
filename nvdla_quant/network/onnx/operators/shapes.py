"""Operators that move or select values: views, slices of the channels, concatenation.

Semantics are those of the ONNX operator specification (Flatten-1, 9, 11, 13, 21; Reshape-5, 13, 14, 19, 21;
Transpose-1, 13; Slice-1, 10, 11, 13; Split-2, 11, 13, 18; Gather-1, 11, 13; Concat-4, 11, 13).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import Concat, Gather, Pooling
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
    axis = _axis(node.integer("axis", 1), rank)
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


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise NetworkError(f"axis {axis} of {rank} axes")
    return axis % rank


def split(node: Node, reading: Reading) -> None:
    """Read Split along the channels: each part that is read takes its own."""
    shape = shape_of(node.input())
    axis = _axis(node.integer("axis", 0), len(shape))
    start = 0
    for part in node.node.outputs:
        size = shape_of(part)[axis]
        if part.uses() or part.is_graph_output():
            _take(node.input(), part, axis, range(start, start + size), reading)
        start += size


def slice_(node: Node, reading: Reading) -> None:
    """Read Slice along the channels, and every n-th row and column: a window of one pixel with that stride."""
    source = node.input()
    shape = shape_of(source)
    starts, ends = node.integers_of("starts", 1), node.integers_of("ends", 2)
    if starts is None or ends is None or len(starts) != len(ends):
        raise NetworkError(f"starts {starts} and ends {ends}, expected as many of each")
    axes = node.integers_of("axes", 3) or tuple(range(len(starts)))
    steps = node.integers_of("steps", 4) or (1,) * len(starts)
    taken = {}
    for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
        number = _axis(axis, len(shape))
        if bounds[2] == 0:
            raise NetworkError("step 0")
        picked = range(shape[number])[slice(*bounds)]
        if picked != range(shape[number]):
            taken[number] = picked
    if not taken:
        same(node, reading)
    elif len(taken) == 1 and not _is_strided(shape, taken):
        ((axis, picked),) = taken.items()
        _take(source, node.output, axis, picked, reading)
    elif _is_strided(shape, taken):
        _stride(node, reading, taken)
    else:
        raise UnsupportedError(
            f"takes {_told(taken)} of {shape}, expected some of the channels, or every n-th row and column: NVDLA "
            "cannot crop"
        )


def _told(taken: dict[int, range]) -> str:
    parts = (f"{picked.start}:{picked.stop}:{picked.step} of axis {axis}" for axis, picked in taken.items())
    return ", ".join(parts)


def _is_strided(shape: Sequence[int], taken: dict[int, range]) -> bool:
    """Whether rows and columns are left out at a regular distance, the first kept."""
    return len(shape) == 4 and all(
        axis in (2, 3) and picked.step > 1 and picked == range(0, shape[axis], picked.step)
        for axis, picked in taken.items()
    )


def _stride(node: Node, reading: Reading, taken: dict[int, range]) -> None:
    strides = [taken[axis].step if axis in taken else 1 for axis in (2, 3)]
    operation = Pooling("max", (1, 1), (strides[0], strides[1]), rounding="down")
    reading.emit(node.output, operation, reading.image(node.input()))


def gather(node: Node, reading: Reading) -> None:
    """Read Gather of several channels, by constant numbers."""
    shape = shape_of(node.input())
    axis = _axis(node.integer("axis", 0), len(shape))
    indices = node.constant(1)
    if indices is not None and len(shape) == 1 and np.array_equal(indices.ravel(), np.arange(shape[0])):
        # All values in their order: PyTorch's as_strided, of which its newer exporter makes adaptive poolings.
        result = reshaped(reading.view(node.input()), indices.shape)
        if result is not None:
            reading.show(node.output, result)
            return
    if indices is None or indices.ndim > 1:
        got = "none" if indices is None else f"the shape {indices.shape}"
        raise UnsupportedError(f"indices have {got}, expected a list of channels")
    numbers = [int(index) for index in indices.ravel()]
    if wrong := [number for number in numbers if not -shape[axis] <= number < shape[axis]]:
        raise NetworkError(f"takes {wrong[0]} of axis {axis}, which has {shape[axis]}")
    numbers = [number % shape[axis] for number in numbers]
    _take(node.input(), node.output, axis, numbers, reading, is_dropped=indices.ndim == 0)


def _take(
    source: ir.Value, part: ir.Value, axis: int, numbers: Sequence[int], reading: Reading, is_dropped: bool = False
) -> None:
    """Let `part` be some elements of an axis of `source`: of its channels, or all of another axis."""
    shape = shape_of(source)
    if axis == 0 or (len(numbers) == shape[axis] and list(numbers) == list(range(shape[axis]))):
        if axis == 0 and list(numbers) != list(range(shape[0])):
            raise UnsupportedError("takes images of the batch, expected channels")
        found = reading.view(source)
        axes = found.axes[:axis] + found.axes[axis + 1 :] if is_dropped else found.axes
        reading.show(part, replace(found, axes=axes))
        return
    if is_dropped:
        raise UnsupportedError("takes one element and drops its axis, expected a list of channels")
    tensor = reading.image(source, axis)
    reading.emit(part, Gather(tuple(numbers)), tensor, axis=axis)
