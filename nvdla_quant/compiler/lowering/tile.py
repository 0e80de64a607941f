"""Tiling: what one run of a unit can take at once, and the operations that a step becomes.

A convolution whose input does not fit into the CBUF runs in several chunks of rows and columns, a pooling whose output
is wider than the PDP's line buffer in several chunks of columns (software splits; chunks read overlapping windows).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil

from nvdla_quant.compiler.lowering.layout import Surface, whole
from nvdla_quant.compiler.lowering.operations import (
    CdpOperation,
    ConvolutionStep,
    ConvOperation,
    CpuOperation,
    InterleaveStep,
    NormalisationStep,
    Operation,
    PdpOperation,
    PointStep,
    PoolingStep,
    PowerStep,
    SdpOperation,
    SoftmaxStep,
    Step,
    Window,
)
from nvdla_quant.hardware.cbuf import IMAGE_CHANNELS, Division, Price, Shortage, Work, divide
from nvdla_quant.hardware.targets import NV_SMALL, Target
from nvdla_quant.network.graph import Tensor

MAX_HEIGHT = 8192
"""Height of a cube (13 bits)."""
PDP_LINE_BUFFER_BITS = 7 * 1024 * 8
PDP_BITS_PER_BYTE = 14
"""Line buffer of the PDP and the bits that it keeps for each byte of an element (nvdla/sw ``PDPNode.cpp``)."""
PDP_ATOM = 32
"""Kernels of a group that the line buffer's columns are counted in.

The RTL has 128 columns of one line whatever a group is (nvdla/hw master ``NV_NVDLA_PDP_CORE_cal2d.v``, the assertions
on ``pout_width_cur``): those of nv_full. NVIDIA's compiler counts in nv_small's own group, and so does this one there.
"""
PDP_OVERLAP_LINES = (1, 1, 2, 4, 4, 8, 8, 8, 8)
"""Lines that the PDP keeps, by the number of windows that share an input line (nvdla/sw ``PDPNode.cpp``)."""


@dataclass(frozen=True)
class ConvolutionTiling:
    """How one convolution step uses the CBUF.

    Attributes
    ----------
    work : Work
        What it asks for.
    division : Division
        What it gets: banks and runs.
    post_extension : int
        Log2 of the kernel rows that one MAC step takes (images).
    """

    work: Work
    division: Division
    post_extension: int


def work_of(step: ConvolutionStep, source: Tensor, output: Tensor, image: bool, element_bytes: int) -> Work:
    """Return what `step` asks of the CBUF."""
    kernels, channels, *kernel = step.weights.shape
    return Work(
        kernels=kernels,
        channels=IMAGE_CHANNELS if image else channels,
        kernel=(kernel[0], kernel[1]),
        extent=step.extent,
        stride=step.stride,
        pad=step.pad,
        source=source.chw[1:],
        output=output.chw[1:],
        element_bytes=element_bytes,
        image=image,
    )


def tile_convolution(step: ConvolutionStep, work: Work, target: Target, price: Price) -> ConvolutionTiling:
    """Divide the CBUF for `step`, which `split` has made fit, at the least price."""
    division = divide(target, work, price)
    assert not isinstance(division, Shortage)
    return ConvolutionTiling(work, division, rows_joined(target, work))


def rows_joined(target: Target, work: Work) -> int:
    """Log2 of the kernel rows that one MAC step of a convolution takes."""
    height, width = work.kernel
    return post_extension(target, height, width * IMAGE_CHANNELS, work.stride[1]) if work.image else 0


def post_extension(target: Target, kernel_rows: int, vector: int, stride: int) -> int:
    """Log2 of the kernel rows that one MAC step takes from an image.

    The condition is that of NVIDIA's compiler (docs/hardware/weights.md, "Images"). Its weights go wrong where it
    packs by another number than this one (miscompile A of docs/verify.md); ours are packed by this number.

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


