"""Int8 convolutions by the processor's dot products, straight from the input: no matrix of windows is made.

Where the instruction takes bytes, it multiplies unsigned by signed ones. So inputs stand as ``value + 128``, and each
sum starts at -128 times the sum of its kernel's weights, which takes that away again. Older processors multiply pairs
of words: inputs and weights stand as int16. Sums are modulo 2**32 in both: exact as long as the result itself is an
int32, whatever happens in between.
Arithmetic: docs/hardware/convolution.md. How fast it is beside others: docs/emulator.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._instructions import (
    CHANNELS,
    PIXELS,
    SIGN,
    STEP_BYTES,
    Dots,
    Pairs256,
    dot_tile,
    pixels_together,
)
from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.operations import ConvOperation, Cube
from nvdla_quant.emulator.tiles import (
    MAX_ATOM,
    IntegerReading,
    Integers,
    Reader,
    Tile,
    Tiling,
    Workspace,
    plan,
    read_integers,
)

MOST_PIXELS = max(map(max, PIXELS.values()))
"""The most pixels that `dot_tile` takes at once."""
TILE_BYTES = 1 << 19
"""For inputs and sums of a tile, which then stay in a cache of 1 MiB."""

Weights = NDArray[np.int8] | NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class DotConvolution:
    """An int8 convolution, ready to run; see `Convolution`.

    Attributes
    ----------
    dots : Dots
        By what.
    weights : Weights
        ``(blocks, steps, kernels of a block, elements of a step)``. A step takes `STEP_BYTES` of a run of the input: a
        row of the kernel, or, where it is dilated, one cell of it.
    start : NDArray[np.int32]
        What the sums of all blocks' kernels begin with.
    taps : NDArray[np.int64]
        Where each run starts, in bytes behind the first of its window.
    bound : int
        Largest magnitude that a sum can reach.
    """

    operation: ConvOperation
    reader: Reader
    dots: Dots
    weights: Weights
    start: NDArray[np.int32]
    taps: NDArray[np.int64]
    bound: int
    tiling: Tiling

    def of(self, source: Cube) -> "DotConvolution":
        """Return the same convolution of another cube of the batch."""
        return replace(self, reader=replace(self.reader, cube=source))

    def accumulate(self, source: NDArray[np.int8], tile: Tile, workspace: Workspace) -> NDArray[np.int32]:
        """Return the accumulators of a tile as ``(1, pixels, kernels)``; see `Convolution.accumulate`.

        Kernels are as many as all blocks have: the last ones may be none of the operation's.
        """
        job = self.summing(source, tile.images, workspace)
        sum_tile(job, tile.part)
        return job.sums[None, : tile.images * tile.rows * self.operation.out_width]

    def summing(self, source: NDArray[np.int8], images: int, workspace: Workspace) -> "Summing":
        """Return what `sum_tile` takes for tiles of at most so many images of `source`, its scratch in `workspace`."""
        op, channels = self.operation, self.reader.channels
        window = _window(op, channels)
        count, rows = min(images, self.tiling.images), self.tiling.rows
        lines = (rows - 1) * window.stride[0] + window.height
        inputs = _inputs(self.dots)
        patch = workspace.take("inputs", count * lines * window.columns * channels + MAX_ATOM, dtype=inputs)
        pitch = -(-len(self.start) // CHANNELS) * CHANNELS
        sums = workspace.take("dots", count * rows * op.out_width + MOST_PIXELS, pitch, dtype=np.int32)
        reading = self.reader.integers(inputs)
        return Summing(self.dots, source, reading, window, self.taps, self.weights, self.start, patch, sums)


class ConvolutionWindow(NamedTuple):
    """The window of a convolution: where it starts, its steps, and its input.

    `height` is that of the window of one output row, `columns` and `channels` are those of the input of all output
    columns, `out_width` of them.
    """

    height: int
    columns: int
    channels: int
    out_width: int
    stride: tuple[int, int]
    corner: tuple[int, int]


class Summing(NamedTuple):
    """What `sum_tile` takes: compiled functions know named tuples."""

    dots: Dots
    source: NDArray[np.int8]
    reading: IntegerReading
    window: ConvolutionWindow
    taps: NDArray[np.int64]
    weights: Weights
    start: NDArray[np.int32]
    patch: Integers
    sums: NDArray[np.int32]


def _window(operation: ConvOperation, channels: int) -> ConvolutionWindow:
    height = (operation.kernel_height - 1) * operation.dilation[0] + 1
    reach = (operation.kernel_width - 1) * operation.dilation[1] + 1
    columns = (operation.out_width - 1) * operation.stride[1] + reach
    corner = -operation.pad_top, -operation.pad_left
    return ConvolutionWindow(height, columns, channels, operation.out_width, operation.stride, corner)


@jit
def sum_tile(job: Summing, part: tuple[int, int, int, int]) -> None:
    """Read what a tile needs, and write its accumulators ``(pixels, kernels)`` into ``job.sums``.

    `part` is the tile's first image, number of images, first row and number of rows.
    """
    first, images, row, rows = part
    window = job.window
    lines = (rows - 1) * window.stride[0] + window.height
    shape = (images, lines, window.columns, window.channels)
    corner = (row * window.stride[0] + window.corner[0], window.corner[1])
    read_integers(job.source, first, corner, job.reading, shape, job.patch)
    places = _places(job.patch, shape, (rows, window.out_width), window.stride)
    _convolve(job.dots, places, job.taps, job.weights, job.start, job.sums)


def prepare_dots(
    operation: ConvOperation, reader: Reader, kernels: NDArray[np.generic], bound: int, dots: Dots
) -> DotConvolution:
    """Lay out ``(kernels, rows, columns, channels)`` of weights for dot products."""
    count, height, width, channels = kernels.shape
    runs = (height, width * channels) if operation.dilation[1] == 1 else (height * width, channels)
    weights, start = _pack(kernels.reshape(count, *runs), dots)
    stride_y, stride_x = operation.stride
    size = np.dtype(_inputs(dots)).itemsize
    bytes_per_pixel = size * channels * stride_y * stride_x + 4 * len(start)
    tiling = plan(operation.out_height, operation.out_width, bytes_per_pixel, TILE_BYTES)
    taps = _taps(operation, _window(operation, channels).columns, channels) * size
    return DotConvolution(operation, reader, dots, weights, start, taps, bound, tiling)


def multiplier(inputs: NDArray[np.int8], weights: NDArray[np.int8], dots: Dots) -> Callable[[], NDArray[np.int32]]:
    """Return what computes the product of ``(pixels, depth)`` and ``(kernels, depth)`` as convolutions do."""
    pixels, depth = inputs.shape
    patch: Integers = np.zeros(inputs.size + MAX_ATOM, _inputs(dots))
    patch[: inputs.size] = inputs.reshape(-1) if _inputs(dots) is np.int16 else inputs.reshape(-1).view(np.uint8) ^ SIGN
    factors, start = _pack(weights[:, None], dots)
    sums = np.empty((pixels + MOST_PIXELS, len(start)), np.int32)
    taps = np.zeros(1, np.int64)

    def multiply() -> NDArray[np.int32]:
        places = _places(patch, (1, 1, pixels, depth), (1, pixels), (1, 1))
        _convolve(dots, places, taps, factors, start, sums)
        return sums[:pixels, : len(weights)]

    return multiply


def _inputs(dots: Dots) -> type[np.uint8] | type[np.int16]:
    """Return the type of an input."""
    return np.int16 if isinstance(dots, Pairs256) else np.uint8


def _pack(kernels: NDArray[np.generic], dots: Dots) -> tuple[Weights, NDArray[np.int32]]:
    """Return weights and starts, see `DotConvolution`, of ``(kernels, runs, elements of a run)``."""
    count, runs, run = kernels.shape
    are_words = _inputs(dots) is np.int16
    dtype = np.dtype(np.int16 if are_words else np.int8)
    taken = STEP_BYTES // dtype.itemsize
    steps = -(-run // taken)
    vectors = -(-count // dots.lanes)
    blocks = -(-vectors // len(PIXELS[dots.lanes]))
    block = -(-vectors // blocks) * dots.lanes
    padded = np.zeros((blocks * block, runs, steps * taken), dtype)
    padded[:count, :, :run] = kernels
    weights = padded.reshape(blocks, block, runs * steps, taken).transpose(0, 2, 1, 3)
    bias = 0 if are_words else SIGN
    start = -bias * padded.sum(axis=(1, 2), dtype=np.int64)
    return np.ascontiguousarray(weights), start.astype(np.int32)


def _taps(operation: ConvOperation, columns: int, channels: int) -> NDArray[np.int64]:
    """Return where each run starts, in elements behind the first of its window; rows are so many columns long."""
    dilation_y, dilation_x = operation.dilation
    lines = np.arange(operation.kernel_height, dtype=np.int64) * (dilation_y * columns * channels)
    if dilation_x == 1:
        return lines
    cells = np.arange(operation.kernel_width, dtype=np.int64) * (dilation_x * channels)
    return (lines[:, None] + cells).reshape(-1)


@jit
def _places(
    patch: Integers,
    shape: tuple[int, int, int, int],
    size: tuple[int, int],
    stride: tuple[int, int],
) -> NDArray[np.int64]:
    """Return the address of each pixel's window, and the last one's for some more."""
    images, rows, columns, channels = shape
    places = np.empty(images * size[0] * size[1] + MOST_PIXELS, np.int64)
    pixel = 0
    for image in range(images):
        for y in range(size[0]):
            place = patch.ctypes.data + (image * rows + y * stride[0]) * columns * channels * patch.itemsize
            for x in range(size[1]):
                places[pixel] = place + x * stride[1] * channels * patch.itemsize
                pixel += 1
    places[pixel:] = places[pixel - 1]
    return places


@jit
def _convolve(
    dots: Dots,
    places: NDArray[np.int64],
    taps: NDArray[np.int64],
    weights: Weights,
    start: NDArray[np.int32],
    sums: NDArray[np.int32],
) -> None:
    """Write the sums of products of every window, ``(pixels, kernels)``."""
    blocks, steps, kernels, _ = weights.shape
    pixels, pitch = places.size - MOST_PIXELS, 4 * sums.shape[1]
    runs, vectors = taps.size, kernels // dots.lanes
    run = steps // runs
    near, far = places.ctypes.data, taps.ctypes.data
    for block in range(blocks):
        factors = weights.ctypes.data + block * steps * kernels * STEP_BYTES
        first = start.ctypes.data + 4 * block * kernels
        to = sums.ctypes.data + 4 * block * kernels
        if vectors == 4:
            for p in range(0, pixels, pixels_together(4, dots)):
                dot_tile(4, dots, near + 8 * p, far, runs, run, factors, first, to + p * pitch, pitch)
        elif vectors == 3:
            for p in range(0, pixels, pixels_together(3, dots)):
                dot_tile(3, dots, near + 8 * p, far, runs, run, factors, first, to + p * pitch, pitch)
        elif vectors == 2:
            for p in range(0, pixels, pixels_together(2, dots)):
                dot_tile(2, dots, near + 8 * p, far, runs, run, factors, first, to + p * pitch, pitch)
        else:
            for p in range(0, pixels, pixels_together(1, dots)):
                dot_tile(1, dots, near + 8 * p, far, runs, run, factors, first, to + p * pitch, pitch)
