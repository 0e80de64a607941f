"""The hardware as a program of registers sees it: units, interrupts, and operations that run.

Time passes only where the program makes it pass: what it enables runs when it waits. So a program that relies on
something to be over without waiting for it is found, whatever the speed of the hardware. What one operation ends is
told one interrupt after the other: CDMA's data and weights, CACC, SDP, PDP.

Facts: nvdla/hw ``spec/manual/NVDLA_GLB.rdl``, ``cmod/glb/NV_NVDLA_glb.cpp``; the player's order of clearing
``verif/testbench/trace_player/nvdla_tb_intr_handler.sv``.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from nvdla_quant.emulator.decode.program import DEFAULT_LIMITS, Limits
from nvdla_quant.emulator.operations import Operation
from nvdla_quant.errors import NvdlaQuantError, TraceError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.registers.copies import CopyQueue
from nvdla_quant.registers.decode.moves import decode_copies
from nvdla_quant.registers.execute import execute
from nvdla_quant.registers.launch import Ending, Launcher, stuck
from nvdla_quant.registers.map import Register, register_map
from nvdla_quant.registers.memory import TraceMemory
from nvdla_quant.registers.traces.statements import INTERRUPTS
from nvdla_quant.registers.units import Unit

_BITS = dict(zip(INTERRUPTS, (0, 2, 4, 6, 8, 16, 18, 20), strict=True))
"""Bit of each source's group 0 in GLB's registers; group 1 has the next one."""


@dataclass(frozen=True)
class Interrupt:
    """An interrupt of a group of a source."""

    source: str
    group: int

    @property
    def mask(self) -> int:
        """Its bit in GLB's registers."""
        return 1 << (_BITS[self.source] + self.group)


class Device:
    """A target, with the memories behind it.

    Parameters
    ----------
    target : Target
        The hardware.
    memory : TraceMemory
        Its memories.
    limits : Limits
        How much all operations together may ask for.
    on_operation : callable, optional
        Called with each operation that has run.
    """

    def __init__(
        self,
        target: Target,
        memory: TraceMemory,
        limits: Limits = DEFAULT_LIMITS,
        on_operation: Callable[[Operation], None] | None = None,
    ) -> None:
        registers = register_map(target)
        self.units = {name: Unit(name, registers) for name in registers.units}
        self._target = target
        self._memory = memory
        self._limits = limits
        self._on_operation = on_operation
        self._launcher = Launcher(self.units, target)
        self._copies = CopyQueue()
        self._endings: deque[Ending] = deque()
        self._status = 0
        self._mask = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the hardware ignores although the registers ask for it."""
        return tuple(self._launcher.warnings)

    @property
    def interrupted(self) -> bool:
        """Whether the interrupt line is up: a source that is not masked has something to tell."""
        return bool(self._status & ~self._mask)

    def write(self, register: Register, value: int, line: int) -> None:
        """Write a register; `line` of the trace does so."""
        kept = value & register.write_mask
        unit = self.units[register.unit]
        match register.unit, register.name:
            case "GLB", "S_INTR_MASK":
                self._mask = kept
            case "GLB", "S_INTR_STATUS":
                self._status &= ~kept
            case "GLB", "S_INTR_SET":
                self._status |= kept
            case "BDMA", "CFG_OP" if kept:
                self._copies.keep(unit)
            case "BDMA", "CFG_LAUNCH0" | "CFG_LAUNCH1" if kept:
                self._copies.launch(int(register.name[-1]), line)
            case (("SDP" | "CDP"), name) if name.startswith("S_LUT"):
                _check_table(unit, register)
        unit.write(register, value, line)

    def read(self, register: Register) -> int:
        """Read a register."""
        match register.unit, register.name:
            case "GLB", "S_INTR_STATUS":
                return self._status
            case "BDMA", "STATUS":
                return self._copies.status(register)
        return self.units[register.unit].read(register)

    def settle(self) -> bool:
        """Let what the hardware does by itself after reset come to its end; False where it has already."""
        return self.units["CDMA"].flush()

    def advance(self) -> Interrupt | None:
        """Let time pass until the next interrupt, and return it; None where nothing runs."""
        self.settle()
        if not self._endings and not self._start():
            return None
        ending = self._endings.popleft()
        for name in ending.units:
            self.units[name].finish()
        interrupt = Interrupt(ending.source, ending.group)
        self._status |= interrupt.mask
        return interrupt

    def clear(self, interrupt: Interrupt) -> None:
        """Clear an interrupt, as who is told of it does."""
        self._status &= ~interrupt.mask

    def masked(self, interrupt: Interrupt) -> bool:
        """Whether nobody is told of an interrupt."""
        return bool(self._mask & interrupt.mask)

    def stuck(self) -> tuple[int, str] | None:
        """Return the line that enables what can never run, and why; None where all that is enabled has run."""
        return stuck(self.units)

    def _start(self) -> bool:
        """Run the next operation for which all is enabled; False where there is none."""
        launched = self._copies.take()
        if launched is not None:
            decode = partial(decode_copies, launched.copies, self._launcher.index)
            self._run("BDMA", launched.line, decode)
            self._endings.append(Ending((), "BDMA", launched.group))
            return True
        launch = self._launcher.next()
        if launch is None:
            return False
        units = [self.units[name] for name in launch.units]
        self._run(launch.units[0], max(unit.lines[unit.consumer] for unit in units), launch.decode)
        self._endings.extend(launch.endings)
        return True

    def _run(self, unit: str, line: int, decode: Callable[[str], list[Operation]]) -> None:
        """Decode and run what `line` enabled."""
        try:
            operations = decode(f"operation {self._launcher.index} ({unit})")
            work = execute(operations, self._target, self._memory, self._limits)
        except TraceError as error:
            raise error.located(line) from None
        except NvdlaQuantError as error:
            raise TraceError.at(line, error) from None
        self._limits = replace(self._limits, macs=self._limits.macs - work)
        self._launcher.done(operations)
        if self._on_operation is not None:
            for operation in operations:
                self._on_operation(operation)


def _check_table(unit: Unit, register: Register) -> None:
    """Refuse a write to a table that an operation looks up which is enabled and not done."""
    if not unit.is_ready:
        return
    if unit.name == "CDP" or not (unit.field("D_DP_EW_CFG", "EW_BYPASS") or unit.field("D_DP_EW_CFG", "EW_LUT_BYPASS")):
        raise TraceError(
            f"{register}: written while an operation that looks the table up, enabled in line "
            f"{unit.lines[unit.consumer]}, is not done; wait for its interrupt"
        )
