"""The SDP's look-up table in fp16, bit for bit: indices from fp32, interpolation in fp17.

Rules: docs/hardware/fp16.md, "Tables".
Facts: nvdla/hw ``cmod/hls/sdp/sdp_y_idx.cpp`` (index), ``sdp_y_inp.cpp`` (interpolation) and
``cmod/hls_wrapper/sdp_hls_wrapper.cpp`` (operands of what lies outside a table). Starts and ends of a table are fp32,
its entries and slopes halves.
"""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.fp16.floats import (
    FRACTION_BITS,
    add,
    fp17_to_single,
    fraction_to_fp17,
    half_to_fp17,
    is_nan,
    multiply,
    negate,
    single_to_fp17,
    word,
)
from nvdla_quant.emulator.operations import Lut, TableHalf

ONE = 0x7C00
"""1 in fp17."""
MAX_INDEX = 511
"""A linear index saturates at nine bits."""
Table = tuple[NDArray[np.int64], int, int, bool, int, int, int, int]
"""Entries, start, end, whether the index is a logarithm, its offset or shift, slopes below and above, bias."""


def look_up_bits(values: NDArray[np.uint32], lut: Lut) -> None:
    """Replace fp32 bits (one axis) by what the tables make of them."""
    priorities = lut.underflow_priority, lut.overflow_priority, lut.hybrid_priority
    _look_up(values, _table(lut.linear_exp), _table(lut.linear_only), priorities)


def _table(half: TableHalf) -> Table:
    select = ((half.select & 0xFF) ^ 0x80) - 0x80
    bias = int(np.float32(2.0**select).view(np.uint32)) if half.exponential else 0
    bounds = half.start & 0xFFFFFFFF, half.end & 0xFFFFFFFF
    slopes = half.underflow[0] & 0xFFFF, half.overflow[0] & 0xFFFF
    return half.entries & 0xFFFF, *bounds, half.exponential, select, *slopes, bias


@jit
def _look_up(values: NDArray[np.uint32], exp: Table, only: Table, priorities: tuple[int, int, int]) -> None:
    for i in range(len(values)):
        x = word(values[i])
        exp_index, exp_fraction, exp_side = _index(x, exp)
        only_index, only_fraction, only_side = _index(x, only)
        if exp_side != 0 and exp_side == only_side:
            choice = priorities[0] if exp_side < 0 else priorities[1]
        elif (exp_side == 0) == (only_side == 0):
            choice = priorities[2]
        else:
            choice = 0 if exp_side == 0 else 1
        if choice == 0:
            values[i] = _value(x, exp_index, exp_fraction, exp_side, exp)
        else:
            values[i] = _value(x, only_index, only_fraction, only_side, only)


@jit
def _index(x: int, table: Table) -> tuple[int, int, int]:
    """Return (index, fraction, side); side is -1 below the table, 1 above it, 0 in it."""
    entries, start, _, exponential, select, _, _, _ = table
    last = len(entries) - 1
    distance = add(x, negate(start, 8, 23), 8, 23)
    if distance >> 31 or distance == 0 or is_nan(distance, 8, 23):
        return 0, 0, -1
    exponent, mantissa = (distance >> 23) - 127, distance & 0x7FFFFF
    if exponential:
        if exponent < select:
            return 0, 0, -1
        if exponent - select >= last:
            return last, 0, 1
        return exponent - select, mantissa << (FRACTION_BITS - 23), 0
    mantissa |= 1 << 23
    # The exponent has eight bits and a sign among them: that of infinity wraps.
    up = (exponent if exponent < 128 else -128) - select - 23
    index, fraction = 0, 0
    if up >= 0:
        index = mantissa << up if up < 10 else MAX_INDEX
    else:
        index = mantissa >> min(-up, 62)
        place = FRACTION_BITS + up
        fraction = mantissa << place if place >= 0 else mantissa >> min(-place, 62)
        fraction &= (1 << FRACTION_BITS) - 1
    index = min(index, MAX_INDEX)
    return (last, 0, 1) if index >= last else (index, fraction, 0)


@jit
def _value(x: int, index: int, fraction: int, side: int, table: Table) -> int:
    entries, start, end, _, _, slope_below, slope_above, bias = table
    first = half_to_fp17(entries[index])
    if side == 0:
        weight = ONE if fraction == 0 else fraction_to_fp17((1 << FRACTION_BITS) - fraction, FRACTION_BITS)
        left = multiply(weight, first, 6, 10)
        second = half_to_fp17(entries[index + 1])
        right = multiply(fraction_to_fp17(fraction, FRACTION_BITS), second, 6, 10)
        return fp17_to_single(add(left, right, 6, 10))
    offset = add(start, bias, 8, 23) if side < 0 else add(end, 0, 8, 23)
    distance = single_to_fp17(add(x, negate(offset, 8, 23), 8, 23))
    slope = half_to_fp17(slope_below if side < 0 else slope_above)
    return fp17_to_single(add(first, multiply(distance, slope, 6, 10), 6, 10))
