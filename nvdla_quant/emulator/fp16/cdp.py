"""Local response normalisation in fp16, bit for bit (docs/hardware/fp16.md, "Normalisation").

Each value becomes fp17; the squares of the channels around it are added in fp32, in pairs from the middle outwards;
two tables are looked up, and what is taken from them multiplies the value. The converters do nothing in fp16, but
channels beyond the cube hold the input converter's offset. Facts: nvdla/hw ``cmod/hls_wrapper/cdp_hls_wrapper.cpp``.
"""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.fp16.floats import (
    add,
    fp17_to_half,
    fp17_to_single,
    fraction_to_fp17,
    half_to_fp17,
    half_to_single,
    is_nan,
    multiply,
    negate,
    single_to_fp17,
    word,
)
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import CdpOperation, TableHalf

FRACTION_BITS = 16
Table = tuple[NDArray[np.int64], int, int, bool, int, int, int, int]
"""Entries, start, end, whether the index is a logarithm, its offset or shift, slopes below and above, bias."""


def normalise_halves(operation: CdpOperation, values: Values) -> NDArray[np.float16]:
    """Normalise ``(n, c, h, w)`` across channels."""
    bits = np.ascontiguousarray(values.transpose(0, 2, 3, 1)).view(np.uint16)
    flat = bits.reshape(-1, values.shape[1])
    result = np.empty_like(flat)
    lut = operation.lut
    priorities = lut.underflow_priority, lut.overflow_priority, lut.hybrid_priority
    _normalise(
        flat,
        result,
        operation.local_size // 2,
        operation.input_converter.offset & 0xFFFF,
        operation.square_sum,
        operation.multiply,
        _table(lut.linear_exp),
        _table(lut.linear_only),
        priorities,
    )
    return result.view(np.float16).reshape(bits.shape).transpose(0, 3, 1, 2)


def _table(half: TableHalf) -> Table:
    select = ((half.select & 0xFF) ^ 0x80) - 0x80
    bias = int(np.float32(2.0**select).view(np.uint32)) if half.exponential and select > -127 else 0
    bounds = half.start & 0xFFFFFFFF, half.end & 0xFFFFFFFF
    slopes = half.underflow[0] & 0xFFFF, half.overflow[0] & 0xFFFF
    return half.entries & 0xFFFF, *bounds, half.exponential, select, *slopes, bias


@jit
def _normalise(
    values: NDArray[np.uint16],
    result: NDArray[np.uint16],
    reach: int,
    outside: int,
    square_sum: bool,
    multiplies: bool,
    exp: Table,
    only: Table,
    priorities: tuple[int, int, int],
) -> None:
    channels = values.shape[1]
    # Terms of the sum, with `reach` channels outside the cube on either side.
    terms = np.empty(channels + 2 * reach, np.int64)
    for pixel in range(values.shape[0]):
        for i in range(len(terms)):
            c = i - reach
            bits = word(values[pixel, c]) if 0 <= c < channels else outside
            single = fp17_to_single(half_to_fp17(bits))
            terms[i] = multiply(single, single, 8, 23) if square_sum else single
        for c in range(channels):
            i = c + reach
            total = terms[i]
            if square_sum:
                total = add(add(terms[i - 1], terms[i + 1], 8, 23), total, 8, 23)
                for away in range(2, reach + 1):
                    total = add(total, add(terms[i - away], terms[i + away], 8, 23), 8, 23)
            first, first_side = _look_up(total, exp)
            second, second_side = _look_up(total, only)
            if first_side != 0 and first_side == second_side:
                choice = priorities[0] if first_side < 0 else priorities[1]
            elif (first_side == 0) == (second_side == 0):
                choice = priorities[2]
            else:
                choice = 0 if first_side == 0 else 1
            factor = first if choice == 0 else second
            value = half_to_fp17(word(values[pixel, c]))
            if multiplies:
                value = multiply(value, factor, 6, 10)
            elif not is_nan(value, 6, 10):
                value = factor
            result[pixel, c] = fp17_to_half(value)


@jit
def _scaled(bits: int, select: int) -> float:
    """Return a positive fp32 number divided by ``2**select``, as a float32."""
    exponent, mantissa = bits >> 23, bits & 0x7FFFFF
    return np.float64(np.float32((mantissa | 1 << 23) * 2.0 ** (exponent - 150 - select)))


@jit
def _look_up(x: int, table: Table) -> tuple[int, int]:
    """Return (fp17 value, side); side is -1 below the table, 1 above it, 0 in it."""
    entries, start, end, exponential, select, slope_below, slope_above, bias = table
    last = len(entries) - 1
    distance = add(x, negate(start, 8, 23), 8, 23)
    side, index, fraction = 0, 0, 0
    if distance >> 31 or distance == 0 or is_nan(distance, 8, 23):
        side = -1
    elif exponential:
        index = (distance >> 23) - 127 - select
        fraction = (distance >> 7) & 0xFFFF
        side = -1 if index < 0 else (1 if index >= last else 0)
    else:
        place = _scaled(distance, select)
        if place >= last:
            side = 1
        else:
            index = int(place)
            fraction = int((place - index) * 65536.0)
    if side == 0:
        first, second = entries[index], entries[index + 1]
        difference = add(half_to_single(second), negate(half_to_single(first), 8, 23), 8, 23)
        part = multiply(single_to_fp17(difference), fraction_to_fp17(fraction, FRACTION_BITS), 6, 10)
        return add(part, half_to_fp17(first), 6, 10), 0
    if side < 0:
        if exponential:
            distance = add(x, negate(add(start, bias, 8, 23), 8, 23), 8, 23)
        slope, edge = slope_below, entries[0]
    else:
        distance = add(x, negate(end, 8, 23), 8, 23)
        slope, edge = slope_above, entries[last]
    part = multiply(single_to_fp17(distance), half_to_fp17(slope), 6, 10)
    return add(part, half_to_fp17(edge), 6, 10), side
