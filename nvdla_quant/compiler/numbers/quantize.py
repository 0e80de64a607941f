"""Quantization: scales, integer weights and biases, and the SDP programs that get from accumulators to outputs.

Real value = scale * integer. An accumulator of a convolution has the scale S_in * S_w; the SDP adds the bias in that
scale and brings the sum to S_out with a 16-bit multiplier and a right shift. The formulas are those of
NVIDIA's compiler where that is right (docs/hardware/calibration-table.md).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.lowering.operations import (
    Combination,
    Converter,
    ConvolutionStep,
    Lowered,
    PointStep,
    PoolingStep,
    SdpProgram,
    SdpUnit,
)
from nvdla_quant.compiler.numbers.fixed import SIGNIFICANT_BITS, factorise
from nvdla_quant.compiler.numbers.luts import TABLE_STEP, function_table
from nvdla_quant.errors import CompileError
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.loadable.structs import Activation, SdpAlu, SdpMode, SdpType
from nvdla_quant.table.table import CalibrationTable

INT8_MIN, INT8_MAX = -128, 127
"""What an output saturates to (docs/hardware/integers.md, "Saturation")."""
BIAS_LIMIT = (1 << 15) - 1
"""Largest 16-bit bias; the smallest is not used, so that the range is symmetric."""

MAX_BIAS_SHIFT = 15
"""Largest left shift of a bias here: what is added stays below half of the 32-bit range of the sum."""

BIAS_STEP = 1 / 32
"""Step of the bias that filters of a small scale may force on the others, in steps of the output."""

SMALLEST_SCALE = 2.0**-100
"""Scale of weights that are all zero; its reciprocal is still a float32."""

ADDEND_SHIFT = 8
"""Fraction bits that a sum of two tensors is computed with."""

ALU_OF: Mapping[Combination, SdpAlu] = MappingProxyType({"sum": SdpAlu.SUM, "max": SdpAlu.MAX, "min": SdpAlu.MIN})
"""What an SDP's ALU does for a combination of two tensors; a product is the multiplier's."""


@dataclass(frozen=True)
class WeightChange:
    """What became of weights that came quantized.

    Attributes
    ----------
    honoured : bool
        Whether the int8 weights are the integers that they came as.
    steps : float
        Largest change of a weight, in steps of the scale that it came with. It is not zero where the integers are the
        same, since their scale is the next one that the multipliers can express.
    relative : float
        Largest change of a weight over its size; 1 where one became zero.
    """

    honoured: bool
    steps: float
    relative: float


@dataclass(frozen=True, eq=False)
class QuantizedConvolution:
    """Weights and SDP program of one convolution.

    Attributes
    ----------
    weights : NDArray
        (outputs, inputs, height, width), int8 or float16.
    scales : NDArray or None
        Scale of each filter's weights, (outputs,); None in fp16.
    program : SdpProgram
        What the SDP does with the accumulators.
    remarks : tuple[str, ...]
        What it computes otherwise than the network.
    change : WeightChange or None
        What became of weights that came quantized; None where they did not.
    """

    weights: NDArray[np.generic]
    scales: NDArray[np.float64] | None
    program: SdpProgram
    remarks: tuple[str, ...] = ()
    change: WeightChange | None = None


def effective_scales(lowered: Lowered, table: CalibrationTable) -> tuple[Mapping[str, float], tuple[str, ...]]:
    """Scale of every tensor, and remarks on entries that have no effect.

    A fused step has its last layer's scale. Pooling cannot rescale: its output has the scale of its input, whatever
    the table says. What stands inside of another tensor has that one's scale. Inputs of functions have theirs, also
    where no tensor of that name is left.

    Raises
    ------
    TableError
        The table has no entry for an input, for the last layer of a step, or for what a function reads.
    """
    kept = {step.output: step.source for step in lowered.steps if isinstance(step, PoolingStep)}

    def scale(name: str) -> float:
        if part := lowered.parts.get(name):
            return scale(part.whole)
        if name in kept:
            return scale(kept[name])
        if derived := lowered.derived.get(name):
            others = [scale(other) for other in derived.tensors]
            return derived.factor * (math.prod(others) if derived.kind == "product" else max(others))
        return table[name]

    names = [*lowered.inputs, *(step.output for step in lowered.steps), *lowered.tensors]
    with_functions = (step for step in lowered.steps if isinstance(step, ConvolutionStep | PointStep))
    names += [step.function.source for step in with_functions if step.function is not None]
    scales = {name: scale(name) for name in dict.fromkeys(names)}
    reasons = {name: f"it stands in {part.whole!r} at that one's scale" for name, part in lowered.parts.items()}
    reasons |= dict.fromkeys(kept, "pooling keeps its input's scale")
    remarks = (
        f"layer {name!r}: {reason} {scales[name]:.9g}; the entry {table[name]:.9g} is not used"
        for name, reason in reasons.items()
        if name in table.scales and not math.isclose(table[name], scales[name], rel_tol=1e-6)
    )
    return scales, tuple(remarks)


def quantize_weights(weights: NDArray[np.float32], scales: NDArray[np.float64]) -> NDArray[np.int8]:
    """Weights as multiples of their filter's scale, half up, in float32 as the real compiler computes them."""
    inverse = (np.float32(1) / scales.astype(np.float32)).reshape(-1, 1, 1, 1)
    steps: NDArray[np.float32] = np.floor(weights * inverse + np.float32(0.5))
    return np.clip(steps, -128, 127).astype(np.int8)


