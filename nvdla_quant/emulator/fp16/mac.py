"""The fp16 MAC array on nv_full, bit for bit (docs/hardware/fp16.md).

A step multiplies up to 64 channels and adds the products. The upper three bits of the two exponents are added, and each
product is shifted right, by four for each unit by which its sum of exponents lies below the largest of the step (see
`booth`). The sum of the step, ``m * 2**(e - 50)``, goes to an accumulator with a 40-bit mantissa. With Winograd a step
makes four sums, of the same products with other signs, all with the step's exponent. Facts: nvdla/hw
``cmod/cmac/NV_NVDLA_cmac.h`` (``calculation_fp16``).

Kernels are taken 16 at a time, and zeros of the data are skipped. Loops over the 16 are what the compiler makes vector
instructions of: it unrolls those whose bodies are small instead, so work is put together in bodies that are not.
"""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.fp16.accumulator import NAN_EXPONENT, accumulate, to_single
from nvdla_quant.emulator.fp16.booth import KERNELS, ROW, SCALES, align, recode, scale_of, significand
from nvdla_quant.emulator.fp16.floats import word

MAX_LANES = 64
"""Channels of a step."""
TOGETHER = 8
"""Products that are added at once: their sum fits into 32 bits, for none is larger than ``(2047 << 3)**2``."""

DIRECT = np.ones((1, MAX_LANES), np.int32)
"""Signs with which the products of a step enter its only sum."""


