"""The floating-point formats of SDP, PDP and CDP, bit for bit (docs/hardware/fp16.md, "Formats").

A number is its bit pattern in an int64: sign, exponent, mantissa. A format is the pair (exponent bits, mantissa bits):
fp16 (5, 10), fp17 (6, 10) and fp32 (8, 23). They differ from IEEE 754: no infinities come out of any operation (the
largest finite number does), results below the smallest normal number become zero with the sign of the larger operand,
NaN keeps its payload in the low bits, and ``-x + x`` is ``-0``. Rules: nvdla/hw ``cmod/hls/include/nvdla_float.h``.
"""

from typing import Any

import numpy as np

from nvdla_quant.emulator._jit import jit

FRACTION_BITS = 35
"""Width of the SDP table's fraction; 2**35 stands for 1."""


@jit
def word(bits: np.unsignedinteger[Any]) -> int:
    """Return bits from an array as the int64 that everything here is made of."""
    return int(np.int64(bits))


@jit
def is_nan(bits: int, exponents: int, mantissas: int) -> bool:
    """Whether all bits of the exponent are set and any of the mantissa."""
    top = ((1 << exponents) - 1) << mantissas
    return (bits & top) == top and (bits & ((1 << mantissas) - 1)) != 0


@jit
def largest(sign: int, exponents: int, mantissas: int) -> int:
    """Return the largest finite number: what stands for infinity."""
    return (sign << (exponents + mantissas)) | (((1 << exponents) - 1) << mantissas) - 1


@jit
def round_even(value: int, drop: int) -> int:
    """Shift right by `drop` (0 or more) and round to nearest, ties to even."""
    if drop == 0:
        return value
    kept = value >> drop
    guard = (value >> (drop - 1)) & 1
    sticky = (value & ((1 << (drop - 1)) - 1)) != 0
    return kept + (guard & (sticky | (kept & 1)))


@jit
def bit_length(value: int) -> int:
    """Return the number of bits of a non-negative integer below 2**63."""
    # The compiler knows this loop, of unsigned numbers, as the instruction that counts leading zeros.
    left = np.uint64(value)
    length = 0
    while left != np.uint64(0):
        left = np.uint64(left >> np.uint64(1))
        length += 1
    return length


@jit
def leading_zeros(value: int, width: int) -> int:
    """Return how many of the `width` bits above the highest set bit are zero."""
    return width - bit_length(value)


@jit
def add(a: int, b: int, exponents: int, mantissas: int) -> int:
    """Return a + b: exact sum (the smaller operand cut 25 bits below), rounded to nearest, ties to even."""
    if is_nan(a, exponents, mantissas):
        return a
    if is_nan(b, exponents, mantissas):
        return b
    field = (1 << mantissas) - 1
    top = (1 << exponents) - 1
    if (a & (top << mantissas | field)) < (b & (top << mantissas | field)):
        a, b = b, a
    sign, sign_b = a >> (exponents + mantissas), b >> (exponents + mantissas)
    exponent, exponent_b = (a >> mantissas) & top, (b >> mantissas) & top
    large, small = a & field, b & field
    # Only zero has no implied one: there are no subnormal numbers.
    large |= (1 << mantissas) if exponent or large else 0
    small |= (1 << mantissas) if exponent_b or small else 0
    more = mantissas + 2
    down = exponent - exponent_b
    large <<= more
    small = small << (more - down) if down <= more else (small >> (down - more) if down - more < 63 else 0)
    width = more + mantissas + 1
    total = large + small if sign == sign_b else large - small
    overflow = False
    if total >> width:
        if exponent >= top - 1:
            overflow = True
        else:
            exponent += 1
            total >>= 1
    else:
        zeros = leading_zeros(total, width)
        if total == 0 or exponent <= zeros:
            exponent, total = 0, 0
        else:
            exponent -= zeros
            total <<= zeros
    rounded = round_even(total, width - mantissas - 1)
    if rounded >> (mantissas + 1):
        if exponent >= top - 1:
            overflow = True
        else:
            exponent += 1
    if overflow:
        return largest(sign, exponents, mantissas)
    # Of two numbers of equal magnitude the first gives the sign, even to zero.
    return (sign << (exponents + mantissas)) | (exponent << mantissas) | (rounded & field)


@jit
def negate(bits: int, exponents: int, mantissas: int) -> int:
    """Return the number with its other sign."""
    return bits ^ (1 << (exponents + mantissas))


@jit
def multiply(a: int, b: int, exponents: int, mantissas: int) -> int:
    """Return a * b, rounded to nearest, ties to even."""
    if is_nan(a, exponents, mantissas):
        return a
    if is_nan(b, exponents, mantissas):
        return b
    field = (1 << mantissas) - 1
    top = (1 << exponents) - 1
    bias = top >> 1
    sign = (a ^ b) >> (exponents + mantissas)
    magnitudes = (top << mantissas) | field
    exponent = ((a >> mantissas) & top) + ((b >> mantissas) & top)
    if (a & magnitudes) == 0 or (b & magnitudes) == 0 or exponent < bias:
        return sign << (exponents + mantissas)
    if exponent >= top + bias:
        return largest(sign, exponents, mantissas)
    exponent -= bias
    product = (field + 1 | a & field) * (field + 1 | b & field)
    if product >> (2 * mantissas + 1):
        if exponent >= top - 1:
            return largest(sign, exponents, mantissas)
        exponent += 1
    else:
        product <<= 1
    rounded = round_even(product, mantissas + 1)
    if rounded >> (mantissas + 1):
        exponent += 1
        if exponent == top:
            return largest(sign, exponents, mantissas)
    if exponent == 0:
        return sign << (exponents + mantissas)
    return (sign << (exponents + mantissas)) | (exponent << mantissas) | (rounded & field)


