"""Int8 convolutions by the processor's dot products of bytes, straight from the input: no matrix of windows is made.

The instruction multiplies unsigned by signed bytes. So inputs stand as ``value + 128``, and each sum starts at -128
times the sum of its kernel's weights, which takes that away again. Sums are modulo 2**32: exact as long as the result
itself is an int32, whatever happens in between.
Arithmetic: docs/hardware/convolution.md. How fast it is beside others: docs/emulator.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._instructions import CHANNELS, QUAD, SIGN, dot_tile
from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.operations import ConvOperation, Cube
from nvdla_quant.emulator.tiles import MAX_ATOM, ByteReading, Reader, Tile, Tiling, Workspace, plan, read_bytes

MOST_VECTORS: Mapping[int, int] = MappingProxyType({16: 4, 8: 2})
"""Vectors of kernels that go together, by lanes. With the pixels that the loops below take at once, all sums fit in the
registers: 32 of 512 bits, or 16 of 256."""
MOST_PIXELS = 12
"""The most pixels that the loops below take at once."""
TILE_BYTES = 1 << 19
"""For inputs and sums of a tile, which then stay in a cache of 1 MiB."""


@dataclass(frozen=True, eq=False)
class DotConvolution:
    """An int8 convolution, ready to run; see `Convolution`.

    Attributes
    ----------
    lanes : int
        Lanes of the dot product.
    weights : NDArray[np.int8]
        ``(blocks, steps, kernels of a block, QUAD)``. A step takes `QUAD` bytes of a run of the input: a row of the
        kernel, or, where it is dilated, one cell of it.
    start : NDArray[np.int32]
        What the sums of all blocks' kernels begin with.
    taps : NDArray[np.int64]
        Where each run starts, in bytes behind the first of its window.
    bound : int
        Largest magnitude that a sum can reach.
    """

    operation: ConvOperation
    reader: Reader
    lanes: int
    weights: NDArray[np.int8]
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
        sum_tile(job, (tile.first, tile.images, tile.row, tile.rows))
        return job.sums[None, : tile.images * tile.rows * self.operation.out_width]

    def summing(self, source: NDArray[np.int8], images: int, workspace: Workspace) -> "Summing":
        """Return what `sum_tile` takes for tiles of at most so many images of `source`, its scratch in `workspace`."""
        op, channels = self.operation, self.reader.channels
        window = _window(op, channels)
        count, rows = min(images, self.tiling.images), self.tiling.rows
        lines = (rows - 1) * window.stride[0] + window.height
        patch = workspace.take("bytes", count * lines * window.columns * channels + MAX_ATOM, dtype=np.uint8)
        pitch = -(-len(self.start) // CHANNELS) * CHANNELS
        sums = workspace.take("dots", count * rows * op.out_width + MOST_PIXELS, pitch, dtype=np.int32)
        narrow = None if self.lanes == 16 else self.lanes
        return Summing(narrow, source, self.reader.bytes(), window, self.taps, self.weights, self.start, patch, sums)


class Window(NamedTuple):
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
    """What `sum_tile` takes: compiled functions know named tuples.

    `narrow` is None for vectors of 16 lanes: numba then compiles no other, which the processor may not have.
    """

    narrow: int | None
    source: NDArray[np.int8]
    reading: ByteReading
    window: Window
    taps: NDArray[np.int64]
    weights: NDArray[np.int8]
    start: NDArray[np.int32]
    patch: NDArray[np.uint8]
    sums: NDArray[np.int32]


def _window(operation: ConvOperation, channels: int) -> Window:
    height = (operation.kernel_height - 1) * operation.dilation[0] + 1
    reach = (operation.kernel_width - 1) * operation.dilation[1] + 1
    columns = (operation.out_width - 1) * operation.stride[1] + reach
    corner = -operation.pad_top, -operation.pad_left
    return Window(height, columns, channels, operation.out_width, operation.stride, corner)


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
    read_bytes(job.source, first, corner, job.reading, shape, job.patch)
    places = _places(job.patch, shape, (rows, window.out_width), window.stride)
    _convolve(job.narrow, places, job.taps, job.weights, job.start, job.sums)


def prepare_dots(
    operation: ConvOperation, reader: Reader, kernels: NDArray[np.generic], bound: int, lanes: int
) -> DotConvolution:
    """Lay out ``(kernels, rows, columns, channels)`` of weights for dot products of so many lanes."""
    count, height, width, channels = kernels.shape
    runs = (height, width * channels) if operation.dilation[1] == 1 else (height * width, channels)
    weights, start = _pack(kernels.reshape(count, *runs), lanes)
    stride_y, stride_x = operation.stride
    bytes_per_pixel = channels * stride_y * stride_x + 4 * len(start)
    tiling = plan(operation.out_height, operation.out_width, bytes_per_pixel, TILE_BYTES)
    taps = _taps(operation, _window(operation, channels).columns, channels)
    return DotConvolution(operation, reader, lanes, weights, start, taps, bound, tiling)


def multiplier(inputs: NDArray[np.int8], weights: NDArray[np.int8], lanes: int) -> Callable[[], NDArray[np.int32]]:
    """Return what computes the product of ``(pixels, depth)`` and ``(kernels, depth)`` as convolutions do."""
    pixels, depth = inputs.shape
    patch = np.zeros(inputs.size + MAX_ATOM, np.uint8)
    patch[: inputs.size] = inputs.reshape(-1).view(np.uint8) ^ SIGN
    factors, start = _pack(weights[:, None], lanes)
    sums = np.empty((pixels + MOST_PIXELS, len(start)), np.int32)
    taps = np.zeros(1, np.int64)

    def multiply() -> NDArray[np.int32]:
        places = _places(patch, (1, 1, pixels, depth), (1, pixels), (1, 1))
        _convolve(None if lanes == 16 else lanes, places, taps, factors, start, sums)
        return sums[:pixels, : len(weights)]

    return multiply


def _pack(kernels: NDArray[np.generic], lanes: int) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """Return weights and starts, see `DotConvolution`, of ``(kernels, runs, bytes of a run)``."""
    count, runs, run = kernels.shape
    quads = -(-run // QUAD)
    vectors = -(-count // lanes)
    blocks = -(-vectors // MOST_VECTORS[lanes])
    block = -(-vectors // blocks) * lanes
    padded = np.zeros((blocks * block, runs, quads * QUAD), np.int8)
    padded[:count, :, :run] = kernels
    weights = padded.reshape(blocks, block, runs * quads, QUAD).transpose(0, 2, 1, 3)
    start = -SIGN * padded.sum(axis=(1, 2), dtype=np.int64)
    return np.ascontiguousarray(weights), start.astype(np.int32)


def _taps(operation: ConvOperation, columns: int, channels: int) -> NDArray[np.int64]:
    """Return where each run starts, in bytes behind the first of its window; rows are so many columns long."""
    dilation_y, dilation_x = operation.dilation
    lines = np.arange(operation.kernel_height, dtype=np.int64) * (dilation_y * columns * channels)
    if dilation_x == 1:
        return lines
    cells = np.arange(operation.kernel_width, dtype=np.int64) * (dilation_x * channels)
    return (lines[:, None] + cells).reshape(-1)


@jit
def _places(
    patch: NDArray[np.uint8],
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
            place = patch.ctypes.data + (image * rows + y * stride[0]) * columns * channels
            for x in range(size[1]):
                places[pixel] = place + x * stride[1] * channels
                pixel += 1
    places[pixel:] = places[pixel - 1]
    return places


@jit
def _convolve_512(
    places: NDArray[np.int64],
    taps: NDArray[np.int64],
    weights: NDArray[np.int8],
    start: NDArray[np.int32],
    sums: NDArray[np.int32],
) -> None:
    """Convolve by vectors of 16 lanes."""
    blocks, steps, kernels, _ = weights.shape
    pixels, pitch = places.size - MOST_PIXELS, 4 * sums.shape[1]
    runs, quads = taps.size, steps // taps.size
    near, far = places.ctypes.data, taps.ctypes.data
    for block in range(blocks):
        factors = weights.ctypes.data + block * steps * kernels * QUAD
        first = start.ctypes.data + 4 * block * kernels
        to = sums.ctypes.data + 4 * block * kernels
        if kernels == 64:
            for p in range(0, pixels, 6):
                dot_tile(16, 6, 4, near + 8 * p, far, runs, quads, factors, first, to + p * pitch, pitch)
        elif kernels == 48:
            for p in range(0, pixels, 8):
                dot_tile(16, 8, 3, near + 8 * p, far, runs, quads, factors, first, to + p * pitch, pitch)
        elif kernels == 32:
            for p in range(0, pixels, 12):
                dot_tile(16, 12, 2, near + 8 * p, far, runs, quads, factors, first, to + p * pitch, pitch)
        else:
            for p in range(0, pixels, 12):
                dot_tile(16, 12, 1, near + 8 * p, far, runs, quads, factors, first, to + p * pitch, pitch)


@jit
def _convolve_256(
    places: NDArray[np.int64],
    taps: NDArray[np.int64],
    weights: NDArray[np.int8],
    start: NDArray[np.int32],
    sums: NDArray[np.int32],
) -> None:
    """Convolve by vectors of 8 lanes."""
    blocks, steps, kernels, _ = weights.shape
    pixels, pitch = places.size - MOST_PIXELS, 4 * sums.shape[1]
    runs, quads = taps.size, steps // taps.size
    near, far = places.ctypes.data, taps.ctypes.data
    for block in range(blocks):
        factors = weights.ctypes.data + block * steps * kernels * QUAD
        first = start.ctypes.data + 4 * block * kernels
        to = sums.ctypes.data + 4 * block * kernels
        if kernels == 16:
            for p in range(0, pixels, 6):
                dot_tile(8, 6, 2, near + 8 * p, far, runs, quads, factors, first, to + p * pitch, pitch)
        else:
            for p in range(0, pixels, 12):
                dot_tile(8, 12, 1, near + 8 * p, far, runs, quads, factors, first, to + p * pitch, pitch)


@jit
def _convolve(
    narrow: int | None,
    places: NDArray[np.int64],
    taps: NDArray[np.int64],
    weights: NDArray[np.int8],
    start: NDArray[np.int32],
    sums: NDArray[np.int32],
) -> None:
    """Convolve by vectors of 16 lanes, or of 8 where `narrow` is not None; numba leaves the other out."""
    if narrow is None:
        _convolve_512(places, taps, weights, start, sums)
    else:
        _convolve_256(places, taps, weights, start, sums)