def _chunks(count: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, number) of chunks of at most `most`."""
    for first in range(0, count, most):
        yield first, min(most, count - first)


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
            yield from _convolution(index, step, tiling)
        case PointStep():
            addend = None if step.join is None else whole(step.join.tensor, surfaces[step.join.tensor])
            yield SdpOperation(index, whole(step.source, source), addend, whole(step.output, output))
        case InterleaveStep():
            # Rows together are one column of pixels, equally far apart, where they fill the output's evenly.
            even = output.width == step.stride * source.width
            for first, count in _chunks(source.height, MAX_HEIGHT // source.width if even else 1):
                read = Window(step.source, first, count, 0, source.width)
                yield SdpOperation(index, read, None, Window(step.output, first, count, 0, output.width))
        case PoolingStep():
            yield from _pooling(index, step, source, output, target)
        case NormalisationStep():
            yield CdpOperation(index, whole(step.source, source), whole(step.output, output))
        case PowerStep():
            yield CpuOperation(index, whole(step.source, source), whole(step.output, output))
        case SoftmaxStep():
            # The runtime takes one pixel, wherever its descriptor says.
            for row in range(source.height):
                for column in range(source.width):
                    pixel = row, 1, column, 1
                    yield CpuOperation(index, Window(step.source, *pixel), Window(step.output, *pixel))


def _convolution(index: int, step: ConvolutionStep, tiling: ConvolutionTiling) -> Iterator[Operation]:
    for down in tiling.division.rows:
        for across in tiling.division.columns:
            addend = None
            if step.join is not None:
                addend = Window(step.join.tensor, down.first, down.count, across.first, across.count)
            source = Window(step.source, down.start, down.inputs, across.start, across.inputs)
            pads = down.before, down.after, across.before, across.after
            yield ConvOperation(index, source, down.count, across.count, *pads)
            destination = Window(step.output, down.first, down.count, across.first, across.count)
            yield SdpOperation(index, None, addend, destination)


def pooling_columns(target: Target, step: PoolingStep, element_bytes: int) -> int:
    """Output columns that one run of the PDP can produce."""
    lines = PDP_OVERLAP_LINES[ceil(step.kernel[0] / step.stride[0])]
    kernels = (NV_SMALL.atomic_k if target == NV_SMALL else PDP_ATOM) // element_bytes
    return PDP_LINE_BUFFER_BITS // (lines * kernels * PDP_BITS_PER_BYTE * element_bytes)


def _pooling(index: int, step: PoolingStep, source: Surface, output: Surface, target: Target) -> Iterator[PdpOperation]:
    most = pooling_columns(target, step, source.element_bytes)
    for down in _windows(step, 0, source.height, output.height):
        top, row, read_rows, below = _span(down, step.stride[0], source.height)
        for columns in _windows(step, 1, source.width, output.width):
            for first, count in _chunks(columns.count, most):
                across = columns.part(first, count, step.stride[1])
                left, column, read_columns, right = _span(across, step.stride[1], source.width)
                read = Window(step.source, row, read_rows, column, read_columns)
                written = Window(step.output, down.first, down.count, across.first, across.count)
                yield PdpOperation(index, read, written, (down.kernel, across.kernel), left, right, top, below)


@dataclass(frozen=True)
class _Windows:
    """Output positions, from the first on, whose windows have one size and begin alike along one axis.

    Attributes
    ----------
    first, count : int
        Output positions.
    start : int
        First input of the first window; negative in the padding before the image.
    kernel : int
        Size of each window.
    """

    first: int
    count: int
    start: int
    kernel: int

    def part(self, first: int, count: int, stride: int) -> "_Windows":
        """Return `count` of the positions from number `first` on."""
        return _Windows(self.first + first, count, self.start + first * stride, self.kernel)


def _windows(step: PoolingStep, axis: int, size: int, count: int) -> list[_Windows]:
    """Output positions of one axis, by the windows that they have in common.

    An average is divided by the part of its window on the padded image, or on the image alone (`Pooling.area`); the
    hardware divides by the whole window. So windows that a border cuts get operations of their own, of what is left.
    """
    kernel, stride, pad = step.kernel[axis], step.stride[axis], step.pad[axis]
    if step.method == "max":
        return [_Windows(0, count, -pad, kernel)]
    low, high = (0, size) if step.area == "image" else (-pad, size + step.far[axis])
    found: list[_Windows] = []
    for position in range(count):
        start, end = position * stride - pad, position * stride - pad + kernel
        window = _Windows(position, 1, max(start, low), min(end, high) - max(start, low))
        last = found[-1] if found else None
        if last is not None and (last.kernel, last.start + last.count * stride) == (window.kernel, window.start):
            found[-1] = replace(last, count=last.count + 1)
        else:
            found.append(window)
    return found


def _span(windows: _Windows, stride: int, size: int) -> tuple[int, int, int, int]:
    """Return (padding before, first input, inputs, padding after) of windows.

    The padding after is what the output size asks for; where that is negative, the last inputs are never read.
    """
    start = windows.start
    end = start + (windows.count - 1) * stride + windows.kernel
    inside = max(start, 0)
    return max(-start, 0), inside, min(end, size) - inside, max(end - size, 0)
