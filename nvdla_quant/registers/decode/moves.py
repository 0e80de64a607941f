"""Changes of layout (RBK) and copies (BDMA)."""

from collections.abc import Sequence
from dataclasses import dataclass

from nvdla_quant.emulator.decode.units import decode_rubik, decode_transfer
from nvdla_quant.emulator.operations import BdmaOperation, Cube, Operation, RubikOperation
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.structs import RubikMode
from nvdla_quant.registers.decode.values import RAM, RegisterSpace, Units, cube_fields, gather, record, space_of
from nvdla_quant.registers.places import RUBIK
from nvdla_quant.registers.units import Unit

BDMA_BYTES = 32
"""Bytes that sizes of copies count in."""


@dataclass(frozen=True)
class Copy:
    """A copy as BDMA keeps it until it is launched: fields of its descriptor, and (memory, address) of both sides."""

    transfer: tuple[tuple[str, int], ...]
    source: tuple[int, int]
    destination: tuple[int, int]


def decode_layout(units: Units, target: Target, index: int, where: str) -> RubikOperation:
    """Return the change of layout that is enabled.

    The registers have the source's size and the destination's channels; the mode says what the rest is
    (kmd/firmware/rubik.c).
    """
    op = gather(units, RUBIK)
    unit = units["RBK"]
    width, height = (unit.field("D_DATAIN_SIZE_0", f"DATAIN_{side}") + 1 for side in ("WIDTH", "HEIGHT"))
    contract = op["mode"] == RubikMode.CONTRACT
    across, down = (op["stride_x"], op["stride_y"]) if contract else (1, 1)
    surface = {
        "src_data.width": width,
        "src_data.height": height,
        "src_data.channel": unit.field("D_DATAIN_SIZE_1") + 1,
        "src_data.line_stride": unit.scaled("D_DAIN_LINE_STRIDE"),
        "src_data.surf_stride": unit.scaled("D_DAIN_SURF_STRIDE"),
        "src_data.plane_stride": unit.scaled("D_DAIN_PLANAR_STRIDE"),
        "dst_data.width": width * across,
        "dst_data.height": height * down,
        "dst_data.channel": unit.field("D_DATAOUT_SIZE_1") + 1,
        "dst_data.line_stride": unit.scaled("D_DAOUT_LINE_STRIDE"),
        "dst_data.surf_stride": unit.scaled("D_DAOUT_SURF_STRIDE"),
        "dst_data.plane_stride": unit.scaled("D_DAOUT_PLANAR_STRIDE"),
    }
    surface |= cube_fields(units, "src_data", "RBK.D_DAIN_ADDR_HIGH", "RBK.D_DAIN_ADDR_LOW", "RBK.D_DAIN_RAM_TYPE")
    surface |= cube_fields(units, "dst_data", "RBK.D_DAOUT_ADDR_HIGH", "RBK.D_DAOUT_ADDR_LOW", "RBK.D_DAOUT_RAM_TYPE")
    descriptors = record(structs.RUBIK_OP, op), record(structs.TWO_CUBES, surface)
    return decode_rubik(space_of(target), target, *descriptors, index, where)


def copy_of(unit: Unit) -> Copy:
    """Return the copy that BDMA's registers describe."""
    transfer = {
        "source_address": 0,
        "destination_address": 1,
        "line_size": (unit.field("CFG_LINE") + 1) * BDMA_BYTES,
        "line_repeat": unit.field("CFG_LINE_REPEAT") + 1,
        "source_line": unit.scaled("CFG_SRC_LINE"),
        "destination_line": unit.scaled("CFG_DST_LINE"),
        "surface_repeat": unit.field("CFG_SURF_REPEAT") + 1,
        "source_surface": unit.scaled("CFG_SRC_SURF"),
        "destination_surface": unit.scaled("CFG_DST_SURF"),
    }
    return Copy(tuple(transfer.items()), _place(unit, "SRC"), _place(unit, "DST"))


def _place(unit: Unit, side: str) -> tuple[int, int]:
    low, high = unit.scaled(f"CFG_{side}_ADDR_LOW"), unit.field(f"CFG_{side}_ADDR_HIGH")
    return RAM[unit.field("CFG_CMD", f"{side}_RAM_TYPE")], high << 32 | low


def decode_copies(copies: Sequence[Copy], index: int, where: str) -> list[Operation]:
    """Return copies as operations, one after the other: each may read what one before has written."""
    return [
        BdmaOperation(index + number, (_transfer(copy, f"{where} copy {number}"),))
        for number, copy in enumerate(copies)
    ]


def _transfer(copy: Copy, where: str) -> tuple[Cube, Cube]:
    space = RegisterSpace((copy.source, copy.destination), BDMA_BYTES)
    return decode_transfer(space, record(structs.BDMA_TRANSFER, dict(copy.transfer)), where)
