"""Constants beside a tensor: one value for all, or one a channel."""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import Weights
from nvdla_quant.network.onnx.values.nodes import Array, Node, constant, finite, shape_of


def one_constant(node: Node) -> tuple[ir.Value, Array, bool] | None:
    """Return the tensor and the constant of a node with two inputs, and whether the constant is the first.

    None where both are tensors.
    """
    first, second = node.input(0), node.input(1)
    if (array := constant(second)) is not None:
        return first, array, False
    if (array := constant(first)) is not None:
        return second, array, True
    return None


def check_broadcast(value: ir.Value, result: ir.Value) -> tuple[int, ...]:
    """Return the shape of a tensor that a constant is combined with, which the constant does not enlarge.

    Raises
    ------
    UnsupportedError
        It does.
    """
    shape = shape_of(value)
    if shape_of(result) != shape:
        raise UnsupportedError(f"a constant enlarges {value.name!r} from {shape} to {shape_of(result)}")
    return shape


def single(array: Array) -> float | None:
    """Return the only value that a constant has, however often; None where it has several."""
    if not array.size or (array.size > 1 and (array != array.ravel()[0]).any()):
        return None
    return float(array.ravel()[0])


def is_scalar(array: Array, shape: tuple[int, ...]) -> bool:
    """Whether a constant is one number for a tensor of this shape, rather than one for each of its one channel."""
    return array.size == 1 and not (1 in shape[1:2] and array.ndim == len(shape) - 1)


def per_channel(array: Array, shape: tuple[int, ...], what: str) -> tuple[int, Weights]:
    """Return the axis of the channels, and the values of a constant that has one for each.

    Parameters
    ----------
    array : NDArray
        The constant; it broadcasts to `shape` as numpy does.
    shape : tuple[int, ...]
        Shape of the tensor, the batch first.
    what : str
        What the constant is, for messages.

    Raises
    ------
    NetworkError
        It does not fit the tensor.
    UnsupportedError
        It has other values from pixel to pixel, or from image to image.
    """
    ends = shape[len(shape) - array.ndim :]
    if array.ndim > len(shape) or any(size not in (1, n) for size, n in zip(array.shape, ends, strict=True)):
        raise NetworkError(f"{what} of shape {array.shape} does not fit {shape}")
    spread: NDArray[np.generic] = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    for axis in range(spread.ndim):  # An axis along which nothing changes says nothing.
        first = spread.take([0], axis)
        if spread.shape[axis] > 1 and (spread == first).all():
            spread = first
    axes = [axis for axis in range(spread.ndim) if spread.shape[axis] > 1]
    if len(axes) > 1 or axes == [0]:
        raise UnsupportedError(
            f"{what} of shape {array.shape} has other values from pixel to pixel of {shape}; NVDLA has one a channel"
        )
    # Where all are the same, the channels are where the constant's own axis is, else where ONNX has them.
    own = [axis + len(shape) - array.ndim for axis in range(array.ndim) if array.shape[axis] > 1]
    channel = axes[0] if axes else own[0] if len(own) == 1 and own[0] else 1
    values = np.broadcast_to(spread.ravel(), (shape[channel],))
    return channel, finite(values, what)
