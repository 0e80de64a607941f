"""The convolution core: weights unpacked once, then matrix products that are exact for int8.

A product of float32 matrices of integers is exact while every partial sum stays within 2**24, whatever the order of
summation. The bound follows from the weights themselves (the sum of their magnitudes for each kernel), and where one
product would exceed it the reduction is split. Arithmetic: arithmetic notes, section 3; packing: section 8.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.operations import ConvOperation
from nvdla_quant.emulator.rounding import shift_right
from nvdla_quant.emulator.tiles import Reader, Tile, Tiling, Workspace, plan
from nvdla_quant.hardware import Precision, Target

EXACT = 1 << 24
"""Integers up to this magnitude are exact in float32."""
MAC_INFINITY = np.float32(65536)
"""What the MAC array takes an infinite half for (arithmetic notes, section 9)."""
MAX_INPUT = 128
"""Largest magnitude of an int8 input."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution, ready to run.

    Attributes
    ----------
    operation : ConvOperation
        What it computes.
    reader : Reader
        Its source.
    weights : tuple[NDArray[np.float32], ...]
        Blocks of the ``(K, kernels)`` matrix; K runs over (kernel row, kernel column, channel).
    bound : int
        Largest magnitude that the accumulator can reach (int8).
    tiling : Tiling
        How its output is cut.
    """

    operation: ConvOperation
    reader: Reader
    weights: tuple[NDArray[np.float32], ...]
    bound: int
    tiling: Tiling

    def accumulate(self, source: NDArray[np.int8], tile: Tile, workspace: Workspace) -> NDArray[np.float32]:
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
        op, channels = self.operation, len(self.reader.channels)
        stride_y, stride_x = op.stride
        dilation_y, dilation_x = op.dilation
        rows = (tile.rows - 1) * stride_y + (op.kernel_height - 1) * dilation_y + 1
        columns = (op.out_width - 1) * stride_x + (op.kernel_width - 1) * dilation_x + 1
        pixels = tile.images * tile.rows * op.out_width
        depth = op.kernel_height * op.kernel_width * channels
        patch = workspace.take("patch", tile.images, rows, columns, channels)
        corner = tile.row * stride_y - op.pad_top, -op.pad_left
        read = self.reader.read_bytes if op.precision is Precision.INT8 else self.reader.read_halves
        read(source, tile.first, *corner, patch)
        if op.precision is Precision.FP16:
            np.clip(patch, -MAC_INFINITY, MAC_INFINITY, out=patch)
        pointwise = op.kernel_height * op.kernel_width == 1 and op.stride == (1, 1)
        whole = tile.rows * op.out_width == 1 and (rows, columns) == (op.kernel_height, op.kernel_width)
        if pointwise or whole:
            # The patch already is the matrix.
            matrix = patch.reshape(pixels, depth)
        else:
            matrix = workspace.take("matrix", pixels, depth)
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
        sums = workspace.take("sums", len(self.weights), pixels, op.out_channels)
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


def prepare(operation: ConvOperation, packed: NDArray[np.uint8], target: Target) -> Convolution:
    """Unpack the weights of `operation` from the bytes of its window and lay them out for matrix products."""
    kernels = unpack_weights(operation, packed, target)
    channels = np.arange(operation.source.channels)
    if operation.image:
        # Images have four components whatever the network takes; those that no kernel weighs need no arithmetic.
        used = np.flatnonzero(np.any(kernels != 0, axis=(0, 1, 2)))
        channels = used if len(used) else channels[:1]
    matrix = kernels[..., channels].reshape(operation.out_channels, -1).T
    reader = Reader(operation.source, channels, _input_table(operation), float(operation.pad_value))
    if operation.precision is Precision.INT8:
        magnitudes = np.abs(matrix.astype(np.int64))
        edges = _split(magnitudes)
        bound = int(magnitudes.sum(axis=0).max()) * MAX_INPUT
    else:
        edges, bound = [0, len(matrix)], 0
    floats = np.ascontiguousarray(np.clip(matrix.astype(np.float32), -MAC_INFINITY, MAC_INFINITY))
    blocks = tuple(np.ascontiguousarray(floats[a:b]) for a, b in pairwise(edges))
    bytes_per_pixel = 4 * (len(matrix) + len(blocks) * operation.out_channels)
    tiling = plan(operation.out_height, operation.out_width, bytes_per_pixel)
    return Convolution(operation, reader, blocks, bound, tiling)


def _split(magnitudes: NDArray[np.int64]) -> list[int]:
    """Return edges of the fewest equal blocks of rows in which no sum of products can exceed `EXACT`."""
    depth = len(magnitudes)
    for blocks in range(1, depth + 1):
        edges = np.linspace(0, depth, blocks + 1).astype(np.int64)
        if np.add.reduceat(magnitudes, edges[:-1], axis=0).max() * MAX_INPUT <= EXACT:
            return [int(edge) for edge in edges]
    raise AssertionError("one row is at most 128 * 128")


def _input_table(operation: ConvOperation) -> NDArray[np.float32] | None:
    """Return what the input converter makes of each byte, or None where it changes nothing.

    ``sat8(sat17(round((x - offset) * scale >> truncate)))``, arithmetic notes section 3.
    """
    raw = np.arange(256, dtype=np.uint8)
    values = (raw.view(np.int8) if operation.signed else raw).astype(np.int64)
    converter = operation.converter
    if converter is None:
        # Without the converter the byte goes on as it is, and the MAC takes it as signed.
        return None
    offset = ((converter.offset & 0xFFFF) ^ 0x8000) - 0x8000
    wide = shift_right((values - offset) * converter.scale, converter.shift, 17)
    table = np.clip(wide, -128, 127).astype(np.float32)
    return None if np.array_equal(table, raw.view(np.int8).astype(np.float32)) else table


def unpack_weights(operation: ConvOperation, packed: NDArray[np.uint8], target: Target) -> NDArray[np.generic]:
    """Return uncompressed direct weights as ``(kernels, kernel_height, kernel_width, channels)``.

    The stream is: kernel group, channel block, row group (``2**post_extension`` rows), column, kernel, row, channel.
    Partial groups and blocks are shorter, not padded. An image's kernel row is one vector of ``width * 4 + c``.
    """
    int8 = operation.precision is Precision.INT8
    values = np.ascontiguousarray(packed).view(np.int8 if int8 else np.float16)
    group = target.kernels_per_group(1 if int8 else 2)
    height, width, channels = operation.kernel_height, operation.kernel_width, operation.source.channels
    if operation.image:
        width, channels = 1, width * channels
    kernels = np.empty((operation.out_channels, height, width, channels), values.dtype)
    joined = 1 << operation.post_extension
    position = 0
    for k in range(0, operation.out_channels, group):
        for c in range(0, channels, target.atomic_c):
            if joined == 1:
                part = kernels[k : k + group, :, :, c : c + target.atomic_c]
                count, _, _, depth = part.shape
                stream = values[position : position + part.size].reshape(height, width, count, depth)
                part[:] = stream.transpose(2, 0, 1, 3)
                position += part.size
                continue
            for r in range(0, height, joined):
                part = kernels[k : k + group, r : r + joined, 0, c : c + target.atomic_c]
                part[:] = values[position : position + part.size].reshape(part.shape)
                position += part.size
    return kernels.reshape(operation.out_channels, height, operation.kernel_width, operation.source.channels)


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
