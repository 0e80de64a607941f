"""An SDP operation's registers, in the order of nvdla/sw ``kmd/firmware/sdp.c``, ``processor_sdp_program``."""

from collections.abc import Callable, Iterator

import numpy as np

from nvdla_quant.loadable.structs import Activation, MemoryType, ProcessorPrecision, SdpMode, SdpType
from nvdla_quant.registers.decode.sdp import ALU_ONLY, BOTH, MUL_ONLY, PARTS
from nvdla_quant.registers.map import RegisterMap
from nvdla_quant.registers.places import SDP, SDP_SOURCE, SDP_SURFACE
from nvdla_quant.registers.program.encode import Resolver, Values, addressed, encoded, flat, puts, ram_type
from nvdla_quant.registers.program.lut import table
from nvdla_quant.registers.program.steps import Put

READERS_OFF = "SDP_RDMA D_FEATURE_MODE_CFG D_BRDMA_CFG D_NRDMA_CFG D_ERDMA_CFG"
READERS = """
SDP_RDMA D_FEATURE_MODE_CFG D_DATA_CUBE_WIDTH D_DATA_CUBE_HEIGHT D_DATA_CUBE_CHANNEL D_SRC_BASE_ADDR_LOW
    D_SRC_BASE_ADDR_HIGH D_SRC_LINE_STRIDE D_SRC_SURFACE_STRIDE D_SRC_DMA_CFG
    D_BRDMA_CFG D_BS_BASE_ADDR_LOW D_BS_BASE_ADDR_HIGH D_BS_LINE_STRIDE D_BS_SURFACE_STRIDE
    D_NRDMA_CFG D_BN_BASE_ADDR_LOW D_BN_BASE_ADDR_HIGH D_BN_LINE_STRIDE D_BN_SURFACE_STRIDE
    D_ERDMA_CFG D_EW_BASE_ADDR_LOW D_EW_BASE_ADDR_HIGH D_EW_LINE_STRIDE D_EW_SURFACE_STRIDE
"""
ORDER = """
SDP D_DATA_CUBE_WIDTH D_DATA_CUBE_HEIGHT D_DATA_CUBE_CHANNEL D_DST_BASE_ADDR_HIGH D_DST_BASE_ADDR_LOW
    D_DST_LINE_STRIDE D_DST_SURFACE_STRIDE
    D_DP_BS_CFG D_DP_BS_ALU_CFG D_DP_BS_ALU_SRC_VALUE D_DP_BS_MUL_SRC_VALUE D_DP_BS_MUL_CFG
    D_DP_BN_CFG D_DP_BN_ALU_CFG D_DP_BN_ALU_SRC_VALUE D_DP_BN_MUL_SRC_VALUE D_DP_BN_MUL_CFG
    D_DP_EW_CFG D_DP_EW_ALU_CFG D_DP_EW_ALU_SRC_VALUE D_DP_EW_ALU_CVT_OFFSET_VALUE D_DP_EW_ALU_CVT_SCALE_VALUE
    D_DP_EW_ALU_CVT_TRUNCATE_VALUE D_DP_EW_MUL_CFG D_DP_EW_MUL_SRC_VALUE D_DP_EW_MUL_CVT_OFFSET_VALUE
    D_DP_EW_MUL_CVT_SCALE_VALUE D_DP_EW_MUL_CVT_TRUNCATE_VALUE D_DP_EW_TRUNCATE_VALUE
    D_FEATURE_MODE_CFG D_DST_DMA_CFG D_DST_BATCH_STRIDE D_DATA_FORMAT D_CVT_OFFSET D_CVT_SCALE D_CVT_SHIFT
"""
USES = {SdpType.NONE: MUL_ONLY, SdpType.MUL: MUL_ONLY, SdpType.ADD: ALU_ONLY, SdpType.BOTH: BOTH}
PER_ELEMENT = {SdpMode.PER_LAYER: 1, SdpMode.PER_KERNEL: 0, SdpMode.PER_POINT: 1}
"""What ..._DATA_MODE says."""


def needs_reader(op: np.void, surface: np.void) -> bool:
    """Whether the firmware enables SDP_RDMA (``dla_sdp_rdma_check``)."""
    units = (op[f"{name}_op"] for name in PARTS)
    fetches = any(unit["enable"] and unit["mode"] != SdpMode.PER_LAYER for unit in units)
    return not _is_flying(surface) or fetches