def weight_change(
    weights: NDArray[np.float32], given: NDArray[np.float32], steps: NDArray[np.int8], scales: NDArray[np.float64]
) -> WeightChange:
    """Return what became of `weights`, multiples of the scales `given`, as `steps` of `scales`."""
    came, own = (each.astype(np.float64).reshape(-1, 1, 1, 1) for each in (given, scales))
    exact = weights.astype(np.float64)
    change = np.abs(steps * own - exact)
    there = exact != 0
    return WeightChange(
        honoured=bool((np.rint(exact / came) == steps).all()),
        steps=float((change / came).max()),
        relative=float((change[there] / np.abs(exact[there])).max(initial=0)),
    )


def weight_scales(
    weights: NDArray[np.float32],
    bias: NDArray[np.float64],
    ratio: float,
    mode: QuantizationMode,
    given: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """Scale of each filter's weights, such that weights and bias both fit.

    The largest weight decides, of all filters or of each, or the scales that the weights came with. Per filter, one
    whose scale is small against the others' (a dead one in the extreme) gets the smallest scale at which its bias fits
    into 16 bits without forcing a coarse bias step on the other filters; its weights lose nothing that the output could
    show.

    Parameters
    ----------
    weights : NDArray
        (outputs, inputs, height, width).
    bias : NDArray
        (outputs,), as multiples of the input's scale.
    ratio : float
        Scale of the input over scale of the output, or of what the output's function reads.
    mode : QuantizationMode
        One scale for all filters, or one each.
    given : NDArray, optional
        Scales that the weights came with, (outputs,), which count instead of the largest weights. One scale for all
        filters is the largest of them.
    """
    # In float32, as the real compiler does, so that the weights come out the same.
    own = np.abs(weights).max(axis=(1, 2, 3)) / np.float32(127) if given is None else given.copy()
    if mode is QuantizationMode.PER_KERNEL:
        own[:] = own.max()
    natural = np.maximum(own.astype(np.float64), SMALLEST_SCALE)
    room = np.abs(bias) / BIAS_LIMIT
    top = max(natural.max(), room.max() / 2**MAX_BIAS_SHIFT)
    if mode is QuantizationMode.PER_KERNEL:
        return np.full(len(weights), top)
    tolerated = math.floor(math.log2(BIAS_STEP / (ratio * top)))
    forced = _bias_shift(max(room[natural == top], default=0) * BIAS_LIMIT / top)
    shift = min(max(tolerated, forced, 0), MAX_BIAS_SHIFT)
    chosen: NDArray[np.float64] = np.maximum(natural, np.ldexp(room, -shift))
    return chosen


def _bias_shift(largest: float) -> int:
    """Smallest shift at which `largest`, rounded, fits into 16 bits."""
    shift = 0
    while math.floor(math.ldexp(largest, -shift) + 0.5) > BIAS_LIMIT:
        shift += 1
    return shift


def _integer_bias(bias: NDArray[np.float64]) -> tuple[NDArray[np.int16], int]:
    """`bias`, in steps of the accumulator, as int16 << shift, half up; the smallest shift that fits."""
    steps = np.floor(bias + 0.5)
    shift = _bias_shift(float(np.abs(steps).max()))
    return np.floor(np.ldexp(steps, -shift) + 0.5).astype(np.int16), shift


def _snap(ratios: NDArray[np.float64], where: str) -> tuple[NDArray[np.int16], int]:
    """Multipliers and their common shift: the smallest 16-bit fractions that are not below `ratios`."""
    shift = factorise(float(ratios.max()), where).shift
    multipliers = np.ceil(np.ldexp(ratios, shift))
    if multipliers.max() > BIAS_LIMIT:
        # As `factorise` of a ratio that is not rounded down, which refuses what is left with no shift.
        shift = factorise(float(multipliers.max()) * 2.0**-shift, where).shift
        multipliers = np.ceil(np.ldexp(ratios, shift))
    return np.maximum(multipliers, 1).astype(np.int16), shift


def quantize_convolution(
    step: ConvolutionStep, scales: Mapping[str, float], mode: QuantizationMode
) -> QuantizedConvolution:
    """int8 weights of `step`, and the SDP program behind it.

    Per filter, all multipliers share one shift, which the largest needs. So that the small ones are exact too, each
    filter's weight scale is raised to the next one whose multiplier is a whole number.

    Parameters
    ----------
    step : ConvolutionStep
        The step.
    scales : Mapping[str, float]
        Scale of every tensor.
    mode : QuantizationMode
        Per kernel or per filter.

    Raises
    ------
    CompileError
        The scales of input and output are too far apart.
    """
    where = f"layer {step.layers[-1]!r}"
    source, output = scales[step.source], scales[step.output]
    fine = _fine(step, scales)
    target = output if fine is None else fine
    shown = output if step.function is None else scales[step.function.source]
    sign = -1 if step.join is not None and step.join.gain < 0 else 1
    bias = np.zeros(len(step.weights)) if step.bias is None else step.bias.astype(np.float64) / source
    chosen = weight_scales(step.weights, bias, source / shown, mode, step.scales)
    per_filter = mode is QuantizationMode.PER_FILTER
    if per_filter:
        multipliers, truncate = _snap(chosen * (source / target), where)
        chosen = np.ldexp(multipliers.astype(np.float64), -truncate) * (target / source)
    else:
        factor = factorise(float(chosen[0]) * source / target, where)
        multipliers, truncate = np.full(len(chosen), factor.scale, dtype=np.int16), factor.shift
    weights = quantize_weights(step.weights, chosen)
    change = None if step.scales is None else weight_change(step.weights, step.scales, weights, chosen)
    last = Activation.RELU if step.relu and fine is None else Activation.NONE
    addends, shift = _integer_bias(bias / chosen)
    remarks = _coarse_bias(np.abs(bias).max() * source, float(np.ldexp(chosen.max(), shift)) * source, shown, where)
    if fine is None and not per_filter and step.bias is not None:
        first = SdpUnit(SdpType.ADD, SdpMode.PER_KERNEL, shift, act=last, operands=addends)
        second = _highest(step.most, math.ldexp(output * int(multipliers[0]), -truncate), output)
        program = SdpProgram(first, second, Converter(int(multipliers[0]), truncate))
        return QuantizedConvolution(weights, chosen, program, remarks, change)
    if step.bias is not None:
        pairs = np.stack([addends, sign * multipliers], axis=1)
        first = SdpUnit(SdpType.BOTH, SdpMode.PER_KERNEL, shift, truncate, act=last, operands=pairs)
    elif fine is None and not per_filter:
        first = SdpUnit(SdpType.MUL, SdpMode.PER_LAYER, 0, truncate, int(multipliers[0]), last)
    else:
        first = SdpUnit(SdpType.MUL, SdpMode.PER_KERNEL, 0, truncate, act=last, operands=sign * multipliers)
    if fine is None:
        second = _highest(step.most, output, output)
        return QuantizedConvolution(weights, chosen, SdpProgram(first, second, Converter(1, 0)), remarks, change)
    second = _second(step, where)
    program = _ending(step, scales, (first, second), fine, where)
    return QuantizedConvolution(weights, chosen, program, remarks, change)


def _coarse_bias(largest: float, unit: float, shown: float, where: str) -> tuple[str, ...]:
    """Remark on biases that are stored in units of more than a step of the output: one is beyond 32,767 steps."""
    if unit <= shown or not largest:
        return ()
    return (
        f"{where}: its largest bias is {largest / shown:.4g} steps of its output, so that biases are rounded to "
        f"{unit / shown:.3g} steps; see its table entry",
    )


def _fine(step: ConvolutionStep, scales: Mapping[str, float]) -> float | None:
    """Return the unit in which the first X unit hands on what others work on; None where nothing follows."""
    if step.join is not None:
        return math.ldexp(scales[step.join.tensor] * abs(step.join.gain), -ADDEND_SHIFT)
    if step.slopes is not None:
        return math.ldexp(scales[step.output], -ADDEND_SHIFT)
    if step.function is not None:
        return math.ldexp(scales[step.function.source], -ADDEND_SHIFT)
    return None


def table_unit(step: ConvolutionStep | PointStep, scales: Mapping[str, float]) -> float:
    """Return the real value of 1 that the table of an int8 step reads; of an fp16 step it is 1."""
    if isinstance(step, PointStep):
        return scales[step.source]
    fine = _fine(step, scales)
    assert fine is not None, "a table makes one"
    return fine


def _second(step: ConvolutionStep, where: str) -> SdpUnit | None:
    """Return the second X unit: what is joined, or slopes."""
    relu = Activation.RELU if step.relu else Activation.NONE
    if step.slopes is not None:
        return _slopes(step.slopes, where)
    if step.join is None:
        return SdpUnit(SdpType.NONE, SdpMode.PER_LAYER, act=relu) if step.relu else None
    alu = ALU_OF[step.join.kind]
    return SdpUnit(SdpType.ADD, SdpMode.PER_POINT, ADDEND_SHIFT, act=relu, alu=alu, tensor=step.join.tensor)


def _slopes(slopes: NDArray[np.float32], where: str) -> SdpUnit:
    """Multiply negative values by `slopes`."""
    multipliers, shift = _signed_multipliers(slopes.astype(np.float64), where)
    return SdpUnit(SdpType.MUL, SdpMode.PER_KERNEL, 0, shift, act=Activation.PRELU, operands=multipliers)


def _highest(bound: float | None, unit: float, output: float) -> SdpUnit | None:
    """Return the unit for an upper bound of values in steps of `unit`; None where int8 itself holds it.

    The largest output is the bound's step then, or below it.
    """
    if bound is None or INT8_MAX * output <= bound + output / 2:
        return None
    return _bounding(SdpAlu.MIN, bound, unit)


def _lowest(bound: float | None, unit: float, output: float) -> SdpUnit | None:
    """Return the unit for a lower bound, as `_highest`."""
    if bound is None or INT8_MIN * output >= bound - output / 2:
        return None
    return _bounding(SdpAlu.MAX, bound, unit)


def _bounding(alu: SdpAlu, bound: float, unit: float) -> SdpUnit:
    (operand,), shift = _integer_bias(np.array([bound / unit]))
    return SdpUnit(SdpType.ADD, SdpMode.PER_LAYER, shift, alu=alu, addend=int(operand))


def _signed_multipliers(ratios: NDArray[np.float64], where: str) -> tuple[NDArray[np.int16], int]:
    """16-bit multipliers, rounded, and their common shift."""
    largest = float(np.abs(ratios).max())
    shift = factorise(largest, where).shift if largest else 0
    multipliers = np.rint(np.ldexp(ratios, shift))
    return np.clip(multipliers, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int16), shift


def _ending(
    step: ConvolutionStep | PointStep,
    scales: Mapping[str, float],
    units: tuple[SdpUnit | None, SdpUnit | None],
    unit: float,
    where: str,
) -> SdpProgram:
    """Program of both X units, the table and the output converter, for values of this unit."""
    output = scales[step.output]
    if step.function is not None:
        lut = function_table(step.function.operation, unit, scales[step.function.source], output)
        return SdpProgram(*units, factorise(TABLE_STEP, where), lut)
    factor = factorise(unit / output, where)
    if step.join is not None and step.join.gain < 0:
        factor = replace(factor, scale=-factor.scale)
    return SdpProgram(*units, factor)


def quantize_points(step: PointStep, scales: Mapping[str, float]) -> SdpProgram:
    """int8 program of an SDP that works on tensors in memory.

    Raises
    ------
    CompileError
        The scales of input and output are too far apart, or an offset is beyond what the SDP adds.
    """
    where = f"layer {step.layers[-1]!r}"
    source, output = scales[step.source], scales[step.output]
    relu = Activation.RELU if step.relu else Activation.NONE
    if step.join is not None and step.join.kind == "product":
        mode = SdpMode.PER_KERNEL if step.join.spread else SdpMode.PER_POINT
        unit = SdpUnit(SdpType.MUL, mode, act=relu, tensor=step.join.tensor)
        return _ending(step, scales, (unit, None), source * step.gain * scales[step.join.tensor], where)
    if step.join is not None:
        addend = scales[step.join.tensor] * abs(step.join.gain)
        sign = -1 if step.join.gain < 0 else 1
        fraction = _fraction(abs(step.gain) * source / addend)
        common = math.ldexp(addend, -fraction)
        factor = _signed_factor(sign * step.gain * source / common, where)
        alu = ALU_OF[step.join.kind]
        first = SdpUnit(SdpType.MUL, SdpMode.PER_LAYER, 0, factor.shift, factor.scale)
        second = SdpUnit(SdpType.ADD, SdpMode.PER_POINT, fraction, act=relu, alu=alu, tensor=step.join.tensor)
        return _ending(step, scales, (first, second), common, where)
    if step.affine is not None:
        return _ending(step, scales, *_affine(step, scales, where), where)
    if step.slopes is not None:
        # Bits behind the point first, so that a product is not rounded twice.
        first = SdpUnit(SdpType.MUL, SdpMode.PER_LAYER, multiplier=1 << ADDEND_SHIFT)
        units = first, _slopes(step.slopes, where)
        return _ending(step, scales, units, math.ldexp(source, -ADDEND_SHIFT), where)
    if step.function is not None:
        return _ending(step, scales, (None, None), source, where)
    fine = math.ldexp(source, -ADDEND_SHIFT)
    if bound := _lowest(step.least, fine, output) or _highest(step.most, fine, output):
        first = SdpUnit(SdpType.MUL, SdpMode.PER_LAYER, multiplier=1 << ADDEND_SHIFT, act=relu)
        return _ending(step, scales, (first, bound), fine, where)
    factor = _signed_factor(step.gain * source / output, where)
    unit = SdpUnit(SdpType.MUL, SdpMode.PER_LAYER, 0, factor.shift, factor.scale, relu)
    return SdpProgram(unit, None, Converter(1, 0))


def _signed_factor(ratio: float, where: str) -> Converter:
    factor = factorise(abs(ratio), where)
    return replace(factor, scale=-factor.scale) if ratio < 0 else factor


def _fraction(ratio: float) -> int:
    """Bits behind the point that leave a multiplier of this size its 15 bits."""
    return max(0, min(ADDEND_SHIFT, SIGNIFICANT_BITS - math.frexp(ratio)[1]))


def _affine(step: PointStep, scales: Mapping[str, float], where: str) -> tuple[tuple[SdpUnit, SdpUnit], float]:
    """Units that multiply and then add, a channel, and the unit of what they give: an output with some more bits."""
    assert step.affine is not None
    factor, offset = (part.astype(np.float64) for part in step.affine)
    source, output = scales[step.source], scales[step.output]
    fraction = _fraction(float(np.abs(factor).max()) * source / output)
    unit = math.ldexp(output, -fraction)
    multipliers, truncate = _signed_multipliers(factor * (source / unit), where)
    addends, shift = _integer_bias(offset / unit)
    if shift > MAX_BIAS_SHIFT:
        largest, limit = np.abs(offset).max() / output, math.ldexp(BIAS_LIMIT, MAX_BIAS_SHIFT - fraction)
        raise CompileError(f"{where}: an offset is {largest:.4g} steps of the output, the limit is {limit:.4g}")
    act = Activation.RELU if step.relu else Activation.NONE
    units = (
        SdpUnit(SdpType.MUL, SdpMode.PER_KERNEL, 0, truncate, operands=multipliers),
        SdpUnit(SdpType.ADD, SdpMode.PER_KERNEL, shift, act=act, operands=addends),
    )
    return units, unit
