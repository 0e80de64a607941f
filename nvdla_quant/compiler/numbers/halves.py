"""fp16: scales of tensors that exceed it, weights, and SDP programs, which convert nothing."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.lowering.operations import (
    ConvolutionStep,
    InterleaveStep,
    Join,
    Lowered,
    NormalisationStep,
    PointStep,
    PoolingStep,
    PowerStep,
    SdpProgram,
    SdpUnit,
    SoftmaxStep,
)
from nvdla_quant.compiler.numbers.luts import half_function_table
from nvdla_quant.compiler.numbers.quantize import ALU_OF, QuantizedConvolution
from nvdla_quant.errors import CompileError
from nvdla_quant.loadable.structs import Activation, SdpAlu, SdpMode, SdpType

HALF_LARGEST = 65504.0
"""Largest number of fp16."""

HALF_RANGE = HALF_LARGEST / 2
"""Largest calibrated value that an fp16 tensor holds as it is: half of the format's, for images that go beyond."""


def half_scales(lowered: Lowered, ranges: Mapping[str, float]) -> tuple[Mapping[str, float], tuple[str, ...]]:
    """Real value of 1 in every fp16 tensor, and remarks on tensors that saturate all the same.

    It is 1, or a power of two where values are known to exceed fp16. What an SDP converts in int8 is constant in fp16:
    a joined tensor and the result have one scale, like the tensors of a pooling. Normalisations, functions and the CPU
    need real values.

    Parameters
    ----------
    lowered : Lowered
        The network.
    ranges : Mapping[str, float]
        Largest magnitude of each tensor in calibration; empty where there was none.
    """
    bonds = [(step.source, step.output) for step in lowered.steps if isinstance(step, PoolingStep | InterleaveStep)]
    # Two bounds take both units: none is left for another scale.
    bounded = (step for step in lowered.steps if isinstance(step, PointStep) and step.least is not None)
    bonds += [(step.source, step.output) for step in bounded]
    bonds += [(name, part.whole) for name, part in lowered.parts.items()]
    pinned = set(lowered.inputs)
    for step in lowered.steps:
        match step:
            case ConvolutionStep() | PointStep():
                if step.function is not None:
                    pinned.add(step.output)
                elif step.join is not None and step.join.kind != "product":
                    bonds.append((step.join.tensor, step.output))
            case NormalisationStep() | SoftmaxStep() | PowerStep():
                pinned |= {step.source, step.output}
    group = {name: {name} for name in lowered.tensors}
    for one, other in bonds:
        if group[one] is not group[other]:
            group[one] |= group[other]
            group.update(dict.fromkeys(group[other], group[one]))

    def scale(names: set[str]) -> float:
        largest = max(ranges.get(name, 0.0) for name in names)
        needed = max(largest / HALF_RANGE, 1.0)
        return 1.0 if names & pinned else 2.0 ** math.ceil(math.log2(needed))

    scales = {name: scale(names) for name, names in group.items()}
    remarks = (
        f"layer {name!r}: calibrated values reach {ranges[name]:.4g}; beyond fp16's {HALF_LARGEST:.0f} they saturate"
        for name in scales
        if ranges.get(name, 0.0) > HALF_LARGEST * scales[name]
    )
    return scales, tuple(remarks)


def convert_convolution(step: ConvolutionStep, scales: Mapping[str, float]) -> QuantizedConvolution:
    """fp16 weights of `step`, and the SDP program behind it; `scales` are those of `half_scales`.

    Raises
    ------
    CompileError
        A weight or a bias is beyond fp16's range.
    """
    where = f"layer {step.layers[0]!r}"
    relu = Activation.RELU if step.relu else Activation.NONE
    last = relu if step.join is None else Activation.NONE
    first = None
    if step.bias is not None:
        operands = _half(step.bias / np.float32(scales[step.output]), f"{where}: bias")
        first = SdpUnit(SdpType.ADD, SdpMode.PER_KERNEL, act=last, operands=operands)
    elif last:
        first = SdpUnit(SdpType.NONE, SdpMode.PER_LAYER, act=last)
    second = None
    if step.slopes is not None:
        second = _half_slopes(step.slopes, where)
    elif step.join is not None:
        second = _half_join(step.join, relu)
    elif step.most is not None:
        second = _half_bound(SdpAlu.MIN, step.most / scales[step.output], where)
    table = None if step.function is None else half_function_table(step.function.operation)
    return QuantizedConvolution(
        _half(step.weights * np.float32(scales[step.source] / scales[step.output]), f"{where}: weights"),
        None,
        SdpProgram(first, second, None, table),
    )


