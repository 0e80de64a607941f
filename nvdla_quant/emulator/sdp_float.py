"""The single-point data processor in fp16 (arithmetic notes, section 9): float32 between units, no converters.

Additions, multiplications and comparisons are those of the hardware but for subnormal results, which it flushes to
zero; `fast` convolutions in front of it round in another order than the hardware does.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import SdpUnit
from nvdla_quant.loadable.structs import SdpAlu

Floats = NDArray[np.float32]
MAX_HALF = 65504.0


def float_chain(
    values: Floats, units: Sequence[SdpUnit], operands: Mapping[tuple[str, str], Floats]
) -> NDArray[np.float16]:
    """Apply the units to float32 `values` (channels last) and round to float16, clamped to its largest number."""
    with np.errstate(invalid="ignore", over="ignore"):
        return _chain(values, units, operands)


def to_int16(values: NDArray[np.float16]) -> NDArray[np.int16]:
    """Round to int16, nearest with ties away from zero; NaN gives the least number (nvdla_float.h, FpFloatToInt)."""
    exact = values.astype(np.float64)
    rounded = np.copysign(np.floor(np.abs(exact) + 0.5), exact)
    limited = np.clip(np.where(np.isnan(exact), -np.inf, rounded), -32768, 32767)
    return limited.astype(np.int16)


def _chain(values: Floats, units: Sequence[SdpUnit], operands: Mapping[tuple[str, str], Floats]) -> NDArray[np.float16]:
    for unit in units:
        alu, mul = operands.get((unit.name, "alu")), operands.get((unit.name, "mul"))
        if unit.name == "y":
            values = _add(_multiply(values, unit, mul), unit, alu)
        else:
            values = _multiply(_add(values, unit, alu), unit, mul)
            values = np.maximum(values, np.float32(0)) if unit.relu else values
    return np.clip(values, -MAX_HALF, MAX_HALF).astype(np.float16)


def _add(values: Floats, unit: SdpUnit, operand: Floats | None) -> Floats:
    if operand is None:
        return values
    if unit.alu is SdpAlu.MAX:
        return np.maximum(values, operand)
    if unit.alu is SdpAlu.MIN:
        return np.minimum(values, operand)
    if unit.alu is SdpAlu.EQL and unit.name == "y":
        differs: Floats = (values != operand).astype(np.float32)
        return differs
    return values + operand


def _multiply(values: Floats, unit: SdpUnit, operand: Floats | None) -> Floats:
    if operand is None:
        return values
    product: Floats = values * operand
    return np.where(values >= 0, values, product) if unit.prelu else product
