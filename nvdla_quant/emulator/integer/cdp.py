"""Local response normalisation of integers (docs/hardware/normalisation.md).

Each value is converted; the squares of the channels around it are added; two tables are asked what that sum makes;
their answer multiplies the value, and a second converter writes it (``cmod/cdp/NV_NVDLA_cdp.cpp``).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.decode.fields import signed
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import CdpOperation, TableHalf
from nvdla_quant.hardware.targets import Precision

FRACTION_BITS = 16
"""The interpolation's fraction has no more; what is beyond is cut off."""
TABLE_VALUE_BITS = 16
FAR = 45
"""A logarithm's offset at which every sum (below 2**39) underflows, and its slope (at least 2**-15) saturates."""
INPUT_BITS = {Precision.INT8: 9, Precision.INT16: 17}
OUTPUT_BITS = {Precision.INT8: 8, Precision.INT16: 16}
SELECT_BITS = {Precision.INT8: 6, Precision.INT16: 7}
"""Where the sign of a linear table's shift stands; it is read as 8 bits unless that bit is set."""
Table = tuple[NDArray[np.int64], int, int, bool, int, tuple[int, int], tuple[int, int]]
"""Entries, start, end, whether the index is a logarithm, its offset or shift, slopes (scale, shift) below and above."""


def normalise(operation: CdpOperation, values: Values) -> Values:
    """Normalise ``(n, c, h, w)`` of int8 or int16 across channels.

    Where the C-model's own integers overflow (logarithms' offsets and shifts above 38), this has what unbounded numbers
    give.
    """
    pixels: NDArray[Any] = np.ascontiguousarray(values.transpose(0, 2, 3, 1)).reshape(-1, values.shape[1])
    result = np.empty_like(pixels)
    before, after = operation.input_converter, operation.output_converter
    lut = operation.lut
    _normalise(
        pixels,
        result,
        operation.local_size // 2,
        operation.square_sum,
        operation.multiply,
        (before.offset, before.scale, before.shift, INPUT_BITS[operation.precision]),
        (after.offset, after.scale, after.shift, OUTPUT_BITS[operation.precision]),
        _table(lut.linear_exp, operation.precision),
        _table(lut.linear_only, operation.precision),
        (lut.underflow_priority, lut.overflow_priority, lut.hybrid_priority),
    )
    n, _, height, width = values.shape
    normalised: Values = result.reshape(n, height, width, -1).transpose(0, 3, 1, 2)
    return normalised


def _table(half: TableHalf, precision: Precision) -> Table:
    if half.exponential:
        select = min(half.select, FAR)
    else:
        bits = SELECT_BITS[precision]
        raw = half.select & 0xFF
        select = signed(raw, bits) if raw >> (bits - 1) & 1 else min(raw, 62)
    return half.entries, half.start, half.end, half.exponential, select, half.underflow, half.overflow


@jit
def _round(value: int, shift: int, bits: int) -> int:
    """Shift right (left where negative), round to nearest with ties away from zero, saturate to `bits`."""
    limit = 1 << (bits - 1)
    if shift < 0:
        # Beyond `bits` only the sign matters, and `bits` and a shift of 16 fit.
        value = max(-limit, min(limit - 1, value)) << -shift
    elif shift > 0:
        magnitude = ((abs(value) >> (shift - 1)) + 1) >> 1
        value = -magnitude if value < 0 else magnitude
    return max(-limit, min(limit - 1, value))


@jit
def _look_up(total: int, table: Table) -> tuple[int, int]:
    """Return (value, side); side is -1 below the table, 1 above it, 0 in it."""
    entries, start, end, exponential, select, below, above = table
    last = len(entries) - 1
    distance = total - start
    side, index, fraction = 0, 0, 0
    if distance <= 0:
        side = -1
    elif exponential:
        # Exact: the distance has less than 40 bits, and next to a power of two its logarithm is far enough from it.
        logarithm = int(math.log2(distance))
        index = logarithm - select
        rest = distance - (1 << logarithm)
        fraction = rest >> (logarithm - 16) if logarithm > 16 else rest << (16 - logarithm)
        side = -1 if index < 0 else (1 if index >= last else 0)
    elif select < 0:
        # A far distance is beyond the table however far it is shifted.
        index = min(distance, last) << min(-select, 40)
        side = 1 if index >= last else 0
    else:
        index = distance >> select
        rest = distance - (index << select)
        fraction = rest >> (select - 16) if select > 16 else rest << (16 - select)
        side = 1 if index >= last else 0
    if side == 0:
        first = int(entries[index])
        value = first + _round((int(entries[index + 1]) - first) * fraction, 16, 32)
    elif side < 0:
        bias = 1 << select if exponential and select >= 0 else 0
        value = int(entries[0]) + _round((distance - bias) * below[0], below[1], 32)
    else:
        value = int(entries[last]) + _round((total - end) * above[0], above[1], 32)
    return _round(value, 0, 16), side


@jit
def _normalise(
    values: NDArray[Any],
    result: NDArray[Any],
    reach: int,
    square_sum: bool,
    multiply: bool,
    before: tuple[int, int, int, int],
    after: tuple[int, int, int, int],
    exp: Table,
    only: Table,
    priorities: tuple[int, int, int],
) -> None:
    channels = values.shape[1]
    converted = np.empty(channels, np.int64)
    # Squares, with as many zeros on either side as a sum reaches beyond the cube.
    squares = np.zeros(channels + 2 * reach, np.int64)
    for pixel in range(values.shape[0]):
        for c in range(channels):
            d = _round((int(values[pixel, c]) - before[0]) * before[1], before[2], before[3])
            converted[c] = d
            squares[c + reach] = d * d
        for c in range(channels):
            total = int(converted[c])
            if square_sum:
                total = int(squares[c : c + 2 * reach + 1].sum())
            first, first_side = _look_up(total, exp)
            second, second_side = _look_up(total, only)
            if first_side != 0 and first_side == second_side:
                choice = priorities[0] if first_side < 0 else priorities[1]
            elif (first_side == 0) == (second_side == 0):
                choice = priorities[2]
            else:
                choice = 0 if first_side == 0 else 1
            value = first if choice == 0 else second
            if multiply:
                value *= int(converted[c])
            result[pixel, c] = _round((value - after[0]) * after[1], after[2], after[3])
