"""The registers of a look-up table, in the order of nvdla/sw ``kmd/firmware/common.c``, ``update_lut``."""

from collections.abc import Iterator

import numpy as np

from nvdla_quant.loadable.structs import ProcessorPrecision
from nvdla_quant.registers.decode.lut import LINEAR, NAMES
from nvdla_quant.registers.map import RegisterMap
from nvdla_quant.registers.program.encode import Values, puts
from nvdla_quant.registers.program.steps import Put

BOUNDS = {
    "SDP": "S_LUT_LE_START S_LUT_LE_END S_LUT_LO_START S_LUT_LO_END",
    "CDP": (
        "S_LUT_LE_START_LOW S_LUT_LE_START_HIGH S_LUT_LE_END_LOW S_LUT_LE_END_HIGH "
        "S_LUT_LO_START_LOW S_LUT_LO_START_HIGH S_LUT_LO_END_LOW S_LUT_LO_END_HIGH"
    ),
}
SLOPES = "S_LUT_LE_SLOPE_SCALE S_LUT_LE_SLOPE_SHIFT S_LUT_LO_SLOPE_SCALE S_LUT_LO_SLOPE_SHIFT"


def table(registers: RegisterMap, unit: str, lut: np.void, precision: int) -> Iterator[Put]:
    """Yield the writes of a table of `unit`, SDP or CDP."""
    access, data = (registers.register(unit, f"S_LUT_ACCESS_{name}") for name in ("CFG", "DATA"))
    for number, name in enumerate(NAMES.values()):
        yield Put(access, access.value({"LUT_TABLE_ID": number, "LUT_ACCESS_TYPE": 1}))
        for entry in lut[f"{name}_table"].tolist():
            yield Put(data, entry & 0xFFFF)
    index = "LUT_LE_INDEX_SELECT" if lut["method"] == LINEAR else "LUT_LE_INDEX_OFFSET"
    values: Values = {
        f"{unit}.S_LUT_CFG.LUT_LE_FUNCTION": int(lut["method"]),
        f"{unit}.S_LUT_CFG.LUT_HYBRID_PRIORITY": int(lut["hybrid_priority"]),
        f"{unit}.S_LUT_CFG.LUT_UFLOW_PRIORITY": int(lut["underflow_priority"]),
        f"{unit}.S_LUT_CFG.LUT_OFLOW_PRIORITY": int(lut["overflow_priority"]),
        f"{unit}.S_LUT_INFO.{index}": int(lut["linear_exp_offset"]),
        f"{unit}.S_LUT_INFO.LUT_LO_INDEX_SELECT": int(lut["linear_only_offset"]),
    }
    for short, name in NAMES.items():
        for side in ("start", "end"):
            values |= _bound(unit, f"S_LUT_{short}_{side.upper()}", int(lut[f"{name}_{side}"]))
        for flow, side in (("UFLOW", "underflow"), ("OFLOW", "overflow")):
            scale, shift = (int(lut[f"{name}_{side}_{what}"]) for what in ("scale", "shift"))
            values[f"{unit}.S_LUT_{short}_SLOPE_SCALE.LUT_{short}_SLOPE_{flow}_SCALE"] = scale
            if precision != ProcessorPrecision.FP16:
                values[f"{unit}.S_LUT_{short}_SLOPE_SHIFT.LUT_{short}_SLOPE_{flow}_SHIFT"] = shift
    yield from puts(registers, f"{unit} S_LUT_CFG S_LUT_INFO {BOUNDS[unit]} {SLOPES}", values)


def _bound(unit: str, name: str, value: int) -> Values:
    """Return what says where a table begins or ends: one register in SDP, two in CDP, whose upper one has 6 bits."""
    if unit == "SDP":
        return {f"{unit}.{name}": value & 0xFFFFFFFF}
    return {f"{unit}.{name}_LOW": value & 0xFFFFFFFF, f"{unit}.{name}_HIGH": (value >> 32) & 0x3F}
