"""Tiling: what one run of a unit can take at once, and the operations that a step becomes.

A convolution whose input does not fit into the CBUF runs in several chunks of rows, a pooling whose output is wider
than the PDP's line buffer in several chunks of columns (software splits; chunks read overlapping windows).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from nvdla_quant.cbuf import Banks, Shortage, divide, feature_entries, image_entries
from nvdla_quant.compiler.layout import Surface, whole
from nvdla_quant.compiler.operations import (
    ConvolutionStep,
    ConvOperation,
    CpuOperation,
    Operation,
    PdpOperation,
    PointStep,
    PoolingStep,
    SdpOperation,
    SoftmaxStep,
    Step,
    Window,
)
from nvdla_quant.errors import CompileError
from nvdla_quant.hardware import Target

PDP_LINE_BUFFER_BITS = 7 * 1024 * 8
PDP_BITS_PER_BYTE = 14
"""Line buffer of the PDP and the bits that it keeps for each byte of an element (nvdla/sw ``PDPNode.cpp``)."""
PDP_OVERLAP_LINES = (1, 1, 2, 4, 4, 8, 8, 8, 8)
"""Lines that the PDP keeps, by the number of windows that share an input line (nvdla/sw ``PDPNode.cpp``)."""


@dataclass(frozen=True)
class ConvolutionTiling:
    """How one convolution step uses the CBUF.

    Attributes
    ----------
    entries_per_slice : int
        CBUF entries of one input row.
    banks : Banks
        Division of the CBUF.
    post_extension : int
        Log2 of the kernel rows that one MAC step takes (images).
    """

    entries_per_slice: int
    banks: Banks
    post_extension: int


def tile_convolution(step: ConvolutionStep, source: Surface, target: Target) -> ConvolutionTiling:
    """Divide the CBUF for `step`.

    Raises
    ------
    CompileError
        No division serves.
    """
    kernels, channels, height, width = step.weights.shape
    if source.image:
        channels = source.channels
        entries = image_entries(target, source.width, 2 * step.pad[1], source.element_bytes)
    else:
        entries = feature_entries(target, channels, source.width, source.element_bytes)
    kernel_bytes = channels * height * width * source.element_bytes
    group = min(kernels, target.kernels_per_group(source.element_bytes))
    rows = min(source.height, _extent(step, 0))
    banks = divide(target, entries, source.height, rows, kernels * kernel_bytes, group * kernel_bytes)
    if isinstance(banks, Shortage):
        raise CompileError(f"layer {step.layers[0]!r}: {banks.message}")
    extension = post_extension(target, height, width * channels, step.stride[1]) if source.image else 0
    return ConvolutionTiling(entries, banks, extension)


def post_extension(target: Target, kernel_rows: int, vector: int, stride: int) -> int:
    """Log2 of the kernel rows that one MAC step takes from an image.

    The condition is the real compiler's (nvdla-compiler.md, section 6, Post-extension). Its weights go wrong where
    it packs by another number than this one (its bug A); ours are packed by this number.

    Parameters
    ----------
    target : Target
        The hardware.
    kernel_rows : int
        Height of the kernel.
    vector : int
        Channels of one kernel row: four components times its width.
    stride : int
        Horizontal stride.
    """
    if 4 * stride > vector:
        return 0
    for exponent in (2, 1):
        factor = 1 << exponent
        if (factor - 1) * 4 * stride + vector <= target.atomic_c and vector * factor <= target.atomic_c:
            return exponent if kernel_rows >= 2 * factor else 0
    return 0


def _extent(step: ConvolutionStep, axis: int) -> int:
    size: int = step.weights.shape[2 + axis]
    return (size - 1) * step.dilation[axis] + 1


def _chunks(count: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, number) of chunks of at most `most`."""
    for first in range(0, count, most):
        yield first, min(most, count - first)


