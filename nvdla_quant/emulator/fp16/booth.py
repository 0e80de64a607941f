"""Products of the fp16 MAC array as its Booth multipliers make them, for 16 kernels at once.

Both mantissas (11 bits) are shifted left by the low two bits of their exponents: that is a *significand* here. The
weight's is recoded into eight radix-4 digits, each of which adds a word to the product; carry-save adders reduce the
words to two, and those are shifted right where exponents must be aligned. So the carry between the bits that fall off
is lost, and the result may be one below the product, shifted. Facts: nvdla/hw ``cmod/cmac/NV_NVDLA_cmac.h``.

How it is made fast: the product itself is a multiplication, and only that carry takes the words. Shifts are multiples
of four, and the carries of those up to 16 stand in the low 16 bits of the words: 16 lanes of 16 bits. A word is
``multiple * datum + constant``, both of which depend on the weight and the product's sign alone, and are kept for as
many pixels as there are. Products that are shifted further are rare, and take all 32 bits.
"""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.fp16.floats import word

KERNELS = 16
"""Kernels that are worked on together."""
DIGITS = 8
"""Booth digits of a weight: 16 bits, of which the shifted mantissa has 14."""
WORDS = DIGITS + 2
"""Words of a product: digits 0 to 3 and one that completes digit 3, then the same for digits 4 to 7."""
HALF = WORDS // 2
"""Words that are first compressed by themselves."""
CONSTANTS, SIGNIFICANDS, SCALES = WORDS * KERNELS, 2 * WORDS * KERNELS, (2 * WORDS + 1) * KERNELS
"""What a row of the table has of its 16 weights behind the multiples of their words."""
ROW = (2 * WORDS + 2) * KERNELS
"""Numbers in a row of the table."""
SIGN = 0x10000
"""The sixteenth bit of a digit's word, which stands for its sign."""
SIGNS = 0x55550000
"""What the signs of all words add to the product; it is subtracted shifted."""
NEAR, BEYOND = 16, 32
"""Shifts up to `NEAR` need 16 bits of the words, and those from `BEYOND` on leave nothing of a product."""
NO_PRODUCT = -8192
"""Scale of a weight that is zero: below all others."""


@jit
def significand(bits: int) -> int:
    """Return the mantissa of a half, shifted left by the low two bits of its exponent."""
    exponent, mantissa = (bits >> 10) & 31, bits & 1023
    return (mantissa | 1024) << (exponent & 3) if exponent else mantissa << 1


@jit
def scale_of(bits: int) -> int:
    """Return four times the upper three bits of the exponent of a half."""
    return ((bits >> 12) & 7) << 2


