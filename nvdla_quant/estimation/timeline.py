"""When each operation of a task starts and ends, as the firmware runs it on hardware that works while it does.

Each unit has two groups of registers: the firmware programs the next operation while one runs, and enables it as soon
as what it waits for has happened, which it learns by interrupts. Each access to a register takes the processor some
cycles, and an interrupt that comes meanwhile waits.

Facts: nvdla/sw ``kmd/firmware/{scheduler,engine,engine_isr}.c``: what is read and written; which is counted, not run.
"""

from collections.abc import Callable
from dataclasses import dataclass

from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable.descriptors import DlaTask
from nvdla_quant.loadable.structs import Engine, MemoryType
from nvdla_quant.registers.program.build import Writer
from nvdla_quant.registers.program.schedule import (
    Action,
    Enable,
    Firmware,
    Program,
    Turns,
    Wait,
    alone,
    endings,
    fused,
)
from nvdla_quant.registers.program.sdp import needs_reader
from nvdla_quant.registers.program.steps import Put
from nvdla_quant.timing.memory import Memory
from nvdla_quant.timing.records import Cost

PROGRAM_READS = {Engine.CONV: 6, Engine.BDMA: 1}
"""Registers that the firmware reads before it writes those of an operation; of other units three: which group its unit
and what reads for it take next, and which interrupts are masked."""
OTHER_READS = 3
ENABLE_READS = {Engine.CONV: 1}
"""Registers that it reads before it enables one: whether the buffer is flushed."""
HANDLER_READS = 4
"""Registers that the interrupt's handler reads; it writes one."""


@dataclass(frozen=True)
class Run:
    """An operation, or several that run together, on the hardware.

    Attributes
    ----------
    indices : tuple[int, ...]
        Operations by index in the task, the convolution first.
    units : tuple[Engine, ...]
        Their units.
    start, end : float
        Cycles from the first access to a register; the start is not before the end of what its unit did before.
    cost : Cost
        What it costs by itself.
    """

    indices: tuple[int, ...]
    units: tuple[Engine, ...]
    start: float
    end: float
    cost: Cost


Pricing = Callable[[tuple[Engine, ...], tuple[int, ...], float], Cost]
"""Return the cost of operations that run together and were enabled some cycles before they could start."""


def run_task(
    task: DlaTask, target: Target, memory: Memory, turns: Turns, price: Pricing, begin: float
) -> tuple[list[Run], float]:
    """Return the runs of a task, and when the processor is done with it.

    Parameters
    ----------
    task : DlaTask
        The task.
    target : Target
        The hardware.
    memory : Memory
        With it the processor's speed.
    turns : Turns
        Where the units stand; it is kept up to date.
    price : Pricing
        What operations cost.
    begin : float
        When the processor begins.

    Raises
    ------
    TraceError
        The firmware would wait for ever.
    """
    return _Timeline(task, target, memory, turns, price, begin).run()


