"""The single-point data processor in fp16, bit for bit (docs/hardware/fp16.md, "SDP"): fp32 between its units.

Values are bit patterns, uint32. Where the processor's own float32 arithmetic gives a normal number, that is the
result; blocks of values that hold anything else (what is smaller than a normal number, overflow, NaN, some zeros) are
left to `fp16_floats`. Shifts, operand converters and the output converter do nothing. Rules: nvdla/hw ``cmod/hls/sdp``.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.fp16.floats import add, half_to_single, larger, multiply, word
from nvdla_quant.emulator.fp16.lut import look_up_bits
from nvdla_quant.emulator.operations import Lut, Operand, SdpUnit
from nvdla_quant.loadable.structs import SdpAlu

Bits = NDArray[np.uint32]
"""fp32 numbers as their bits."""
Operands = Mapping[tuple[str, str], Bits]
"""Operands by (unit, "alu" or "mul"): ``(pixels or 1, channels)``."""

BLOCK = 1024
"""Values that are worked on together, about: enough for loops to run at full speed, few to repeat where one is odd."""
MAGNITUDE = np.uint32(0x7FFFFFFF)
SIGN = np.uint32(31)
SMALLEST_NORMAL = np.uint32(0x00800000)
NORMALS = np.uint32(0x7F000000)
"""Bit patterns of positive normal numbers, from `SMALLEST_NORMAL` on."""
INFINITY = np.uint32(0x7F800000)
LARGEST_HALF = np.uint32(0x7BFF)


@cache
def _singles() -> Bits:
    return np.array([half_to_single(bits) for bits in range(1 << 16)], np.uint32)


def singles_of(halves: NDArray[np.float16]) -> Bits:
    """Convert halves to fp32 bits: exact, but infinity becomes the largest number."""
    table: Bits = _singles()[np.ascontiguousarray(halves).view(np.uint16)]
    return table


def constant_bits(operand: Operand, channels: int) -> Bits:
    """Return the fp32 bits ``(1, channels)`` of an operand from a register (a half in X, fp32 in Y) or an array."""
    if operand.channels is not None:
        return singles_of(np.asarray(operand.channels, np.float16))[None]
    register = np.array([operand.register])
    bits = register.view(np.uint32) if register.dtype == np.float32 else singles_of(register.astype(np.float16))
    return np.repeat(bits, channels)[None]


def run_chain(values: Bits, units: Sequence[SdpUnit], operands: Operands, lut: Lut | None) -> NDArray[np.float16]:
    """Apply the units and round to halves.

    Parameters
    ----------
    values : NDArray[np.uint32]
        fp32 bits ``(pixels, channels)``; overwritten.
    units : Sequence[SdpUnit]
        X1, X2 (ALU before multiplier), Y (multiplier before ALU, then the table).
    operands : Mapping
        See `Operands`.
    lut : Lut or None
        Table of Y.

    Returns
    -------
    NDArray[np.float16]
        ``(pixels, channels)``.
    """
    flat = values.reshape(-1)
    floats = flat.view(np.float32)
    for unit in units:
        alu, mul = (_repeated(operands.get((unit.name, part))) for part in ("alu", "mul"))
        if unit.name == "y" and mul is not None:
            _multiply(flat, floats, mul, mul.view(np.float32), unit.prelu)
        if alu is not None and unit.alu is SdpAlu.SUM:
            _add(flat, floats, alu, alu.view(np.float32))
        elif alu is not None and unit.alu is not None:
            _compare(flat, alu, int(unit.alu))
        if unit.name != "y" and mul is not None:
            _multiply(flat, floats, mul, mul.view(np.float32), unit.prelu)
        if unit.relu:
            _clamp(flat)
        if unit.lookup and lut is not None:
            look_up_bits(flat, lut)
    result = np.empty(flat.shape, np.uint16)
    _round(flat, result)
    return result.view(np.float16).reshape(values.shape)


def _repeated(operand: Bits | None) -> Bits | None:
    """Return an operand in one row: that of each value, or of one pixel, repeated for about a block of pixels."""
    if operand is None or len(operand) > 1:
        return None if operand is None else operand.reshape(-1)
    return np.tile(operand[0], max(1, BLOCK // operand.shape[1]))


@jit
def _block(values: int, operand: int) -> int:
    """Return how many values are worked on together: no more than there are operands before they repeat."""
    return BLOCK if operand == values else operand


@jit
def _is_plain(magnitude: np.uint32) -> np.bool_:
    """Whether a magnitude is that of zero or of a normal number."""
    plain: np.bool_ = (magnitude == np.uint32(0)) | (np.uint32(magnitude - SMALLEST_NORMAL) < NORMALS)
    return plain


@jit
def _is_exact(magnitude: np.uint32) -> np.bool_:
    """Whether a float32 result is the hardware's: normal, and not one that rounding may have made so."""
    return np.uint32(magnitude - SMALLEST_NORMAL - np.uint32(1)) < np.uint32(NORMALS - np.uint32(1))


