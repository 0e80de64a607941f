"""Winograd convolutions, int8 and int16 (fp16: `fp16_winograd`): 3 x 3 kernels, tiles of 4 x 4 inputs, 2 x 2 outputs.

Rules: docs/hardware/convolution.md, "Winograd".
Facts: nvdla/hw ``cmod/cdma`` (strides become channels, padding before the transform), ``hls/csc_libs/csc_cvt.cpp`` (the
input's transform with its rounding), ``cmod/csc`` (order) and ``cmac/NV_NVDLA_cmac.h`` (products and the output's
transform). Weights are stored transformed. The array adds 4 channels at a time and transforms each of these sums; as
the transform is linear and at most 8192 channels of 16-bit products stay below 2**47, where the accumulator would
saturate, it is applied to the whole sum here.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.integer.rounding import shift_right
from nvdla_quant.emulator.operations import ConvOperation, Cube, element_type
from nvdla_quant.emulator.tiles import Reader, Tile, Tiling, Workspace, plan
from nvdla_quant.hardware.targets import Precision

INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.int64)
"""Transform of the input's rows, and of its columns (csc_cvt.cpp)."""
OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float64)
"""Transform of the output's rows, and of its columns (``cmod/cmac/NV_NVDLA_cmac.h``, phases 2 and 3)."""


@dataclass(frozen=True, eq=False)
class WinogradConvolution:
    """A Winograd convolution, ready to run; see `Convolution`.

    Attributes
    ----------
    weights : NDArray[np.float64]
        ``(4, 4, channels, kernels)``, transformed.
    """

    operation: ConvOperation
    reader: Reader
    weights: NDArray[np.float64]
    bound: int
    tiling: Tiling

    def of(self, source: Cube) -> "WinogradConvolution":
        """Return the same convolution of another cube of the batch."""
        return replace(self, reader=replace(self.reader, cube=source))

    def accumulate(self, source: NDArray[np.int8], tile: Tile, workspace: Workspace) -> NDArray[np.float64]:
        """Return the accumulators of a tile as ``(1, pixels, kernels)``; see `Convolution.accumulate`."""
        op, channels = self.operation, self.reader.channels
        stride_y, stride_x = op.stride
        rows, columns = tile.rows + 2, op.out_width + 2
        patch = workspace.take("patch", tile.images, rows * stride_y, columns * stride_x, channels, dtype=np.float32)
        self.reader.read(source, tile.first, tile.row * stride_y - op.pad_top, -op.pad_left, patch)
        split = patch.reshape(tile.images, rows, stride_y, columns, stride_x, channels).astype(np.int64)
        extended = split.transpose(0, 1, 3, 2, 4, 5).reshape(tile.images, rows, columns, -1)
        windows = np.lib.stride_tricks.sliding_window_view(extended, (4, 4), (1, 2))[:, ::2, ::2]
        # (images, tile rows, tile columns, channels, 4, 4)
        assert op.winograd_shift is not None
        bits = 8 if op.precision is Precision.INT8 else 16
        transformed = shift_right(INPUT @ windows @ INPUT.T, op.winograd_shift, bits).astype(np.float64)
        points = transformed.transpose(4, 5, 0, 1, 2, 3).reshape(4, 4, -1, transformed.shape[3])
        products = (points @ self.weights).transpose(2, 3, 0, 1)
        # (tiles, kernels, 2, 2) -> (images, tile rows, 2, tile columns, 2, kernels)
        tiles = (OUTPUT @ products @ OUTPUT.T).reshape(*windows.shape[:3], op.out_channels, 2, 2)
        return tiles.transpose(0, 1, 4, 2, 5, 3).reshape(1, -1, op.out_channels)


def prepare_winograd(operation: ConvOperation, kernels: NDArray[np.generic]) -> WinogradConvolution:
    """Lay out transformed ``(kernels, 4, 4, channels)`` for matrix products."""
    weights = np.ascontiguousarray(kernels.transpose(1, 2, 3, 0).astype(np.float64))
    dtype = element_type(operation.precision)
    largest = 1 << (8 * dtype.itemsize - 1)
    bound = int(np.abs(weights).sum(axis=2).max()) * largest * 9
    reader = Reader(operation.source.parts[0], dtype, None, float(operation.pad_value))
    bytes_per_pixel = 3 * 4 * 8 * (operation.channels + operation.out_channels)
    tiling = plan(operation.out_height, operation.out_width, bytes_per_pixel)
    even = replace(tiling, rows=max(tiling.rows // 2 * 2, 2))
    return WinogradConvolution(operation, reader, weights, bound, even)
