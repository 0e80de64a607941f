"""The fp16 MAC array and its accumulator on nv_full, bit for bit (docs/hardware/fp16.md).

A step multiplies up to 64 channels and adds the products. Both mantissas (11 bits) are shifted left by the low two bits
of their exponents; the upper three bits of the two exponents are added, and each product is shifted right, by four for
each unit by which its sum of exponents lies below the largest of the step. What is shifted is not the product but the
two words of a carry-save adder (the product's partial ones come from radix-4 Booth recoding of the weight), so that the
carry between the bits that fall off is lost: the result may be one too small. The sum of the step, ``m * 2**(e - 50)``,
goes to an accumulator with a 40-bit mantissa. With Winograd a step makes four sums, of the same products with other
signs, all with the step's exponent. Facts: nvdla/hw ``cmod/cmac/NV_NVDLA_cmac.h`` (the Booth words, how four rows of
them are compressed, ``calculation_fp16``) and ``cmod/cacc/NV_NVDLA_cacc.cpp`` (FP48).

How it is made fast: kernels are taken 16 at a time, and everything is an operation on 16 integers of 32 bits, which
the compiler turns into vector instructions. What depends on a weight alone (which multiple of the data each Booth digit
selects, and how it is complemented) is kept as masks for as many pixels as there are. Zeros of the data are skipped.
"""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.fp16.floats import bit_length, word

KERNELS = 16
"""Kernels that are worked on together."""
MAX_LANES = 64
"""Channels of a step."""
DIGITS = 8
"""Booth digits of a weight: 16 bits, of which the shifted mantissa has 14."""
ONE, TWO, WORDS = 0, DIGITS, 2 * DIGITS
"""Rows of a weight's masks: which digits are +-1, which are +-2, then the constant parts of the ten words."""
TEN = 10
"""Words that a product is made of: one for each digit, and two that only complete negative digits."""
ROWS = WORDS + 2 * TEN
"""Masks of a weight: the constant parts are there for data of either sign."""
SIGNS = 0x55550000
"""What the sixteenth bits of the words, which stand for signs, add to the product; it is subtracted shifted."""
NO_PRODUCT = -1000
"""Exponent of a weight that is zero: below all others."""
NAN_EXPONENT = 255
"""Exponent of an accumulator that is not a number."""
FULL = 1 << 39
"""Magnitude that the accumulator's mantissa of 40 bits no longer holds."""
LOW40 = (1 << 40) - 1

DIRECT = np.ones((1, MAX_LANES), np.int32)
"""Signs with which the products of a step enter its only sum."""

Masks = NDArray[np.uint32]
Exponents = NDArray[np.int32]


