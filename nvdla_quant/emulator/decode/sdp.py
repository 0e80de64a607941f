"""Decode an SDP operation: which parts of each unit work, and where their operands are.

nvdla/sw ``kmd/firmware/sdp.c``; docs/hardware/sdp.md, "Operands" and "Precisions".
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nvdla_quant.emulator.decode.addresses import CubeSpace
from nvdla_quant.emulator.decode.fields import ELEMENT_BYTES, converter_of, precision_of, refuse, shape_of, signed
from nvdla_quant.emulator.operations import (
    Converter,
    ConvOperation,
    Cube,
    Lut,
    Operand,
    OperandArray,
    SdpOperation,
    SdpUnit,
    TableHalf,
    element_type,
    handed_over,
)
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.loadable.structs import Activation, MemoryType, SdpAlu, SdpMode, SdpType
from nvdla_quant.loadable.tasks import Window

OPERAND_BYTES = {0: 1, 1: 2, 2: 2}
"""Bytes of an operand in memory by the unit's precision."""
TABLE_BITS = 32
"""Bits of a table's start and end."""


def decode_sdp(
    space: CubeSpace,
    target: Target,
    op: np.void,
    surface: np.void,
    index: int,
    convolution: ConvOperation | None,
    read_lut: Callable[[int], np.void],
    warnings: list[str],
    where: str,
) -> SdpOperation:
    """Decode an SDP operation, whose source is `convolution` or, where that is None, memory."""
    bare = decode_around_units(space, target, op, surface, index, convolution, where)
    units = []
    for name in ("x1", "x2", "y"):
        unit, cube = op[f"{name}_op"], surface[f"{name}_data"]
        if not unit["enable"]:
            continue
        if name == "y" and not target.has_y:
            warnings.append(f"{where}: {target.name} has no Y unit; what the loadable asks of it does nothing")
            continue
        units.append(_unit(space, target, name, unit, cube, bare.destination, bare.precision, f"{where} {name}"))
    lookup = any(unit.lookup for unit in units)
    lut = decode_lut(read_lut(int(op["lut_index"])), TABLE_BITS, f"{where} table") if lookup else None
    return with_units(bare, tuple(units), lut, warnings, where)


def decode_around_units(
    space: CubeSpace,
    target: Target,
    op: np.void,
    surface: np.void,
    index: int,
    convolution: ConvOperation | None,
    where: str,
) -> SdpOperation:
    """Decode source, destination, precisions and output converter of an SDP operation, without its units."""
    given, output, precision = _precisions(op, target, where)
    batch = int(op["batch_num"])
    element_bytes = ELEMENT_BYTES[output]
    atom = target.feature_atom_bytes // element_bytes
    shape = shape_of(surface["src_data"])
    if surface["dst_data"]["type"] == MemoryType.ON_THE_FLY:
        if batch != 1:
            raise refuse(where, "batch_num", batch, "1 where the PDP takes the result")
        destination = handed_over(index, shape, atom, element_bytes)
    else:
        stride = int(op["batch_stride"]) if batch > 1 else 0
        place = f"{where} destination"
        batches = max(batch, 1)
        cube = surface["dst_data"]
        destination = space.cube(cube, atom, element_bytes, place, batch=batches, batch_stride=stride)
        _check_pixel(destination, place)
    if convolution is None:
        if op["conv_mode"] != 0 or batch != 1:
            mode = int(op["conv_mode"]), batch
            raise refuse(where, "(conv_mode, batch_num)", mode, "(0, 1) where the source is memory")
        element_bytes = ELEMENT_BYTES[given]
        atom = target.feature_atom_bytes // element_bytes
        read = space.cube(surface["src_data"], atom, element_bytes, f"{where} source")
        _check_pixel(read, f"{where} source")
        source: Cube | ConvOperation = read
    else:
        source = convolution
        _check_fed(op, convolution, shape, precision, given, where)
    if shape != destination.shape:
        raise refuse(where, "dst shape", destination.shape, str(shape))
    return SdpOperation(index, source, (), None, converter_of(op["out_cvt"]), precision, destination, output)


def _check_pixel(cube: Cube, where: str) -> None:
    """Refuse a cube of one pixel whose surfaces do not stand one behind the other: so the hardware takes them.

    nvdla/hw ``vmod/nvdla/sdp/NV_NVDLA_SDP_WDMA_cmd.v``, ``cfg_mode_1x1_pack``; what reads source and operands has it,
    too, on both branches. The C-model ends with an assertion.
    """
    packed = cube.atom * cube.element_bytes
    if cube.shape[1:] == (1, 1) and cube.surfaces > 1 and cube.surface_stride != packed:
        raise refuse(where, "surf_stride", cube.surface_stride, f"{packed}: of one pixel hardware ignores it")