def weight_blocks(bits: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return the bits of weights ``(kernels, lanes)`` as `convolve` takes them, ``(blocks, lanes, 16)``."""
    blocks = -(-len(bits) // KERNELS)
    padded = np.zeros((blocks * KERNELS, bits.shape[1]), np.uint16)
    padded[: len(bits)] = bits
    return np.ascontiguousarray(padded.reshape(blocks, KERNELS, -1).transpose(0, 2, 1))


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
    fields = np.empty((len(patch), 3), np.uint16)
    any_nan = _split(patch, fields)
    table = np.empty((2 * MAX_LANES, ROW), np.uint16)
    nans = np.empty(KERNELS, np.uint16)
    mantissa = np.empty((len(pixels), outputs, KERNELS), np.int64)
    exponent = np.empty((len(pixels), outputs, KERNELS), np.int64)
    data = np.empty((MAX_LANES + TOGETHER, 3), np.uint32)
    top, total = np.empty(KERNELS, np.int16), np.empty(KERNELS, np.int64)
    carries = np.empty(KERNELS, np.uint16)
    aligned = np.empty((MAX_LANES + TOGETHER, KERNELS), np.int32)
    groups = aligned.reshape(-1, TOGETHER * KERNELS)
    for block in range(weights.shape[0]):
        mantissa[:] = 0
        exponent[:] = 0
        for step in range(len(steps) - 1):
            first, last = steps[step], steps[step + 1]
            recode(weights[block, first:last], table)
            nan_weights = _nans_of(weights[block, first:last], nans)
            for pixel in range(len(pixels)):
                start, places = pixels[pixel], lanes[first:last]
                if any_nan or nan_weights:
                    nan = _first_nan(patch, start, places)
                    for output in range(outputs):
                        _spread_nans(nans, nan, mantissa[pixel, output], exponent[pixel, output])
                count = _gather(fields, start, places, data)
                if count == 0:
                    continue
                _largest(table, data, count, top)
                align(table, data, count, top, carries, aligned)
                aligned[count : count + TOGETHER] = 0
                for output in range(outputs):
                    _sum(groups, data, count, signs[output], total)
                    _accumulate(total, top, mantissa[pixel, output], exponent[pixel, output])
        for pixel in range(len(pixels)):
            for output in range(outputs):
                for k in range(KERNELS):
                    bits = to_single(mantissa[pixel, output, k], exponent[pixel, output, k])
                    sums[pixel, output, block * KERNELS + k] = bits


@jit
def _split(patch: NDArray[np.uint16], fields: NDArray[np.uint16]) -> bool:
    """Write sign, significand and scale of the data; return whether there is a NaN."""
    any_nan = False
    for i in range(len(patch)):
        bits = word(patch[i])
        fields[i, 0], fields[i, 1], fields[i, 2] = bits >> 15, significand(bits), scale_of(bits)
        any_nan |= bits & 0x7FFF > 0x7C00
    return any_nan


@jit
def _gather(fields: NDArray[np.uint16], start: int, lanes: NDArray[np.int64], data: NDArray[np.uint32]) -> int:
    """Collect row of the table, significand and scale of the data of a step that are not zero; return their number.

    Which are zero cannot be predicted, so each is written, and the next over a zero. The last one is repeated for
    `_largest`.
    """
    count = 0
    for lane in range(len(lanes)):
        place = start + lanes[lane]
        data[count, 0] = 2 * lane + fields[place, 0]
        data[count, 1] = fields[place, 1]
        data[count, 2] = fields[place, 2]
        count += fields[place, 1] != 0
    for more in range(TOGETHER if count else 0):
        data[count + more] = data[count - 1]
    return count


@jit
def _largest(table: NDArray[np.uint16], data: NDArray[np.uint32], count: int, top: NDArray[np.int16]) -> None:
    """Find the largest scale of each kernel's products in a step."""
    top[:] = 0
    for entry in range(0, count, 4):
        a, b, c, d = data[entry, 0], data[entry + 1, 0], data[entry + 2, 0], data[entry + 3, 0]
        plus_a, plus_b, plus_c, plus_d = data[entry, 2], data[entry + 1, 2], data[entry + 2, 2], data[entry + 3, 2]
        for k in range(KERNELS):
            first = max(np.int16(table[a, SCALES + k] + plus_a), np.int16(table[b, SCALES + k] + plus_b))
            second = max(np.int16(table[c, SCALES + k] + plus_c), np.int16(table[d, SCALES + k] + plus_d))
            top[k] = max(top[k], max(first, second))


@jit
def _sum(
    groups: NDArray[np.int32], data: NDArray[np.uint32], count: int, signs: NDArray[np.int32], total: NDArray[np.int64]
) -> None:
    """Add the products of a step with their lanes' signs."""
    total[:] = 0
    for entry in range(0, count, TOGETHER):
        group = entry // TOGETHER
        a, b = signs[data[entry, 0] >> 1], signs[data[entry + 1, 0] >> 1]
        c, d = signs[data[entry + 2, 0] >> 1], signs[data[entry + 3, 0] >> 1]
        e, f = signs[data[entry + 4, 0] >> 1], signs[data[entry + 5, 0] >> 1]
        g, h = signs[data[entry + 6, 0] >> 1], signs[data[entry + 7, 0] >> 1]
        for k in range(KERNELS):
            first = np.int32(a * groups[group, k] + b * groups[group, KERNELS + k])
            second = np.int32(c * groups[group, 2 * KERNELS + k] + d * groups[group, 3 * KERNELS + k])
            third = np.int32(e * groups[group, 4 * KERNELS + k] + f * groups[group, 5 * KERNELS + k])
            fourth = np.int32(g * groups[group, 6 * KERNELS + k] + h * groups[group, 7 * KERNELS + k])
            total[k] += int(np.int32(np.int32(first + second) + np.int32(third + fourth)))


@jit
def _accumulate(
    total: NDArray[np.int64], top: NDArray[np.int16], mantissa: NDArray[np.int64], exponent: NDArray[np.int64]
) -> None:
    """Add the sums of a step, whose scale is `top`, to the accumulators."""
    for k in range(KERNELS):
        mantissa[k], exponent[k] = accumulate(mantissa[k], exponent[k], total[k], int(top[k]))


@jit
def _nans_of(weights: NDArray[np.uint16], nans: NDArray[np.uint16]) -> bool:
    """Write each kernel's first NaN of a step's weights ``(lanes, 16)``, or 0; return whether there is one."""
    nans[:] = 0
    any_nan = False
    for lane in range(len(weights)):
        for k in range(KERNELS):
            if weights[lane, k] & 0x7FFF > 0x7C00 and nans[k] == 0:
                nans[k] = weights[lane, k]
                any_nan = True
    return any_nan


@jit
def _first_nan(patch: NDArray[np.uint16], start: int, lanes: NDArray[np.int64]) -> int:
    """Return the first NaN of the data of a step, or 0."""
    for lane in range(len(lanes)):
        bits = word(patch[start + lanes[lane]])
        if bits & 0x7FFF > 0x7C00:
            return bits
    return 0


@jit
def _spread_nans(nans: NDArray[np.uint16], nan: int, mantissa: NDArray[np.int64], exponent: NDArray[np.int64]) -> None:
    """Make accumulators NaN: a weight's before the data's, an accumulator's own before both."""
    for k in range(KERNELS):
        bits = word(nans[k]) if nans[k] else nan
        if bits and exponent[k] != NAN_EXPONENT:
            mantissa[k] = ((bits & 1023) << 29) - ((bits >> 15) << 39)
            exponent[k] = NAN_EXPONENT
