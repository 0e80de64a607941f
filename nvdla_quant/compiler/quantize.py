"""Quantization: scales, integer weights and biases, and the SDP programs that get from accumulators to outputs.

Real value = scale * integer. An accumulator of a convolution has the scale S_in * S_w; the SDP adds the bias in that
scale and brings the sum to S_out with a 16-bit multiplier and a right shift. The formulas are those of the real
compiler (nvdla-compiler.md, section 5) where that is right.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.operations import (
    Converter,
    ConvolutionStep,
    Lowered,
    PointStep,
    PoolingStep,
    SdpProgram,
    SdpUnit,
)
from nvdla_quant.errors import CompileError
from nvdla_quant.hardware import QuantizationMode
from nvdla_quant.loadable.structs import SdpMode, SdpType
from nvdla_quant.table.table import CalibrationTable

SIGNIFICANT_BITS = 15
"""Bits of a positive 16-bit multiplier."""
MAX_SHIFT = 63
"""Right shifts are 6 bits wide in the SDP's units (nvdla-arithmetic.md, section 4)."""
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
    """

    weights: NDArray[np.generic]
    scales: NDArray[np.float64] | None
    program: SdpProgram


def effective_scales(lowered: Lowered, table: CalibrationTable) -> tuple[Mapping[str, float], tuple[str, ...]]:
    """Scale of every tensor, and remarks on entries that have no effect.

    A fused step has its last layer's scale. Pooling cannot rescale: its output has the scale of its input, whatever
    the table says. What stands inside of a concatenated tensor has that one's scale.

    Raises
    ------
    TableError
        The table has no entry for an input or for the last layer of a step.
    """
    scales = {name: table[name] for name in lowered.inputs}
    scales |= {name: table[part.whole] for name, part in lowered.parts.items()}
    scales |= {part.whole: table[part.whole] for part in lowered.parts.values()}
    reasons = {name: f"it stands in {part.whole!r} at that one's scale" for name, part in lowered.parts.items()}
    for step in lowered.steps:
        if isinstance(step, PoolingStep):
            scales[step.output] = scales[step.source]
            reasons[step.output] = "pooling keeps its input's scale"
        elif step.output not in scales:
            scales[step.output] = table[step.output]
    remarks = (
        f"layer {name!r}: {reason} {scales[name]:.9g}; the entry {table[name]:.9g} is not used"
        for name, reason in reasons.items()
        if name in table.scales and not math.isclose(table[name], scales[name], rel_tol=1e-6)
    )
    return scales, tuple(remarks)


def factorise(ratio: float, where: str) -> Converter:
    """`ratio` as significand / 2**shift, the significand of 15 bits truncated (section 5, Multiplier factorisation).

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


def quantize_weights(weights: NDArray[np.float32], scales: NDArray[np.float64]) -> NDArray[np.int8]:
    """Weights as multiples of their filter's scale, half up, in float32 as the real compiler computes them."""
    inverse = (np.float32(1) / scales.astype(np.float32)).reshape(-1, 1, 1, 1)
    steps: NDArray[np.float32] = np.floor(weights * inverse + np.float32(0.5))
    return np.clip(steps, -128, 127).astype(np.int8)


