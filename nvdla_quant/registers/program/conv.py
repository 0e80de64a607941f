"""A convolution's registers, in the order of nvdla/sw ``kmd/firmware/conv.c``, ``processor_conv_program``."""

from collections.abc import Iterator

import numpy as np

from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable import structs
from nvdla_quant.registers.map import RegisterMap
from nvdla_quant.registers.places import CONV, CONV_SURFACE, DIRECT, EXTENDED, WMB_BYTES
from nvdla_quant.registers.program.encode import Resolver, Values, addressed, encoded, flat, puts, ram_type
from nvdla_quant.registers.program.steps import Put

ORDER = """
CACC D_MISC_CFG D_DATAOUT_SIZE_0 D_DATAOUT_SIZE_1 D_DATAOUT_ADDR D_BATCH_NUMBER D_LINE_STRIDE D_SURF_STRIDE
    D_DATAOUT_MAP D_CLIP_CFG;
CMAC_A D_MISC_CFG;
CMAC_B D_MISC_CFG;
CSC D_MISC_CFG D_DATAIN_FORMAT D_DATAIN_SIZE_EXT_0 D_DATAIN_SIZE_EXT_1 D_BATCH_NUMBER D_POST_Y_EXTENSION
    D_ENTRY_PER_SLICE D_WEIGHT_FORMAT D_WEIGHT_SIZE_EXT_0 D_WEIGHT_SIZE_EXT_1 D_WEIGHT_BYTES D_WMB_BYTES
    D_DATAOUT_SIZE_0 D_DATAOUT_SIZE_1 D_ATOMICS D_RELEASE D_CONV_STRIDE_EXT D_DILATION_EXT D_ZERO_PADDING
    D_ZERO_PADDING_VALUE D_BANK D_PRA_CFG;
CDMA D_MISC_CFG D_DATAIN_FORMAT D_DATAIN_SIZE_0 D_DATAIN_SIZE_1 D_DATAIN_SIZE_EXT_0 D_DAIN_RAM_TYPE
    D_DAIN_ADDR_HIGH_0 D_DAIN_ADDR_LOW_0 D_DAIN_ADDR_HIGH_1 D_DAIN_ADDR_LOW_1 D_LINE_STRIDE D_SURF_STRIDE
    D_LINE_UV_STRIDE D_DAIN_MAP D_BATCH_NUMBER D_BATCH_STRIDE D_ENTRY_PER_SLICE D_FETCH_GRAIN D_WEIGHT_FORMAT
    D_WEIGHT_SIZE_0 D_WEIGHT_SIZE_1 D_WEIGHT_RAM_TYPE D_WEIGHT_ADDR_HIGH D_WEIGHT_ADDR_LOW D_WEIGHT_BYTES
    D_WGS_ADDR_HIGH D_WGS_ADDR_LOW D_WMB_ADDR_HIGH D_WMB_ADDR_LOW D_WMB_BYTES D_MEAN_FORMAT D_MEAN_GLOBAL_0
    D_MEAN_GLOBAL_1 D_CVT_CFG D_CVT_OFFSET D_CVT_SCALE D_CONV_STRIDE D_ZERO_PADDING D_ZERO_PADDING_VALUE D_BANK
"""
MEAN = "CDMA.D_MEAN_GLOBAL"
CONVERTER = ("CDMA.D_CVT_OFFSET", "CDMA.D_CVT_SCALE", "CDMA.D_CVT_CFG.CVT_TRUNCATE")


