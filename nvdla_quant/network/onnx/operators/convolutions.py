"""Conv, ConvTranspose, Pad, Upsample and Resize.

Semantics are those of the ONNX operator specification (Conv-1, 11, 22; ConvTranspose-1, 11, 22; Pad-2, 11, 13, 18;
Upsample-7, 9; Resize-10, 11, 13, 18, 19).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor

import numpy as np
import onnx_ir as ir

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import Convolution, Deconvolution, Pair
from nvdla_quant.network.onnx.operators import shapes, slices
from nvdla_quant.network.onnx.operators.windows import Sides, check_flat, far_of, pair, sides_of
from nvdla_quant.network.onnx.values.nodes import Node, shape_of
from nvdla_quant.network.onnx.values.quantized import scales_along
from nvdla_quant.network.onnx.values.reading import Reading
from nvdla_quant.network.shapes import image


@dataclass(frozen=True)
class Padding:
    """Zeros around an image, which the next layer may add itself.

    Attributes
    ----------
    value, source : Value
        The image with and without them.
    sides : Sides
        How many.
    number : float or None
        What is there instead of zeros; None for copies of the pixels at the edge.
    axis, source_axis : int
        Axis of the channels of `value` and of `source`.
    """

    value: ir.Value
    source: ir.Value
    sides: Sides
    number: float | None
    axis: int = 1
    source_axis: int = 1

    def emit(self, reading: Reading) -> None:
        """Add a convolution of each channel by itself that does nothing but pad."""
        if self.number != 0:
            what = "copies of the edge" if self.number is None else f"{self.number:g}"
            raise UnsupportedError(f"pads with {what}, and what reads it cannot; NVDLA pads with 0")
        tensor = reading.image(self.source, self.source_axis)
        channels = reading.shape(tensor)[0]
        near, far = _near_and_far(self.sides)
        weights = np.ones((channels, 1, 1, 1), np.float32)
        operation = Convolution(weights, None, (1, 1), near, group=channels, far=far)
        reading.emit(self.value, operation, tensor, axis=self.axis)


def _near_and_far(sides: Sides) -> tuple[Pair, Pair | None]:
    near, far = ((sides[0][side], sides[1][side]) for side in (0, 1))
    return near, far_of(near, far)


def padded_by(reading: Reading, value: ir.Value) -> Padding | None:
    """Return what pads the image `value`, where its only reader may do it instead."""
    pending = reading.pending(value)
    return pending if isinstance(pending, Padding) and pending.axis == 1 else None


def transpose(node: Node, reading: Reading) -> None:
    """Read Transpose; padding before it is padding behind it."""
    pending = reading.pending(node.input())
    order = node.integers("perm")
    if isinstance(pending, Padding) and (pending.axis, order) in ((3, (0, 3, 1, 2)), (1, (0, 2, 3, 1))):
        reading.take(node.input())
        axis = order.index(pending.axis)
        reading.put_off(node.output, replace(pending, value=node.output, axis=axis))
    else:
        shapes.transpose(node, reading)


def conv(node: Node, reading: Reading) -> None:
    """Read Conv; zeros that a Pad puts around its input become its own."""
    weights = node.weights(1, 4)
    bias = None if node.given(2) is None else node.weights(2, 1)
    if bias is not None and bias.shape != weights.shape[:1]:
        raise NetworkError(f"bias of shape {bias.shape}, expected {weights.shape[:1]}")
    kernel = _kernel(node, weights.shape[2:])
    stride, dilation = pair(node, "strides", 1), pair(node, "dilations", 1)
    source = node.input()
    padding = padded_by(reading, source)
    if padding is not None and padding.number == 0:
        reading.take(source)
        tensor = reading.image(padding.source, padding.source_axis)
        sides = sides_of(node, shape_of(source)[2:], kernel, stride, dilation)
        sides = tuple((n + a, f + b) for (n, f), (a, b) in zip(sides, padding.sides, strict=True))  # type: ignore[assignment]
    else:
        tensor = reading.image(source)
        sides = sides_of(node, shape_of(source)[2:], kernel, stride, dilation)
    near, far = _near_and_far(sides)
    scales = scales_along(node.input(1), 0)
    operation = Convolution(weights, bias, stride, near, dilation, node.integer("group", 1), far, scales)
    reading.emit(node.output, operation, tensor)


def _kernel(node: Node, expected: Sequence[int]) -> Pair:
    kernel = node.integers("kernel_shape", expected)
    if tuple(kernel) != tuple(expected):
        raise NetworkError(f"kernel_shape {kernel}, expected {tuple(expected)} as the weights have")
    return expected[0], expected[1]


def conv_transpose(node: Node, reading: Reading) -> None:
    """Read ConvTranspose; ``output_padding`` appends rows and columns, which is less padding after the image."""
    weights = node.weights(1, 4)
    bias = None if node.given(2) is None else node.weights(2, 1)
    kernel = _kernel(node, weights.shape[2:])
    stride, dilation = pair(node, "strides", 1), pair(node, "dilations", 1)
    appended = pair(node, "output_padding", 0)
    tensor = reading.image(node.input())
    size = image(reading.shape(tensor))[1:]
    mode, wanted = node.text("auto_pad", "NOTSET"), node.integers("output_shape")
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise NetworkError(f"auto_pad {mode!r}, expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    if wanted or mode.startswith("SAME"):
        targets = wanted[-2:] if wanted else [n * s for n, s in zip(size, stride, strict=True)]
        sides = []
        for n, k, s, d, more, target in zip(size, kernel, stride, dilation, appended, targets, strict=True):
            total = max(0, s * (n - 1) + more + d * (k - 1) + 1 - target)
            # The specification divides otherwise for SAME_UPPER than for all else.
            near = total // 2 if mode == "SAME_UPPER" else total - total // 2
            sides.append((near, total - near))
    else:
        pads = node.integers("pads", (0, 0, 0, 0)) if mode == "NOTSET" else (0, 0, 0, 0)
        check_flat("pads", pads, 4)
        sides = [(pads[0], pads[2]), (pads[1], pads[3])]
    near = sides[0][0], sides[1][0]
    after = sides[0][1] - appended[0], sides[1][1] - appended[1]
    group, scales = node.integer("group", 1), scales_along(node.input(1), 1)
    if scales is not None:
        scales = np.tile(scales, group)
    operation = Deconvolution(weights, bias, stride, near, dilation, group, far_of(near, after), scales)
    reading.emit(node.output, operation, tensor)


def pad(node: Node, reading: Reading) -> None:
    """Read Pad with a constant or with the edge; the next layer does it where it can. One that takes away is a crop."""
    mode = node.text("mode", "constant")
    if mode not in ("constant", "edge"):
        raise UnsupportedError(f"mode {mode!r}, expected 'constant': NVDLA pads with one value")
    rank = len(shape_of(node.input()))
    pads = node.integers_of("pads", 1)
    if pads is None:
        raise NetworkError("pads are missing")
    axes = node.constant(3)
    numbers = range(rank) if axes is None else [range(rank)[int(axis)] for axis in axes.ravel()]
    check_flat("pads", pads, 2 * len(numbers))
    sides = dict(zip(numbers, zip(pads[: len(numbers)], pads[len(numbers) :], strict=True), strict=True))
    given = node.constant(2)
    value = node.number("value", 0.0) if given is None or not given.size else float(given.ravel()[0])
    number = value if mode == "constant" else None
    if not any(any(side) for side in sides.values()):
        reading.show(node.output, reading.view(node.input()))
        return
    if all(max(side) <= 0 for side in sides.values()):
        shape = shape_of(node.input())
        kept = {axis: range(-before, shape[axis] + after) for axis, (before, after) in sides.items()}
        slices.select(node.input(), node.output, kept, reading)
        return
    if rank != 4 or any(min(side) < 0 for side in sides.values()):
        raise UnsupportedError(f"pads {pads} for {rank} axes, expected 0 or more, of an image")
    moved = [axis for axis, side in sides.items() if any(side)]
    last = 1 in moved and 3 not in moved and not reading.has_image(node.input(), 1)
    axis = 3 if last else 1
    rows, columns = (1, 2) if last else (2, 3)
    if set(moved) <= {rows, columns}:
        both = sides.get(rows, (0, 0)), sides.get(columns, (0, 0))
        reading.put_off(node.output, Padding(node.output, node.input(), both, number, axis, axis))
    elif moved == [1] and number == 0:
        _pad_channels(node, reading, sides[1])
    else:
        raise UnsupportedError(f"pads axes {moved} with {number}, expected height and width, or the channels with 0")


def _pad_channels(node: Node, reading: Reading, sides: Pair) -> None:
    """Channels of zeros before and after, as a convolution by 1 x 1."""
    tensor = reading.image(node.input())
    channels = image(reading.shape(tensor))[0]
    weights = np.zeros((sides[0] + channels + sides[1], channels, 1, 1), np.float32)
    weights[np.arange(channels) + sides[0], np.arange(channels)] = 1
    reading.emit(node.output, Convolution(weights, None), tensor)


def resize(node: Node, reading: Reading) -> None:
    """Read Resize and Upsample where they repeat pixels: a transposed convolution with weights of 1."""
    mode = node.text("mode", "nearest")
    before, after = shape_of(node.input()), shape_of(node.output)
    if before == after:
        reading.show(node.output, reading.view(node.input()))
        return
    if mode != "nearest":
        raise UnsupportedError(
            f"mode {mode!r}, expected 'nearest'; for another one write a ConvTranspose with the weights of its "
            "interpolation"
        )
    axis = 1 if before[1] == after[1] else len(before) - 1
    spatial = [index for index in range(1, len(before)) if index != axis]
    if len(before) != 4 or before[0] != after[0] or before[axis] != after[axis]:
        raise UnsupportedError(f"from {before} to {after}, expected only the height and the width to change")
    factors = [after[index] // before[index] for index in spatial]
    for index, factor in zip(spatial, factors, strict=True):
        if factor * before[index] != after[index] or not _repeats(node, before[index], after[index]):
            raise UnsupportedError(
                f"from {before} to {after} takes other pixels than repeating each a whole number of times does "
                f"(coordinate_transformation_mode {node.text('coordinate_transformation_mode', 'half_pixel')!r}, "
                f"nearest_mode {node.text('nearest_mode', 'round_prefer_floor')!r}); choose a whole factor"
            )
    tensor = reading.image(node.input(), axis)
    channels = image(reading.shape(tensor))[0]
    window = factors[0], factors[1]
    weights = np.ones((channels, 1, *window), np.float32)
    reading.emit(node.output, Deconvolution(weights, None, window, group=channels), tensor, axis=axis)


def _repeats(node: Node, size: int, result: int) -> bool:
    """Whether nearest neighbours of `result` pixels are each of `size` pixels repeated."""
    if node.node.op_type == "Upsample" or node.opset < 11:  # Their formula is floor(x / scale).
        where, rounding = "asymmetric", "floor"
    else:
        where = node.text("coordinate_transformation_mode", "half_pixel")
        rounding = node.text("nearest_mode", "round_prefer_floor")
    scale = Fraction(result, size)
    half = Fraction(1, 2)
    for x in range(result):
        match where:
            case "asymmetric":
                position = x / scale
            case "half_pixel" | "half_pixel_symmetric":
                position = (x + half) / scale - half
            case "pytorch_half_pixel":
                position = (x + half) / scale - half if result > 1 else Fraction(0)
            case "align_corners":
                position = Fraction(x * (size - 1), result - 1) if result > 1 else Fraction(0)
            case _:
                raise UnsupportedError(f"coordinate_transformation_mode {where!r}, expected one of the whole image")
        match rounding:
            case "round_prefer_floor":
                nearest = ceil(position - half)
            case "round_prefer_ceil":
                nearest = floor(position + half)
            case "floor":
                nearest = floor(position)
            case "ceil":
                nearest = ceil(position)
            case _:
                raise NetworkError(f"nearest_mode {rounding!r} is none that ONNX has")
        if min(max(nearest, 0), size - 1) != x // (result // size):
            return False
    return True
