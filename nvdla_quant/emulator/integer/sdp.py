"""The single-point data processor, integer: X1, X2, Y and the output converter (docs/hardware/sdp.md).

`integer_chain` is the rule itself, for any descriptor, in int64. Nearly every operation of a real network needs only
sums, products by constants, one cube of operands and ReLU; `linear_stages` reduces those to a few rounding steps that
`stage_loop` applies to a tile in one pass, in float64. That is exact: a step's operands have at most 33 and 16 bits,
so the product has 49 of the 53 that float64 holds, scaling by 2**-shift only moves the point, and adding one half
stays exact for shifts up to 53; for larger ones the magnitude is below 2**-4 and the result is 0 either way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.integer.lut import look_up
from nvdla_quant.emulator.integer.rounding import Int64, saturate, shift_left, shift_right
from nvdla_quant.emulator.operations import Converter, Cube, Lut, Operand, SdpOperation, SdpUnit
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.loadable.structs import SdpAlu

MAX_HALF = 65504
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
Operands = dict[tuple[str, str], Int64]
"""Operands by (unit, "alu" or "mul"), broadcastable against the data."""


def integer_chain(
    values: Int64,
    units: Sequence[SdpUnit],
    operands: Operands,
    lut: Lut | None,
    converter: Converter,
    output: Precision = Precision.INT8,
) -> Int64:
    """Apply the units and the output converter to the bus's values.

    Parameters
    ----------
    values : NDArray[np.int64]
        Int32 values, any shape with channels last.
    units : Sequence[SdpUnit]
        Enabled units in the order x1, x2, y.
    operands : Operands
        What `constant_operands` returned and, for per-point operands, what stands in memory.
    lut : Lut or None
        The table of Y.
    converter : Converter
        Output converter.
    output : Precision
        Of the result.

    Returns
    -------
    NDArray[np.int64]
        Int8 or int16 values, or numbers of 17 bits that no half exceeds.
    """
    for unit in units:
        alu, mul = operands.get((unit.name, "alu")), operands.get((unit.name, "mul"))
        values = _y_unit(values, unit, alu, mul, lut) if unit.name == "y" else _x_unit(values, unit, alu, mul)
    wide = shift_right((values - converter.offset) * converter.scale, converter.shift, 17)
    if output is Precision.FP16:
        # What would round to infinity becomes the largest half (sdp_c.cpp, Int17ToFp16).
        return np.clip(wide, -MAX_HALF, MAX_HALF)
    return saturate(wide, 8 if output is Precision.INT8 else 16)


def _x_unit(values: Int64, unit: SdpUnit, alu: Int64 | None, mul: Int64 | None) -> Int64:
    if unit.alu is not None and alu is not None:
        values = _alu(values, shift_left(alu, unit.alu_shift, 32), unit.alu)
    product = values if mul is None else values * mul
    result = shift_right(product, unit.truncate, 32)
    if unit.prelu and mul is not None:
        # Non-negative values go around multiplier and shift, and are wrapped to 32 bits, not saturated. Where the
        # multiplier is bypassed they are shifted as all others (``X_mul`` in cmod/hls/sdp/sdp_x.cpp).
        wrapped = ((values + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        result = np.where(values >= 0, wrapped, result)
    return np.maximum(result, 0) if unit.relu else result


def _alu(values: Int64, operand: Int64, kind: SdpAlu) -> Int64:
    if kind is SdpAlu.MAX:
        return np.maximum(values, operand)
    if kind is SdpAlu.MIN:
        return np.minimum(values, operand)
    # In X units EQL does what SUM does (sdp_x.cpp:113).
    return values + operand


def _y_unit(values: Int64, unit: SdpUnit, alu: Int64 | None, mul: Int64 | None, lut: Lut | None) -> Int64:
    if mul is not None:
        # Two int32 factors: only -2**31 * -2**31 reaches 2**62, far inside int64.
        product = shift_right(values * _convert_operand(mul, unit.mul_converter), min(unit.truncate, 63), 32)
        values = np.where(values >= 0, values, product) if unit.prelu else product
    if unit.alu is not None and alu is not None:
        operand = _convert_operand(alu, unit.alu_converter)
        if unit.alu is SdpAlu.EQL:
            values = (values != operand).astype(np.int64)
        else:
            values = saturate(_alu(values, operand, unit.alu), 32)
    return look_up(values, lut) if unit.lookup and lut is not None else values


def _convert_operand(operand: Int64, converter: Converter | None) -> Int64:
    if converter is None:
        return operand
    return shift_right((operand - converter.offset) * converter.scale, converter.shift, 32)


def constant_operands(units: Sequence[SdpUnit]) -> Operands:
    """Return the operands that registers and arrays hold."""
    operands = {}
    for unit in units:
        for part, operand in (("alu", unit.alu_operand), ("mul", unit.mul_operand)):
            if operand is not None and operand.cube is None:
                operands[unit.name, part] = constant(operand)
    return operands


def constant(operand: Operand) -> Int64:
    """Return the value or values of an operand that is not a cube."""
    return np.asarray(operand.register if operand.channels is None else operand.channels, np.int64)


@dataclass(frozen=True, eq=False)
class Stage:
    """One rounding step: ``clip(round((v + add) * mul), low, high)``.

    ``add`` and ``mul`` are (channels,) float64; `point` 1 adds the operand cube's value times `point_scale` as well,
    2 multiplies by it as well; 0: no cube.
    """

    add: NDArray[np.float64]
    mul: NDArray[np.float64]
    low: float
    high: float
    point: int = 0
    point_scale: float = 0.0
    cube: Cube | None = None

    def reach(self, bound: float) -> float:
        """Return the largest magnitude before clipping for inputs of magnitude `bound`."""
        added = bound + float(np.abs(self.add).max(initial=0)) + (128 * self.point_scale if self.point == 1 else 0)
        return added * float(np.abs(self.mul).max(initial=0)) * (128 if self.point == 2 else 1) + 1

    @property
    def only_adds(self) -> bool:
        """Whether nothing is multiplied or rounded."""
        return self.point != 2 and bool(np.all(self.mul == 1))


def linear_stages(operation: SdpOperation, channels: int, bound: float) -> tuple[Stage, ...] | None:
    """Return the steps of `operation`, or None where it needs more than sums, products, one int8 cube and ReLU.

    Parameters
    ----------
    operation : SdpOperation
        An integer operation.
    channels : int
        Channels of the data.
    bound : float
        Largest magnitude of its source; decides which saturations can be left out.
    """
    stages = []
    for unit in operation.units:
        stage = _unit_stage(unit, channels)
        if stage is None:
            return None
        stages.append(stage)
    if sum(stage.point != 0 for stage in stages) > 1:
        return None
    converter = operation.converter
    scale = converter.scale * 2.0**-converter.shift
    stages.append(Stage(np.full(channels, -float(converter.offset)), np.full(channels, scale), -128.0, 127.0))
    return _merge(stages, bound)


def _unit_stage(unit: SdpUnit, channels: int) -> Stage | None:
    if unit.name == "y" or unit.prelu or unit.alu not in (None, SdpAlu.SUM, SdpAlu.EQL):
        return None
    add, mul = np.zeros(channels), np.full(channels, 2.0**-unit.truncate)
    point, scale, cube = 0, 0.0, None
    if unit.alu_operand is not None:
        if unit.alu_operand.cube is None:
            add += shift_left(constant(unit.alu_operand), unit.alu_shift, 32)
        else:
            point, scale, cube = 1, 2.0**unit.alu_shift, unit.alu_operand.cube
    if unit.mul_operand is not None:
        if unit.mul_operand.cube is None:
            mul *= constant(unit.mul_operand)
        else:
            point, cube = 2, unit.mul_operand.cube
    # An int8 operand shifted by more than 23 could saturate, which a product cannot express.
    if cube is not None and (unit.interleaved or cube.element_bytes != 1 or unit.alu_shift > 23):
        return None
    low = 0.0 if unit.relu else float(INT32_MIN)
    return Stage(add, mul, low, float(INT32_MAX), point, scale, cube)


def _merge(stages: list[Stage], bound: float) -> tuple[Stage, ...]:
    """Join neighbours where that provably changes nothing."""
    merged: list[Stage] = []
    for stage in stages:
        while merged:
            before = merged[-1]
            reach = bound if len(merged) == 1 else min(bound, 2.0**31)
            joined = _join(before, stage, before.reach(reach))
            if joined is None:
                break
            merged.pop()
            stage = joined
        merged.append(stage)
    return tuple(merged)


def _join(first: Stage, second: Stage, reach: float) -> Stage | None:
    """Return one step that does what the two do, if there is one; `reach` is how far `first` gets unclipped."""
    if second.only_adds and second.point == 0 and not np.any(second.add):
        # The second only clips: the tighter of both ranges.
        return replace(first, low=max(first.low, second.low), high=min(first.high, second.high))
    free = first.only_adds and reach < INT32_MAX and not (first.point and second.point)
    if not free:
        return None
    joined = replace(
        second,
        add=first.add + second.add,
        point=first.point or second.point,
        point_scale=first.point_scale or second.point_scale,
        cube=first.cube or second.cube,
    )
    if first.low == INT32_MIN:
        return joined
    # ReLU between the two moves behind the second where that is a product by no negative number, and nothing else.
    behind = second.point == 0 and not np.any(second.add) and bool(np.all(second.mul >= 0))
    return replace(joined, low=max(second.low, 0.0)) if behind else None