def convolution(
    registers: RegisterMap, target: Target, resolve: Resolver, op: np.void, surface: np.void, where: str
) -> Iterator[Put]:
    """Yield the writes of a convolution's registers."""
    fields, sides = flat(op), flat(surface)
    direct = fields["conv_mode"] == structs.CONV_MODE_DIRECT
    values = encoded(CONV, fields) | encoded(CONV_SURFACE, sides) | encoded(EXTENDED, fields)
    values |= encoded(DIRECT, fields if direct else {})
    values |= _format(fields) | _input(target, resolve, sides, where) | _output(target, resolve, sides, where)
    values |= {
        "CSC.D_MISC_CFG.IN_PRECISION": fields["out_precision"],
        "CSC.D_WMB_BYTES": sides["wmb_data.size"],
        "CSC.D_DATAOUT_SIZE_1": sides["dst_data.channel"] - 1,
        "CSC.D_ATOMICS": sides["dst_data.width"] * sides["dst_data.height"] - 1,
        "CDMA.D_WEIGHT_RAM_TYPE": ram_type(sides["weight_data.type"]),
        **addressed(
            "CDMA.D_WEIGHT_ADDR_HIGH", "CDMA.D_WEIGHT_ADDR_LOW", resolve.or_zero(surface["weight_data"], where)
        ),
    }
    if fields["weight_format"] == structs.WEIGHT_FORMAT_COMPRESSED:
        for part, short in (("wgs_data", "WGS"), ("wmb_data", "WMB")):
            address = resolve(surface[part], where)
            values |= addressed(f"CDMA.D_{short}_ADDR_HIGH", f"CDMA.D_{short}_ADDR_LOW", address)
        values |= encoded({"wmb_data.size": WMB_BYTES}, sides)
    absent: tuple[str, ...] = () if fields["mean_format"] else (MEAN,)
    absent += () if fields["in_cvt.enable"] else CONVERTER
    yield from puts(registers, ORDER, {name: value for name, value in values.items() if not name.startswith(absent)})


def _format(fields: dict[str, int]) -> Values:
    """Return what says of which format the source is; of features, nothing looks at the pixels' format."""
    pixels = fields["data_format"] != structs.FORMAT_FEATURE
    return {
        "CSC.D_DATAIN_FORMAT": int(pixels),
        "CDMA.D_DATAIN_FORMAT.DATAIN_FORMAT": int(pixels),
        "CDMA.D_DATAIN_FORMAT.PIXEL_FORMAT": fields["data_format"] if pixels else 0,
    }


def _input(target: Target, resolve: Resolver, sides: dict[str, int], where: str) -> Values:
    width, height = sides["src_data.width"], sides["src_data.height"]
    line = width * target.feature_atom_bytes
    first = resolve.at(sides["src_data.address"], sides["src_data.offset"], where)
    second = resolve.at(sides["src_data.address"], sides["src_data.offset"] + sides["offset_u"], where)
    return {
        "CDMA.D_DAIN_RAM_TYPE": ram_type(sides["src_data.type"]),
        "CDMA.D_DAIN_MAP.LINE_PACKED": int(sides["src_data.line_stride"] == line),
        "CDMA.D_DAIN_MAP.SURF_PACKED": int(sides["src_data.surf_stride"] == line * height),
        **addressed("CDMA.D_DAIN_ADDR_HIGH_0", "CDMA.D_DAIN_ADDR_LOW_0", first),
        **addressed("CDMA.D_DAIN_ADDR_HIGH_1", "CDMA.D_DAIN_ADDR_LOW_1", second),
    }


def _output(target: Target, resolve: Resolver, sides: dict[str, int], where: str) -> Values:
    """Return what CACC is told of its output, which goes to the SDP and not to memory."""
    packed = int((sides["dst_data.width"], sides["dst_data.height"]) == (1, 1))
    address = sides["dst_data.address"]
    low = 0 if address == -1 else resolve.at(address, sides["dst_data.offset"], where)
    return {
        "CACC.D_DATAOUT_ADDR": addressed("high", "low", low)["low"],
        "CACC.D_LINE_STRIDE": sides["dst_data.line_stride"],
        "CACC.D_SURF_STRIDE": sides["dst_data.surf_stride"],
        "CACC.D_DATAOUT_MAP.LINE_PACKED": packed,
        "CACC.D_DATAOUT_MAP.SURF_PACKED": packed,
    }