def with_units(
    bare: SdpOperation, units: tuple[SdpUnit, ...], lut: Lut | None, warnings: list[str], where: str
) -> SdpOperation:
    """Return the operation `bare` with its units, and the table that one of them looks up."""
    operation = replace(bare, units=units, lut=lut)
    if operation.only_compares:
        winograd = isinstance(bare.source, ConvOperation) and bare.source.winograd_shift is not None
        if bare.destination.batch > 1 or winograd or bare.destination.is_handed_over:
            raise refuse(where, "y alu_type", int(SdpAlu.EQL), "another with multi-batch, Winograd or a pooling behind")
        warnings.append(f"{where}: Y compares for equality, which sets a status register and writes no memory")
    return operation


def _precisions(op: np.void, target: Target, where: str) -> tuple[Precision, Precision, Precision]:
    """Return the precisions of source, result and arithmetic (kmd/firmware/sdp.c ``map_proc_precision``)."""
    given = precision_of(int(op["src_precision"]), target, where, "src_precision")
    output = precision_of(int(op["dst_precision"]), target, where, "dst_precision")
    if (given, output) == (Precision.FP16, Precision.INT8):
        raise refuse(where, "dst_precision", output, "fp16 or int16: the converter makes no int8 of fp16")
    narrowed = (given, output) == (Precision.INT16, Precision.INT8)
    return given, output, Precision.INT8 if narrowed else given


def _check_fed(
    op: np.void,
    convolution: ConvOperation,
    shape: tuple[int, ...],
    precision: Precision,
    given: Precision,
    where: str,
) -> None:
    """Check that the operation takes what `convolution` hands over."""
    produced = convolution.out_channels, convolution.out_height, convolution.out_width
    if produced != shape:
        raise refuse(where, "source shape", shape, f"what operation {convolution.index} produces, {produced}")
    if convolution.precision is not given:
        raise refuse(where, "src_precision", given, f"the convolution's {convolution.precision}")
    if precision is not given:
        # The accumulator hands over 16 kernels at a time, int8 arithmetic takes 32.
        raise refuse(where, "dst_precision", int(op["dst_precision"]), f"what {given} behind a convolution can write")
    winograd = convolution.winograd_shift is not None
    if bool(op["conv_mode"] == 1) != winograd or op["conv_mode"] > 1:
        raise refuse(where, "conv_mode", int(op["conv_mode"]), f"the convolution's {int(winograd)}")
    batch = convolution.source.batch
    if op["batch_num"] != batch:
        raise refuse(where, "batch_num", int(op["batch_num"]), f"the convolution's {batch}")
    if op["src_precision"] != op["dst_precision"] and (winograd or batch > 1):
        raise refuse(where, "dst_precision", int(op["dst_precision"]), "src_precision with multi-batch or Winograd")


def _unit(
    space: CubeSpace,
    target: Target,
    name: str,
    unit: np.void,
    cube: np.void,
    shape: Cube,
    precision: Precision,
    where: str,
) -> SdpUnit:
    for field, kinds in (("type", SdpType), ("mode", SdpMode), ("alu_type", SdpAlu), ("precision", OPERAND_BYTES)):
        if unit[field] not in list(kinds):
            raise refuse(where, field, int(unit[field]), f"0 to {max(kinds)}")
    kind, mode = SdpType(unit["type"]), SdpMode(unit["mode"])
    has_alu, has_mul = kind in (SdpType.ADD, SdpType.BOTH), kind in (SdpType.MUL, SdpType.BOTH)
    if kind is not SdpType.NONE and bool(unit["precision"] == 2) != (precision is Precision.FP16):
        raise refuse(where, "precision", int(unit["precision"]), f"one that fits {precision}")
    fetched = kind is not SdpType.NONE and mode is not SdpMode.PER_LAYER
    if fetched and precision is Precision.INT16 and unit["precision"] == 0:
        raise refuse(where, "precision", 0, "1: operands of int16 arithmetic have two bytes")
    alu, mul = None, None
    interleaved = kind is SdpType.BOTH and mode is SdpMode.PER_POINT
    if mode is SdpMode.PER_LAYER:
        alu = Operand(register=operand_register(int(unit["alu_operand"]), name, precision)) if has_alu else None
        mul = Operand(register=operand_register(int(unit["mul_operand"]), name, precision)) if has_mul else None
    elif kind is not SdpType.NONE:
        size = OPERAND_BYTES[int(unit["precision"])]
        if mode is SdpMode.PER_KERNEL:
            count = shape.channels * (1 + (kind is SdpType.BOTH))
            window = space.window(int(cube["address"]), int(cube["offset"]), count * size, f"{where} operands")
            alu, mul = operand_arrays(window, size, kind, precision)
        else:
            operand = Operand(cube=operand_cube(space, target, cube, shape, size, 1 + interleaved, precision, where))
            alu, mul = operand if has_alu else None, operand if has_mul else None
    act = int(unit["act"])
    convert = name == "y" and mode is not SdpMode.PER_LAYER
    return SdpUnit(
        name=name,
        alu=SdpAlu(unit["alu_type"]) if has_alu else None,
        alu_operand=alu,
        mul_operand=mul,
        interleaved=interleaved,
        alu_shift=int(unit["shift_value"]) & 63,
        truncate=int(unit["truncate"]) & (63 if name != "y" else 0x3FF),
        relu=act == Activation.RELU and name != "y",
        prelu=act == Activation.PRELU,
        alu_converter=_operand_converter(unit["alu_cvt"]) if convert else None,
        mul_converter=_operand_converter(unit["mul_cvt"]) if convert else None,
        lookup=act == Activation.LUT and name == "y",
    )