@jit
def recode(weights: NDArray[np.uint16], table: NDArray[np.uint16]) -> None:
    """Lay out the weights of a step for `align`.

    A Booth digit is made of three neighbouring bits, from -2 to 2. The word of a negative one is a complement, and the
    1 that it lacks stands in the word of the next digit.

    Parameters
    ----------
    weights : NDArray[np.uint16]
        Bits, ``(lanes, 16)``.
    table : NDArray[np.uint16]
        Result, ``(2 * lanes, ROW)``: a row for data that are positive, then one for those that are negative. It has
        what each word takes of the datum, and its constant; significands; scales, `NO_PRODUCT` for zeros.
    """
    for row in range(2 * len(weights)):
        lane, negative = row >> 1, np.uint16(row & 1)
        for k in range(KERNELS):
            bits = word(weights[lane, k])
            magnitude = np.uint16(significand(bits))
            # All bits set where the product is negative: x ^ sign - sign is then -x.
            sign = np.uint16(np.uint16(0) - np.uint16(np.uint16(weights[lane, k] >> np.uint16(15)) ^ negative))
            table[row, SIGNIFICANDS + k] = np.uint16(np.uint16(magnitude ^ sign) - sign)
            table[row, SCALES + k] = scale_of(bits) if bits & 0x7FFF else NO_PRODUCT
            for half in range(2):
                lacking = np.uint16(0)
                for within in range(DIGITS // 2):
                    place, shift = (half * HALF + within) * KERNELS, np.uint16(half * DIGITS + 2 * within)
                    digit = _digit(magnitude, shift)
                    digit = np.uint16(np.uint16(digit ^ sign) - sign)
                    lacks = np.uint16(np.uint16(digit >> np.uint16(15)) << shift)
                    table[row, place + k] = np.uint16(digit << shift)
                    table[row, CONSTANTS + place + k] = np.uint16(lacking - lacks)
                    lacking = lacks
                table[row, CONSTANTS + (half * HALF + HALF - 1) * KERNELS + k] = lacking


@jit
def _digit(magnitude: np.uint16, shift: np.uint16) -> np.uint16:
    """Return the Booth digit at bit `shift`: that bit, and the one below, less twice the one above."""
    one = np.uint16(1)
    three = np.uint16(np.uint16(magnitude << one) >> shift)
    low, middle = np.uint16(three & one), np.uint16(np.uint16(three >> one) & one)
    return np.uint16(np.uint16(low + middle) - np.uint16(np.uint16(three >> one) & np.uint16(2)))


@jit
def align(
    table: NDArray[np.uint16],
    data: NDArray[np.uint32],
    count: int,
    top: NDArray[np.int16],
    carries: NDArray[np.uint16],
    aligned: NDArray[np.int32],
) -> None:
    """Multiply the data of a step by the weights of each kernel, and shift the products to the scales `top`.

    Parameters
    ----------
    table : NDArray[np.uint16]
        Weights, from `recode`.
    data : NDArray[np.uint32]
        Row of the table, significand and scale of each datum; none is zero.
    count : int
        How many there are.
    top : NDArray[np.int16]
        Scale of each kernel's products in this step.
    carries : NDArray[np.uint16]
        Scratch, 16 numbers.
    aligned : NDArray[np.int32]
        Result, ``(at least count, 16)``.
    """
    # Nothing is sliced here: a slice counts references to its array, which takes longer than all the rest.
    for entry in range(count):
        row, datum, scale = data[entry, 0], np.int32(data[entry, 1]), np.int32(data[entry, 2])
        low = np.uint16(datum)
        for k in range(KERNELS):
            # The words of each half are compressed to two, and the four words to two.
            a, b = _word(table, row, k, low), _word(table, row, KERNELS + k, low)
            a, b = _compress(a, b, _word(table, row, 2 * KERNELS + k, low))
            a, b = _compress(a, b, _word(table, row, 3 * KERNELS + k, low))
            a, b = _compress(a, b, table[row, CONSTANTS + 4 * KERNELS + k])
            p, q = _word(table, row, 5 * KERNELS + k, low), _word(table, row, 6 * KERNELS + k, low)
            p, q = _compress(p, q, _word(table, row, 7 * KERNELS + k, low))
            p, q = _compress(p, q, _word(table, row, 8 * KERNELS + k, low))
            p, q = _compress(p, q, table[row, CONSTANTS + 9 * KERNELS + k])
            a, b = _compress(a, b, p)
            a, b = _compress(a, b, q)
            total = np.uint16(table[row, SIGNIFICANDS + k] * low)
            # Bit i: whether bits 0 to i of the two words carry into bit i + 1.
            carries[k] = np.uint16((a & b) | ((a | b) & np.uint16(~total)))
        far = np.int32(0)
        for k in range(KERNELS):
            down = np.int32(np.int32(top[k] - np.int16(table[row, SCALES + k])) - scale)
            # The sign bit of this says whether the product lies further down, and is not that of a zero.
            far = np.int32(far | np.int32(np.int32(NEAR - down) & np.int32(down + NO_PRODUCT // 2)))
            shift = np.uint32(down & 31)
            product = np.int32(np.int16(table[row, SIGNIFICANDS + k]) * datum)
            lost = np.uint32(np.uint32(np.uint32(np.uint32(carries[k]) << np.uint32(1)) >> shift) & np.uint32(1))
            aligned[entry, k] = np.int32(np.int32(product >> np.int32(shift)) - np.int32(lost))
        if far < 0:
            _align_far(table, row, datum, scale, top, aligned, entry)


@jit
def _word(table: NDArray[np.uint16], row: np.uint32, at: int, datum: np.uint16) -> np.uint16:
    """Return the low 16 bits of a word."""
    return np.uint16(np.uint16(table[row, at] * datum) + table[row, CONSTANTS + at])


@jit
def _compress(a: np.uint16, b: np.uint16, c: np.uint16) -> tuple[np.uint16, np.uint16]:
    """Reduce three words to two: a sum without carries, and the carries."""
    # Each operation, of numpy's types, gives 64 bits; the compiler takes 16 only where what is cast is used once.
    differ = np.uint16(a ^ b)
    return np.uint16(differ ^ c), np.uint16(((a & b) | (differ & c)) << 1)


@jit
def _align_far(
    table: NDArray[np.uint16],
    row: np.uint32,
    datum: np.int32,
    scale: np.int32,
    top: NDArray[np.int16],
    aligned: NDArray[np.int32],
    entry: int,
) -> None:
    """Correct the products of one datum that are shifted by more than 16 bits: from all 32 bits of the words."""
    for k in range(KERNELS):
        a, b = _wide_word(table, row, 0, k, datum), _wide_word(table, row, 1, k, datum)
        p, q = _wide_word(table, row, HALF, k, datum), _wide_word(table, row, HALF + 1, k, datum)
        for place in range(2, HALF):
            a, b = _compress_wide(a, b, _wide_word(table, row, place, k, datum))
            p, q = _compress_wide(p, q, _wide_word(table, row, HALF + place, k, datum))
        a, b = _compress_wide(a, b, p)
        a, b = _compress_wide(a, b, q)
        down = np.int32(np.int32(top[k] - np.int16(table[row, SCALES + k])) - scale)
        shift = np.uint32(down & 31)
        product = np.uint32(np.uint32(np.uint32(a >> shift) + np.uint32(b >> shift)) - np.uint32(SIGNS >> shift))
        nearer = aligned[entry, k]
        aligned[entry, k] = nearer if down <= NEAR else (np.int32(product) if down < BEYOND else np.int32(0))


@jit
def _wide_word(table: NDArray[np.uint16], row: np.uint32, place: int, k: int, datum: np.int32) -> np.uint32:
    half, within = place // HALF, place % HALF
    at = place * KERNELS + k
    multiple = np.uint32(np.int32(np.int16(table[row, at])) * datum) if within < HALF - 1 else np.uint32(0)
    sign = np.uint32(SIGN << (half * DIGITS + 2 * within)) if within < HALF - 1 else np.uint32(0)
    return np.uint32(np.uint32(multiple + sign) + np.uint32(np.int32(np.int16(table[row, CONSTANTS + at]))))


@jit
def _compress_wide(a: np.uint32, b: np.uint32, c: np.uint32) -> tuple[np.uint32, np.uint32]:
    differ = np.uint32(a ^ b)
    return np.uint32(differ ^ c), np.uint32(((a & b) | (differ & c)) << 1)