def weight_scales(
    weights: NDArray[np.float32], bias: NDArray[np.float64], ratio: float, mode: QuantizationMode
) -> NDArray[np.float64]:
    """Scale of each filter's weights, such that weights and bias both fit.

    The largest weight decides, of all filters or of each. Per filter, one whose scale is small against the others' (a
    dead one in the extreme) gets the smallest scale at which its bias fits into 16 bits without forcing a coarse bias
    step on the other filters; its weights lose nothing that the output could show.

    Parameters
    ----------
    weights : NDArray
        (outputs, inputs, height, width).
    bias : NDArray
        (outputs,), as multiples of the input's scale.
    ratio : float
        Scale of the input over scale of the output.
    mode : QuantizationMode
        One scale for all filters, or one each.
    """
    largest = np.abs(weights).max(axis=(1, 2, 3))
    if mode is QuantizationMode.PER_KERNEL:
        largest[:] = largest.max()
    # In float32, as the real compiler does, so that the weights come out the same.
    natural = np.maximum((largest / np.float32(127)).astype(np.float64), SMALLEST_SCALE)
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
        shift -= 1
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
    # Where another tensor is added, the SDP's first unit goes to that tensor's scale with some bits behind the point.
    target = output if step.addend is None else math.ldexp(scales[step.addend], -ADDEND_SHIFT)
    bias = np.zeros(len(step.weights)) if step.bias is None else step.bias.astype(np.float64) / source
    chosen = weight_scales(step.weights, bias, source / target, mode)
    per_filter = mode is QuantizationMode.PER_FILTER
    if per_filter:
        multipliers, truncate = _snap(chosen * (source / target), where)
        chosen = np.ldexp(multipliers.astype(np.float64), -truncate) * (target / source)
    else:
        factor = factorise(float(chosen[0]) * source / target, where)
        multipliers, truncate = np.full(len(chosen), factor.scale, dtype=np.int16), factor.shift
    last = step.relu and step.addend is None
    addends, shift = _integer_bias(bias / chosen)
    after = None
    if per_filter or step.addend is not None:
        if step.bias is None:
            first = SdpUnit(SdpType.MUL, SdpMode.PER_KERNEL, 0, truncate, relu=last, operands=multipliers)
        else:
            pairs = np.stack([addends, multipliers], axis=1)
            first = SdpUnit(SdpType.BOTH, SdpMode.PER_KERNEL, shift, truncate, relu=last, operands=pairs)
    elif step.bias is None:
        first = SdpUnit(SdpType.MUL, SdpMode.PER_LAYER, 0, truncate, int(multipliers[0]), relu=last)
    else:
        first = SdpUnit(SdpType.ADD, SdpMode.PER_KERNEL, shift, relu=last, operands=addends)
        after = Converter(int(multipliers[0]), truncate)
    second = None
    if step.addend is not None:
        second = SdpUnit(SdpType.ADD, SdpMode.PER_POINT, ADDEND_SHIFT, relu=step.relu, tensor=step.addend)
        after = factorise(target / output, where)
    program = SdpProgram(first, second, after or Converter(1, 0))
    return QuantizedConvolution(quantize_weights(step.weights, chosen), chosen, program)


def quantize_points(step: PointStep, scales: Mapping[str, float]) -> SdpProgram:
    """int8 program of an SDP that works on tensors in memory.

    Raises
    ------
    CompileError
        The scales of input and output are too far apart.
    """
    where = f"layer {step.layers[-1]!r}"
    source, output = scales[step.source], scales[step.output]
    if step.addend is None:
        factor = factorise(source / output, where)
        unit = SdpUnit(SdpType.MUL, SdpMode.PER_LAYER, 0, factor.shift, factor.scale, relu=step.relu)
        return SdpProgram(unit, None, Converter(1, 0))
    addend = scales[step.addend]
    fraction = max(0, min(ADDEND_SHIFT, SIGNIFICANT_BITS - math.frexp(source / addend)[1]))
    common = math.ldexp(addend, -fraction)
    factor = factorise(source / common, where)
    return SdpProgram(
        SdpUnit(SdpType.MUL, SdpMode.PER_LAYER, 0, factor.shift, factor.scale),
        SdpUnit(SdpType.ADD, SdpMode.PER_POINT, fraction, relu=step.relu, tensor=step.addend),
        factorise(common / output, where),
    )


def convert_convolution(step: ConvolutionStep) -> QuantizedConvolution:
    """fp16 weights of `step`, and the SDP program behind it.

    Raises
    ------
    CompileError
        A weight or a bias is beyond fp16's range.
    """
    last = step.relu and step.addend is None
    first = None
    if step.bias is not None:
        operands = _half(step.bias, f"layer {step.layers[0]!r}: bias")
        first = SdpUnit(SdpType.ADD, SdpMode.PER_KERNEL, relu=last, operands=operands)
    elif last:
        first = SdpUnit(SdpType.NONE, SdpMode.PER_LAYER, relu=True)
    second = None
    if step.addend is not None:
        second = SdpUnit(SdpType.ADD, SdpMode.PER_POINT, relu=step.relu, tensor=step.addend)
    weights = _half(step.weights, f"layer {step.layers[0]!r}: weights")
    return QuantizedConvolution(weights, None, SdpProgram(first, second, None))


def convert_points(step: PointStep) -> SdpProgram:
    """fp16 program of an SDP that works on tensors in memory."""
    if step.addend is None:
        return SdpProgram(SdpUnit(SdpType.NONE, SdpMode.PER_LAYER, relu=step.relu), None, None)
    return SdpProgram(SdpUnit(SdpType.ADD, SdpMode.PER_POINT, relu=step.relu, tensor=step.addend), None, None)


def _half(values: NDArray[np.float32], where: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        converted = values.astype(np.float16)
    if not np.isfinite(converted).all():
        largest = np.abs(values).max()
        raise CompileError(f"{where}: the largest is {largest:.6g}, the limit of fp16 is 65504; scale the layer down")
    return converted