def point(
    registers: RegisterMap,
    resolve: Resolver,
    op: np.void,
    surface: np.void,
    lut: Callable[[int], np.void],
    where: str,
) -> Iterator[Put]:
    """Yield the writes of an SDP operation's registers."""
    fields, sides = flat(op), flat(surface)
    precision = _processing(fields["src_precision"], fields["dst_precision"])
    off = {f"SDP_RDMA.D_{reader}_CFG.{reader}_DISABLE": 0 for _, reader in PARTS.values()}
    yield from puts(registers, READERS_OFF, {"SDP_RDMA.D_FEATURE_MODE_CFG.FLYING_MODE": 0, **off})
    readers: Values = {
        "SDP_RDMA.D_FEATURE_MODE_CFG.FLYING_MODE": int(_is_flying(surface)),
        "SDP_RDMA.D_FEATURE_MODE_CFG.WINOGRAD": fields["conv_mode"],
        "SDP_RDMA.D_FEATURE_MODE_CFG.IN_PRECISION": fields["src_precision"],
        "SDP_RDMA.D_FEATURE_MODE_CFG.OUT_PRECISION": fields["dst_precision"],
        "SDP_RDMA.D_FEATURE_MODE_CFG.PROC_PRECISION": precision,
        "SDP_RDMA.D_FEATURE_MODE_CFG.BATCH_NUMBER": fields["batch_num"] - 1,
    }
    if needs_reader(op, surface):
        readers |= _source(resolve, surface, sides, where)
        for name in PARTS:
            readers |= _reader(resolve, name, op[f"{name}_op"], surface[f"{name}_data"], where)
    yield from puts(registers, READERS, readers)
    if fields["lut_index"] >= 0:
        yield from table(registers, "SDP", lut(fields["lut_index"]), fields["src_precision"])
    # The firmware takes the size of the source, which is that of the destination.
    shape = {f"dst_data.{side}": sides[f"src_data.{side}"] for side in ("width", "height", "channel")}
    values = encoded(SDP, fields) | encoded(SDP_SURFACE, sides | shape)
    values |= {
        "SDP.D_DATA_FORMAT.PROC_PRECISION": precision,
        "SDP.D_FEATURE_MODE_CFG.FLYING_MODE": int(_is_flying(surface)),
        "SDP.D_FEATURE_MODE_CFG.OUTPUT_DST": int(sides["dst_data.type"] == MemoryType.ON_THE_FLY),
        "SDP.D_DST_DMA_CFG": ram_type(sides["dst_data.type"]),
    }
    absent: tuple[str, ...] = () if fields["batch_num"] > 1 else ("SDP.D_DST_BATCH_STRIDE",)
    if sides["dst_data.type"] == MemoryType.ON_THE_FLY:
        absent += ("SDP.D_DST_LINE_STRIDE", "SDP.D_DST_SURFACE_STRIDE")
    else:
        values |= addressed("SDP.D_DST_BASE_ADDR_HIGH", "SDP.D_DST_BASE_ADDR_LOW", resolve(surface["dst_data"], where))
    for name in ("x1", "x2"):
        values |= _x(PARTS[name][0], flat(op[f"{name}_op"]))
    values |= _y(flat(op["y_op"]))
    yield from puts(registers, ORDER, {name: value for name, value in values.items() if name not in absent})


def _is_flying(surface: np.void) -> bool:
    return bool(surface["src_data"]["type"] == MemoryType.ON_THE_FLY)


def _processing(source: int, destination: int) -> int:
    """Return the precision between both: the source's, but that int16 into int8 is computed as int8."""
    if destination == ProcessorPrecision.INT8 and source == ProcessorPrecision.INT16:
        return ProcessorPrecision.INT8
    return source


def _source(resolve: Resolver, surface: np.void, sides: dict[str, int], where: str) -> Values:
    values = encoded(SDP_SOURCE, sides)
    if _is_flying(surface):
        return {name: value for name, value in values.items() if "CUBE" in name}
    address = resolve(surface["src_data"], where)
    values |= addressed("SDP_RDMA.D_SRC_BASE_ADDR_HIGH", "SDP_RDMA.D_SRC_BASE_ADDR_LOW", address)
    return values | {"SDP_RDMA.D_SRC_DMA_CFG": ram_type(sides["src_data.type"])}


