"""Registers of poolings and normalisations, in the order of nvdla/sw ``kmd/firmware/{pdp,cdp}.c``."""

from collections.abc import Callable, Iterator

import numpy as np

from nvdla_quant.loadable.structs import MemoryType, ProcessorPrecision
from nvdla_quant.registers.decode.planar import OFF_FLYING
from nvdla_quant.registers.map import RegisterMap
from nvdla_quant.registers.places import (
    CDP,
    CDP_SURFACE,
    PDP,
    PDP_PADDING,
    PDP_SOURCE,
    PDP_SOURCE_SURFACE,
    PDP_SURFACE,
    places,
)
from nvdla_quant.registers.program.encode import Resolver, Values, addressed, encoded, flat, puts, ram_type
from nvdla_quant.registers.program.lut import table
from nvdla_quant.registers.program.steps import Put

POOLING_SOURCE = """
PDP_RDMA D_DATA_CUBE_IN_WIDTH D_DATA_CUBE_IN_HEIGHT D_DATA_CUBE_IN_CHANNEL D_SRC_BASE_ADDR_HIGH D_SRC_BASE_ADDR_LOW
    D_SRC_LINE_STRIDE D_SRC_SURFACE_STRIDE D_DATA_FORMAT D_SRC_RAM_CFG D_OPERATION_MODE_CFG D_POOLING_KERNEL_CFG
    D_POOLING_PADDING_CFG D_PARTIAL_WIDTH_IN
"""
POOLING = """
PDP D_DATA_CUBE_IN_WIDTH D_DATA_CUBE_IN_HEIGHT D_DATA_CUBE_IN_CHANNEL D_DATA_CUBE_OUT_WIDTH D_DATA_CUBE_OUT_HEIGHT
    D_DATA_CUBE_OUT_CHANNEL D_OPERATION_MODE_CFG D_PARTIAL_WIDTH_IN D_PARTIAL_WIDTH_OUT D_POOLING_KERNEL_CFG
    D_RECIP_KERNEL_WIDTH D_RECIP_KERNEL_HEIGHT D_POOLING_PADDING_CFG D_POOLING_PADDING_VALUE_1_CFG
    D_POOLING_PADDING_VALUE_2_CFG D_POOLING_PADDING_VALUE_3_CFG D_POOLING_PADDING_VALUE_4_CFG
    D_POOLING_PADDING_VALUE_5_CFG D_POOLING_PADDING_VALUE_6_CFG D_POOLING_PADDING_VALUE_7_CFG D_SRC_LINE_STRIDE
    D_SRC_SURFACE_STRIDE D_DST_BASE_ADDR_LOW D_DST_BASE_ADDR_HIGH D_DST_LINE_STRIDE D_DST_SURFACE_STRIDE D_DST_RAM_CFG
    D_DATA_FORMAT
"""
NORMALISATION_SOURCE = """
CDP_RDMA D_DATA_CUBE_WIDTH D_DATA_CUBE_HEIGHT D_DATA_CUBE_CHANNEL D_SRC_BASE_ADDR_LOW D_SRC_BASE_ADDR_HIGH
    D_SRC_LINE_STRIDE D_SRC_SURFACE_STRIDE D_SRC_DMA_CFG D_DATA_FORMAT
"""
NORMALISATION = """
CDP D_DST_BASE_ADDR_LOW D_DST_BASE_ADDR_HIGH D_DST_LINE_STRIDE D_DST_SURFACE_STRIDE D_DST_DMA_CFG D_DATA_FORMAT
    D_LRN_CFG D_DATIN_OFFSET D_DATIN_SCALE D_DATIN_SHIFTER D_DATOUT_OFFSET D_DATOUT_SCALE D_DATOUT_SHIFTER D_FUNC_BYPASS
"""
PARTIAL = ("partial_in_width", "partial_width")