def weight_blocks(bits: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return the bits of weights ``(kernels, lanes)`` as `convolve` takes them, ``(blocks, lanes, 16)``."""
    blocks = -(-len(bits) // KERNELS)
    padded = np.zeros((blocks * KERNELS, bits.shape[1]), np.uint16)
    padded[: len(bits)] = bits
    return np.ascontiguousarray(padded.reshape(blocks, KERNELS, -1).transpose(0, 2, 1))


@jit
def significand(bits: int) -> int:
    """Return the mantissa of a half, shifted left by the low two bits of its exponent."""
    exponent, mantissa = (bits >> 10) & 31, bits & 1023
    return (mantissa | 1024) << (exponent & 3) if exponent else mantissa << 1


@jit
def accumulate(mantissa: int, exponent: int, step: int, step_exponent: int) -> tuple[int, int]:
    """Add ``step * 2**(step_exponent - 50)`` to the accumulator ``mantissa * 2**(exponent - 101)``; neither is NaN.

    Both are aligned to the larger exponent; up to 40 bits that this shifts out are kept until the sum is normalised,
    then it is rounded to nearest, ties away from zero.
    """
    if step == 0:
        return mantissa, exponent
    length = bit_length(step if step >= 0 else ~step)
    low, high = step << (39 - length), mantissa
    low_exponent, high_exponent = step_exponent + 12 + length, exponent
    if mantissa == 0:
        high_exponent = 0
    if low_exponent > high_exponent:
        low, high = high, low
        low_exponent, high_exponent = high_exponent, low_exponent
    down = high_exponent - low_exponent
    out = 0
    if down > 40:
        low = 0
    elif down > 0:
        out = (low & ((1 << down) - 1)) << (40 - down)
        low >>= down
    total = high + low
    result = high_exponent
    if total >= FULL or total < -FULL:
        half, sticky = (total & 1) != 0, out != 0
        total >>= 1
        result += 1
    else:
        up = 39 - bit_length(total if total >= 0 else ~total)
        total = (total << up) | (out >> (40 - up))
        out = (out << up) & LOW40
        result -= up
        half, sticky = out >> 39 != 0, (out & (LOW40 >> 1)) != 0
    if half and (sticky or total >= 0):
        negative = total < 0
        total += 1
        if negative != (total < 0) or total == FULL:
            # The carry leaves the mantissa; the sign, which is kept, comes in from the left.
            total = -FULL if negative else FULL >> 1
            result += 1
    return total, result if total else 0


@jit
def to_single(mantissa: int, exponent: int) -> int:
    """Return the fp32 bits of an accumulator, rounded to nearest, ties away from zero; NaN has its payload on top."""
    sign = (1 << 31) if mantissa < 0 else 0
    if exponent == NAN_EXPONENT:
        return sign | 0x7F800000 | ((mantissa >> 29) & 1023)
    if mantissa == 0:
        return 0
    if mantissa == -FULL:
        return sign | (((exponent + 65) & 255) << 23)
    magnitude = abs(mantissa)
    rounded = (magnitude >> 15) + ((magnitude >> 14) & 1)
    exponent += 64
    if rounded >> 24:
        rounded >>= 1
        exponent += 1
    return sign | ((exponent & 255) << 23) | (rounded & 0x7FFFFF)


@jit
def convolve(
    patch: NDArray[np.uint16],
    pixels: NDArray[np.int64],
    lanes: NDArray[np.int64],
    steps: NDArray[np.int64],
    weights: NDArray[np.uint16],
    signs: NDArray[np.int32],
    sums: NDArray[np.uint32],
) -> None:
    """Run the MAC array and the accumulators.

    Parameters
    ----------
    patch : NDArray[np.uint16]
        Bits of the data, padding included.
    pixels : NDArray[np.int64]
        Where the data of each output pixel begin in `patch`.
    lanes : NDArray[np.int64]
        Where each lane of each step lies behind its pixel, all steps in their order.
    steps : NDArray[np.int64]
        Step i has the lanes ``steps[i]`` to ``steps[i + 1]``, at most 64.
    weights : NDArray[np.uint16]
        Bits, ``(blocks, lanes, 16)``: kernels are padded with zeros to a multiple of 16.
    signs : NDArray[np.int32]
        With which sign, or 0, the product of each lane of a step enters each of its sums, ``(sums, 64)``.
    sums : NDArray[np.uint32]
        Result: fp32 bits, ``(pixels, sums, blocks * 16)``.
    """
    outputs = len(signs)
    masks = np.empty((MAX_LANES, ROWS, KERNELS), np.uint32)
    exponents = np.empty((MAX_LANES, KERNELS), np.int32)
    nans = np.empty(KERNELS, np.uint16)
    mantissa = np.empty((len(pixels), outputs, KERNELS), np.int64)
    exponent = np.empty((len(pixels), outputs, KERNELS), np.int64)
    data = np.empty((MAX_LANES, 4), np.int32)
    low, high = np.empty((outputs, KERNELS), np.int32), np.empty((outputs, KERNELS), np.int32)
    top = np.empty(KERNELS, np.int32)
    for block in range(weights.shape[0]):
        mantissa[:] = 0
        exponent[:] = 0
        for step in range(len(steps) - 1):
            first, last = steps[step], steps[step + 1]
            any_nan = _expand(weights[block, first:last], masks, exponents, nans)
            for pixel in range(len(pixels)):
                count, nan = _gather(patch, pixels[pixel], lanes[first:last], data)
                if any_nan or nan != 0:
                    for output in range(outputs):
                        _spread_nans(nans, nan, mantissa[pixel, output], exponent[pixel, output])
                if count == 0:
                    continue
                _products(masks, exponents, data, count, signs, low, high, top)
                for output in range(outputs):
                    totals, scales = mantissa[pixel, output], exponent[pixel, output]
                    for k in range(KERNELS):
                        if scales[k] != NAN_EXPONENT:
                            total, scale = (int(high[output, k]) << 16) + int(low[output, k]), int(top[k]) << 2
                            totals[k], scales[k] = accumulate(totals[k], scales[k], total, scale)
        for pixel in range(len(pixels)):
            for output in range(outputs):
                for k in range(KERNELS):
                    bits = to_single(mantissa[pixel, output, k], exponent[pixel, output, k])
                    sums[pixel, output, block * KERNELS + k] = bits


@jit
def _gather(
    patch: NDArray[np.uint16], start: int, lanes: NDArray[np.int64], data: NDArray[np.int32]
) -> tuple[int, int]:
    """Collect the data of a step that are not zero; return how many there are, and the first NaN or 0.

    Each has its lane, significand, exponent (upper three bits) and sign.
    """
    count = 0
    nan = 0
    for lane in range(len(lanes)):
        bits = word(patch[start + lanes[lane]])
        if bits & 0x7FFF == 0:
            continue
        if bits & 0x7FFF > 0x7C00 and nan == 0:
            nan = bits
        entry = data[count]
        entry[0] = lane
        entry[1] = significand(bits)
        entry[2] = (bits >> 12) & 7
        entry[3] = bits >> 15
        count += 1
    return count, nan


@jit
def _spread_nans(nans: NDArray[np.uint16], nan: int, mantissa: NDArray[np.int64], exponent: NDArray[np.int64]) -> None:
    """Make accumulators NaN: a weight's before the data's, an accumulator's own before both."""
    for k in range(KERNELS):
        bits = word(nans[k]) if nans[k] else nan
        if bits and exponent[k] != NAN_EXPONENT:
            mantissa[k] = ((bits & 1023) << 29) - ((bits >> 15) << 39)
            exponent[k] = NAN_EXPONENT


@jit
def _expand(weights: NDArray[np.uint16], masks: Masks, exponents: Exponents, nans: NDArray[np.uint16]) -> bool:
    """Write the masks and exponents of a step's weights ``(lanes, 16)``; return whether there is a NaN.

    A Booth digit is made of three neighbouring bits; its magnitude is 1 where the lower two differ, 2 where all that
    differs is the upper one. The word of a digit of positive sign (zero included) carries the bit 16, that of a
    negative one is complemented in its lower 16 bits, and what completes it stands in the word of the next digit.
    """
    nans[:] = 0
    any_nan = False
    value, sign = np.empty(KERNELS, np.uint32), np.empty(KERNELS, np.uint32)
    for lane in range(len(weights)):
        row, own, scale = weights[lane], masks[lane], exponents[lane]
        for k in range(KERNELS):
            bits = word(row[k])
            value[k] = significand(bits) << 1
            sign[k] = -(bits >> 15)
            scale[k] = (bits >> 12) & 7 if bits & 0x7FFF else NO_PRODUCT
            if bits & 0x7FFF > 0x7C00:
                any_nan = True
                if nans[k] == 0:
                    nans[k] = row[k]
        for constants in (WORDS, WORDS + TEN):
            own[constants + 4, :] = 0
            own[constants, :] = 0
            own[constants + 5, :] = 0
            own[constants + 9, :] = 0
        for digit in range(DIGITS):
            one, two = own[ONE + digit], own[TWO + digit]
            even_at = WORDS + (digit if digit < 4 else digit + 1)
            odd_at = even_at + TEN
            even, even_next, odd, odd_next = own[even_at], own[even_at + 1], own[odd_at], own[odd_at + 1]
            shift = np.uint32(2 * digit)
            for k in range(KERNELS):
                three = np.uint32(value[k] >> shift)
                single = np.uint32((three ^ np.uint32(three >> np.uint32(1))) & np.uint32(1))
                upper = np.uint32(np.uint32(three >> np.uint32(2)) & np.uint32(1))
                middle = np.uint32(np.uint32(three >> np.uint32(1)) & np.uint32(1))
                double = np.uint32((upper ^ middle) & (single ^ np.uint32(1)))
                used = np.uint32(single | double)
                negative = np.uint32((upper ^ (sign[k] & np.uint32(1))) & used)
                opposite = np.uint32(negative ^ used)
                one[k] = np.uint32(np.uint32(0) - single)
                two[k] = np.uint32(np.uint32(0) - double)
                # 0x10000 - 1 = 0xFFFF: the constant of a negative digit.
                first = np.uint32(np.uint32(np.uint32(0x10000) - negative) << shift)
                second = np.uint32(np.uint32(np.uint32(0x10000) - opposite) << shift)
                even[k] = np.uint32(first | (even[k] if digit != 0 and digit != 4 else np.uint32(0)))
                odd[k] = np.uint32(second | (odd[k] if digit != 0 and digit != 4 else np.uint32(0)))
                even_next[k] = np.uint32(negative << shift)
                odd_next[k] = np.uint32(opposite << shift)
    return any_nan


@jit
def _sum3(a: np.uint32, b: np.uint32, c: np.uint32) -> np.uint32:
    return np.uint32(a ^ b ^ c)


@jit
def _carry3(a: np.uint32, b: np.uint32, c: np.uint32) -> np.uint32:
    return np.uint32(np.uint32((a & b) | ((a ^ b) & c)) << np.uint32(1))


@jit
def _products(
    masks: Masks,
    exponents: Exponents,
    data: NDArray[np.int32],
    count: int,
    signs: NDArray[np.int32],
    low: NDArray[np.int32],
    high: NDArray[np.int32],
    top: NDArray[np.int32],
) -> None:
    """Add the aligned products of a step: its sums are ``high * 2**16 + low``, their exponent is ``4 * top``."""
    aligned = np.empty(KERNELS, np.int32)
    low[:] = 0
    high[:] = 0
    top[:] = 0
    for entry in range(count):
        scale, weight_scale = data[entry, 2], exponents[data[entry, 0]]
        for k in range(KERNELS):
            top[k] = max(top[k], np.int32(scale + weight_scale[k]))
    for entry in range(count):
        lane = data[entry, 0]
        scale, weight_scale = data[entry, 2], exponents[lane]
        own = masks[lane]
        start = WORDS + TEN * data[entry, 3]
        words = own[start : start + TEN]
        d0 = np.uint32(data[entry, 1])
        d1, d2, d3 = np.uint32(d0 << np.uint32(1)), np.uint32(d0 << np.uint32(2)), np.uint32(d0 << np.uint32(3))
        d4, d5, d6 = np.uint32(d0 << np.uint32(4)), np.uint32(d0 << np.uint32(5)), np.uint32(d0 << np.uint32(6))
        d7, d8, d9 = np.uint32(d0 << np.uint32(7)), np.uint32(d0 << np.uint32(8)), np.uint32(d0 << np.uint32(9))
        d10, d11, d12 = np.uint32(d0 << np.uint32(10)), np.uint32(d0 << np.uint32(11)), np.uint32(d0 << np.uint32(12))
        d13, d14, d15 = np.uint32(d0 << np.uint32(13)), np.uint32(d0 << np.uint32(14)), np.uint32(d0 << np.uint32(15))
        for k in range(KERNELS):
            # Digits 0 to 3, then 4 to 7, are compressed to two words each, and the four words to two.
            a = np.uint32(((own[0, k] & d0) | (own[8, k] & d1)) ^ words[0, k])
            b = np.uint32(((own[1, k] & d2) | (own[9, k] & d3)) ^ words[1, k])
            c = np.uint32(((own[2, k] & d4) | (own[10, k] & d5)) ^ words[2, k])
            a, b = _sum3(a, b, c), _carry3(a, b, c)
            c = np.uint32(((own[3, k] & d6) | (own[11, k] & d7)) ^ words[3, k])
            a, b = _sum3(a, b, c), _carry3(a, b, c)
            a, b = _sum3(a, b, words[4, k]), _carry3(a, b, words[4, k])
            p = np.uint32(((own[4, k] & d8) | (own[12, k] & d9)) ^ words[5, k])
            q = np.uint32(((own[5, k] & d10) | (own[13, k] & d11)) ^ words[6, k])
            c = np.uint32(((own[6, k] & d12) | (own[14, k] & d13)) ^ words[7, k])
            p, q = _sum3(p, q, c), _carry3(p, q, c)
            c = np.uint32(((own[7, k] & d14) | (own[15, k] & d15)) ^ words[8, k])
            p, q = _sum3(p, q, c), _carry3(p, q, c)
            p, q = _sum3(p, q, words[9, k]), _carry3(p, q, words[9, k])
            a, b = _sum3(a, b, p), _carry3(a, b, p)
            a, b = _sum3(a, b, q), _carry3(a, b, q)
            down = np.int32(np.int32(top[k] - np.int32(scale + weight_scale[k])) << 2)
            keep = np.int32(np.int32(down - 32) >> 31)
            shift = np.uint32(down & 28)
            product = np.uint32(np.uint32(a >> shift) + np.uint32(b >> shift) - np.uint32(np.uint32(SIGNS) >> shift))
            aligned[k] = np.int32(np.int32(product) & keep)
        for output in range(len(signs)):
            sign, lows, highs = signs[output, lane], low[output], high[output]
            if sign == 0:
                continue
            for k in range(KERNELS):
                lows[k] = np.int32(lows[k] + np.int32(sign * np.int32(aligned[k] & 0xFFFF)))
                highs[k] = np.int32(highs[k] + np.int32(sign * np.int32(aligned[k] >> 16)))
