"""Packing: weights and operands in the byte order that the hardware reads (docs/hardware/weights.md)."""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.hardware.cbuf import IMAGE_CHANNELS, round_up
from nvdla_quant.hardware.targets import Target


def pack_weights(weights: NDArray[np.generic], target: Target) -> bytes:
    """Kernels for a feature cube.

    Groups of kernels; in each, blocks of channels; in each, kernel rows, columns, kernels, channels. Short groups and
    blocks are not padded; zeros fill up the last CBUF entry.

    Parameters
    ----------
    weights : NDArray
        (outputs, inputs, height, width), int8 or float16.
    target : Target
        The hardware.
    """
    size = weights.dtype.itemsize
    kernels, channels, _, _ = weights.shape
    group, block = target.kernels_per_group(size), target.atomic_c
    whole = channels // block * block
    parts = []
    for first in range(0, kernels, group):
        chosen = weights[first : first + group]
        blocks = chosen[:, :whole].reshape(len(chosen), whole // block, block, *weights.shape[2:])
        parts.append(blocks.transpose(1, 3, 4, 0, 2).tobytes())
        parts.append(chosen[:, whole:].transpose(2, 3, 0, 1).tobytes())
    return _fill(b"".join(parts), target)


def pack_image_weights(weights: NDArray[np.generic], target: Target, post_extension: int) -> bytes:
    """Kernels for an image: the pixels of a kernel row are one vector of channels, four components each.

    Parameters
    ----------
    weights : NDArray
        (outputs, inputs up to 4, height, width), int8 or float16.
    target : Target
        The hardware.
    post_extension : int
        Log2 of the kernel rows that stand together; the rows that are left at the end are a shorter group.
    """
    kernels, channels, height, width = weights.shape
    padded = np.zeros((kernels, height, width, IMAGE_CHANNELS), dtype=weights.dtype)
    padded[..., :channels] = weights.transpose(0, 2, 3, 1)
    vectors = padded.reshape(kernels, height, width * IMAGE_CHANNELS)
    if post_extension == 0:
        return pack_weights(vectors.transpose(0, 2, 1)[..., np.newaxis], target)
    group, rows = target.kernels_per_group(weights.dtype.itemsize), 1 << post_extension
    parts = [
        vectors[first : first + group, row : row + rows].tobytes()
        for first in range(0, kernels, group)
        for row in range(0, height, rows)
    ]
    return _fill(b"".join(parts), target)


def pack_operands(operands: NDArray[np.generic], element_bytes: int, target: Target) -> bytes:
    """One operand, or a pair, for each channel, zeros for those that fill up the last atom.

    The SDP reads whole atoms and writes what it makes of the surplus channels. A convolution that reads them as
    channels has zero weights for them, which is not enough in fp16: nothing times NaN is 0.

    Parameters
    ----------
    operands : NDArray
        (channels,) or (channels, 2), int16 or float16.
    element_bytes : int
        Bytes of an element of the tensor that they work on.
    target : Target
        The hardware.
    """
    channels = round_up(len(operands), target.feature_atom_bytes // element_bytes)
    return operands.tobytes().ljust(operands.nbytes // len(operands) * channels, b"\0")


def _fill(packed: bytes, target: Target) -> bytes:
    return packed.ljust(round_up(len(packed), target.cbuf_entry_bytes), b"\0")
