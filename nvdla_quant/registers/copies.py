"""BDMA's queue: copies are kept one by one, then launched together as one of two groups.

Facts: nvdla/hw ``spec/manual/NVDLA_BDMA.rdl``; nvdla/sw ``kmd/firmware/bdma.c``.
"""

from collections import deque
from dataclasses import dataclass

from nvdla_quant.errors import TraceError
from nvdla_quant.registers.decode.moves import Copy, copy_of
from nvdla_quant.registers.map import Register
from nvdla_quant.registers.units import Unit

SLOTS = 20
"""Copies that it keeps: FREE_SLOT of STATUS after reset."""


@dataclass(frozen=True)
class Launched:
    """Copies that are launched as `group`, by `line` of the trace."""

    group: int
    line: int
    copies: tuple[Copy, ...]


class CopyQueue:
    """What BDMA is to do."""

    def __init__(self) -> None:
        self._kept: list[Copy] = []
        self._launched: deque[Launched] = deque()

    @property
    def _waiting(self) -> int:
        return len(self._kept) + sum(len(launched.copies) for launched in self._launched)

    def keep(self, unit: Unit) -> None:
        """Keep the copy that the registers describe."""
        if self._waiting >= SLOTS:
            raise TraceError(f"BDMA.CFG_OP: {SLOTS} copies wait, expected a free slot; read BDMA.STATUS")
        self._kept.append(copy_of(unit))

    def launch(self, group: int, line: int) -> None:
        """Launch what is kept as `group`."""
        register = f"BDMA.CFG_LAUNCH{group}"
        if any(launched.group == group for launched in self._launched):
            raise TraceError(f"{register}: written while group {group} is not done; wait for its interrupt")
        if not self._kept:
            raise TraceError(f"{register}: nothing to launch; write CFG_OP for each copy before it")
        self._launched.append(Launched(group, line, tuple(self._kept)))
        self._kept = []

    def take(self) -> Launched | None:
        """Return what was launched first, which then is done; None where nothing is."""
        return self._launched.popleft() if self._launched else None

    def status(self, register: Register) -> int:
        """Return what STATUS holds."""
        busy = [any(launched.group == group for launched in self._launched) for group in range(2)]
        idle = not any(busy)
        fields = {"FREE_SLOT": SLOTS - self._waiting, "IDLE": idle, "GRP0_BUSY": busy[0], "GRP1_BUSY": busy[1]}
        return register.value({name: int(value) for name, value in fields.items()})
