"""Convolutions in fp16, bit for bit: in which order the hardware adds what, for features and for images.

The order decides (docs/hardware/convolution.md, "Order"). Features: blocks of 64 channels, then kernel rows, then
columns; one position of the kernel is a step. Images: a kernel row is one vector of ``width * 4 + c`` channels, taken
64 at a time, and ``2**post_extension`` rows make a step. Facts: nvdla/hw ``cmod/csc/NV_NVDLA_csc.cpp``.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.fp16.booth import KERNELS
from nvdla_quant.emulator.fp16.mac import DIRECT, MAX_LANES, convolve, weight_blocks
from nvdla_quant.emulator.integer.conv import reader_of
from nvdla_quant.emulator.operations import ConvOperation, Cube
from nvdla_quant.emulator.tiles import Reader, Tile, Tiling, plan
from nvdla_quant.emulator.weights import unpack_weights
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import Target

PIXEL_BYTES = 1024
"""Bytes that a pixel takes while it is worked on, roughly: accumulators of 16 kernels, its data, its results."""


@dataclass(frozen=True, eq=False)
class ExactConvolution:
    """A convolution, ready to run.

    Attributes
    ----------
    operation : ConvOperation
        What it computes.
    reader : Reader
        Its source.
    lanes : NDArray[np.int64]
        Kernel row, kernel column and channel, ``(lanes, 3)``, in the order of the steps.
    steps : NDArray[np.int64]
        First lane of each step, and the end.
    weights : NDArray[np.uint16]
        Bits, ``(blocks, lanes, 16)``.
    tiling : Tiling
        How its output is cut.
    """

    operation: ConvOperation
    reader: Reader
    lanes: NDArray[np.int64]
    steps: NDArray[np.int64]
    weights: NDArray[np.uint16]
    tiling: Tiling

    def of(self, source: Cube) -> "ExactConvolution":
        """Return the same convolution of another cube of the batch."""
        return replace(self, reader=replace(self.reader, cube=source))

    def accumulate(self, source: NDArray[np.int8], tile: Tile) -> NDArray[np.uint32]:
        """Return what the accumulator hands over: fp32 bits, ``(images, rows, columns, kernels)``.

        Parameters
        ----------
        source : NDArray[np.int8]
            Memory of the source, ``(n, bytes)``.
        tile : Tile
            Images and output rows.
        """
        op = self.operation
        (stride_y, stride_x), (dilation_y, dilation_x) = op.stride, op.dilation
        rows = (tile.rows - 1) * stride_y + (op.kernel_height - 1) * dilation_y + 1
        columns = (op.out_width - 1) * stride_x + (op.kernel_width - 1) * dilation_x + 1
        channels = self.reader.channels
        patch = np.empty((tile.images, rows, columns, channels), np.float16)
        self.reader.read_halves(source, tile.first, tile.row * stride_y - op.pad_top, -op.pad_left, patch)
        image, y, x = np.ogrid[: tile.images, : tile.rows, : op.out_width]
        pixels = ((image * rows + y * stride_y) * columns + x * stride_x) * channels
        row, column, channel = self.lanes.T
        lanes = (row * dilation_y * columns + column * dilation_x) * channels + channel
        sums = np.empty((pixels.size, 1, self.weights.shape[0] * KERNELS), np.uint32)
        convolve(patch.view(np.uint16).reshape(-1), pixels.reshape(-1), lanes, self.steps, self.weights, DIRECT, sums)
        return sums[:, 0, : op.out_channels].reshape(tile.images, tile.rows, op.out_width, op.out_channels)


def prepare_exact(operation: ConvOperation, packed: NDArray[np.uint8], target: Target) -> ExactConvolution:
    """Unpack the weights of `operation` from the bytes of its window and lay them out in the order of the steps.

    Raises
    ------
    EmulationError
        Rows are joined that do not fit into a step; the hardware demands that they do.
    """
    kernels = np.asarray(unpack_weights(operation, packed, target))
    steps = _image_steps(operation) if operation.pixels is not None else _feature_steps(operation)
    longest = max(map(len, steps))
    if longest > MAX_LANES:
        raise EmulationError(
            f"operation {operation.index} ({operation.unit}): post_extension {operation.post_extension} joins "
            f"{longest} channels in a step, which takes {MAX_LANES}"
        )
    lanes = np.concatenate(steps)
    row, column, channel = lanes.T
    weights = weight_blocks(kernels[:, row, column, channel].view(np.uint16))
    reader = reader_of(operation, np.arange(operation.channels))
    edges = np.cumsum([0, *map(len, steps)])
    tiling = plan(operation.out_height, operation.out_width, PIXEL_BYTES)
    return ExactConvolution(operation, reader, lanes, edges, weights, tiling)


def _feature_steps(operation: ConvOperation) -> list[NDArray[np.int64]]:
    channels = operation.source.channels
    return [
        np.array([(row, column, channel) for channel in range(first, min(first + MAX_LANES, channels))])
        for first in range(0, channels, MAX_LANES)
        for row in range(operation.kernel_height)
        for column in range(operation.kernel_width)
    ]


def _image_steps(operation: ConvOperation) -> list[NDArray[np.int64]]:
    components, joined = operation.channels, 1 << operation.post_extension
    length = operation.kernel_width * components
    return [
        np.array(
            [
                (row, place // components, place % components)
                for row in range(top, min(top + joined, operation.kernel_height))
                for place in range(first, min(first + MAX_LANES, length))
            ]
        )
        for first in range(0, length, MAX_LANES)
        for top in range(0, operation.kernel_height, joined)
    ]
