"""Registers of changes of layout and copies, in the order of nvdla/sw ``kmd/firmware/{rubik,bdma}.c``."""

from collections.abc import Iterator

import numpy as np

from nvdla_quant.loadable.structs import ProcessorPrecision, RubikMode
from nvdla_quant.registers.decode.moves import BDMA_BYTES
from nvdla_quant.registers.map import RegisterMap
from nvdla_quant.registers.places import RUBIK
from nvdla_quant.registers.program.encode import Resolver, Values, addressed, encoded, flat, puts, ram_type
from nvdla_quant.registers.program.steps import Poll, Put

LAYOUT = """
RBK D_MISC_CFG D_DAIN_RAM_TYPE D_DATAIN_SIZE_0 D_DATAIN_SIZE_1 D_DAIN_ADDR_LOW D_DAIN_ADDR_HIGH D_DAIN_PLANAR_STRIDE
    D_DAIN_SURF_STRIDE D_DAIN_LINE_STRIDE D_DAOUT_RAM_TYPE D_DATAOUT_SIZE_1 D_DAOUT_ADDR_LOW D_DAOUT_ADDR_HIGH
    D_DAOUT_LINE_STRIDE D_DAOUT_SURF_STRIDE D_CONTRACT_STRIDE_0 D_CONTRACT_STRIDE_1 D_DECONV_STRIDE
    D_DAOUT_PLANAR_STRIDE
"""
COPY = """
BDMA CFG_SRC_ADDR_LOW CFG_SRC_ADDR_HIGH CFG_DST_ADDR_LOW CFG_DST_ADDR_HIGH CFG_LINE CFG_CMD CFG_LINE_REPEAT
    CFG_SRC_LINE CFG_DST_LINE CFG_SURF_REPEAT CFG_SRC_SURF CFG_DST_SURF CFG_OP
"""


def layout(registers: RegisterMap, resolve: Resolver, op: np.void, surface: np.void, where: str) -> Iterator[Put]:
    """Yield the writes of a change of layout."""
    fields, sides = flat(op), flat(surface)
    mode = fields["mode"]
    values = encoded(RUBIK, fields)
    if mode != RubikMode.CONTRACT:
        values = {name: value for name, value in values.items() if "D_DECONV_STRIDE" not in name}
    values |= addressed("RBK.D_DAIN_ADDR_HIGH", "RBK.D_DAIN_ADDR_LOW", resolve(surface["src_data"], where))
    values |= addressed("RBK.D_DAOUT_ADDR_HIGH", "RBK.D_DAOUT_ADDR_LOW", resolve(surface["dst_data"], where))
    values |= {
        "RBK.D_DAIN_RAM_TYPE": ram_type(sides["src_data.type"]),
        "RBK.D_DATAIN_SIZE_0.DATAIN_WIDTH": sides["src_data.width"] - 1,
        "RBK.D_DATAIN_SIZE_0.DATAIN_HEIGHT": sides["src_data.height"] - 1,
        "RBK.D_DATAIN_SIZE_1": sides["src_data.channel"] - 1,
        "RBK.D_DAIN_LINE_STRIDE": sides["src_data.line_stride"],
        "RBK.D_DAOUT_RAM_TYPE": ram_type(sides["dst_data.type"]),
        "RBK.D_DATAOUT_SIZE_1": sides["dst_data.channel"] - 1,
        "RBK.D_DAOUT_LINE_STRIDE": sides["dst_data.line_stride"],
    }
    if mode == RubikMode.MERGE:
        values["RBK.D_DAIN_PLANAR_STRIDE"] = sides["src_data.plane_stride"]
    else:
        values["RBK.D_DAIN_SURF_STRIDE"] = sides["src_data.surf_stride"]
    if mode == RubikMode.SPLIT:
        values["RBK.D_DAOUT_PLANAR_STRIDE"] = sides["dst_data.plane_stride"]
    else:
        values["RBK.D_DAOUT_SURF_STRIDE"] = sides["dst_data.surf_stride"]
    if mode == RubikMode.CONTRACT:
        element = 1 if fields["precision"] == ProcessorPrecision.INT8 else 2
        atoms = -(-sides["dst_data.channel"] * element // BDMA_BYTES)
        values["RBK.D_CONTRACT_STRIDE_0"] = atoms * sides["src_data.surf_stride"]
        values["RBK.D_CONTRACT_STRIDE_1"] = fields["stride_y"] * sides["dst_data.line_stride"]
    yield from puts(registers, LAYOUT, values)


def copies(registers: RegisterMap, resolve: Resolver, surface: np.void, where: str) -> Iterator[Put | Poll]:
    """Yield the writes of the copies of an operation.

    The firmware waits for a free slot of the queue before each one; here all slots are, since one operation has no more
    copies than there are slots, and a program without conditions can wait for one value alone.
    """
    status = registers.register("BDMA", "STATUS")
    yield Poll(status, status.reset)
    for transfer in surface["transfers"][: int(surface["num_transfers"])]:
        fields = flat(transfer)
        source = resolve.at(fields["source_address"], 0, where)
        destination = resolve.at(fields["destination_address"], 0, where)
        values: Values = {
            **addressed("BDMA.CFG_SRC_ADDR_HIGH", "BDMA.CFG_SRC_ADDR_LOW", source),
            **addressed("BDMA.CFG_DST_ADDR_HIGH", "BDMA.CFG_DST_ADDR_LOW", destination),
            "BDMA.CFG_LINE": fields["line_size"] // BDMA_BYTES - 1,
            "BDMA.CFG_CMD.SRC_RAM_TYPE": ram_type(int(surface["source_type"])),
            "BDMA.CFG_CMD.DST_RAM_TYPE": ram_type(int(surface["destination_type"])),
            "BDMA.CFG_LINE_REPEAT": fields["line_repeat"] - 1,
            "BDMA.CFG_SRC_LINE": fields["source_line"],
            "BDMA.CFG_DST_LINE": fields["destination_line"],
            "BDMA.CFG_SURF_REPEAT": fields["surface_repeat"] - 1,
            "BDMA.CFG_SRC_SURF": fields["source_surface"],
            "BDMA.CFG_DST_SURF": fields["destination_surface"],
            "BDMA.CFG_OP": 1,
        }
        yield from puts(registers, COPY, values)
