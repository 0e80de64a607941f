"""Real factors as the hardware multiplies: a 16-bit significand and a right shift."""

import math

from nvdla_quant.compiler.lowering.operations import Converter
from nvdla_quant.errors import CompileError

SIGNIFICANT_BITS = 15
"""Bits of a positive 16-bit multiplier."""
MAX_SHIFT = 63
"""Right shifts are 6 bits wide in the SDP's units (docs/hardware/sdp.md, "X units")."""


def factorise(ratio: float, where: str) -> Converter:
    """`ratio` as significand / 2**shift, the significand of 15 bits truncated (docs/hardware/integers.md, "Factors").

    Raises
    ------
    CompileError
        The ratio needs more than 15 bits before the point: the scales of the table are absurd.
    """
    _, exponent = math.frexp(ratio)
    shift = SIGNIFICANT_BITS - exponent
    if shift < 0:
        raise CompileError(
            f"{where}: outputs are {ratio:.4g} times finer than inputs, the limit is 32767; see its table entry"
        )
    shift = min(shift, MAX_SHIFT)
    return Converter(int(math.ldexp(ratio, shift)), shift)
