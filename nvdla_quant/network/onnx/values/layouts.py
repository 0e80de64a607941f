"""How the axes of an ONNX value lie in one of our tensors: transposes and reshapes without moving anything.

Our tensors are (channels, height, width) or (features,), one after another for the images of a batch. An axis of an
ONNX value counts through the elements of such a tensor in one or more factors, each a size and a stride, the outer
first; so a ``Transpose`` exchanges axes, and a ``Reshape`` cuts and joins factors. Factors of size 1 are left out,
and what is contiguous is one factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.network.moves import DepthToSpace, SpaceToDepth

Axis = tuple[tuple[int, int], ...]
"""(size, stride) of each factor of an axis, the outer first; strides count elements of our tensor."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class View:
    """An ONNX value as it lies in one of our tensors.

    Attributes
    ----------
    source : str
        Name of our tensor.
    axes : tuple[Axis, ...]
        The value's axes, the batch among them, whose stride is the size of our tensor.
    moved : bool
        Whether axes were exchanged since the tensor was written: a layout, rather than the network's own reshape.
    """

    source: str
    axes: tuple[Axis, ...]
    moved: bool = False

    @property
    def shape(self) -> Shape:
        """Shape of the value."""
        return tuple(prod(size for size, _ in axis) for axis in self.axes)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in the value's own order."""
        flat = joined(self.axes)
        return not flat or (len(flat) == 1 and flat[0][1] == 1)


def plain(sizes: Sequence[int]) -> tuple[Axis, ...]:
    """Axes of a value that lies in its own order."""
    strides = [prod(sizes[index + 1 :]) for index in range(len(sizes))]
    return tuple(_tidy([(size, stride)]) for size, stride in zip(sizes, strides, strict=True))


def along(shape: Sequence[int], channels: int) -> tuple[Axis, ...]:
    """Axes of a value of this shape, with the batch, that lies in one of our tensors with axis `channels` outermost."""
    order = [0, channels, *(axis for axis in range(1, len(shape)) if axis != channels)]
    moved = plain([shape[axis] for axis in order])
    return tuple(moved[order.index(axis)] for axis in range(len(shape)))


def joined(axes: Sequence[Axis]) -> Axis:
    """Factors of several axes as those of one."""
    return _tidy([factor for axis in axes for factor in axis])


def _tidy(factors: Sequence[tuple[int, int]]) -> Axis:
    result: list[tuple[int, int]] = []
    for size, stride in factors:
        if size == 1:
            continue
        if result and result[-1][1] == size * stride:
            result[-1] = (result[-1][0] * size, stride)
        else:
            result.append((size, stride))
    return tuple(result)


def transposed(view: View, order: Sequence[int]) -> View:
    """`view` with its axes in another order."""
    axes = tuple(view.axes[axis] for axis in order)
    return replace(view, axes=axes, moved=view.moved or axes != view.axes)


def reshaped(view: View, shape: Sequence[int]) -> View | None:
    """`view` in another shape of as many elements; None where an axis would be no product of factors."""
    left = list(joined(view.axes))
    axes = []
    for wanted in shape:
        axis: list[tuple[int, int]] = []
        rest = wanted
        while rest > 1:
            size, stride = left.pop(0)
            if rest % size == 0:
                axis.append((size, stride))
                rest //= size
            elif size % rest == 0:
                axis.append((rest, stride * (size // rest)))
                left.insert(0, (size // rest, stride))
                rest = 1
            else:
                return None
        axes.append(_tidy(axis))
    return replace(view, axes=tuple(axes))


def offsets(axis: Axis) -> NDArray[np.int64]:
    """Where the elements of an axis lie, in its order."""
    result = np.zeros(1, np.int64)
    for size, stride in axis:
        result = (result[:, None] + np.arange(size, dtype=np.int64) * stride).ravel()
    return result


def is_batch(axis: Axis, batch: int, elements: int) -> bool:
    """Whether an axis counts through the images of a batch, and through nothing else."""
    return axis == (((batch, elements),) if batch > 1 else ())


def channels_of(view: View, axis: int, elements: int) -> tuple[NDArray[np.int64] | None, int] | None:
    """Which channels the value's channels are, where `axis` is that of its channels.

    Returns
    -------
    (channels, pixels) or None
        Numbers of the channels of a tensor of `pixels` elements a channel, None for all in their order. None alone
        where the values of a channel do not lie together.
    """
    others = [view.axes[index] for index in range(1, len(view.axes)) if index != axis]
    pixels = prod(size for axis_ in others for size, _ in axis_)
    rest = joined(others)
    if rest not in ((), ((pixels, 1),)):
        return None
    found = offsets(view.axes[axis])
    if (found % pixels).any():
        return None
    numbers = found // pixels
    if len(numbers) == elements // pixels and (numbers == np.arange(len(numbers))).all():
        return None, pixels
    return numbers, pixels


def blocks_of(view: View, axis: int, shape: Shape) -> SpaceToDepth | DepthToSpace | None:
    """Which exchange of pixels and channels makes the value of a tensor, whose channels are those of `axis`.

    Parameters
    ----------
    view : View
        The value: a batch and three axes, or there is none.
    axis : int
        Axis of its channels; the other two are rows and columns.
    shape : Shape
        (channels, height, width) of the tensor, or there is none.
    """
    if len(view.axes) != 4 or len(shape) != 3 or axis == 0:
        return None
    rows, columns = (offsets(view.axes[index]) for index in range(1, 4) if index != axis)
    channels = offsets(view.axes[axis])
    return _to_channels(channels, rows, columns, shape) or _to_pixels(channels, rows, columns, shape)


Numbers = NDArray[np.int64]


def _to_channels(channels: Numbers, rows: Numbers, columns: Numbers, shape: Shape) -> SpaceToDepth | None:
    """Return how pixels became channels: rows and columns are every n-th, and a channel begins within a block."""
    _, height, width = shape
    down, across = height // len(rows), width // len(columns)
    every = np.arange(len(rows)) * down * width, np.arange(len(columns)) * across
    filled = len(rows) * down == height and len(columns) * across == width
    if not (filled and np.array_equal(rows, every[0]) and np.array_equal(columns, every[1])):
        return None
    numbers, pixels = np.divmod(channels, height * width)
    y, x = np.divmod(pixels, width)
    if (y >= down).any() or (x >= across).any():
        return None
    places = (numbers * down + y) * across + x
    return SpaceToDepth((down, across), tuple(places.tolist()))


def _to_pixels(channels: Numbers, rows: Numbers, columns: Numbers, shape: Shape) -> DepthToSpace | None:
    """Return how channels became pixels: of n rows one behind the other, each is the same row of other channels."""
    count, height, width = shape
    if len(rows) % height or len(columns) % width or len(channels) * len(rows) * len(columns) != count * height * width:
        return None
    down, across = len(rows) // height, len(columns) // width
    of_rows = rows.reshape(height, down) - np.arange(height)[:, None] * width
    of_columns = columns.reshape(width, across) - np.arange(width)[:, None]
    if (of_rows != of_rows[0]).any() or (of_columns != of_columns[0]).any():
        return None
    begins = channels[:, None, None] + of_rows[0][:, None] + of_columns[0]
    numbers, pixels = np.divmod(begins.ravel(), height * width)
    if pixels.any() or not np.array_equal(np.sort(numbers), np.arange(count)):
        return None
    return DepthToSpace((down, across), tuple(numbers.tolist()))
