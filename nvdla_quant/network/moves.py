"""Operations that only move values: crops, and exchanges of pixels and channels.

The number of a *place* in a block is that of PyTorch's ``pixel_unshuffle``: (channel * height + row) * width + column,
of the image's channel and of the row and column in a block of height x width pixels.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]


@dataclass(frozen=True)
class Crop:
    """A rectangle of the input: (first, how many) of its rows and of its columns, in all channels."""

    kind: ClassVar[str] = "Crop"
    rows: Pair
    columns: Pair


@dataclass(frozen=True)
class SpaceToDepth:
    """Blocks of pixels as channels: channel n has place `channels[n]` of every block of `block` (rows, columns).

    ONNX's operator of the name has another order than PyTorch's ``pixel_unshuffle``; see `onnx_order`.
    """

    kind: ClassVar[str] = "SpaceToDepth"
    block: Pair
    channels: tuple[int, ...]


@dataclass(frozen=True)
class DepthToSpace:
    """Channels as blocks of pixels: place n of every block of `block` (rows, columns) is channel `channels[n]`.

    ONNX has two orders: ``CRD`` is that of PyTorch's ``pixel_shuffle``, ``DCR`` is `onnx_order`, inverted.
    """

    kind: ClassVar[str] = "DepthToSpace"
    block: Pair
    channels: tuple[int, ...]


def onnx_order(channels: int, block: Pair) -> tuple[int, ...]:
    """Return the places of a block as ONNX's SpaceToDepth has them: by row, column and channel, the channel innermost.

    (ONNX operator specification, SpaceToDepth-13.)

    Parameters
    ----------
    channels : int
        Channels of the image.
    block : Pair
        Height and width of a block.
    """
    places = np.arange(channels * block[0] * block[1]).reshape(channels, *block)
    return tuple(places.transpose(1, 2, 0).ravel().tolist())


def inverted(order: tuple[int, ...]) -> tuple[int, ...]:
    """Return where each number stands in `order`, which has each once."""
    return tuple(np.argsort(order).tolist())


def picked(operation: SpaceToDepth, channels: int) -> NDArray[np.float32]:
    """Return the kernels of the convolution that does this, its stride the block: each takes one value.

    Parameters
    ----------
    operation : SpaceToDepth
        The operation.
    channels : int
        Channels that it reads.

    Returns
    -------
    NDArray[float32], shape (outputs, channels, rows, columns)
        1 where an output takes a value, else 0.
    """
    outputs = len(operation.channels)
    kernels = np.zeros((outputs, channels * operation.block[0] * operation.block[1]), np.float32)
    kernels[np.arange(outputs), operation.channels] = 1
    return kernels.reshape(outputs, channels, *operation.block)


def spread(operation: DepthToSpace) -> NDArray[np.float32]:
    """Return the kernels of the deconvolution that does this, its stride the block: each input makes one value.

    Returns
    -------
    NDArray[float32], shape (inputs, outputs, rows, columns)
        1 where an input makes a value, else 0.
    """
    inputs = len(operation.channels)
    kernels = np.zeros((inputs, inputs), np.float32)
    kernels[operation.channels, np.arange(inputs)] = 1
    return kernels.reshape(inputs, -1, *operation.block)
