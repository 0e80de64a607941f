"""How far a right loadable may lie from exact arithmetic: the roundings that its own descriptors ask for."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import Operand, Operation, PdpOperation, SdpOperation
from nvdla_quant.loadable.structs import PoolMode

FINAL_ROUNDING = 0.6
"""int8 steps: half a step, and a tenth for float32 sums of the references."""
AVERAGE = 0.5
"""Steps that an average may be off beside its rounding: it multiplies by 16-bit reciprocals (kmd/firmware/pdp.c)."""
LOOKUP = 3.0
"""Steps that a look-up table, linear between its entries, may add."""
LARGEST = 4.0
"""More steps than this are never a rounding, whatever a descriptor says: a wrong shift must not excuse itself."""
OUTPUT = 128.0
"""Largest magnitude of an output in steps."""

Floats = NDArray[np.float64]


def step_tolerance(operations: Sequence[Operation], channels: int, largest: float = LARGEST) -> Floats:
    """Return the largest rounding error of int8 operations that together write one tensor, (channels,), in steps.

    Each rounding is followed to the output: half a unit behind a shift, half a unit of a constant operand, and the
    unit that truncating a multiplier to an integer costs, which matters where the multiplier is small.
    """
    totals = [_of_operation(operation, channels) for operation in operations]
    worst: Floats = np.minimum(FINAL_ROUNDING + np.max(totals, axis=0), largest)
    return worst


def _of_operation(operation: Operation, channels: int) -> Floats:
    total = np.zeros(channels)
    if isinstance(operation, PdpOperation):
        return total + (AVERAGE if operation.mode is PoolMode.AVERAGE else 0.0)
    if not isinstance(operation, SdpOperation):
        return total + 1.0  # The CPU truncates, which is a whole step.
    behind = np.full(channels, operation.converter.scale * 2.0**-operation.converter.shift)
    total += _truncated(np.full(channels, float(operation.converter.scale)))
    for unit in reversed(operation.units):
        mul = _constant(unit.mul_operand, channels)
        rounds = unit.truncate > 0
        total += 0.5 * np.abs(behind) if rounds else 0.0
        points = unit.mul_operand is not None and unit.mul_operand.cube is not None
        gain = (OUTPUT if points else 1.0 if mul is None else mul) * 2.0**-unit.truncate
        total += 0.0 if mul is None else _truncated(mul)
        behind = behind * gain
        if _constant(unit.alu_operand, channels) is not None:
            total += 0.5 * 2.0**unit.alu_shift * np.abs(behind)
        total += LOOKUP if unit.lookup else 0.0
    return total


def _truncated(multiplier: Floats) -> Floats:
    """Return what truncating a multiplier to an integer costs at the largest output; 1 and 0 are exact."""
    size = np.abs(multiplier)
    return np.where(size > 1, OUTPUT / np.maximum(size, 1), 0.0)


def _constant(operand: Operand | None, channels: int) -> Floats | None:
    """Return the value of an operand for each channel; None where it has none or comes from a cube."""
    if operand is None or operand.cube is not None:
        return None
    values = operand.register if operand.channels is None else operand.channels
    array = np.asarray(values, np.float64).reshape(-1)
    # A part of a tensor has a part of the channels; its largest value stands for the rest.
    return np.resize(array, channels) if len(array) in (1, channels) else np.full(channels, np.abs(array).min())
