"""A single-point operation: SDP, and SDP_RDMA for what it reads from memory.

The parts of a unit take operands from registers or memory as their registers say, each for itself; a loadable knows
fewer ways. Facts: nvdla/hw ``cmod/sdp/NV_NVDLA_sdp.cpp``, ``cmod/hls/sdp``, ``spec/manual/NVDLA_SDP*.rdl``.
"""

from nvdla_quant.emulator.decode.fields import refuse
from nvdla_quant.emulator.decode.sdp import (
    TABLE_BITS,
    decode_around_units,
    decode_lut,
    operand_arrays,
    operand_cube,
    operand_register,
    with_units,
)
from nvdla_quant.emulator.operations import Converter, ConvOperation, Operand, SdpOperation, SdpUnit
from nvdla_quant.errors import MissingUnitError, TraceError
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.structs import MemoryType, SdpAlu, SdpType
from nvdla_quant.registers.decode.lut import lut_of
from nvdla_quant.registers.decode.values import (
    RegisterSpace,
    Units,
    cube_fields,
    field,
    gather,
    record,
    refuse_unless_zero,
    space_of,
)
from nvdla_quant.registers.places import SDP, SDP_SOURCE, SDP_SURFACE, places
from nvdla_quant.registers.units import Unit

PARTS = {"x1": ("BS", "BRDMA"), "x2": ("BN", "NRDMA"), "y": ("EW", "ERDMA")}
"""Names of the units in registers, and of what reads their operands."""
MUL_ONLY, ALU_ONLY, BOTH = 0, 1, 2
"""What ..._DATA_USE says."""


def is_flying(units: Units) -> bool:
    """Whether the source is a convolution."""
    return bool(units["SDP"].field("D_FEATURE_MODE_CFG", "FLYING_MODE"))


def feeds_pooling(units: Units) -> bool:
    """Whether the result goes to the PDP."""
    return bool(units["SDP"].field("D_FEATURE_MODE_CFG", "OUTPUT_DST"))


def reads_memory(units: Units) -> bool:
    """Whether SDP_RDMA has something to read: the source, or operands."""
    return not is_flying(units) or any(_from_memory(units["SDP"], name) for name in PARTS)


def reads_nothing(units: Units) -> bool:
    """Whether SDP_RDMA's own registers say that it reads nothing."""
    reader = units["SDP_RDMA"]
    disabled = all(reader.field(f"D_{name}_CFG", f"{name}_DISABLE") for _, name in PARTS.values())
    return disabled and bool(reader.field("D_FEATURE_MODE_CFG", "FLYING_MODE"))


def _from_memory(sdp: Unit, name: str) -> tuple[str, ...]:
    """Return the parts ("alu", "mul") of a unit that take operands from memory."""
    short = PARTS[name][0]
    if sdp.field(f"D_DP_{short}_CFG", f"{short}_BYPASS"):
        return ()
    return tuple(
        part.lower()
        for part in ("ALU", "MUL")
        if not sdp.field(f"D_DP_{short}_CFG", f"{short}_{part}_BYPASS") and _source(sdp, short, part)
    )


def _source(sdp: Unit, short: str, part: str) -> int:
    return sdp.field(f"D_DP_{short}_{part}_CFG", f"{short}_{part}_SRC")


