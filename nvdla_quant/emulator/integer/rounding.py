"""Rounding and saturation primitives, as the hardware's integer blocks have them (docs/hardware/integers.md)."""

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


def saturate(values: Int64, bits: int) -> Int64:
    """Clamp to signed `bits`."""
    limit = np.int64(1) << (bits - 1)
    return np.clip(values, -limit, limit - 1)


def shift_right(values: Int64, shift: int, bits: int) -> Int64:
    """Shift right by `shift` (0 to 63), round to nearest with ties away from zero, saturate to signed `bits`.

    `values` may take the whole range of int64 but its least value.
    """
    if shift == 0:
        return saturate(values, bits)
    # Halve first: |values| + 2**(shift - 1) may not fit, (|values| >> (shift - 1)) + 1 does.
    magnitude = ((np.abs(values) >> (shift - 1)) + 1) >> 1
    return saturate(np.where(values < 0, -magnitude, magnitude), bits)


def shift_left(values: Int64, shift: int, bits: int) -> Int64:
    """Shift left by `shift` (any) and saturate to signed `bits` (at most 32)."""
    # Saturating first changes nothing and keeps the product within int64; beyond `bits` only the sign matters.
    return (
        saturate(saturate(values, bits) << min(shift, bits - 1), bits)
        if shift < bits
        else saturate(np.sign(values) << (bits + 1), bits)
    )