def _rows(step: ConvolutionStep, height: int, out_height: int, fit: int) -> Iterator[tuple[int, int]]:
    """(first, number) of the output rows of chunks that read at most `fit` input rows."""
    extent, stride = _extent(step, 0), step.stride[0]
    first = 0
    while first < out_height:
        top = first * stride - step.pad[0]
        start = max(top, 0)
        left = out_height - first
        count = left if height - start <= fit else min(left, (start + fit - extent - top) // stride + 1)
        yield first, count
        first += count


def operations_of(
    index: int, step: Step, surfaces: Mapping[str, Surface], target: Target, tiling: ConvolutionTiling | None
) -> Iterator[Operation]:
    """Operations that run `step`, in order.

    Parameters
    ----------
    index : int
        Number of the step.
    step : Step
        The step.
    surfaces : Mapping[str, Surface]
        Surface of every tensor.
    target : Target
        The hardware.
    tiling : ConvolutionTiling or None
        Where the step is a convolution.
    """
    source, output = surfaces[step.source], surfaces[step.output]
    match step:
        case ConvolutionStep():
            assert tiling is not None
            yield from _convolution(index, step, source, output, tiling)
        case PointStep():
            addend = None if step.addend is None else whole(step.addend, surfaces[step.addend])
            yield SdpOperation(index, whole(step.source, source), addend, whole(step.output, output))
        case PoolingStep():
            yield from _pooling(index, step, source, output, target)
        case SoftmaxStep():
            yield CpuOperation(index, whole(step.source, source), whole(step.output, output))


def _convolution(
    index: int, step: ConvolutionStep, source: Surface, output: Surface, tiling: ConvolutionTiling
) -> Iterator[Operation]:
    fit = tiling.banks.rows
    chunks = [(0, output.height)] if fit >= source.height else list(_rows(step, source.height, output.height, fit))
    for first, count in chunks:
        top = first * step.stride[0] - step.pad[0]
        bottom = top + (count - 1) * step.stride[0] + _extent(step, 0)
        row = max(top, 0)
        rows, above, below = min(bottom, source.height) - row, max(-top, 0), max(bottom - source.height, 0)
        if len(chunks) == 1:
            rows, above, below = source.height, step.pad[0], step.pad[0]
        destination = Window(step.output, first, count, 0, output.width)
        addend = None if step.addend is None else Window(step.addend, first, count, 0, output.width)
        yield ConvOperation(index, Window(step.source, row, rows, 0, source.width), count, above, below)
        yield SdpOperation(index, None, addend, destination)


def pooling_columns(target: Target, step: PoolingStep, element_bytes: int) -> int:
    """Output columns that one run of the PDP can produce."""
    lines = PDP_OVERLAP_LINES[ceil(step.kernel[0] / step.stride[0])]
    return PDP_LINE_BUFFER_BITS // (lines * target.kernels_per_group(element_bytes) * PDP_BITS_PER_BYTE * element_bytes)


def _pooling(index: int, step: PoolingStep, source: Surface, output: Surface, target: Target) -> Iterator[PdpOperation]:
    most = pooling_columns(target, step, source.element_bytes)
    for first_row, rows, kernel_height in _windows(step, 0, source.height, output.height):
        top, row, read_rows, below = _span(step, 0, first_row, rows, kernel_height, source.height)
        for start, columns, kernel_width in _windows(step, 1, source.width, output.width):
            for first, count in _chunks(columns, most):
                left, column, read_columns, right = _span(step, 1, start + first, count, kernel_width, source.width)
                read = Window(step.source, row, read_rows, column, read_columns)
                written = Window(step.output, first_row, rows, start + first, count)
                yield PdpOperation(index, read, written, (kernel_height, kernel_width), left, right, top, below)


def _windows(step: PoolingStep, axis: int, size: int, count: int) -> list[tuple[int, int, int]]:
    """(first, number, kernel) of output positions with windows of one size.

    Caffe divides an average by the part of the window inside the padded input, the hardware by the whole window; so
    a last window that reaches beyond gets an operation of its own, with a smaller kernel.
    """
    kernel = step.kernel[axis]
    beyond = (count - 1) * step.stride[axis] + kernel - (size + 2 * step.pad[axis])
    if step.method == "max" or beyond <= 0:
        return [(0, count, kernel)]
    last = (count - 1, 1, kernel - beyond)
    return [last] if count == 1 else [(0, count - 1, kernel), last]


def _span(step: PoolingStep, axis: int, first: int, count: int, kernel: int, size: int) -> tuple[int, int, int, int]:
    """Return (padding before, first input, inputs, padding after) of output positions `first` to `first + count`.

    The padding after is what the output size asks for; where that is negative, the last inputs are never read.
    """
    start = first * step.stride[axis] - step.pad[axis]
    end = start + (count - 1) * step.stride[axis] + kernel
    inside = max(start, 0)
    return max(-start, 0), inside, min(end, size) - inside, max(end - size, 0)
