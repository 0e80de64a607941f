"""Decode an SDP operation: which parts of each unit work, and where their operands are (kmd/firmware/sdp.c)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.addresses import AddressSpace
from nvdla_quant.emulator.fields import ELEMENT_BYTES, converter_of, precision_of, refuse, shape_of, signed
from nvdla_quant.emulator.operations import (
    Converter,
    ConvOperation,
    Cube,
    Lut,
    Operand,
    SdpOperation,
    SdpUnit,
    TableHalf,
    handed_over,
)
from nvdla_quant.hardware import Precision, Target
from nvdla_quant.loadable.structs import Activation, MemoryType, SdpAlu, SdpMode, SdpType
from nvdla_quant.loadable.tasks import Window

OPERAND_BYTES = {0: 1, 1: 2, 2: 2}
"""Bytes of an operand in memory by the unit's precision."""
TABLE_BITS = 32
"""Bits of a table's start and end."""


def decode_sdp(
    space: AddressSpace,
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
    if op["conv_mode"] != 0 or op["batch_num"] != 1:
        mode = int(op["conv_mode"]), int(op["batch_num"])
        raise refuse(where, "(conv_mode, batch_num)", mode, "(0, 1); Winograd and multi-batch are not modelled yet")
    if op["src_precision"] != op["dst_precision"]:
        raise refuse(where, "dst_precision", int(op["dst_precision"]), f"src_precision ({int(op['src_precision'])})")
    precision = precision_of(int(op["src_precision"]), target, where, "src_precision")
    if precision is Precision.INT16:
        raise refuse(where, "src_precision", precision, "int8 or fp16; int16 is not modelled in this unit")
    element_bytes = ELEMENT_BYTES[precision]
    atom = target.feature_atom_bytes // element_bytes
    shape = shape_of(surface["src_data"])
    if surface["dst_data"]["type"] == MemoryType.ON_THE_FLY:
        destination = handed_over(index, shape, atom, element_bytes)
    else:
        destination = space.cube(surface["dst_data"], atom, element_bytes, f"{where} destination")
    if convolution is None:
        source: Cube | ConvOperation = space.cube(surface["src_data"], atom, element_bytes, f"{where} source")
    else:
        source = convolution
        produced = convolution.out_channels, convolution.out_height, convolution.out_width
        if produced != shape:
            raise refuse(where, "source shape", shape, f"what operation {convolution.index} produces, {produced}")
        if convolution.precision is not precision:
            raise refuse(where, "src_precision", precision, f"the convolution's {convolution.precision}")
    if shape != destination.shape:
        raise refuse(where, "dst shape", destination.shape, str(shape))
    units, constants = [], []
    for name in ("x1", "x2", "y"):
        unit, cube = op[f"{name}_op"], surface[f"{name}_data"]
        if not unit["enable"]:
            continue
        if name == "y" and not target.has_y:
            warnings.append(f"{where}: {target.name} has no Y unit; what the loadable asks of it does nothing")
            continue
        decoded, window = _unit(space, target, name, unit, cube, destination, precision, f"{where} {name}")
        units.append(decoded)
        constants += [window] if window is not None else []
    lookup = any(unit.lookup for unit in units)
    lut = decode_lut(read_lut(int(op["lut_index"])), TABLE_BITS, f"{where} table") if lookup else None
    converter = converter_of(op["out_cvt"])
    return SdpOperation(index, source, tuple(units), lut, converter, precision, destination, tuple(constants))


def _unit(
    space: AddressSpace,
    target: Target,
    name: str,
    unit: np.void,
    cube: np.void,
    shape: Cube,
    precision: Precision,
    where: str,
) -> tuple[SdpUnit, Window | None]:
    for field, kinds in (("type", SdpType), ("mode", SdpMode), ("alu_type", SdpAlu), ("precision", OPERAND_BYTES)):
        if unit[field] not in list(kinds):
            raise refuse(where, field, int(unit[field]), f"0 to {max(kinds)}")
    kind, mode = SdpType(unit["type"]), SdpMode(unit["mode"])
    has_alu, has_mul = kind in (SdpType.ADD, SdpType.BOTH), kind in (SdpType.MUL, SdpType.BOTH)
    if kind is not SdpType.NONE and bool(unit["precision"] == 2) != (precision is Precision.FP16):
        raise refuse(where, "precision", int(unit["precision"]), f"one that fits {precision}")
    alu, mul, window = None, None, None
    interleaved = kind is SdpType.BOTH and mode is SdpMode.PER_POINT
    if mode is SdpMode.PER_LAYER:
        alu = Operand(register=_register(int(unit["alu_operand"]), name, precision)) if has_alu else None
        mul = Operand(register=_register(int(unit["mul_operand"]), name, precision)) if has_mul else None
    elif kind is not SdpType.NONE:
        size = OPERAND_BYTES[int(unit["precision"])]
        if mode is SdpMode.PER_KERNEL:
            count = shape.channels * (1 + (kind is SdpType.BOTH))
            window = space.window(int(cube["address"]), int(cube["offset"]), count * size, f"{where} operands")
            alu, mul = _arrays(space.constants(window, where), size, kind, precision)
        else:
            operand = Operand(cube=_operand_cube(space, target, cube, shape, size, 1 + interleaved, precision, where))
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
    ), window


def _operand_converter(descriptor: np.void) -> Converter | None:
    return converter_of(descriptor) if descriptor["enable"] else None


def _register(value: int, name: str, precision: Precision) -> int | np.float16 | np.float32:
    """Return what a register of an operand holds: 16 bits in X, 32 in Y; halves, or floats in Y, in fp16."""
    if precision is Precision.FP16:
        bits = np.array([value], np.int32)
        single: np.float32 = bits.view(np.float32)[0]
        half: np.float16 = bits.astype(np.uint16).view(np.float16)[0]
        return single if name == "y" else half
    return value if name == "y" else ((value & 0xFFFF) ^ 0x8000) - 0x8000


def _arrays(
    raw: np.ndarray[tuple[int], np.dtype[np.uint8]], size: int, kind: SdpType, precision: Precision
) -> tuple[Operand | None, Operand | None]:
    """Return (ALU, MUL) operands of a per-kernel unit; BOTH alternates the two for each channel."""
    packed = np.frombuffer(raw.tobytes(), np.float16 if precision is Precision.FP16 else f"<i{size}")
    values: NDArray[np.float16] | NDArray[np.int64]
    values = packed.copy() if precision is Precision.FP16 else packed.astype(np.int64)
    if kind is SdpType.BOTH:
        return Operand(channels=values[0::2]), Operand(channels=values[1::2])
    return (Operand(channels=values), None) if kind is SdpType.ADD else (None, Operand(channels=values))


def _operand_cube(
    space: AddressSpace,
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
    return space.checked_cube(
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