def _reader(resolve: Resolver, name: str, unit: np.void, cube: np.void, where: str) -> Values:
    """Return what SDP_RDMA is told of a unit's operands."""
    short, reader = PARTS[name]
    reads = bool(unit["enable"]) and unit["type"] != SdpType.NONE and unit["mode"] != SdpMode.PER_LAYER
    config = f"SDP_RDMA.D_{reader}_CFG.{reader}"
    values: Values = {
        f"{config}_DISABLE": int(not reads),
        f"{config}_DATA_USE": USES[SdpType(unit["type"])],
        f"{config}_DATA_SIZE": int(unit["precision"] != ProcessorPrecision.INT8),
        f"{config}_DATA_MODE": PER_ELEMENT[SdpMode(unit["mode"])],
        f"{config}_RAM_TYPE": ram_type(int(cube["type"])),
    }
    if reads:
        high, low = (f"SDP_RDMA.D_{short}_BASE_ADDR_{half}" for half in ("HIGH", "LOW"))
        values |= addressed(high, low, resolve(cube, where))
        values[f"SDP_RDMA.D_{short}_LINE_STRIDE"] = int(cube["line_stride"])
        values[f"SDP_RDMA.D_{short}_SURFACE_STRIDE"] = int(cube["surf_stride"])
    return values


def _unit(short: str, unit: dict[str, int]) -> Values:
    """Return which parts of a unit take part."""
    config = f"SDP.D_DP_{short}_CFG.{short}"
    return {
        f"{config}_BYPASS": int(not unit["enable"]),
        f"{config}_ALU_BYPASS": int(unit["type"] in (SdpType.MUL, SdpType.NONE)),
        f"{config}_ALU_ALGO": unit["alu_type"],
        f"{config}_MUL_BYPASS": int(unit["type"] in (SdpType.ADD, SdpType.NONE)),
        f"{config}_MUL_PRELU": int(unit["act"] == Activation.PRELU),
    }


def _x(short: str, unit: dict[str, int]) -> Values:
    values = _unit(short, unit) | {f"SDP.D_DP_{short}_CFG.{short}_RELU_BYPASS": int(unit["act"] != Activation.RELU)}
    if not unit["enable"]:
        return values
    fetched = int(unit["mode"] != SdpMode.PER_LAYER)
    if unit["type"] in (SdpType.ADD, SdpType.BOTH):
        values[f"SDP.D_DP_{short}_ALU_CFG.{short}_ALU_SRC"] = fetched
        values[f"SDP.D_DP_{short}_ALU_CFG.{short}_ALU_SHIFT_VALUE"] = unit["shift_value"]
    if not fetched:
        values[f"SDP.D_DP_{short}_ALU_SRC_VALUE"] = unit["alu_operand"] & 0xFFFF
        values[f"SDP.D_DP_{short}_MUL_SRC_VALUE"] = unit["mul_operand"] & 0xFFFF
    # The shift counts whether the multiplier takes part or not.
    values[f"SDP.D_DP_{short}_MUL_CFG.{short}_MUL_SRC"] = fetched
    values[f"SDP.D_DP_{short}_MUL_CFG.{short}_MUL_SHIFT_VALUE"] = unit["truncate"]
    return values


def _y(unit: dict[str, int]) -> Values:
    values = _unit("EW", unit) | {"SDP.D_DP_EW_CFG.EW_LUT_BYPASS": int(unit["act"] != Activation.LUT)}
    if not unit["enable"]:
        return values
    fetched = unit["mode"] != SdpMode.PER_LAYER
    for part, kind in (("ALU", SdpType.ADD), ("MUL", SdpType.MUL)):
        if unit["type"] not in (kind, SdpType.BOTH):
            continue
        short, lower = f"SDP.D_DP_EW_{part}", part.lower()
        values[f"{short}_CFG.EW_{part}_SRC"] = int(fetched)
        values[f"{short}_CFG.EW_{part}_CVT_BYPASS"] = int(not unit[f"{lower}_cvt.enable"])
        if fetched:
            for field in ("offset", "scale", "truncate"):
                values[f"{short}_CVT_{field.upper()}_VALUE"] = unit[f"{lower}_cvt.{field}"]
        else:
            values[f"{short}_SRC_VALUE"] = unit[f"{lower}_operand"]
    return values | {"SDP.D_DP_EW_TRUNCATE_VALUE": unit["truncate"]}