def decode_point(
    units: Units, target: Target, index: int, convolution: ConvOperation | None, warnings: list[str], where: str
) -> SdpOperation:
    """Return the operation that is enabled; see `decode_convolution`."""
    op = gather(units, SDP)
    surface = gather(units, SDP_SURFACE)
    shape = {f"src_data.{side}": surface[f"dst_data.{side}"] for side in ("width", "height", "channel")}
    if feeds_pooling(units):
        surface["dst_data.type"] = MemoryType.ON_THE_FLY
    else:
        surface |= cube_fields(
            units, "dst_data", "SDP.D_DST_BASE_ADDR_HIGH", "SDP.D_DST_BASE_ADDR_LOW", "SDP.D_DST_DMA_CFG"
        )
    if convolution is None:
        source = gather(units, SDP_SOURCE)
        for name, value in shape.items():
            if source[name] != value:
                raise refuse(where, f"{name} of SDP_RDMA", source[name], f"{value}, as in SDP: both must agree")
        surface |= source
        surface |= cube_fields(
            units, "src_data", "SDP_RDMA.D_SRC_BASE_ADDR_HIGH", "SDP_RDMA.D_SRC_BASE_ADDR_LOW", "SDP_RDMA.D_SRC_DMA_CFG"
        )
        op["src_precision"] = field(units, places("SDP_RDMA.D_FEATURE_MODE_CFG.IN_PRECISION")[0])
    else:
        surface |= shape
    if structs.ProcessorPrecision.FP16 in (op["src_precision"], op["dst_precision"]):
        refuse_unless_zero(units, "SDP.D_FEATURE_MODE_CFG.NAN_TO_ZERO", where, "in fp16")
    space = space_of(target)
    descriptors = record(structs.SDP_OP, op), record(structs.SDP_SURFACE, surface)
    bare = decode_around_units(space, target, *descriptors, index, convolution, where)
    made = tuple(
        _unit(space, units, target, name, bare, f"{where} {name}")
        for name, (short, _) in PARTS.items()
        if not units["SDP"].field(f"D_DP_{short}_CFG", f"{short}_BYPASS")
    )
    lookup = any(unit.lookup for unit in made)
    lut = decode_lut(lut_of(units["SDP"]), TABLE_BITS, f"{where} table") if lookup else None
    return with_units(bare, made, lut, warnings, where)


def _unit(space: RegisterSpace, units: Units, target: Target, name: str, bare: SdpOperation, where: str) -> SdpUnit:
    if name == "y" and not target.has_y:
        raise MissingUnitError(f"{where}: SDP.D_DP_EW_CFG enables the Y unit, which {target.name} has not")
    sdp, (short, _) = units["SDP"], PARTS[name]
    has_alu, has_mul = (not sdp.field(f"D_DP_{short}_CFG", f"{short}_{part}_BYPASS") for part in ("ALU", "MUL"))
    fetched = _from_memory(sdp, name)
    alu, mul = _operands(space, units, target, name, bare, where) if fetched else (None, None)
    interleaved = bool(fetched) and (alu or mul) is not None and _interleaved(units, name)
    if has_alu and "alu" not in fetched:
        alu = Operand(register=operand_register(_value(sdp, short, "ALU"), name, bare.precision))
    if has_mul and "mul" not in fetched:
        mul = Operand(register=operand_register(_value(sdp, short, "MUL"), name, bare.precision))
    is_y = name == "y"
    lookup = is_y and not sdp.field("D_DP_EW_CFG", "EW_LUT_BYPASS")
    if lookup and not target.has_lut:
        raise MissingUnitError(f"{where}: SDP.D_DP_EW_CFG enables the table, which {target.name} has not")
    return SdpUnit(
        name=name,
        alu=SdpAlu(sdp.field(f"D_DP_{short}_CFG", f"{short}_ALU_ALGO")) if has_alu else None,
        alu_operand=alu if has_alu else None,
        mul_operand=mul if has_mul else None,
        interleaved=interleaved,
        alu_shift=0 if is_y else sdp.field(f"D_DP_{short}_ALU_CFG", f"{short}_ALU_SHIFT_VALUE"),
        truncate=_truncate(sdp, short),
        relu=not is_y and not sdp.field(f"D_DP_{short}_CFG", f"{short}_RELU_BYPASS"),
        prelu=bool(sdp.field(f"D_DP_{short}_CFG", f"{short}_MUL_PRELU")),
        alu_converter=_converter(sdp, "ALU") if is_y and "alu" in fetched else None,
        mul_converter=_converter(sdp, "MUL") if is_y and "mul" in fetched else None,
        lookup=lookup,
    )


