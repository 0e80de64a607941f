"""Descriptors: each operation as the firmware's structs, field by field as NVIDIA's compiler fills them in.

Every field stands in docs/hardware/loadable.md, "Descriptors of the accelerator".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nvdla_quant.compiler.lowering.layout import Surface
from nvdla_quant.compiler.lowering.operations import (
    CdpOperation,
    CdpProgram,
    Converter,
    ConvolutionStep,
    ConvOperation,
    CpuOperation,
    InterleaveStep,
    NormalisationStep,
    PdpOperation,
    PoolingStep,
    PowerStep,
    SdpOperation,
    SdpProgram,
    SdpUnit,
    Step,
    Window,
)
from nvdla_quant.compiler.lowering.tile import ConvolutionTiling
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.structs import (
    Activation,
    EmuFormat,
    EmuOperation,
    MemoryType,
    PoolMode,
    ProcessorPrecision,
    SdpAlu,
    SdpMode,
    SdpType,
)


@dataclass(frozen=True)
class Place:
    """Where bytes lie: an address of the task, an offset from it, and how many they are."""

    address: int
    offset: int
    size: int


@dataclass(frozen=True, eq=False)
class Plan:
    """All that the descriptors are made of.

    Attributes
    ----------
    target, precision : Target, Precision
        What the loadable is for.
    steps : Sequence[Step]
        What is computed.
    tilings : Mapping[int, ConvolutionTiling]
        Of each convolution step, by its number.
    programs : Mapping[int, SdpProgram]
        Of each step that an SDP ends, by its number.
    normalisations : Mapping[int, CdpProgram]
        Of each normalisation, by the number of its step.
    surfaces : Mapping[str, Surface]
        Of each tensor.
    tensors : Mapping[str, Place]
        Where each tensor lies.
    weights : Mapping[int, Place]
        Where the weights of a step lie, by its number.
    operands : Mapping[tuple[int, str], Place]
        Where the operands of its SDP units lie, by its number and ``x1`` or ``x2``.
    scales : Mapping[str, float]
        Of each tensor; 1 in fp16.
    """

    target: Target
    precision: Precision
    steps: Sequence[Step]
    tilings: Mapping[int, ConvolutionTiling]
    programs: Mapping[int, SdpProgram]
    normalisations: Mapping[int, CdpProgram]
    surfaces: Mapping[str, Surface]
    tensors: Mapping[str, Place]
    weights: Mapping[int, Place]
    operands: Mapping[tuple[int, str], Place]
    scales: Mapping[str, float]

    @property
    def processor_precision(self) -> ProcessorPrecision:
        """Precision of features and weights, as the firmware numbers it."""
        return ProcessorPrecision.FP16 if self.precision is Precision.FP16 else ProcessorPrecision.INT8


def _fill(record: np.void, **fields: Any) -> None:
    for name, value in fields.items():
        record[name] = value


def _cube(cube: np.void, plan: Plan, window: Window) -> None:
    """Describe a window of a tensor in memory."""
    surface, place = plan.surfaces[window.tensor], plan.tensors[window.tensor]
    whole = (window.rows, window.columns) == (surface.height, surface.width)
    _fill(
        cube,
        address=place.address,
        offset=place.offset + surface.offset_of(window),
        size=surface.size if whole else surface.size_of(window),
        width=window.columns,
        height=window.rows,
        channel=surface.channels,
        line_stride=surface.line_stride,
        surf_stride=surface.surface_stride,
    )


def _on_the_fly(cube: np.void, plan: Plan, destination: Window) -> None:
    """Describe what the convolution hands to the SDP: a packed cube of the destination's size, nowhere."""
    surface = plan.surfaces[destination.tensor]
    line = destination.columns * surface.atom
    _fill(
        cube,
        type=MemoryType.ON_THE_FLY,
        address=-1,
        size=surface.surfaces * destination.rows * line,
        width=destination.columns,
        height=destination.rows,
        channel=surface.channels,
        line_stride=line,
        surf_stride=line * destination.rows,
    )