def convert_points(step: PointStep, scales: Mapping[str, float]) -> SdpProgram:
    """fp16 program of an SDP that works on tensors in memory; `scales` are those of `half_scales`.

    Raises
    ------
    CompileError
        A factor or an offset is beyond fp16's range.
    """
    where = f"layer {step.layers[0]!r}"
    relu = Activation.RELU if step.relu else Activation.NONE
    source, output = scales[step.source], scales[step.output]
    gain = step.gain * source / output
    units: list[SdpUnit] = []
    if step.affine is not None:
        factor, offset = step.affine[0] * np.float32(gain), step.affine[1] / np.float32(output)
        for kind, values in ((SdpType.MUL, factor), (SdpType.ADD, offset)):
            units.append(SdpUnit(kind, SdpMode.PER_KERNEL, operands=_half(values, where)))
    elif step.join is not None and step.join.kind == "product":
        gain *= scales[step.join.tensor]
        units.append(_half_join(step.join, Activation.NONE))
    if step.affine is None and gain != 1:
        units.append(SdpUnit(SdpType.MUL, SdpMode.PER_LAYER, multiplier=float(_half(np.float32(gain), where))))
    if step.join is not None and step.join.kind != "product":
        units.append(_half_join(step.join, Activation.NONE))
    if step.slopes is not None:
        units.append(_half_slopes(step.slopes, where))
    for alu, bound in ((SdpAlu.MAX, step.least), (SdpAlu.MIN, step.most)):
        if bound is not None and (unit := _half_bound(alu, bound / output, where)):
            units.append(unit)
    if not units:
        units.append(SdpUnit(SdpType.NONE, SdpMode.PER_LAYER))
    if relu:
        units[-1] = replace(units[-1], act=relu)
    table = None if step.function is None else half_function_table(step.function.operation)
    return SdpProgram(units[0], units[1] if len(units) > 1 else None, None, table)


def _half_bound(alu: SdpAlu, bound: float, where: str) -> SdpUnit | None:
    """Return the unit for a bound, in the output's units; None where halves are no larger anyway."""
    if (bound >= HALF_LARGEST) if alu is SdpAlu.MIN else (bound <= -HALF_LARGEST):
        return None
    operand = float(_half(np.float32(bound), f"{where}: bound"))
    return SdpUnit(SdpType.ADD, SdpMode.PER_LAYER, alu=alu, addend=operand)


def _half_join(join: Join, act: Activation) -> SdpUnit:
    kind = SdpType.MUL if join.kind == "product" else SdpType.ADD
    mode = SdpMode.PER_KERNEL if join.spread else SdpMode.PER_POINT
    return SdpUnit(kind, mode, act=act, alu=ALU_OF.get(join.kind, SdpAlu.SUM), tensor=join.tensor)


def _half_slopes(slopes: NDArray[np.float32], where: str) -> SdpUnit:
    operands = _half(slopes, f"{where}: slopes")
    return SdpUnit(SdpType.MUL, SdpMode.PER_KERNEL, act=Activation.PRELU, operands=operands)


def _half(values: NDArray[np.float32] | np.float32, where: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        converted = np.asarray(values, np.float16)
    if not np.isfinite(converted).all():
        largest = np.abs(values).max()
        raise CompileError(f"{where}: the largest is {largest:.6g}, the limit of fp16 is 65504; scale the layer down")
    return converted
