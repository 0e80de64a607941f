"""Pooling of integers (docs/hardware/pooling.md)."""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.integer.rounding import shift_right
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import PdpOperation
from nvdla_quant.hardware.targets import POOLING_RECIPROCALS
from nvdla_quant.loadable.structs import PoolMode


def pool_bytes(operation: PdpOperation, source: NDArray[np.int8], destination: NDArray[np.int8]) -> None:
    """Pool int8 cubes in device memory; whole atoms are pooled, unused channels included.

    Parameters
    ----------
    operation : PdpOperation
        What to do.
    source, destination : NDArray[np.int8]
        Memories ``(n, bytes)``.
    """
    src, dst = operation.source, operation.destination
    _pool(
        source,
        (src.offset, src.line_stride, src.surface_stride),
        (src.height, src.width),
        destination,
        (dst.offset, dst.line_stride, dst.surface_stride),
        (dst.height, dst.width),
        src.surfaces,
        src.atom,
        int(operation.mode),
        operation.kernel,
        operation.stride,
        (operation.pad_top, operation.pad_left),
        np.array((0, *operation.padding_values), np.int32),
        reciprocals_of(operation),
    )


def reciprocals_of(operation: PdpOperation) -> tuple[int, int]:
    """Return what averages of integers are multiplied by, in 1/65536 (y, x)."""
    height, width = operation.kernel
    return operation.reciprocals or (POOLING_RECIPROCALS[height - 1], POOLING_RECIPROCALS[width - 1])


def pool_values(operation: PdpOperation, values: Values) -> NDArray[np.int16]:
    """Pool ``(n, c, h, w)`` in int16."""
    limits = np.iinfo(np.int16)
    total = _reduce(operation, values.astype(np.int64), limits.min, limits.max)
    if operation.mode is PoolMode.AVERAGE:
        total += _padding(operation)
        for reciprocal in reversed(reciprocals_of(operation)):
            total = shift_right(total * reciprocal, 16, 32)
    return total.astype(np.int16)


def _reduce(operation: PdpOperation, values: NDArray[np.int64], least: int, most: int) -> NDArray[np.int64]:
    """Return sum, maximum or minimum of the real cells of each window."""
    src, dst = operation.source, operation.destination
    (height, width), (stride_y, stride_x) = operation.kernel, operation.stride
    neutral = {PoolMode.AVERAGE: 0, PoolMode.MAX: least, PoolMode.MIN: most}[operation.mode]
    below = max(0, (dst.height - 1) * stride_y + height - operation.pad_top - src.height)
    right = max(0, (dst.width - 1) * stride_x + width - operation.pad_left - src.width)
    pads = ((0, 0), (0, 0), (operation.pad_top, below), (operation.pad_left, right))
    padded = np.pad(values, pads, constant_values=neutral)
    combine = {PoolMode.AVERAGE: np.add, PoolMode.MAX: np.maximum, PoolMode.MIN: np.minimum}[operation.mode]
    result = np.full((*values.shape[:2], dst.height, dst.width), neutral, values.dtype)
    for y in range(height):
        for x in range(width):
            rows = slice(y, y + (dst.height - 1) * stride_y + 1, stride_y)
            columns = slice(x, x + (dst.width - 1) * stride_x + 1, stride_x)
            combine(result, padded[:, :, rows, columns], out=result)
    return result


def _padding(operation: PdpOperation) -> NDArray[np.int64]:
    """Return what the padded cells of each window add to its sum, ``(h, w)``.

    A padded cell of a row counts in each row that exists; a padded row counts as kernel-width cells.
    """
    src, dst = operation.source, operation.destination
    values = np.array((0, *operation.padding_values), np.int64)

    def real(count: int, size: int, stride: int, pad: int, kernel: int) -> NDArray[np.int64]:
        starts = np.arange(count) * stride - pad
        return np.clip(starts + kernel, 0, size) - np.clip(starts, 0, size)

    rows = real(dst.height, src.height, operation.stride[0], operation.pad_top, operation.kernel[0])[:, None]
    columns = real(dst.width, src.width, operation.stride[1], operation.pad_left, operation.kernel[1])[None]
    beside = values[np.minimum(operation.kernel[1] - columns, 7)] * rows
    total: NDArray[np.int64] = beside + values[np.minimum(operation.kernel[0] - rows, 7)] * operation.kernel[1]
    return total


@jit
def _pool(
    source: NDArray[np.int8],
    src_place: tuple[int, int, int],
    src_size: tuple[int, int],
    destination: NDArray[np.int8],
    dst_place: tuple[int, int, int],
    dst_size: tuple[int, int],
    surfaces: int,
    atom: int,
    mode: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    padding: NDArray[np.int32],
    reciprocals: tuple[int, int],
) -> None:
    """Reduce rows first (whole lines, which vectorises), then columns; modes: 0 average, 1 maximum, 2 minimum."""
    length = src_size[1] * atom
    line = np.empty(length, np.int32)
    cell = np.empty(atom, np.int32)
    for image in range(destination.shape[0]):
        memory = source[min(image, source.shape[0] - 1)]
        out = destination[image]
        for surface in range(surfaces):
            for y in range(dst_size[0]):
                top = y * stride[0] - pad[0]
                y0, y1 = max(top, 0), min(top + kernel[0], src_size[0])
                for i in range(length):
                    line[i] = 0 if mode == 0 else (-128 if mode == 1 else 127)
                for sy in range(y0, y1):
                    start = src_place[0] + sy * src_place[1] + surface * src_place[2]
                    # Loops run over slices: numba vectorises only indices that cannot be negative.
                    values = memory[start : start + length]
                    if mode == 0:
                        for i in range(length):
                            line[i] += values[i]
                    elif mode == 1:
                        for i in range(length):
                            line[i] = max(line[i], np.int32(values[i]))
                    else:
                        for i in range(length):
                            line[i] = min(line[i], np.int32(values[i]))
                valid = max(y1 - y0, 0)
                # A padded cell of a row counts in each row that exists; a padded row counts as kernel-width cells.
                below = padding[min(kernel[0] - valid, 7)] * kernel[1]
                for x in range(dst_size[1]):
                    left = x * stride[1] - pad[1]
                    x0, x1 = max(left, 0), min(left + kernel[1], src_size[1])
                    to = dst_place[0] + y * dst_place[1] + surface * dst_place[2] + x * atom
                    beside = padding[min(kernel[1] - max(x1 - x0, 0), 7)] * valid
                    for c in range(atom):
                        cell[c] = beside + below if mode == 0 else (-128 if mode == 1 else 127)
                    result = out[to : to + atom]
                    for sx in range(x0, x1):
                        part = line[sx * atom : sx * atom + atom]
                        if mode == 0:
                            for c in range(atom):
                                cell[c] += part[c]
                        elif mode == 1:
                            for c in range(atom):
                                cell[c] = max(cell[c], part[c])
                        else:
                            for c in range(atom):
                                cell[c] = min(cell[c], part[c])
                    if mode == 0:
                        for c in range(atom):
                            v = np.int64(cell[c]) * reciprocals[1]
                            v = (v + 32768) >> 16 if v >= 0 else -((32768 - v) >> 16)
                            v = v * reciprocals[0]
                            v = (v + 32768) >> 16 if v >= 0 else -((32768 - v) >> 16)
                            result[c] = np.int8(v)
                    else:
                        for c in range(atom):
                            result[c] = np.int8(cell[c])