@jit
def _add(values: Bits, floats: NDArray[np.float32], operand: Bits, addend: NDArray[np.float32]) -> None:
    block = _block(len(values), len(operand))
    scratch = np.empty(block, np.float32)
    for start in range(0, len(values), block):
        at = start % len(operand)
        # Loops run over slices: numba vectorises only indices that cannot be negative.
        v, f = values[start : start + block], floats[start : start + block]
        o, a = operand[at : at + block], addend[at : at + block]
        sums = scratch[: len(v)]
        bits = sums.view(np.uint32)
        for i in range(len(v)):
            sums[i] = f[i] + a[i]
        exact = True
        for i in range(len(v)):
            plain = _is_plain(v[i] & MAGNITUDE) & _is_plain(o[i] & MAGNITUDE)
            # The sum of two positive zeros is one too; of other numbers the hardware may give -0.
            exact &= plain & (_is_exact(bits[i] & MAGNITUDE) | ((v[i] | o[i]) == np.uint32(0)))
        if exact:
            for i in range(len(v)):
                f[i] = sums[i]
        else:
            for i in range(len(v)):
                v[i] = add(word(v[i]), word(o[i]), 8, 23)


@jit
def _multiply(
    values: Bits, floats: NDArray[np.float32], operand: Bits, factor: NDArray[np.float32], prelu: bool
) -> None:
    block = _block(len(values), len(operand))
    scratch = np.empty(block, np.float32)
    for start in range(0, len(values), block):
        at = start % len(operand)
        v, f = values[start : start + block], floats[start : start + block]
        o, a = operand[at : at + block], factor[at : at + block]
        products = scratch[: len(v)]
        bits = products.view(np.uint32)
        for i in range(len(v)):
            passed = prelu & ((v[i] >> SIGN) == np.uint32(0))
            products[i] = f[i] if passed else f[i] * a[i]
        exact = True
        for i in range(len(v)):
            own, other = v[i] & MAGNITUDE, o[i] & MAGNITUDE
            zero = (own == np.uint32(0)) | (other == np.uint32(0))
            passed = prelu & ((v[i] >> SIGN) == np.uint32(0))
            exact &= passed | (_is_plain(own) & _is_plain(other) & (_is_exact(bits[i] & MAGNITUDE) | zero))
        if exact:
            for i in range(len(v)):
                f[i] = products[i]
        else:
            for i in range(len(v)):
                if not (prelu & ((v[i] >> SIGN) == np.uint32(0))):
                    v[i] = multiply(word(v[i]), word(o[i]), 8, 23)


@jit
def _compare(values: Bits, operand: Bits, mode: int) -> None:
    """Maximum (0), minimum (1), or whether bits differ (3): that gives the integer 0 or 1, not the number."""
    for i in range(len(values)):
        a, b = word(values[i]), word(operand[i % len(operand)])
        if mode == 3:
            values[i] = 0 if a == b else 1
        else:
            values[i] = larger(a, b, 8, 23, mode == 0)


@jit
def _clamp(values: Bits) -> None:
    for i in range(len(values)):
        negative = ((values[i] >> SIGN) != np.uint32(0)) & ((values[i] & MAGNITUDE) <= INFINITY)
        values[i] = np.uint32(0) if negative else values[i]


@jit
def _round(values: Bits, result: NDArray[np.uint16]) -> None:
    """Round to nearest, ties to even; clamp to the largest half; NaN keeps its low bits.

    Below 2**-14, adding 0.5 in float32 rounds to a multiple of 2**-24, the subnormal halves, and leaves their number
    in the low bits. Above, half a unit less one is added, and one more where the kept part is odd; then bits fall off.
    """
    floats = np.empty(BLOCK, np.float32)
    moved = floats.view(np.uint32)
    for start in range(0, len(values), BLOCK):
        v, out = values[start : start + BLOCK], result[start : start + BLOCK]
        for i in range(len(v)):
            moved[i] = v[i] & MAGNITUDE
        for i in range(len(v)):
            floats[i] += np.float32(0.5)
        for i in range(len(v)):
            magnitude = v[i] & MAGNITUDE
            odd = (magnitude >> np.uint32(13)) & np.uint32(1)
            rounded = np.uint32(np.uint32(magnitude + np.uint32(0xFFF) + odd) >> np.uint32(13))
            normal = min(np.uint32(rounded - np.uint32(112 << 10)), LARGEST_HALF)
            subnormal = np.uint32(moved[i] - np.uint32(0x3F000000))
            half = subnormal if magnitude < np.uint32(113 << 23) else normal
            half = np.uint32(0x7C00) | (magnitude & np.uint32(0x3FF)) if magnitude > INFINITY else half
            out[i] = np.uint16(half | ((v[i] >> np.uint32(16)) & np.uint32(0x8000)))


def to_int16(values: NDArray[np.float16]) -> NDArray[np.int16]:
    """Round to int16, nearest with ties away from zero; NaN gives the least number (nvdla_float.h, FpFloatToInt)."""
    exact = values.astype(np.float64)
    rounded = np.copysign(np.floor(np.abs(exact) + 0.5), exact)
    limited = np.clip(np.where(np.isnan(exact), -np.inf, rounded), -32768, 32767)
    return limited.astype(np.int16)