def pooling(registers: RegisterMap, resolve: Resolver, op: np.void, surface: np.void, where: str) -> Iterator[Put]:
    """Yield the writes of a pooling's registers."""
    fields, sides = flat(op), flat(surface)
    # Widths of parts are 0 where there are none, and the registers then hold 0, too, not one less.
    fields |= {name: max(fields[name], 1) for name in fields if name.startswith(PARTIAL)}
    from_memory = sides["src_data.type"] != MemoryType.ON_THE_FLY
    if from_memory:
        source = encoded(PDP_SOURCE, fields) | encoded(PDP_SOURCE_SURFACE, sides)
        source |= _place("PDP_RDMA.D_SRC_BASE_ADDR", resolve, surface["src_data"], where)
        source |= {
            "PDP_RDMA.D_SRC_RAM_CFG": ram_type(sides["src_data.type"]),
            "PDP_RDMA.D_POOLING_KERNEL_CFG.KERNEL_WIDTH": fields["pool_width"],
            "PDP_RDMA.D_POOLING_KERNEL_CFG.KERNEL_STRIDE_WIDTH": fields["stride_x"] - 1,
            "PDP_RDMA.D_POOLING_PADDING_CFG": fields["pad_left"],
        }
        for part in ("FIRST", "MID", "LAST"):
            width = fields[f"partial_in_width_{part.lower()}"]
            source[f"PDP_RDMA.D_PARTIAL_WIDTH_IN.PARTIAL_WIDTH_IN_{part}"] = width - 1
        yield from puts(registers, POOLING_SOURCE, source)
    values = encoded(PDP, fields) | encoded(PDP_SURFACE, sides)
    for text, value in zip(PDP_PADDING, op["padding_value"].tolist(), strict=True):
        values |= {str(place): value for place in places(text)}
    values |= _place("PDP.D_DST_BASE_ADDR", resolve, surface["dst_data"], where)
    values |= {
        "PDP.D_OPERATION_MODE_CFG.FLYING_MODE": OFF_FLYING if from_memory else 0,
        "PDP.D_RECIP_KERNEL_WIDTH": reciprocal(fields["pool_width"] + 1, fields["precision"]),
        "PDP.D_RECIP_KERNEL_HEIGHT": reciprocal(fields["pool_height"] + 1, fields["precision"]),
        "PDP.D_DST_RAM_CFG": ram_type(sides["dst_data.type"]),
    }
    if from_memory:
        values["PDP.D_SRC_LINE_STRIDE"] = sides["src_data.line_stride"]
        values["PDP.D_SRC_SURFACE_STRIDE"] = sides["src_data.surf_stride"]
    yield from puts(registers, POOLING, values)


def reciprocal(size: int, precision: int) -> int:
    """Return what the registers of a window's reciprocal sides hold.

    Of integers 2**16 / size, rounded down; in fp16 a number of 6 bits of exponent (31 more than it is) and 10 of
    fraction, rounded to the nearest (nvdla/sw ``kmd/firmware/pdp.c``, ``recip_kernel_size``).
    """
    if precision != ProcessorPrecision.FP16:
        return (1 << 16) // size
    exponent = -(size - 1).bit_length()
    fraction = round(((1 << -exponent) / size - 1) * 1024)
    return ((exponent + 31) << 10) + fraction


def normalisation(
    registers: RegisterMap,
    resolve: Resolver,
    op: np.void,
    surface: np.void,
    lut: Callable[[int], np.void],
    where: str,
) -> Iterator[Put]:
    """Yield the writes of a normalisation's registers."""
    fields, sides = flat(op), flat(surface)
    values = encoded(CDP, fields) | encoded(CDP_SURFACE, sides)
    values |= _place("CDP_RDMA.D_SRC_BASE_ADDR", resolve, surface["src_data"], where)
    values |= _place("CDP.D_DST_BASE_ADDR", resolve, surface["dst_data"], where)
    values |= {
        "CDP_RDMA.D_SRC_DMA_CFG": ram_type(sides["src_data.type"]),
        "CDP.D_DST_DMA_CFG": ram_type(sides["dst_data.type"]),
        # The register counts pairs of channels around one, and one pair less.
        "CDP.D_LRN_CFG": (fields["local_size"] - 1) // 2 - 1,
    }
    of_source = {name: value for name, value in values.items() if name.startswith("CDP_RDMA.")}
    yield from puts(registers, NORMALISATION_SOURCE, of_source)
    if fields["lut_index"] >= 0:
        yield from table(registers, "CDP", lut(fields["lut_index"]), fields["in_precision"])
    yield from puts(registers, NORMALISATION, {name: values[name] for name in values.keys() - of_source})


def _place(name: str, resolve: Resolver, cube: np.void, where: str) -> Values:
    return addressed(f"{name}_HIGH", f"{name}_LOW", resolve.or_zero(cube, where))
