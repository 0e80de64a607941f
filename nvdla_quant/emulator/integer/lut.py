"""The SDP's look-up table, integer (docs/hardware/tables.md), and what it shares with the CDP's."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.fields import signed
from nvdla_quant.emulator.integer.rounding import Int64, saturate, shift_left, shift_right
from nvdla_quant.emulator.operations import Lut, TableHalf

FRACTION_BITS = 35
_Value = TypeVar("_Value", bound=np.generic)
Half = tuple[NDArray[_Value], NDArray[np.bool_], NDArray[np.bool_]]
"""What one table says: values, underflows, overflows."""


def look_up(values: Int64, lut: Lut) -> Int64:
    """Return what the two tables make of int32 `values`."""
    return choose(_half(values, lut.linear_exp), _half(values, lut.linear_only), lut)


def choose(linear_exp: Half[_Value], linear_only: Half[_Value], lut: Lut) -> NDArray[_Value]:
    """Return the value of the table that counts: the only one that hits, else by the priorities of `lut`."""
    exp, exp_under, exp_over = linear_exp
    only, only_under, only_over = linear_only
    exp_hit, only_hit = ~(exp_under | exp_over), ~(only_under | only_over)
    # 0 takes linear_exp, 1 linear_only.
    choice = np.full(exp.shape, lut.hybrid_priority)
    choice = np.where(exp_under & only_under, lut.underflow_priority, choice)
    choice = np.where(exp_over & only_over, lut.overflow_priority, choice)
    choice = np.where(exp_hit & ~only_hit, 0, choice)
    choice = np.where(only_hit & ~exp_hit, 1, choice)
    return np.where(choice == 0, exp, only)


def _half(values: Int64, half: TableHalf) -> Half[np.int64]:
    """Return (value, underflow, overflow) of one table."""
    last = len(half.entries) - 1
    distance = values - half.start
    under = values <= half.start
    positive = np.where(under, 1, distance)
    if half.exponential:
        # log2 of a positive integer below 2**33 is exact enough in float64 for its floor: frexp has no rounding.
        exponent = np.frexp(positive.astype(np.float64))[1].astype(np.int64) - 1
        offset = signed(half.select, 8)
        under = under | (exponent < offset)
        index = exponent - offset
        fraction = (positive - (np.int64(1) << exponent)) << np.maximum(FRACTION_BITS - exponent, 0)
    else:
        select = signed(half.select, 8)
        if select >= 0:
            index = positive >> min(select, 62)
            low = positive & ((1 << min(select, 62)) - 1)
            up = FRACTION_BITS - select
            fraction = low << up if up >= 0 else low >> min(-up, 62)
        else:
            # A negative select spreads values over entries: no fraction is left. Far beyond the table is overflow.
            index = np.minimum(positive, last) << min(-select, 30)
            fraction = np.zeros_like(positive)
    over = ~under & (index >= last)
    index = np.where(under | over, 0, index)
    y0, y1 = half.entries[index], half.entries[index + 1]
    one = np.int64(1) << FRACTION_BITS
    hit = shift_right(y0 * (one - fraction) + y1 * fraction, FRACTION_BITS, 32)
    offset_under = half.start
    if half.exponential and signed(half.select, 8) > 0:
        # A 32-bit shift (sdp_hls_wrapper.cpp); counts above 31, undefined in C, are taken as x86 does.
        offset_under += 1 << (half.select & 31)
    below = _extend(values, half.entries[0], offset_under, half.underflow)
    above = _extend(values, half.entries[last], half.end, half.overflow)
    return np.where(under, below, np.where(over, above, hit)), under, over


def _extend(values: Int64, end: np.int64, offset: int, slope: tuple[int, int]) -> Int64:
    """Return ``end + round((x - offset) * scale >> shift)``, both steps saturated: what lies outside a table."""
    scale, shift = slope
    product = (values - offset) * scale
    moved = shift_right(product, shift, 32) if shift >= 0 else shift_left(product, -shift, 32)
    return saturate(end + moved, 32)
