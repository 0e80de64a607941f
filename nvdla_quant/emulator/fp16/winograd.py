"""Winograd convolutions in fp16, bit for bit: 3 x 3 kernels on tiles of 4 x 4 inputs and 2 x 2 outputs.

The input's transform is made of additions in fp17, rows before columns, each rounded, and becomes fp16 again; the
shift of the integers does nothing. A step of the MAC array takes 4 channels of all 16 points of a tile; its products,
aligned to the largest of the step, are added with the signs of the output's transform, and each of the four sums goes
to an accumulator of its own. Channels come in the order of `WinogradConvolution`. Facts: nvdla/hw
``hls/csc_libs/csc_cvt.cpp``, ``cmod/csc`` (``SendDataToMacSequencerWinoConvCommon``) and ``cmod/cmac/NV_NVDLA_cmac.h``
(``calculation_fp16``).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.fp16.booth import KERNELS
from nvdla_quant.emulator.fp16.floats import add, fp17_to_half, half_to_fp17, negate, word
from nvdla_quant.emulator.fp16.mac import MAX_LANES, convolve, weight_blocks
from nvdla_quant.emulator.integer.winograd import OUTPUT
from nvdla_quant.emulator.operations import ConvOperation, Cube
from nvdla_quant.emulator.tiles import Reader, Tile, Tiling, plan
from nvdla_quant.emulator.weights import unpack_weights
from nvdla_quant.hardware.targets import Target

PAIRS = np.array([[0, 2, 1], [1, 2, 0], [2, 1, 1], [1, 3, 1]])
"""The input's transform: which two of four rows, or columns, and whether the second is subtracted (csc_cvt.cpp)."""
STEP_CHANNELS = 4
"""Channels of a step: with 16 points of a tile they fill the MAC array."""
SIGNS = np.repeat(np.kron(OUTPUT, OUTPUT).astype(np.int32), STEP_CHANNELS, axis=1)
"""With which sign each lane of a step enters each of the four outputs, ``(4, 64)``."""


@dataclass(frozen=True, eq=False)
class ExactWinograd:
    """A Winograd convolution in fp16, ready to run; see `ExactConvolution`.

    Attributes
    ----------
    weights : NDArray[np.uint16]
        Bits, ``(blocks, lanes, 16)``; lanes are (step, point, channel of the step).
    """

    operation: ConvOperation
    reader: Reader
    weights: NDArray[np.uint16]
    tiling: Tiling

    def of(self, source: Cube) -> "ExactWinograd":
        """Return the same convolution of another cube of the batch."""
        return replace(self, reader=replace(self.reader, cube=source))

    def accumulate(self, source: NDArray[np.int8], tile: Tile) -> NDArray[np.uint32]:
        """Return the accumulators of a tile; see `ExactConvolution.accumulate`."""
        op, channels = self.operation, self.reader.channels
        stride_y, stride_x = op.stride
        rows, columns = tile.rows + 2, op.out_width + 2
        patch = np.empty((tile.images, rows * stride_y, columns * stride_x, channels), np.float16)
        self.reader.read_halves(source, tile.first, tile.row * stride_y - op.pad_top, -op.pad_left, patch)
        split = patch.view(np.uint16).reshape(tile.images, rows, stride_y, columns, stride_x, channels)
        extended = np.ascontiguousarray(split.transpose(0, 1, 3, 2, 4, 5)).reshape(tile.images, rows, columns, -1)
        shape = tile.images, tile.rows // 2, op.out_width // 2
        points = np.empty((*shape, op.channels // STEP_CHANNELS, 4, 4, STEP_CHANNELS), np.uint16)
        _transform(extended, points)
        steps = np.arange(0, op.channels // STEP_CHANNELS + 1) * MAX_LANES
        starts = np.arange(points.size // steps[-1]) * steps[-1]
        sums = np.empty((len(starts), len(SIGNS), self.weights.shape[0] * KERNELS), np.uint32)
        convolve(points.reshape(-1), starts, np.arange(steps[-1]), steps, self.weights, SIGNS, sums)
        tiles = sums[:, :, : op.out_channels].reshape(*shape, 2, 2, op.out_channels)
        return tiles.transpose(0, 1, 3, 2, 4, 5).reshape(tile.images, tile.rows, op.out_width, op.out_channels)


def prepare_exact_winograd(operation: ConvOperation, packed: NDArray[np.uint8], target: Target) -> ExactWinograd:
    """Unpack the transformed weights of `operation` and lay them out in the order of the steps."""
    kernels = np.asarray(unpack_weights(operation, packed, target))
    steps = kernels.reshape(operation.out_channels, 16, -1, STEP_CHANNELS).transpose(0, 2, 1, 3)
    weights = weight_blocks(steps.reshape(operation.out_channels, -1).view(np.uint16))
    reader = Reader(operation.source.parts[0], np.dtype(np.float16), None, float(operation.pad_value))
    bytes_per_pixel = 16 * (operation.channels + operation.out_channels) + 16 * KERNELS
    tiling = plan(operation.out_height, operation.out_width, bytes_per_pixel)
    return ExactWinograd(operation, reader, weights, replace(tiling, rows=max(tiling.rows // 2 * 2, 2)))


@jit
def _transform(patch: NDArray[np.uint16], points: NDArray[np.uint16]) -> None:
    """Transform each tile of ``(images, rows, columns, channels)`` into ``(..., step, 4, 4, channel of the step)``."""
    rows, columns = np.empty((4, 4), np.int64), np.empty((4, 4), np.int64)
    for image in range(points.shape[0]):
        for y in range(points.shape[1]):
            for x in range(points.shape[2]):
                for channel in range(patch.shape[3]):
                    window = patch[image, 2 * y : 2 * y + 4, 2 * x : 2 * x + 4, channel]
                    for i in range(4):
                        first, second, subtracts = PAIRS[i]
                        for j in range(4):
                            a, b = half_to_fp17(word(window[first, j])), half_to_fp17(word(window[second, j]))
                            rows[i, j] = add(a, negate(b, 6, 10) if subtracts else b, 6, 10)
                    for j in range(4):
                        first, second, subtracts = PAIRS[j]
                        for i in range(4):
                            a, b = rows[i, first], rows[i, second]
                            columns[i, j] = add(a, negate(b, 6, 10) if subtracts else b, 6, 10)
                    step, place = channel // STEP_CHANNELS, channel % STEP_CHANNELS
                    for i in range(4):
                        for j in range(4):
                            points[image, y, x, step, i, j, place] = fp17_to_half(columns[i, j])
