"""The fp16 accumulator, bit for bit: 40 bits of mantissa, 8 of exponent (docs/hardware/fp16.md, "Accumulator").

Everything is written without branches on values, for the compiler to make vector instructions of loops over kernels.
Facts: nvdla/hw ``cmod/cacc/NV_NVDLA_cacc.cpp`` (FP48).
"""

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.fp16.floats import bit_length

NAN_EXPONENT = 255
"""Exponent of an accumulator that is not a number."""
FULL = 1 << 39
"""Magnitude that the accumulator's mantissa of 40 bits no longer holds."""
GUARDS = 22
"""Bits below the mantissa that a sum is worked out with; those below them only count as being there or not."""


@jit
def accumulate(mantissa: int, exponent: int, step: int, step_exponent: int) -> tuple[int, int]:
    """Add ``step * 2**(step_exponent - 50)`` to the accumulator ``mantissa * 2**(exponent - 101)``; NaN stays.

    Both are aligned to the larger exponent; an operand that lies more than 40 bits below is dropped. The sum is
    normalised, then rounded to nearest, ties away from zero.
    """
    length = bit_length(step ^ (step >> 63))
    added, added_exponent = step << (39 - length), step_exponent + 12 + length
    above = added_exponent > exponent
    high, low = (added, mantissa) if above else (mantissa, added)
    top = added_exponent if above else exponent
    down = abs(added_exponent - exponent)
    wide = low << GUARDS if down <= 40 else 0
    shift = min(down, 40)
    shifted = wide >> shift
    # Only where exponents are far apart does anything fall off, and then a sum loses no more than a bit or two to
    # cancellation: the lowest guard is never the one that decides, and may stand for all below it.
    total = (high << GUARDS) + (shifted | (1 if shifted << shift != wide else 0))
    # Without guards, -1 and 0 have no bits at all, whatever the guards are.
    length = bit_length((total ^ (total >> 63)) | ((1 << GUARDS) - 1))
    normal = total << (62 - length)
    rounded = (normal + (1 << GUARDS) + (normal >> 63)) >> (GUARDS + 1)
    carried = rounded == FULL
    result = top + length - (39 + GUARDS) + (1 if carried else 0)
    rounded = FULL >> 1 if carried else rounded
    keep = step == 0 or exponent == NAN_EXPONENT
    return mantissa if keep else rounded, exponent if keep else (result if rounded else 0)


@jit
def to_single(mantissa: int, exponent: int) -> int:
    """Return the fp32 bits of an accumulator, rounded to nearest, ties away from zero; NaN has its payload on top."""
    sign = (1 << 31) if mantissa < 0 else 0
    rounded = (abs(mantissa) + (1 << 14)) >> 15
    # Beyond 24 bits it is a power of two, and only the exponent matters.
    field = (exponent + 64 + (rounded >> 24)) & 255
    number = sign | (field << 23) | (rounded & 0x7FFFFF) if mantissa else 0
    return sign | 0x7F800000 | ((mantissa >> 29) & 1023) if exponent == NAN_EXPONENT else number
