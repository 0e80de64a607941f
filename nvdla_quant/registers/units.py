"""The state of one unit: its registers in two groups, which group is programmed, and which one runs.

Facts: nvdla/hw ``vmod/nvdla/pdp/NV_NVDLA_PDP_reg.v``, and those of other units: a register whose name begins with
``D_`` exists in both groups, and S_POINTER's PRODUCER says which one the processor sees; a write to a group that is
enabled is lost. The unit itself takes the groups in turn (CONSUMER), and clears a group's D_OP_ENABLE when it is done
with it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import TraceError
from nvdla_quant.registers.map import Register, RegisterMap

LUT_SIZES = 65, 257
"""Entries of a table: exponential or linear (LE), linear (LO)."""
IDLE, RUNNING, PENDING = 0, 1, 2
"""What S_STATUS says of a group."""
_READS, _WRITES = 0, 1


@dataclass
class Table:
    """The look-up tables of a unit, and where its access registers point."""

    entries: tuple[NDArray[np.int64], NDArray[np.int64]]
    chosen: int = 0
    place: int = 0
    access: int = _READS

    def step(self) -> int:
        """Return the entry that is accessed now, and go on to the next."""
        if self.place >= LUT_SIZES[self.chosen]:
            raise TraceError(f"entry {self.place} of table {self.chosen}: expected 0 to {LUT_SIZES[self.chosen] - 1}")
        self.place += 1
        return self.place - 1


class Unit:
    """A unit of a target.

    Parameters
    ----------
    name : str
        As in the map.
    registers : RegisterMap
        The target's.
    """

    def __init__(self, name: str, registers: RegisterMap) -> None:
        self.name = name
        self._registers = registers.units[name]
        self._single = {r.name: r.reset for r in self._registers.values() if not r.grouped}
        self._groups = tuple({r.name: r.reset for r in self._registers.values() if r.grouped} for _ in range(2))
        self.producer = 0
        self.consumer = 0
        self.enabled = [False, False]
        self.lines = [0, 0]
        self._flushed = False
        self.table = Table((np.zeros(LUT_SIZES[0], np.int64), np.zeros(LUT_SIZES[1], np.int64)))

    @property
    def is_ready(self) -> bool:
        """Whether the group that is next to run is enabled."""
        return self.enabled[self.consumer]

    def flush(self) -> bool:
        """End the flush of the convolution buffer, once after reset; False where it has ended."""
        changed, self._flushed = not self._flushed, True
        return changed

    def finish(self) -> None:
        """End the operation of the group that runs, and go on to the other group."""
        self.enabled[self.consumer] = False
        self.consumer = 1 - self.consumer

    def write(self, register: Register, value: int, line: int) -> None:
        """Write a register as the processor does; `line` is where the trace does so."""
        kept = value & register.write_mask
        if register.grouped:
            self._write_group(register, kept, line)
            return
        self._single[register.name] = self._single[register.name] & ~register.write_mask | kept
        if register.name == "S_POINTER":
            self.producer = register.field("PRODUCER").of(kept)
        elif register.name == "S_LUT_ACCESS_CFG":
            fields = (register.field(name).of(kept) for name in ("LUT_TABLE_ID", "LUT_ADDR", "LUT_ACCESS_TYPE"))
            self.table.chosen, self.table.place, self.table.access = fields
        elif register.name == "S_LUT_ACCESS_DATA" and self.table.access == _WRITES:
            place = self.table.step()
            self.table.entries[self.table.chosen][place] = (kept ^ 0x8000) - 0x8000

    def _write_group(self, register: Register, kept: int, line: int) -> None:
        group = self.producer
        if self.enabled[group] and register.write_mask:
            raise TraceError(
                f"{register}: written while group {group}, enabled in line {self.lines[group]}, is not done; the "
                "hardware would ignore it; wait for its interrupt, or program the other group (S_POINTER)"
            )
        self._groups[group][register.name] = self._groups[group][register.name] & ~register.write_mask | kept
        if register.name == "D_OP_ENABLE" and kept:
            self.enabled[group], self.lines[group] = True, line

    def read(self, register: Register) -> int:
        """Return what the processor reads."""
        if register.name == "D_OP_ENABLE":
            return int(self.enabled[self.producer])
        if register.name == "S_STATUS":
            return register.value({f"STATUS_{group}": self._status(group) for group in range(2)})
        if register.name == "S_POINTER":
            return register.value({"PRODUCER": self.producer, "CONSUMER": self.consumer})
        if register.name == "S_CBUF_FLUSH_STATUS":
            return int(self._flushed)
        if register.name == "S_LUT_ACCESS_DATA" and self.table.access == _READS:
            return int(self.table.entries[self.table.chosen][self.table.step()]) & 0xFFFF
        return (self._groups[self.producer] if register.grouped else self._single)[register.name]

    def _status(self, group: int) -> int:
        if not self.enabled[group]:
            return IDLE
        return RUNNING if group == self.consumer else PENDING

    def bits(self, register: str, field: str = "") -> int:
        """Return how many bits a field has."""
        return self._registers[register].field(field).bits

    def scaled(self, register: str) -> int:
        """Return the value of a register with one field, whose lowest bits may not be there."""
        return self.field(register) << self._registers[register].field().low

    def field(self, register: str, field: str = "") -> int:
        """Return a field as the unit sees it: in the group that is next to run."""
        declared = self._registers[register]
        values = self._groups[self.consumer] if declared.grouped else self._single
        return declared.field(field).of(values[register])
