"""How far a right loadable may lie from exact arithmetic: the roundings that its own descriptors ask for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import (
    CdpOperation,
    CpuOperation,
    Operand,
    Operation,
    PdpOperation,
    SdpOperation,
)
from nvdla_quant.loadable.structs import PoolMode

FLOATS = 0.1
"""Steps that float32 sums of the references may cost."""
AVERAGE = 0.5
"""Steps that an average may be off beside its rounding: it multiplies by 16-bit reciprocals (kmd/firmware/pdp.c)."""
LOOKUP = 3.0
"""Steps that a look-up table, linear between its entries, may add."""
LARGEST = 4.0
"""More steps than this are never a rounding, whatever a descriptor says: a wrong shift must not excuse itself."""
OUTPUT = 128.0
"""Largest magnitude of an output in steps."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tolerance:
    """Rounding error of each channel, in steps of the output.

    Attributes
    ----------
    fixed : NDArray[float64]
        Whatever the value is, (channels,).
    relative : NDArray[float64]
        Share of the value, (channels,).
    drift : NDArray[float64]
        Part of `fixed` that has one sign for all values of a channel, (channels,): roundings of results average out,
        those of operands do not.
    summed : bool
        Whether a tensor is added: then the value that weights make may be larger than what comes out.
    """

    fixed: Floats
    relative: Floats
    drift: Floats
    summed: bool = False

    def with_leeway(self, leeway: Floats) -> "Tolerance":
        """Return the tolerance where the weights' factors are known only up to a share `leeway`, (channels,)."""
        if not self.summed:
            return replace(self, relative=self.relative + leeway)
        return replace(self, fixed=self.fixed + OUTPUT * leeway, drift=self.drift + OUTPUT * leeway)

    def of(self, exact: Floats, largest: float = LARGEST) -> Floats:
        """Return the largest rounding error of exact values (n, channels, height, width), `largest` at most."""
        fixed, relative = (part[None, :, None, None] for part in (self.fixed, self.relative))
        bound: Floats = np.minimum(fixed + relative * np.abs(exact), largest)
        return bound


def step_tolerance(operations: Sequence[Operation], channels: int) -> Tolerance:
    """Return the rounding error of int8 operations that together write one tensor.

    Each rounding is followed to the output: half a unit behind a shift, a unit of a constant operand (half where it is
    not shifted), and the unit that truncating a multiplier to an integer costs, which matters where it is small.
    """
    parts = [_of_operation(operation, channels) for operation in operations]
    worst = [np.max(columns, axis=0) for columns in zip(*((p.fixed, p.relative, p.drift) for p in parts), strict=True)]
    return Tolerance(worst[0] + FLOATS, worst[1], worst[2] + FLOATS, any(part.summed for part in parts))


def _of_operation(operation: Operation, channels: int) -> Tolerance:
    none = np.zeros(channels)
    if isinstance(operation, PdpOperation):
        average = none + (AVERAGE if operation.mode is PoolMode.AVERAGE else 0.0)
        return Tolerance(average + 0.5, none, average)
    if isinstance(operation, CpuOperation):
        return Tolerance(none + 1.0, none, none + 1.0)  # It truncates, which is a whole step.
    if isinstance(operation, CdpOperation):
        return Tolerance(none + LOOKUP + 0.5, none, none + LOOKUP)
    if not isinstance(operation, SdpOperation):
        return Tolerance(none, none, none)  # Rubik and BDMA only move values.
    rounding, drift, relative = none, none, _truncation(none + operation.converter.scale)
    rounding = rounding + (0.5 if operation.converter.shift > 0 else 0.0)
    # Behind a sum of two tensors, the value that a multiplier acted on may be larger than what comes out.
    summed = False
    behind = none + operation.converter.scale * 2.0**-operation.converter.shift
    for unit in reversed(operation.units):
        points = [_varies(part) for part in (unit.alu_operand, unit.mul_operand)]
        mul = _constant(unit.mul_operand, channels)
        if mul is not None:
            cost = _truncation(mul)
            drift, relative = (drift + OUTPUT * cost, relative) if summed else (drift, relative + cost)
        rounding = rounding + (0.5 * np.abs(behind) if unit.truncate > 0 else 0.0)
        factor = OUTPUT if points[1] else 1.0 if mul is None else mul
        behind = behind * factor * 2.0**-unit.truncate
        if _constant(unit.alu_operand, channels) is not None:
            units = 1.0 if unit.alu_shift else 0.5
            drift = drift + units * 2.0**unit.alu_shift * np.abs(behind)
        drift = drift + (LOOKUP if unit.lookup else 0.0)
        summed = summed or any(points)
    return Tolerance(rounding + drift, relative, drift, summed)


def _truncation(multiplier: Floats) -> Floats:
    """Return the relative cost of truncating a multiplier to an integer; 1 and 0 are exact."""
    size = np.abs(multiplier)
    return np.where(size > 1, 1 / np.maximum(size, 1), 0.0)


def _varies(operand: Operand | None) -> bool:
    """Return whether an operand is another one for each image: one from a cube, or an array that is computed."""
    return operand is not None and (operand.cube is not None or operand.array is not None)


def _constant(operand: Operand | None, channels: int) -> Floats | None:
    """Return the value of an operand for each channel; None where it has none or varies."""
    if operand is None or _varies(operand):
        return None
    values = operand.register if operand.channels is None else operand.channels
    array = np.asarray(values, np.float64).reshape(-1)
    # A part of a tensor has a part of the channels; its smallest value, whose truncation costs most, stands for all.
    return np.resize(array, channels) if len(array) in (1, channels) else np.full(channels, np.abs(array).min())