@jit
def larger(a: int, b: int, exponents: int, mantissas: int, largest_wins: bool) -> int:
    """Return the larger (or the smaller) of two numbers; the first NaN wins, and of equal numbers one."""
    if is_nan(a, exponents, mantissas):
        return a
    if is_nan(b, exponents, mantissas):
        return b
    place = exponents + mantissas
    magnitude = (1 << place) - 1
    beyond = (a & magnitude) > (b & magnitude)
    positive, other_positive = a >> place == 0, b >> place == 0
    greater = positive if positive != other_positive else beyond == positive
    return a if greater == largest_wins else b


@jit
def widen(bits: int, exponents: int, mantissas: int, to_exponents: int, to_mantissas: int, subnormals: bool) -> int:
    """Convert to a wider format: exact but for infinity, which becomes the largest number.

    `subnormals`: whether a zero exponent means a subnormal number (fp16) or a normal one (fp17).
    """
    top, field = (1 << exponents) - 1, (1 << mantissas) - 1
    sign = (bits >> (exponents + mantissas)) << (to_exponents + to_mantissas)
    exponent, mantissa = (bits >> mantissas) & top, bits & field
    delta = ((1 << to_exponents) - (1 << exponents)) >> 1
    if exponent == top:
        if mantissa == 0:
            return largest(sign >> (to_exponents + to_mantissas), to_exponents, to_mantissas)
        return sign | (((1 << to_exponents) - 1) << to_mantissas) | mantissa
    if exponent == 0 and mantissa == 0:
        return sign
    exponent += delta
    if subnormals and exponent == delta:
        zeros = leading_zeros(mantissa, mantissas)
        exponent = delta - zeros
        mantissa = (mantissa << (zeros + 1)) & field
    return sign | (exponent << to_mantissas) | (mantissa << (to_mantissas - mantissas))


@jit
def narrow(bits: int, exponents: int, mantissas: int, to_exponents: int, to_mantissas: int, subnormals: bool) -> int:
    """Convert to a narrower format: rounded to nearest, ties to even; clamped to the largest number.

    `subnormals`: whether small results are subnormal numbers (fp16) or zero (fp17).
    """
    top, field = (1 << exponents) - 1, (1 << mantissas) - 1
    to_top, to_field = (1 << to_exponents) - 1, (1 << to_mantissas) - 1
    sign = bits >> (exponents + mantissas)
    place = to_exponents + to_mantissas
    exponent, mantissa = (bits >> mantissas) & top, bits & field
    delta = ((1 << exponents) - (1 << to_exponents)) >> 1
    drop = mantissas - to_mantissas
    if exponent == top and mantissa != 0:
        return (sign << place) | (to_top << to_mantissas) | (mantissa & to_field)
    if exponent >= to_top + delta:
        return largest(sign, to_exponents, to_mantissas)
    if exponent < delta - to_mantissas:
        return sign << place
    mantissa |= 1 << mantissas
    if exponent <= delta:
        rounded = round_even(mantissa, drop + delta - exponent + 1)
        # One that was rounded up to the smallest normal number has its exponent in place.
        return (sign << place) | (rounded if subnormals or rounded >> to_mantissas else 0)
    rounded = round_even(mantissa, drop)
    exponent -= delta
    if rounded >> (to_mantissas + 1):
        exponent += 1
        if exponent == to_top:
            return largest(sign, to_exponents, to_mantissas)
    return (sign << place) | (exponent << to_mantissas) | (rounded & to_field)


@jit
def half_to_single(bits: int) -> int:
    """Convert fp16 to fp32."""
    return widen(bits, 5, 10, 8, 23, True)


@jit
def single_to_half(bits: int) -> int:
    """Convert fp32 to fp16."""
    return narrow(bits, 8, 23, 5, 10, True)


@jit
def half_to_fp17(bits: int) -> int:
    """Convert fp16 to fp17."""
    return widen(bits, 5, 10, 6, 10, True)


@jit
def fp17_to_half(bits: int) -> int:
    """Convert fp17 to fp16."""
    return narrow(bits, 6, 10, 5, 10, True)


@jit
def fp17_to_single(bits: int) -> int:
    """Convert fp17 to fp32."""
    return widen(bits, 6, 10, 8, 23, False)


@jit
def single_to_fp17(bits: int) -> int:
    """Convert fp32 to fp17."""
    return narrow(bits, 8, 23, 6, 10, False)


@jit
def fraction_to_fp17(fraction: int, width: int) -> int:
    """Return the fp17 of ``fraction / 2**width``, rounded to nearest, ties to even (0 up to, not with, 1)."""
    if fraction == 0:
        return 0
    zeros = leading_zeros(fraction, width)
    rounded = round_even(fraction << (zeros + 1), width - 10)
    if rounded >> 11:
        return (31 - zeros) << 10
    return 0 if zeros >= 30 else (30 - zeros) << 10 | (rounded & 1023)
