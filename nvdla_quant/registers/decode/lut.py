"""The look-up tables of SDP and CDP as the firmware's descriptor has them (kmd/firmware/common.c ``update_lut``)."""

import numpy as np

from nvdla_quant.loadable import structs
from nvdla_quant.registers.decode.values import record
from nvdla_quant.registers.units import Unit

NAMES = {"LE": "linear_exp", "LO": "linear_only"}
LINEAR = 1


def lut_of(unit: Unit) -> np.void:
    """Return the table of a unit."""
    linear = unit.field("S_LUT_CFG", "LUT_LE_FUNCTION") == LINEAR
    fields = {
        "method": int(linear),
        "hybrid_priority": unit.field("S_LUT_CFG", "LUT_HYBRID_PRIORITY"),
        "underflow_priority": unit.field("S_LUT_CFG", "LUT_UFLOW_PRIORITY"),
        "overflow_priority": unit.field("S_LUT_CFG", "LUT_OFLOW_PRIORITY"),
        "linear_exp_offset": _signed(unit, f"LUT_LE_INDEX_{'SELECT' if linear else 'OFFSET'}"),
        "linear_only_offset": _signed(unit, "LUT_LO_INDEX_SELECT"),
    }
    for short, name in NAMES.items():
        for side in ("start", "end"):
            fields[f"{name}_{side}"] = _bound(unit, f"S_LUT_{short}_{side.upper()}")
        for flow, side in (("UFLOW", "underflow"), ("OFLOW", "overflow")):
            scale = unit.field(f"S_LUT_{short}_SLOPE_SCALE", f"LUT_{short}_SLOPE_{flow}_SCALE")
            fields[f"{name}_{side}_scale"] = scale - ((scale >> 15) << 16)
            fields[f"{name}_{side}_shift"] = unit.field(f"S_LUT_{short}_SLOPE_SHIFT", f"LUT_{short}_SLOPE_{flow}_SHIFT")
    lut = record(structs.LUT, fields)
    for number, name in enumerate(NAMES.values()):
        lut[f"{name}_table"] = unit.table.entries[number]
    return lut


def _signed(unit: Unit, field: str) -> int:
    value = unit.field("S_LUT_INFO", field)
    return value - ((value >> 7) << 8)


def _bound(unit: Unit, register: str) -> int:
    """Return a start or end: one register in SDP, two in CDP."""
    if unit.name == "SDP":
        return unit.field(register)
    return unit.field(f"{register}_HIGH") << 32 | unit.field(f"{register}_LOW")
