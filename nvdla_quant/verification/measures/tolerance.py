"""How far a right loadable may lie from exact arithmetic: the roundings that its own descriptors ask for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import (
    CdpOperation,
    ConvOperation,
    CpuOperation,
    Operand,
    Operation,
    PdpOperation,
    SdpOperation,
)
from nvdla_quant.loadable.structs import PoolMode, SdpAlu

FLOATS = 0.1
"""Steps that float32 sums of the references may cost."""
AVERAGE = 0.5
"""Steps that an average may be off beside its rounding: it multiplies by 16-bit reciprocals (kmd/firmware/pdp.c)."""
LOOKUP = 2.0
"""Steps that a look-up table of a function may add beside its lines between entries, which are known (`tables`)."""
NORMALISING = 3.0
"""Steps that the table of a normalisation may add, whose lines between entries count."""
OCTAVES = 0.08
"""Share of a normalised value that its table may cost: between octaves it is up to 8 % off (beta 0.75, see
`compiler.numbers.luts`), which counts where a few values are far larger than all others."""
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
    added : NDArray[float64]
        How much is added to what weights make, at most, (channels,): a bias, a tensor. What comes out may be that much
        smaller than what weights make, where the two have opposite signs.
    """

    fixed: Floats
    relative: Floats
    drift: Floats
    added: Floats

    def with_leeway(self, leeway: Floats) -> "Tolerance":
        """Return the tolerance where what is added to may be off by a share `leeway`, (channels,), of itself."""
        cost = leeway * self.added
        return replace(self, fixed=self.fixed + cost, relative=self.relative + leeway, drift=self.drift + cost)

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
    parts = [_of_operation(operation) for operation in operations]

    def worst(columns: Iterable[Floats]) -> Floats:
        # The worst channel of a part stands for all channels, since which ones a part writes is not known here.
        rows = [column if len(column) == channels else np.full(channels, column.max()) for column in columns]
        largest: Floats = np.max(rows, axis=0)
        return largest

    return Tolerance(
        worst(part.fixed for part in parts) + FLOATS,
        worst(part.relative for part in parts),
        worst(part.drift for part in parts) + FLOATS,
        worst(part.added for part in parts),
    )


def _of_operation(operation: Operation) -> Tolerance:
    none = np.zeros(operation.destination.shape[0])
    match operation:
        case PdpOperation():
            average = none + (AVERAGE if operation.mode is PoolMode.AVERAGE else 0.0)
            return Tolerance(average + 0.5, none, average, none)
        case CpuOperation():
            return Tolerance(none + 1.0, none, none + 1.0, none)  # It truncates, which is a whole step.
        case CdpOperation():
            return Tolerance(none + NORMALISING + 0.5, none + OCTAVES, none + NORMALISING, none)
        case SdpOperation():
            return _of_sdp(operation, none)
    return Tolerance(none, none, none, none)  # Rubik and BDMA only move values.


def _of_sdp(operation: SdpOperation, none: Floats) -> Tolerance:
    scale, shift = none + abs(operation.converter.scale), operation.converter.shift
    found = Tolerance(none + (0.5 if shift > 0 else 0.0), _truncation(scale), none, none)
    # From the output back to the accumulator; `behind` is what a unit of the value here makes in steps of the output.
    behind = scale * 2.0**-shift
    for unit in reversed(operation.units):
        mul, addend = _size(unit.mul_operand, none), _size(unit.alu_operand, none)
        if mul is not None and not _varies(unit.mul_operand):
            found = found.with_leeway(_truncation(mul))
        rounding = 0.5 * behind if unit.truncate > 0 else none
        before = behind * (1.0 if mul is None else mul) * 2.0**-unit.truncate
        behind = np.maximum(behind, before) if unit.prelu else before
        drift = none + (LOOKUP if unit.lookup else 0.0)
        added = found.added
        if addend is not None:
            one = 2.0**unit.alu_shift * behind
            drift = drift if _varies(unit.alu_operand) else drift + (1.0 if unit.alu_shift else 0.5) * one
            added = added + addend * one if unit.alu is SdpAlu.SUM else added
        found = Tolerance(found.fixed + rounding + drift, found.relative, found.drift + drift, added)
    return found


def gain_of(operation: SdpOperation) -> Floats | None:
    """Return the factor, with its sign, between a convolution's sum of products and what `operation` writes.

    (channels,); where it applies a table, up to what that reads; None where it is no factor: an operand that varies, a
    unit Y that computes something.
    """
    gain: Floats = np.ones(operation.destination.shape[0])
    if isinstance(operation.source, ConvOperation):
        gain = gain * 2.0**-operation.source.truncate
        converter = operation.source.converter
        if converter is not None:
            gain = gain * converter.scale * 2.0**-converter.shift
    for unit in operation.units:
        if _varies(unit.mul_operand) or (unit.name == "y" and (unit.alu is not None or unit.mul_operand is not None)):
            return None
        if unit.lookup:
            return gain
        if unit.prelu and unit.mul_operand is not None:
            continue  # Values above 0 go around it.
        gain = gain * 2.0**-unit.truncate
        if unit.mul_operand is not None:
            values = unit.mul_operand.register if unit.mul_operand.channels is None else unit.mul_operand.channels
            gain = gain * np.asarray(values, np.float64)
    return gain * operation.converter.scale * 2.0**-operation.converter.shift


def _truncation(multiplier: Floats) -> Floats:
    """Return the relative cost of truncating the size of a multiplier to an integer; 1 and 0 are exact."""
    return np.where(multiplier > 1, 1 / np.maximum(multiplier, 1), 0.0)


def _varies(operand: Operand | None) -> bool:
    """Return whether an operand is another one for each image: one from a cube, or an array that is computed."""
    return operand is not None and (operand.cube is not None or operand.array is not None)


def _size(operand: Operand | None, none: Floats) -> Floats | None:
    """Return the largest size that an operand may have in each channel; None where there is none."""
    if operand is None:
        return None
    if _varies(operand):
        return none + OUTPUT
    values = operand.register if operand.channels is None else operand.channels
    size: Floats = none + np.abs(np.asarray(values, np.float64))
    return size