def _operand_converter(descriptor: np.void) -> Converter | None:
    return converter_of(descriptor) if descriptor["enable"] else None


def operand_register(value: int, name: str, precision: Precision) -> int | np.float16 | np.float32:
    """Return what a register of an operand holds: 16 bits in X, 32 in Y; halves, or floats in Y, in fp16."""
    if precision is Precision.FP16:
        bits = np.array([value], np.int32)
        single: np.float32 = bits.view(np.float32)[0]
        half: np.float16 = bits.astype(np.uint16).view(np.float16)[0]
        return single if name == "y" else half
    return value if name == "y" else ((value & 0xFFFF) ^ 0x8000) - 0x8000


def operand_arrays(
    window: Window, size: int, kind: SdpType, precision: Precision
) -> tuple[Operand | None, Operand | None]:
    """Return (ALU, MUL) operands of a per-kernel unit; BOTH alternates the two for each channel."""
    # Integers of two bytes serve int8 arithmetic too.
    wide = Precision.FP16 if precision is Precision.FP16 else Precision.INT16
    dtype = element_type(Precision.INT8 if size == 1 else wide)
    if kind is SdpType.BOTH:
        return Operand(array=OperandArray(window, dtype, 0, 2)), Operand(array=OperandArray(window, dtype, 1, 2))
    operand = Operand(array=OperandArray(window, dtype, 0, 1))
    return (operand, None) if kind is SdpType.ADD else (None, operand)


def operand_cube(
    space: CubeSpace,
    target: Target,
    descriptor: np.void,
    shape: Cube,
    size: int,
    elements: int,
    precision: Precision,
    where: str,
) -> Cube:
    """Return the cube of per-point operands; its atom has as many channels as the data's, `elements` values each.

    The unit walks over the data's own shape; only address and strides are the operand's.
    """
    atom = target.feature_atom_bytes // ELEMENT_BYTES[precision]
    cube = space.checked_cube(
        Cube(
            memory=int(descriptor["address"]),
            offset=int(descriptor["offset"]),
            channels=shape.channels * elements,
            height=shape.height,
            width=shape.width,
            atom=atom * elements,
            element_bytes=size,
            line_stride=int(descriptor["line_stride"]),
            surface_stride=int(descriptor["surf_stride"]),
        ),
        f"{where} operands",
    )
    _check_pixel(cube, f"{where} operands")
    return cube


def decode_lut(lut: np.void, bits: int, where: str) -> Lut:
    """Decode a table whose starts and ends have `bits`: 32 in the SDP, 38 in the CDP (kmd/firmware/common.c)."""
    if lut["method"] > 1:
        raise refuse(where, "method", int(lut["method"]), "0 (exponential) or 1 (linear)")
    priorities = [int(lut[f"{field}_priority"]) for field in ("hybrid", "underflow", "overflow")]
    if max(priorities) > 1:
        raise refuse(where, "a priority", max(priorities), "0 (linear_exp) or 1 (linear_only)")

    def half(name: str, offset: str, exponential: bool) -> TableHalf:
        def slope(side: str) -> tuple[int, int]:
            return int(lut[f"{name}_{side}_scale"]), signed(int(lut[f"{name}_{side}_shift"]), 5)

        return TableHalf(
            entries=lut[f"{name}_table"].astype(np.int64),
            start=signed(int(lut[f"{name}_start"]), bits),
            end=signed(int(lut[f"{name}_end"]), bits),
            exponential=exponential,
            select=int(lut[offset]),
            underflow=slope("underflow"),
            overflow=slope("overflow"),
        )

    return Lut(
        half("linear_exp", "linear_exp_offset", lut["method"] == 0),
        half("linear_only", "linear_only_offset", False),
        *priorities,
    )