class _Timeline:
    def __init__(
        self, task: DlaTask, target: Target, memory: Memory, turns: Turns, price: Pricing, begin: float
    ) -> None:
        self._firmware = Firmware(task, turns)
        self._writer = Writer(task, target, 0)
        self._target, self._memory, self._price = target, memory, price
        self._now = begin
        self._enabled: dict[int, float] = {}
        # When a unit is done with what it does, and when it takes the registers of the next.
        self._free: dict[Engine, float] = dict.fromkeys(Engine, begin)
        self._takes: dict[Engine, float] = dict.fromkeys(Engine, begin)
        self._raised: list[tuple[float, Wait]] = []
        self._ran: set[int] = set()
        self._written: dict[object, int] = {}
        self._runs: list[Run] = []

    def run(self) -> tuple[list[Run], float]:
        self._act(self._firmware.begin())
        while self._firmware.left:
            self._start()
            if not self._raised:
                raise self._firmware.stuck()
            self._handle()
        return self._runs, self._now

    # What the processor does.

    def _access(self, reads: int, writes: int) -> None:
        timing, gap = self._target.timing, self._memory.host_gap
        self._now += reads * (timing.register_read + gap) + writes * (timing.register_write + gap)

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            engine = self._firmware.task.engines[action.index] if not isinstance(action, Wait) else None
            match action, engine:
                case Program(), Engine():
                    reads = PROGRAM_READS.get(engine, OTHER_READS)
                case Enable(), Engine():
                    reads = ENABLE_READS.get(engine, 0)
                case _:
                    continue
            self._access(reads, self._writes(action, engine))
            if isinstance(action, Enable):
                self._enabled[action.index] = self._now

    def _writes(self, action: Program | Enable, engine: Engine) -> int:
        """Return how many registers the firmware writes; operations of one form take as many."""
        form = (type(action), engine, getattr(action, "reads", None), *_form(self._firmware.task, action.index, engine))
        if form not in self._written:
            self._written[form] = sum(isinstance(step, Put) for step in self._writer.steps(action))
        return self._written[form]

    def _handle(self) -> None:
        """Wait for the next interrupt, and handle all that are there by then."""
        first = self._raised[0][0]
        self._now = max(self._now, first + self._target.timing.interrupt)
        # The handler reads the mask, then what there is; it clears that, and reads both once more.
        self._access(2, 0)
        # A register is read half way from the processor and back.
        there = [wait for when, wait in self._raised if when <= self._now - self._target.timing.register_read / 2]
        self._raised = self._raised[len(there) :]
        self._access(HANDLER_READS - 2, 1)
        for wait in there:
            self._act(self._firmware.told(wait))
            self._start()

    # What the hardware does.

    def _start(self) -> None:
        """Start what is enabled and has its units."""
        together = fused(self._firmware)
        for units in (*((together,) if together else ()), *((unit,) for unit in alone(self._firmware))):
            indices = tuple(index for unit in units if (index := self._firmware.due(unit)) is not None)
            self._run(units, indices, endings(self._firmware, units))
        for index, group in tuple(self._firmware.launched.items()):
            self._run((Engine.BDMA,), (index,), [Wait("BDMA", group)])

    def _run(self, units: tuple[Engine, ...], indices: tuple[int, ...], waits: list[Wait]) -> None:
        """Run what has not run yet, and raise its interrupts when they are due."""
        if not self._ran.isdisjoint(indices):
            return
        self._ran.update(indices)
        first, *others = units
        enabled = max(self._enabled[index] for index in indices)
        cost = self._price(units, indices, self._takes[first] - enabled)
        # What takes the results of a convolution has time until there are any.
        loads = cost.data_loaded if first is Engine.CONV else 0.0
        begun = max(enabled, self._takes[first], *(self._free[unit] - loads for unit in others))
        end = begun + cost.cycles
        self._runs.append(Run(indices, units, max(begun, self._free[first]), end, cost))
        self._takes.update(dict.fromkeys(others, end) | {first: begun + cost.sequenced})
        self._free.update(dict.fromkeys(others, end) | {first: begun + cost.accumulated})
        marks = {"CDMA_DAT": cost.data_loaded, "CDMA_WT": cost.weights_loaded, "CACC": cost.accumulated}
        self._raised += [(begun + marks.get(wait.source, cost.cycles), wait) for wait in waits]
        self._raised.sort(key=lambda raised: raised[0])


def _form(task: DlaTask, index: int, engine: Engine) -> tuple[object, ...]:
    """Return what the number of an operation's registers depends on."""
    op, surface = task.operation(index), task.surface(index)
    match engine:
        case Engine.CONV:
            modes = (int(op[field]) for field in ("conv_mode", "weight_format", "mean_format", "data_format"))
            return *modes, int(op["in_cvt"]["enable"])
        case Engine.SDP:
            units = (op[f"{name}_op"] for name in ("x1", "x2", "y"))
            parts = (tuple(int(unit[field]) for field in ("enable", "type", "mode", "act")) for unit in units)
            flies = surface["src_data"]["type"] == MemoryType.ON_THE_FLY
            return needs_reader(op, surface), flies, int(op["lut_index"]), int(op["src_precision"]), *parts
        case Engine.PDP:
            return (int(surface["src_data"]["type"]),)
        case Engine.CDP:
            return (int(op["lut_index"]),)
        case Engine.RUBIK:
            return (int(op["mode"]),)
        case Engine.BDMA:
            return (int(surface["num_transfers"]),)