def _truncate(sdp: Unit, short: str) -> int:
    """Return the right shift behind a multiplier: 6 bits in X, of the register's 8; 10 in Y."""
    if short == "EW":
        return sdp.field("D_DP_EW_TRUNCATE_VALUE")
    return sdp.field(f"D_DP_{short}_MUL_CFG", f"{short}_MUL_SHIFT_VALUE") & 63


def _value(sdp: Unit, short: str, part: str) -> int:
    """Return an operand's register, which is signed and has 16 bits in X and 32 in Y."""
    value, bits = sdp.field(f"D_DP_{short}_{part}_SRC_VALUE"), 32 if short == "EW" else 16
    return value - ((value >> (bits - 1)) << bits)


def _converter(sdp: Unit, part: str) -> Converter | None:
    """Return the converter of Y's operands from memory."""
    if sdp.field(f"D_DP_EW_{part}_CFG", f"EW_{part}_CVT_BYPASS"):
        return None
    offset, scale, shift = (sdp.field(f"D_DP_EW_{part}_CVT_{what}_VALUE") for what in ("OFFSET", "SCALE", "TRUNCATE"))
    return Converter(offset - ((offset >> 31) << 32), scale - ((scale >> 15) << 16), shift)


def _reader(units: Units, name: str, field_name: str) -> int:
    reader = PARTS[name][1]
    return units["SDP_RDMA"].field(f"D_{reader}_CFG", f"{reader}_{field_name}")


def _interleaved(units: Units, name: str) -> bool:
    return _reader(units, name, "DATA_USE") == BOTH and _reader(units, name, "DATA_MODE") == 1


def _operands(
    space: RegisterSpace, units: Units, target: Target, name: str, bare: SdpOperation, where: str
) -> tuple[Operand | None, Operand | None]:
    """Return what SDP_RDMA hands to the ALU and to the multiplier of a unit."""
    short, reader = PARTS[name]
    use = _reader(units, name, "DATA_USE")
    given = {MUL_ONLY: ("mul",), ALU_ONLY: ("alu",), BOTH: ("alu", "mul")}.get(use, ())
    wanted = _from_memory(units["SDP"], name)
    if given != wanted or _reader(units, name, "DISABLE"):
        offered = " and ".join(given) if not _reader(units, name, "DISABLE") else "nothing"
        raise TraceError(
            f"{where}: SDP takes operands of {' and '.join(wanted)} from memory, SDP_RDMA.D_{reader}_CFG reads "
            f"{offered}; expected the same, or it would hang"
        )
    size = 2 if _reader(units, name, "DATA_SIZE") else 1
    if size == 1 and bare.precision is not Precision.INT8:
        raise refuse(where, f"SDP_RDMA.D_{reader}_CFG {reader}_DATA_SIZE", 0, f"1: operands of {bare.precision}")
    place = cube_fields(
        units,
        "operand",
        f"SDP_RDMA.D_{short}_BASE_ADDR_HIGH",
        f"SDP_RDMA.D_{short}_BASE_ADDR_LOW",
        f"SDP_RDMA.D_{reader}_CFG.{reader}_RAM_TYPE",
    )
    memory, offset = place["operand.address"], place["operand.offset"]
    if _reader(units, name, "DATA_MODE") == 0:
        count = bare.destination.channels * len(given)
        window = space.window(memory, offset, count * size, f"{where} operands")
        kind = {MUL_ONLY: SdpType.MUL, ALU_ONLY: SdpType.ADD, BOTH: SdpType.BOTH}[use]
        return operand_arrays(window, size, kind, bare.precision)
    line, surface = (units["SDP_RDMA"].scaled(f"D_{short}_{what}_STRIDE") for what in ("LINE", "SURFACE"))
    fields = {"address": memory, "offset": offset, "line_stride": line, "surf_stride": surface}
    cube = record(structs.CUBE, fields)
    element = operand_cube(space, target, cube, bare.destination, size, len(given), bare.precision, where)
    operand = Operand(cube=element)
    return operand if "alu" in given else None, operand if "mul" in given else None
