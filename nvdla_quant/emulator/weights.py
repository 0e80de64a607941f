"""Unpack the weights of a convolution from their streams (docs/hardware/weights.md)."""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import ConvOperation, element_type
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import Target

WINOGRAD_TILE = 4
"""Rows and columns of a transformed kernel, and channels of one step (nvdla/hw ``cmod/csc``)."""


def unpack_weights(operation: ConvOperation, packed: NDArray[np.uint8], target: Target) -> NDArray[np.generic]:
    """Return uncompressed weights as ``(kernels, kernel_height, kernel_width, channels)``.

    The stream is: kernel group, channel block, row group (``2**post_extension`` rows), column, kernel, row, channel.
    Partial groups and blocks are shorter, not padded. An image's kernel row is one vector of ``width * channels + c``.
    In Winograd's stream a block has 4 channels, and all 4 x 4 points of a kernel stand together, channels last.
    """
    dtype = element_type(operation.precision)
    values = np.ascontiguousarray(packed).view(dtype)
    group = target.kernels_per_group(dtype.itemsize)
    height, width, channels = operation.kernel_height, operation.kernel_width, operation.channels
    if operation.winograd_shift is not None:
        return _unpack_winograd(operation, values, group)
    if operation.pixels is not None:
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
    return kernels.reshape(operation.out_channels, height, operation.kernel_width, operation.channels)


def _unpack_winograd(operation: ConvOperation, values: NDArray[np.generic], group: int) -> NDArray[np.generic]:
    """Return transformed kernels as ``(kernels, 4, 4, channels)``."""
    kernels, channels, side = operation.out_channels, operation.channels, WINOGRAD_TILE
    result = np.empty((kernels, side, side, channels), values.dtype)
    position = 0
    for k in range(0, kernels, group):
        part = result[k : k + group]
        stream = values[position : position + part.size].reshape(channels // side, len(part), side, side, side)
        part[:] = stream.transpose(1, 2, 3, 0, 4).reshape(part.shape)
        position += part.size
    return result


def decompress(
    operation: ConvOperation,
    values: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    sizes: NDArray[np.uint8],
    target: Target,
    where: str,
) -> NDArray[np.uint8]:
    """Return the stream that compressed weights stand for, as bytes.

    Parameters
    ----------
    operation : ConvOperation
        The convolution.
    values : NDArray[np.uint8]
        Bytes of the elements that are not masked out, in the order of the stream.
    mask : NDArray[np.uint8]
        One bit for each element, lowest bit first: 0 where it is zero (WMB).
    sizes : NDArray[np.uint8]
        Bytes of each kernel group, 4 bytes each (WGS).
    target : Target
        Says how many kernels a group has.
    where : str
        Names the operation in errors.

    Raises
    ------
    EmulationError
        The sizes are not those that the mask gives, or `values` ends before: the hardware would wait for ever.
    """
    element = element_type(operation.precision).itemsize
    taps = operation.kernel_height * operation.kernel_width * operation.channels
    kept = np.unpackbits(mask, bitorder="little", count=operation.out_channels * taps).view(bool)
    group = target.kernels_per_group(element) * taps
    counted = [int(kept[start : start + group].sum()) * element for start in range(0, len(kept), group)]
    declared = sizes.view("<u4")[: len(counted)].tolist()
    if declared != counted:
        wrong = next(n for n, pair in enumerate(zip(declared, counted, strict=True)) if pair[0] != pair[1])
        raise EmulationError(
            f"{where}: weight group {wrong} has {declared[wrong]} bytes by the WGS and {counted[wrong]} by the WMB; "
            "expected the same"
        )
    if sum(counted) > len(values):
        raise EmulationError(f"{where}: the WMB asks for {sum(counted)} bytes of weights, {len(values)} are there")
    stream = np.zeros((len(kept), element), np.uint8)
    stream[kept] = values[: sum(counted)].reshape(-1, element)
    return stream.reshape(-1)
