"""MaxPool, AveragePool, their global forms, and means and maxima over the pixels.

Semantics are those of the ONNX operator specification (MaxPool-1, 8, 10, 11, 12, 22; AveragePool-1, 7, 10, 11, 19, 22;
ReduceMean-1, 11, 13, 18): windows that would begin in the padding after the image are dropped, and an average divides
by what lies on the image, or with ``count_include_pad`` on the padded image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import Pair, Pooling, Rounding
from nvdla_quant.network.onnx.operators.convolutions import Padding, padded_by
from nvdla_quant.network.onnx.operators.windows import Sides, check_flat, far_of, pair, sides_of
from nvdla_quant.network.onnx.values.names import is_within
from nvdla_quant.network.onnx.values.nodes import Array, Node, shape_of
from nvdla_quant.network.onnx.values.reading import Reading
from nvdla_quant.network.shapes import divisors, image
from nvdla_quant.network.shapes import shape_of as result_shape

Reader = Callable[[Node, Reading], None]
Method = Literal["max", "average"]
Area = Literal["padded", "image"]
Counts = NDArray[np.int64]
_LOWEST = -3e38
"""Padding of this value or less never is a maximum of float32 values."""


class Window(NamedTuple):
    """What a pooling node asks for."""

    method: Method
    kernel: Pair
    stride: Pair
    sides: Sides
    area: Area


@dataclass(frozen=True)
class Whole:
    """An average that divides by the whole kernel, which the next node may correct where windows leave the image.

    So our writer writes Caffe's averages, which divide by what of the window lies on the padded image.
    """

    value: ir.Value
    source: ir.Value
    axis: int
    window: Window
    rounding: Rounding

    def emit(self, reading: Reading) -> None:
        """Add the average as it is."""
        self._write(reading, self.value, None)

    def write(self, reading: Reading, value: ir.Value, factor: Array) -> None:
        """Add the layer that writes `value`, the average times a constant for each pixel."""
        kernel = self.window.kernel[0] * self.window.kernel[1]
        self._write(reading, value, np.rint(kernel / factor.astype(np.float64)).astype(np.int64))

    def _write(self, reading: Reading, value: ir.Value, wanted: Counts | None) -> None:
        tensor = reading.image(self.source, self.axis)
        height, width = shape_of(value)[2:]
        operation = pooling(self.window, image(reading.shape(tensor)), (height, width), self.rounding, wanted)
        reading.emit(value, operation, tensor)


def max_pool(node: Node, reading: Reading) -> None:
    """Read MaxPool; a Pad before it is taken in where the padding cannot be the maximum."""
    if len(node.node.outputs) > 1 and node.node.outputs[1].uses():
        raise UnsupportedError("its second output (where the maxima were) is read; NVDLA does not tell them")
    if pair(node, "dilations", 1) != (1, 1):
        raise UnsupportedError(f"dilations {node.integers('dilations')}, expected 1: NVDLA's windows have no holes")
    _pool(node, reading, "max", "padded")


def average_pool(node: Node, reading: Reading) -> None:
    """Read AveragePool; a Pad before it is taken in where both count what was padded."""
    if node.integers("dilations", (1, 1)) != (1, 1):
        raise UnsupportedError(f"dilations {node.integers('dilations')}, expected 1: NVDLA's windows have no holes")
    _pool(node, reading, "average", "padded" if node.integer("count_include_pad", 0) else "image")


def _pool(node: Node, reading: Reading, method: Method, area: Area) -> None:
    kernel = node.integers("kernel_shape")
    check_flat("kernel_shape", kernel, 2)
    window = Window(method, (kernel[0], kernel[1]), pair(node, "strides", 1), ((0, 0), (0, 0)), area)
    if min(*window.kernel, *window.stride) < 1:
        raise NetworkError(f"kernel {window.kernel}, stride {window.stride}, expected 1 or more")
    source = node.input()
    size = shape_of(source)[2:]
    check_flat("the image", size, 2)
    window = window._replace(sides=sides_of(node, size, window.kernel, window.stride, (1, 1)))
    padding, axis = padded_by(reading, source), 1
    if padding is not None:
        own = any(map(any, window.sides))
        added: Sides = tuple(  # type: ignore[assignment]
            (n + a, f + b) for (n, f), (a, b) in zip(window.sides, padding.sides, strict=True)
        )
        fits = all(max(sides) < k for sides, k in zip(added, window.kernel, strict=True))
        if method == "max":
            same = _is_never_the_maximum(padding, reading)
        else:
            same = padding.number == 0 and (area == "padded" or not own)
        if fits and same:
            reading.take(source)
            source, axis = padding.source, padding.source_axis
            window = window._replace(sides=added, area="padded")
    whole = Whole(node.output, source, axis, window, "up" if node.integer("ceil_mode", 0) else "down")
    users = node.output.consumers() if method == "average" else ()
    if any(user.op_type == "Mul" and is_within(node.output.name, user.outputs[0].name) for user in users):
        reading.put_off(node.output, whole)
    else:
        whole.emit(reading)


def _is_never_the_maximum(padding: Padding, reading: Reading) -> bool:
    """Whether padding may be left out of maxima; a window that leaves the image has the pixels at its edge."""
    if padding.number is None or padding.number <= _LOWEST:
        return True
    return padding.number == 0 and reading.is_nonnegative(padding.source)


def pooling(
    window: Window, shape: tuple[int, int, int], result: Pair, rounding: Rounding, wanted: Counts | None = None
) -> Pooling:
    """Return the pooling that computes what the node asks for, in Caffe's form where that is one.

    Parameters
    ----------
    window : Window
        What the node asks for.
    shape : tuple[int, int, int]
        Channels, height and width of what it reads.
    result : Pair
        Height and width of what it writes, as ONNX has them.
    rounding : Rounding
        How it rounds the size of its output.
    wanted : NDArray, optional
        What each average is divided by, where that is not what the window says.

    Raises
    ------
    UnsupportedError
        There is none.
    """
    near, far = ((window.sides[0][side], window.sides[1][side]) for side in (0, 1))
    if wanted is None:
        asked = Pooling(window.method, window.kernel, window.stride, near, rounding, far, window.area)
        wanted = divisors(asked, shape[1:], result)
    areas: tuple[Area, ...] = ("padded", "image")
    # In Caffe padding is the same on both sides and sizes are rounded up, which NVIDIA's compiler does as well.
    forms: list[tuple[Pair | None, Rounding]] = [(None, "up"), (None, "down"), (far, rounding), (far, "down")]
    # A last window that reaches beyond the padding may be written as more padding, whose averages are then corrected.
    forms += [((below, right), "up") for below in range(far[0] + 1) for right in range(far[1] + 1)]
    for (after, rounds), area in product(forms, areas):
        found = Pooling(window.method, window.kernel, window.stride, near, rounds, far_of(near, after or near), area)
        try:
            written = result_shape(found, [shape])
        except NetworkError:
            continue
        same = written[1:] == tuple(result)
        if same and (window.method == "max" or (divisors(found, shape[1:], result) == wanted).all()):
            return found
    raise UnsupportedError(
        f"kernel {window.kernel}, stride {window.stride}, padding {window.sides} of an image of {shape[1:]} gives "
        f"{result}, which no pooling of ours does; write the padding as a Pad, or change the stride"
    )


def global_pool(method: Method) -> Reader:
    """Reader of GlobalAveragePool and GlobalMaxPool."""

    def read(node: Node, reading: Reading) -> None:
        tensor = reading.image(node.input())
        _, height, width = image(reading.shape(tensor))
        reading.emit(node.output, Pooling(method, (height, width)), tensor)

    return read


def reduce(method: Method) -> Reader:
    """Reader of ReduceMean and ReduceMax over pixels, or over the rows or columns alone."""

    def read(node: Node, reading: Reading) -> None:
        shape = shape_of(node.input())
        given = node.integers_of("axes", 1)
        if not given and node.integer("noop_with_empty_axes", 0):
            reading.show(node.output, reading.view(node.input()))
            return
        axes = {range(len(shape))[axis] for axis in given} if given else set(range(len(shape)))
        kept = [axis for axis in range(1, len(shape)) if axis not in axes]
        if 0 in axes or not kept:
            raise UnsupportedError(
                f"over the axes {sorted(axes)} of {shape}, expected height and width: NVDLA pools pixels of a channel"
            )
        channel = kept[0] if 1 in kept or len(kept) == 1 else kept[-1]
        tensor = reading.image(node.input(), channel)
        _, *size = image(reading.shape(tensor))
        spatial = [axis for axis in range(1, len(shape)) if axis != channel]
        flat = len(spatial) <= 2 and all(axis in axes for axis in spatial)
        if not flat and len(spatial) != 2:
            raise UnsupportedError(f"over the axes {sorted(axes)} of {shape}, expected all pixels, or rows or columns")
        kernel = size if flat else [n if axis in axes else 1 for n, axis in zip(size, spatial, strict=True)]
        keeps = bool(node.integer("keepdims", 1))
        before = sum(axis not in axes for axis in range(channel)) if not keeps else channel
        operation = Pooling(method, (kernel[0], kernel[1]))
        reading.emit(node.output, operation, tensor, axis=before)

    return read
