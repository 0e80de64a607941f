"""Operators that take some of the values: channels, rows, columns.

Semantics are those of the ONNX operator specification (Slice-1, 10, 11, 13; Split-2, 11, 13, 18; Gather-1, 11, 13).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import Gather, Operation, Pooling
from nvdla_quant.network.moves import Crop
from nvdla_quant.network.onnx.operators.shapes import axis_of
from nvdla_quant.network.onnx.values.layouts import reshaped
from nvdla_quant.network.onnx.values.nodes import Node, shape_of
from nvdla_quant.network.onnx.values.reading import Reading


def split(node: Node, reading: Reading) -> None:
    """Read Split: each part that is read takes its own."""
    shape = shape_of(node.input())
    axis = axis_of(node.integer("axis", 0), len(shape))
    start = 0
    for part in node.node.outputs:
        size = shape_of(part)[axis]
        if part.uses() or part.is_graph_output():
            select(node.input(), part, {axis: range(start, start + size)}, reading)
        start += size


def slice_(node: Node, reading: Reading) -> None:
    """Read Slice along the channels and the pixels."""
    source = node.input()
    shape = shape_of(source)
    starts, ends = node.integers_of("starts", 1), node.integers_of("ends", 2)
    if starts is None or ends is None or len(starts) != len(ends):
        raise NetworkError(f"starts {starts} and ends {ends}, expected as many of each")
    axes = node.integers_of("axes", 3) or tuple(range(len(starts)))
    steps = node.integers_of("steps", 4) or (1,) * len(starts)
    taken = {}
    for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
        number = axis_of(axis, len(shape))
        if bounds[2] == 0:
            raise NetworkError("step 0")
        taken[number] = range(shape[number])[slice(*bounds)]
    select(source, node.output, taken, reading)


def select(source: ir.Value, part: ir.Value, taken: dict[int, range], reading: Reading) -> None:
    """Let `part` be the elements `taken` of some axes of `source`.

    Raises
    ------
    UnsupportedError
        They are no channels, rows and columns of images.
    """
    shape = shape_of(source)
    taken = {axis: picked for axis, picked in taken.items() if picked != range(shape[axis])}
    if not taken:
        reading.show(part, reading.view(source))
        return
    if len(shape) == 4 and 0 not in taken:
        last = not reading.has_image(source, 1) and reading.has_image(source, 3)
        if set(taken) != {3 if last else 1}:
            _cut(source, part, taken, 3 if last else 1, reading)
            return
    if len(taken) > 1:
        raise UnsupportedError(f"takes {_told(taken)} of {shape}, expected channels, rows and columns of images")
    ((axis, picked),) = taken.items()
    _take(source, part, axis, picked, reading)


def _told(taken: dict[int, range]) -> str:
    parts = (f"{picked.start}:{picked.stop}:{picked.step} of axis {axis}" for axis, picked in taken.items())
    return ", ".join(parts)


def _cut(source: ir.Value, part: ir.Value, taken: dict[int, range], axis: int, reading: Reading) -> None:
    """Let `part` be a rectangle of an image, or every n-th row and column of one: windows of one pixel so far apart."""
    shape = shape_of(source)
    sizes = [(shape[index], taken.get(index, range(shape[index]))) for index in (1, 2, 3) if index != axis]
    if any(not picked or picked.step < 0 for _, picked in sizes):
        raise UnsupportedError(f"takes {_told(taken)} of {shape}, expected rows and columns in their order")
    tensor = reading.image(source, axis)
    channels = reading.shape(tensor)[0]
    steps: list[tuple[str, Operation]] = []
    if (numbers := taken.get(axis, range(channels))) != range(channels):
        steps.append(("channels", Gather(tuple(numbers))))
    if any(picked != range(0, size, picked.step) for size, picked in sizes):
        rows, columns = ((picked[0], picked[-1] - picked[0] + 1) for _, picked in sizes)
        steps.append(("cropped", Crop(rows, columns)))
    (_, down), (_, across) = sizes
    if (down.step, across.step) != (1, 1):
        steps.append(("strided", Pooling("max", (1, 1), (down.step, across.step), rounding="down")))
    for what, operation in steps[:-1]:
        tensor = reading.inner(part, what, operation, tensor)
    reading.emit(part, steps[-1][1], tensor, axis=axis)


def gather(node: Node, reading: Reading) -> None:
    """Read Gather of several channels, by constant numbers."""
    shape = shape_of(node.input())
    axis = axis_of(node.integer("axis", 0), len(shape))
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