def convolution(
    operation: ConvOperation, following: SdpOperation, plan: Plan, records: tuple[np.void, np.void]
) -> None:
    """Fill in operation and surfaces of one run of the convolution pipeline."""
    descriptor, surfaces = records
    step, tiling = plan.steps[operation.step], plan.tilings[operation.step]
    assert isinstance(step, ConvolutionStep)
    source = plan.surfaces[operation.source.tensor]
    _, channels, height, width = step.weights.shape
    if source.image:
        channels, width = width * source.channels, 1
    precision = plan.processor_precision
    image_format = structs.FORMAT_A8B8G8R8 if precision is ProcessorPrecision.INT8 else structs.FORMAT_A16B16G16R16_F
    _fill(
        descriptor,
        entry_per_slice=tiling.work.entries(plan.target, operation.source.columns),
        data_format=image_format if source.image else structs.FORMAT_FEATURE,
        fetch_grain=1,
        batch=1,
        data_bank=tiling.division.data,
        weight_bank=tiling.division.weights,
        post_extension=tiling.post_extension,
        # Signed bytes; without effect on feature data.
        pixel_override=1,
        release=operation.source.rows,
        input_width_csc=operation.source.columns,
        input_height_csc=operation.source.rows,
        input_channel_csc=source.channels,
        kernel_width_csc=width,
        kernel_height_csc=height,
        kernel_channel_csc=channels,
        input_width_cmac=operation.columns,
        input_height_cmac=operation.rows,
        bytes_per_kernel=channels * width * height * source.element_bytes,
        conv_stride_x=step.stride[1],
        conv_stride_y=step.stride[0],
        pad_x_left=operation.pad_left,
        pad_x_right=operation.pad_right,
        pad_y_top=operation.pad_top,
        pad_y_bottom=operation.pad_bottom,
        dilation_x=step.dilation[1],
        dilation_y=step.dilation[0],
        in_precision=precision,
        out_precision=precision,
    )
    _fill(descriptor["in_cvt"], scale=1, enable=int(precision is ProcessorPrecision.INT8))
    _fill(descriptor["out_cvt"], scale=1, enable=1)
    place = plan.weights[operation.step]
    _fill(
        surfaces["weight_data"],
        address=place.address,
        offset=place.offset,
        size=place.size,
        width=width,
        height=height,
        channel=channels,
    )
    _cube(surfaces["src_data"], plan, operation.source)
    _on_the_fly(surfaces["dst_data"], plan, following.destination)


def _unit(record: np.void, unit: SdpUnit, plan: Plan) -> None:
    half = plan.precision is Precision.FP16
    int8_tensor = unit.tensor is not None and not half
    wide = ProcessorPrecision.FP16 if half else ProcessorPrecision.INT16
    # Registers of an X unit hold the 16 bits of a half; where nothing is multiplied, it is 1 as in int8.
    multiplier = np.float16(unit.multiplier).view(np.int16) if half and unit.multiplier != 1 else int(unit.multiplier)
    addend = np.float16(unit.addend).view(np.int16) if half else int(unit.addend)
    _fill(
        record,
        enable=1,
        alu_type=unit.alu,
        type=unit.kind,
        mode=unit.mode,
        act=unit.act,
        shift_value=unit.shift,
        truncate=unit.truncate,
        precision=ProcessorPrecision.INT8 if int8_tensor else wide,
        alu_operand=addend,
        mul_operand=multiplier,
    )


def _operands(cube: np.void, unit: SdpUnit, addend: Window | None, place: Place | None, plan: Plan) -> None:
    if unit.tensor is not None:
        assert addend is not None
        _cube(cube, plan, addend)
    elif unit.mode is SdpMode.PER_KERNEL:
        assert place is not None
        assert unit.operands is not None
        # The strides of one line of one pixel; the hardware reads the operands of all channels in a row.
        operands = 2 if unit.kind is SdpType.BOTH else 1
        element_bytes = 2 if plan.precision is Precision.INT8 else 1
        stride = plan.target.feature_atom_bytes * element_bytes * operands
        _fill(
            cube,
            address=place.address,
            offset=place.offset,
            size=unit.operands.nbytes,
            width=1,
            height=1,
            channel=len(unit.operands),
            line_stride=stride,
            surf_stride=stride,
        )


