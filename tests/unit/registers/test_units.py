"""One unit's registers: two groups, what is read back, tables."""

import pytest

from nvdla_quant.errors import TraceError
from nvdla_quant.hardware.targets import NV_SMALL
from nvdla_quant.registers.map import register_map
from nvdla_quant.registers.units import IDLE, PENDING, RUNNING, Unit

REGISTERS = register_map(NV_SMALL)


def write(unit: Unit, name: str, value: int) -> None:
    unit.write(REGISTERS.register(unit.name, name), value, line=7)


def read(unit: Unit, name: str) -> int:
    return unit.read(REGISTERS.register(unit.name, name))


def statuses(unit: Unit) -> tuple[int, int]:
    status = read(unit, "S_STATUS")
    return status & 3, status >> 16 & 3


def test_each_group_keeps_its_own_values() -> None:
    unit = Unit("PDP", REGISTERS)
    for group in range(2):
        write(unit, "S_POINTER", group)
        write(unit, "D_DST_LINE_STRIDE", 0x40 + group)
    for group in range(2):
        write(unit, "S_POINTER", group)
        assert read(unit, "D_DST_LINE_STRIDE") == 0x40 + group
    # The unit itself looks at the group whose turn it is, whatever the processor looks at.
    assert unit.field("D_DST_LINE_STRIDE") == 0x40


def test_groups_take_turns() -> None:
    unit = Unit("PDP", REGISTERS)
    assert statuses(unit) == (IDLE, IDLE)
    for group in range(2):
        write(unit, "S_POINTER", group)
        write(unit, "D_OP_ENABLE", 1)
    assert statuses(unit) == (RUNNING, PENDING)
    unit.finish()
    assert statuses(unit) == (IDLE, RUNNING)
    assert read(unit, "S_POINTER") == 0x10001
    unit.finish()
    assert statuses(unit) == (IDLE, IDLE)
    assert not unit.is_ready


def test_a_group_that_is_enabled_refuses_writes() -> None:
    unit = Unit("PDP", REGISTERS)
    write(unit, "D_OP_ENABLE", 1)
    for name in ("D_OP_ENABLE", "D_DST_LINE_STRIDE"):
        message = rf"PDP\.{name}: written while group 0, enabled in line 7, is not done"
        with pytest.raises(TraceError, match=message):
            write(unit, name, 1)
    write(unit, "S_POINTER", 1)
    write(unit, "D_DST_LINE_STRIDE", 1)


def test_only_bits_that_are_there_are_kept() -> None:
    unit = Unit("PDP", REGISTERS)
    write(unit, "D_DATA_CUBE_IN_WIDTH", 0xFFFFFFFF)
    write(unit, "D_INF_INPUT_NUM", 0xFFFFFFFF)
    assert (read(unit, "D_DATA_CUBE_IN_WIDTH"), read(unit, "D_INF_INPUT_NUM")) == (0x1FFF, 0)


def test_tables_are_written_and_read_entry_by_entry() -> None:
    unit = Unit("CDP", REGISTERS)
    write(unit, "S_LUT_ACCESS_CFG", 1 << 17 | 1 << 16 | 254)
    for value in (1, 0x8000, 0xFFFF):
        write(unit, "S_LUT_ACCESS_DATA", value)
    assert unit.table.entries[1][254:].tolist() == [1, -0x8000, -1]
    with pytest.raises(TraceError, match="entry 257 of table 1: expected 0 to 256"):
        write(unit, "S_LUT_ACCESS_DATA", 0)
    write(unit, "S_LUT_ACCESS_CFG", 1 << 16 | 255)
    assert [read(unit, "S_LUT_ACCESS_DATA") for _ in range(2)] == [0x8000, 0xFFFF]


def test_the_buffer_is_flushed_once_after_reset() -> None:
    unit = Unit("CDMA", REGISTERS)
    assert read(unit, "S_CBUF_FLUSH_STATUS") == 0
    assert unit.flush()
    assert read(unit, "S_CBUF_FLUSH_STATUS") == 1
    assert not unit.flush()
