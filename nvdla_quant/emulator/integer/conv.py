"""The convolution core: weights unpacked once, then matrix products that are exact for integers.

A product of float32 matrices of integers is exact while every partial sum stays within 2**24, whatever the order of
summation. The bound follows from the weights themselves (the sum of their magnitudes for each kernel), and where one
product would exceed it the reduction is split. Int16 takes float64, whose 2**53 no convolution reaches.
Arithmetic: docs/hardware/convolution.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.integer.dots import DotConvolution, prepare_dots
from nvdla_quant.emulator.integer.kernels import DOTS, chosen_kernel
from nvdla_quant.emulator.integer.winograd import WinogradConvolution, prepare_winograd
from nvdla_quant.emulator.operations import ConvOperation, Cube, element_type
from nvdla_quant.emulator.pixels import lanes_of, source_type
from nvdla_quant.emulator.tiles import Reader, Tile, Tiling, Workspace, plan
from nvdla_quant.emulator.weights import unpack_weights
from nvdla_quant.hardware.targets import Precision, Target

EXACT = 1 << 24
"""Integers up to this magnitude are exact in float32."""
MAC_INFINITY = np.float32(65536)
"""What the MAC array takes an infinite half for (docs/hardware/fp16.md, "MAC array")."""
MAX_INPUT = 128
"""Largest magnitude of an int8 input."""
MAX_INPUT16 = 1 << 15
"""Largest magnitude of an int16 input."""
INT32_LIMIT = 1 << 31
"""Sums below this are int32."""
ACCUMULATOR_LIMIT = 1 << 47
"""The accumulator saturates to signed 48 bits at every step (docs/hardware/convolution.md, "Accumulator")."""
Sums = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution, ready to run.

    Attributes
    ----------
    operation : ConvOperation
        What it computes.
    reader : Reader
        Its source.
    weights : tuple[Sums, ...]
        Blocks of the ``(K, kernels)`` matrix; K runs over (kernel row, kernel column, channel). Float64 in int16.
    bound : int
        Largest magnitude that the accumulator can reach (integers).
    tiling : Tiling
        How its output is cut.
    steps : tuple[NDArray[np.intp], ...]
        The rows of the matrix that each step of the MAC array takes, where the accumulator might saturate in between.
    """

    operation: ConvOperation
    reader: Reader
    weights: tuple[Sums, ...]
    bound: int
    tiling: Tiling
    steps: tuple[NDArray[np.intp], ...] = ()

    def of(self, source: Cube) -> "Convolution":
        """Return the same convolution of another cube of the batch."""
        return replace(self, reader=replace(self.reader, cube=source))

    def accumulate(self, source: NDArray[np.int8], tile: Tile, workspace: Workspace) -> Sums:
        """Return the accumulators of a tile as partial sums ``(blocks, pixels, kernels)``.

        Parameters
        ----------
        source : NDArray[np.int8]
            Memory of the source, ``(n, bytes)``.
        tile : Tile
            Images and output rows.
        workspace : Workspace
            Scratch; the result lies in it.
        """
        op, channels = self.operation, self.reader.channels
        stride_y, stride_x = op.stride
        dilation_y, dilation_x = op.dilation
        rows = (tile.rows - 1) * stride_y + (op.kernel_height - 1) * dilation_y + 1
        columns = (op.out_width - 1) * stride_x + (op.kernel_width - 1) * dilation_x + 1
        pixels = tile.images * tile.rows * op.out_width
        depth = op.kernel_height * op.kernel_width * channels
        patch = workspace.take("patch", tile.images, rows, columns, channels, dtype=np.float32)
        corner = tile.row * stride_y - op.pad_top, -op.pad_left
        self.reader.read(source, tile.first, *corner, patch)
        if op.precision is Precision.FP16:
            np.clip(patch, -MAC_INFINITY, MAC_INFINITY, out=patch)
        pointwise = op.kernel_height * op.kernel_width == 1 and op.stride == (1, 1)
        whole = tile.rows * op.out_width == 1 and (rows, columns) == (op.kernel_height, op.kernel_width)
        if pointwise or whole:
            # The patch already is the matrix.
            matrix = patch.reshape(pixels, depth)
        else:
            matrix = workspace.take("matrix", pixels, depth, dtype=np.float32)
            _unfold(
                patch.reshape(-1),
                patch.shape,
                op.kernel_height,
                op.kernel_width,
                op.stride,
                op.dilation,
                tile.rows,
                op.out_width,
                matrix,
            )
        if op.precision is Precision.INT16:
            return self._accumulate_wide(matrix.astype(np.float64))[None]
        sums = workspace.take("sums", len(self.weights), pixels, op.out_channels, dtype=np.float32)
        start = 0
        # Loadables may hold fp16 weights that are NaN (uninitialised ones, by NVIDIA's compiler).
        with np.errstate(invalid="ignore", over="ignore"):
            for block, weights in zip(sums, self.weights, strict=True):
                part = matrix[:, start : start + len(weights)]
                if op.precision is Precision.FP16:
                    # How BLAS rounds a row depends on the size of the matrix and the row's place in it: with a product
                    # for each image, results do not depend on the batch.
                    stack = part.reshape(tile.images, -1, len(weights))
                    np.matmul(stack, weights, out=block.reshape(tile.images, -1, op.out_channels))
                else:
                    np.matmul(part, weights, out=block)
                start += len(weights)
        return sums

    def _accumulate_wide(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        (weights,) = self.weights
        if not self.steps:
            product: NDArray[np.float64] = matrix @ weights
            return product
        sums = np.zeros((len(matrix), weights.shape[1]))
        for rows in self.steps:
            np.clip(sums + matrix[:, rows] @ weights[rows], -ACCUMULATOR_LIMIT, ACCUMULATOR_LIMIT - 1, out=sums)
        return sums


AnyConvolution = Convolution | DotConvolution | WinogradConvolution


def prepare(operation: ConvOperation, packed: NDArray[np.uint8], target: Target) -> AnyConvolution:
    """Unpack the weights of `operation` from the bytes of its stream and lay them out for matrix products."""
    kernels = unpack_weights(operation, packed, target)
    if operation.winograd_shift is not None:
        return prepare_winograd(operation, kernels)
    used = np.arange(operation.channels)
    if operation.pixels is not None and operation.precision is not Precision.INT16:
        # Images have components that the network does not take; those that no kernel weighs need no arithmetic.
        weighed = np.flatnonzero(np.any(kernels != 0, axis=(0, 1, 2)))
        used = weighed if len(weighed) else used[:1]
    matrix = kernels[..., used].reshape(operation.out_channels, -1).T
    reader = reader_of(operation, used)
    if operation.precision is Precision.INT16:
        return _prepare_wide(operation, reader, matrix, target)
    if operation.precision is Precision.INT8:
        magnitudes = np.abs(matrix.astype(np.int64))
        bound = int(magnitudes.sum(axis=0).max()) * MAX_INPUT
        kernel = chosen_kernel()
        if kernel in DOTS and bound < INT32_LIMIT:
            return prepare_dots(operation, reader, kernels[..., used], bound, DOTS[kernel])
        edges = _split(magnitudes)
    else:
        edges, bound = [0, len(matrix)], 0
    floats = np.ascontiguousarray(np.clip(matrix.astype(np.float32), -MAC_INFINITY, MAC_INFINITY))
    blocks = tuple(np.ascontiguousarray(floats[a:b]) for a, b in pairwise(edges))
    bytes_per_pixel = 4 * (len(matrix) + len(blocks) * operation.out_channels)
    tiling = plan(operation.out_height, operation.out_width, bytes_per_pixel)
    return Convolution(operation, reader, blocks, bound, tiling)


def reader_of(operation: ConvOperation, used: NDArray[np.intp]) -> Reader:
    """Return how to read the channels `used` of the source of `operation`, the first of a batch."""
    dtype = element_type(source_type(operation))
    return Reader(operation.source.parts[0], dtype, lanes_of(operation, used), float(operation.pad_value))


def _prepare_wide(operation: ConvOperation, reader: Reader, matrix: NDArray[np.generic], target: Target) -> Convolution:
    weights = np.ascontiguousarray(matrix.astype(np.float64))
    bound = int(np.abs(weights).sum(axis=0).max()) * MAX_INPUT16
    tiling = plan(operation.out_height, operation.out_width, 12 * len(matrix) + 8 * operation.out_channels)
    steps = tuple(_steps(operation, target)) if bound >= ACCUMULATOR_LIMIT else ()
    return Convolution(operation, reader, (weights,), bound, tiling, steps)


def _steps(operation: ConvOperation, target: Target) -> Iterator[NDArray[np.intp]]:
    """Yield the rows of the matrix that the MAC array takes at once (docs/hardware/convolution.md, "Order")."""
    image = operation.pixels is not None
    width = 1 if image else operation.kernel_width
    channels = operation.channels * (operation.kernel_width if image else 1)
    height, joined = operation.kernel_height, 1 << operation.post_extension
    rows = np.arange(height * width * channels).reshape(height, width, channels)
    for c in range(0, channels, target.atomic_c):
        for r in range(0, height, joined):
            for x in range(width):
                yield rows[r : r + joined, x, c : c + target.atomic_c].reshape(-1)


def _split(magnitudes: NDArray[np.int64]) -> list[int]:
    """Return edges of the fewest equal blocks of rows in which no sum of products can exceed `EXACT`."""
    depth = len(magnitudes)
    for blocks in range(1, depth + 1):
        edges = np.linspace(0, depth, blocks + 1).astype(np.int64)
        if np.add.reduceat(magnitudes, edges[:-1], axis=0).max() * MAX_INPUT <= EXACT:
            return [int(edge) for edge in edges]
    raise AssertionError("one row is at most 128 * 128")


@jit
def _unfold(
    patch: NDArray[np.float32],
    shape: tuple[int, int, int, int],
    kernel_height: int,
    kernel_width: int,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    out_rows: int,
    out_columns: int,
    matrix: NDArray[np.float32],
) -> None:
    """Write one matrix row (kernel row, kernel column, channel) for each output pixel (im2col)."""
    images, rows, columns, channels = shape
    # Without dilation a kernel row is one run of the patch.
    runs = 1 if dilation[1] == 1 else kernel_width
    length = kernel_width * channels if dilation[1] == 1 else channels
    pixel = 0
    for image in range(images):
        for y in range(out_rows):
            for x in range(out_columns):
                row = matrix[pixel]
                place = 0
                for ky in range(kernel_height):
                    line = (image * rows + y * stride[0] + ky * dilation[0]) * columns + x * stride[1]
                    for run in range(runs):
                        start = (line + run * dilation[1]) * channels
                        # Loops over slices, here and below: numba vectorises only indices that cannot be negative.
                        source, target = patch[start : start + length], row[place : place + length]
                        for i in range(length):
                            target[i] = source[i]
                        place += length
                pixel += 1