def point(operation: SdpOperation, plan: Plan, records: tuple[np.void, np.void], lut: int | None) -> None:
    """Fill in operation and surfaces of one run of the SDP; `lut` is the number of its table in the task."""
    descriptor, surfaces = records
    program = plan.programs[operation.step]
    precision = plan.processor_precision
    index = -1 if lut is None else lut
    _fill(descriptor, src_precision=precision, dst_precision=precision, lut_index=index, batch_num=1)
    converter = program.converter
    if converter is None:
        _fill(descriptor["out_cvt"], scale=1)
    else:
        _fill(descriptor["out_cvt"], scale=converter.scale, truncate=converter.shift, enable=1)
    if operation.source is None:
        _on_the_fly(surfaces["src_data"], plan, operation.destination)
    else:
        _cube(surfaces["src_data"], plan, operation.source)
    for name, unit in (("x1", program.x1), ("x2", program.x2)):
        if unit is not None:
            _unit(descriptor[f"{name}_op"], unit, plan)
            place = plan.operands.get((operation.step, name))
            _operands(surfaces[f"{name}_data"], unit, operation.addend, place, plan)
    if lut is not None:
        _fill(
            descriptor["y_op"],
            enable=1,
            alu_type=SdpAlu.SUM,
            act=Activation.LUT,
            precision=precision,
            mul_operand=1,
        )
    _cube(surfaces["dst_data"], plan, operation.destination)
    step = plan.steps[operation.step]
    if isinstance(step, InterleaveStep):
        atom = plan.surfaces[step.output].atom
        columns = operation.source.columns if operation.source is not None else 0
        for name, first, stride in (("src_data", 0, 1), ("dst_data", step.first, step.stride)):
            cube = surfaces[name]
            cube["height"], cube["width"] = operation.destination.rows * columns, 1
            cube["offset"] += first * atom
            cube["line_stride"] = stride * atom


def pooling(operation: PdpOperation, plan: Plan, records: tuple[np.void, np.void]) -> None:
    """Fill in operation and surfaces of one run of the PDP."""
    descriptor, surfaces = records
    step = plan.steps[operation.step]
    assert isinstance(step, PoolingStep)
    _fill(
        descriptor,
        split_num=1,
        pool_mode=PoolMode.MAX if step.method == "max" else PoolMode.AVERAGE,
        pool_width=operation.kernel[1] - 1,
        pool_height=operation.kernel[0] - 1,
        stride_x=step.stride[1],
        stride_y=step.stride[0],
        pad_left=operation.pad_left,
        pad_right=operation.pad_right,
        pad_top=operation.pad_top,
        pad_bottom=operation.pad_bottom,
        precision=plan.processor_precision,
    )
    _cube(surfaces["src_data"], plan, operation.source)
    _cube(surfaces["dst_data"], plan, operation.destination)


def normalisation(operation: CdpOperation, plan: Plan, records: tuple[np.void, np.void], lut: int) -> None:
    """Fill in operation and surfaces of one run of the CDP; `lut` is the number of its table in the task."""
    descriptor, surfaces = records
    step, program = plan.steps[operation.step], plan.normalisations[operation.step]
    assert isinstance(step, NormalisationStep)
    precision = plan.processor_precision
    local_size = step.operation.local_size
    _fill(descriptor, in_precision=precision, out_precision=precision, lut_index=lut, local_size=local_size)
    _fill(descriptor["in_cvt"], scale=1, enable=1)
    output = program.output or Converter(1, 0)
    _fill(descriptor["out_cvt"], scale=output.scale, truncate=output.shift, enable=1)
    _cube(surfaces["src_data"], plan, operation.source)
    _cube(surfaces["dst_data"], plan, operation.destination)


def cpu(operation: CpuOperation, plan: Plan, records: tuple[np.void, np.void]) -> None:
    """Fill in operation and buffers of one softmax or power on the CPU."""
    descriptor, buffers = records
    step = plan.steps[operation.step]
    _fill(descriptor, input_scale=plan.scales[step.source], output_scale=plan.scales[step.output])
    if isinstance(step, PowerStep):
        power = step.operation
        _fill(descriptor, op_type=EmuOperation.POWER, power=power.power, scale=power.scale, shift=power.shift)
    else:
        _fill(descriptor, op_type=EmuOperation.SOFTMAX, axis=1)
    if plan.precision is Precision.FP16:
        emu_format = EmuFormat.FP16
    else:
        emu_format = EmuFormat.INT8_8 if plan.target.feature_atom_bytes == 8 else EmuFormat.INT8
    for name, window in (("src_data", operation.source), ("dst_data", operation.destination)):
        _cube(buffers[name], plan, window)
        buffers[name]["format"] = emu_format
