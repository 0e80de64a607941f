"""The order in which the firmware programs and enables operations, in the units' two groups of registers.

What NVIDIA's firmware does depends on when interrupts come. A program of registers has one order: that of hardware that
runs one operation after the other, and tells what ends with each (CDMA's data and weights, CACC, SDP, PDP) one
interrupt after the other. It waits for each of them, so it is right whatever comes first on other hardware; operations
whose turn it is are enabled before what they wait for has ended, as the firmware has it.

Facts: nvdla/sw ``kmd/firmware/{scheduler,engine}.c``.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nvdla_quant.errors import TraceError
from nvdla_quant.loadable.descriptors import DlaTask
from nvdla_quant.loadable.structs import DependencyEvent, Engine, MemoryType
from nvdla_quant.registers.program.sdp import needs_reader

EVENTS = {
    "CDMA_DAT": (Engine.CONV, DependencyEvent.CDMA_DATA_DONE),
    "CDMA_WT": (Engine.CONV, DependencyEvent.CDMA_WEIGHT_DONE),
    "CACC": (Engine.CONV, DependencyEvent.OP_COMPLETED),
    "SDP": (Engine.SDP, DependencyEvent.OP_COMPLETED),
    "PDP": (Engine.PDP, DependencyEvent.OP_COMPLETED),
    "CDP": (Engine.CDP, DependencyEvent.OP_COMPLETED),
    "RUBIK": (Engine.RUBIK, DependencyEvent.OP_COMPLETED),
    "BDMA": (Engine.BDMA, DependencyEvent.OP_COMPLETED),
}
"""What each interrupt says of which unit (nvdla/sw ``kmd/firmware/engine_isr.c``, ``dla_isr_handler``)."""
DONE = {engine: source for source, (engine, event) in EVENTS.items() if event is DependencyEvent.OP_COMPLETED}
"""The interrupt that says that a unit is done."""
ENDINGS = {Engine.CONV: ("CDMA_DAT", "CDMA_WT", "CACC")}
"""What ends with an operation of a unit, where that is more than the unit itself."""
WITH_TABLE = (Engine.SDP, Engine.CDP)
NO_TABLE = -1


@dataclass(frozen=True)
class Program:
    """Write the registers of operation `index` in group `group` of its unit, `reader` of the unit that reads for it."""

    index: int
    group: int
    reader: int


@dataclass(frozen=True)
class Enable:
    """Enable operation `index` in group `group` of its unit, `reader` of the one that reads for it where it `reads`."""

    index: int
    group: int
    reader: int
    reads: bool


@dataclass(frozen=True)
class Wait:
    """Wait for the interrupt of group `group` of `source`."""

    source: str
    group: int


Action = Program | Enable | Wait


@dataclass
class Turns:
    """Which group each unit takes next, and so does what reads for it: this outlives a task."""

    units: dict[Engine, int] = field(default_factory=lambda: dict.fromkeys(Engine, 0))
    readers: dict[Engine, int] = field(default_factory=lambda: dict.fromkeys(Engine, 0))


@dataclass
class _Group:
    """One of a unit's two groups: what it holds, and how far that is."""

    index: int | None = None
    pending: bool = False
    programming: bool = False
    active: bool = False
    reads: bool = False
    reader: int = 0
    table: int = NO_TABLE


@dataclass
class _Unit:
    """A unit, as the firmware keeps track of it."""

    engine: Engine
    chain: deque[int]
    groups: tuple[_Group, _Group] = field(default_factory=lambda: (_Group(), _Group(reader=1)))

    @property
    def free(self) -> list[int]:
        """Groups that hold nothing."""
        return [number for number, group in enumerate(self.groups) if group.index is None]


def schedule(task: DlaTask, turns: Turns) -> Iterator[Action]:
    """Yield what the firmware does for a task, in order; `turns` says where the units stand, and is kept up to date.

    Raises
    ------
    TraceError
        Operations are left, and nothing that is enabled can run: the firmware would wait for ever.
    """
    firmware = Firmware(task, turns)
    yield from firmware.begin()
    while firmware.left:
        for wait in _ending_next(firmware):
            yield wait
            yield from firmware.told(wait)


class Firmware:
    """The firmware's scheduler, for one task.

    Attributes
    ----------
    task : DlaTask
        What it runs.
    turns : Turns
        Where the units stand.
    left : int
        Operations that have not ended.
    launched : dict[int, int]
        Operations of BDMA that were launched and have not ended, in order, with their groups.
    """

    def __init__(self, task: DlaTask, turns: Turns) -> None:
        self.task = task
        self.turns = turns
        self.left = task.count
        self.launched: dict[int, int] = {}
        self._waiting = [int(entry["dependency_count"]) for entry in task.common]
        self._units = {engine: _Unit(engine, deque(task.chains.get(engine, ()))) for engine in Engine}
        self._made: list[Action] = []

    def begin(self) -> list[Action]:
        """Return what it does before anything ends."""
        for unit in self._units.values():
            if unit.chain:
                self._submit(unit)
                self._submit(unit)
        return self._taken()

    def told(self, wait: Wait) -> list[Action]:
        """Return what an interrupt leads to (``dla_handle_events``)."""
        engine, event = EVENTS[wait.source]
        unit = self._units[engine]
        index = unit.groups[wait.group].index
        assert index is not None, "what ends is held by a group"
        self.launched.pop(index, None)
        if event is DependencyEvent.OP_COMPLETED:
            self._complete(unit, wait.group, index)
        else:
            self._signal(index, event)
        return self._taken()

    def due(self, engine: Engine) -> int | None:
        """Return the operation of a unit's next group where that is enabled."""
        group = self._units[engine].groups[self.turns.units[engine]]
        return group.index if group.active else None

    def stuck(self) -> TraceError:
        """Return what to say where operations are left, and nothing that is enabled can run."""
        index = next(index for index, count in enumerate(self._waiting) if self._is_left(index, count))
        return TraceError(
            f"{self.task.where(index)}: waits for {self._waiting[index]} events, and nothing that is enabled can run; "
            "the firmware would wait for ever"
        )

    def _taken(self) -> list[Action]:
        made, self._made = self._made, []
        return made

    def _submit(self, unit: _Unit) -> None:
        """Give a unit its next operation (``dla_dequeue_operation``, ``dla_submit_operation``)."""
        free = unit.free
        if not unit.chain or not free:
            return
        number = self.turns.units[unit.engine] if len(free) == 2 else free[0]
        group = unit.groups[number]
        group.index, group.pending = unit.chain.popleft(), True
        self._prepare_reader(unit, group)
        if self._is_ready(unit, number):
            self._program(unit, number)
            self._enable_if_free(unit, number)

    def _prepare_reader(self, unit: _Unit, group: _Group) -> None:
        """Choose the group of what reads for a unit (``dla_prepare_operation``)."""
        taken = [other.reader for other in unit.groups if other.reads]
        group.reader = 1 - taken[0] if taken else self.turns.readers[unit.engine]
        assert group.index is not None, "a group that is prepared holds an operation"
        group.reads = self._reads(group.index)

    def _reads(self, index: int) -> bool:
        """Whether an operation takes what reads for its unit."""
        engine, surface = self.task.engines[index], self.task.surface(index)
        if engine is Engine.SDP:
            return needs_reader(self.task.operation(index), surface)
        if engine is Engine.PDP:
            return bool(surface["src_data"]["type"] != MemoryType.ON_THE_FLY)
        return engine is Engine.CDP

    def _is_ready(self, unit: _Unit, number: int) -> bool:
        """Whether a group's registers may be written: both groups of a unit share one table, BDMA has one queue."""
        group, other = unit.groups[number], unit.groups[1 - number]
        assert group.index is not None, "a group that is asked for holds an operation"
        if unit.engine is Engine.BDMA:
            return other.index is None or other.active
        if unit.engine not in WITH_TABLE:
            return True
        table = int(self.task.operation(group.index)["lut_index"])
        if table == NO_TABLE or other.table == table:
            return True
        return other.table == NO_TABLE and not other.active

    def _program(self, unit: _Unit, number: int) -> None:
        group = unit.groups[number]
        assert group.index is not None, "a group that is programmed holds an operation"
        group.programming = True
        if unit.engine in WITH_TABLE and (table := int(self.task.operation(group.index)["lut_index"])) >= 0:
            group.table = table
        self._made.append(Program(group.index, number, self._reader(unit, number)))
        group.pending = False
        self._signal(group.index, DependencyEvent.OP_PROGRAMMED)
        group.programming = False

    def _reader(self, unit: _Unit, number: int) -> int:
        # CDP's two halves always go together (``dla_cdp_set_producer``).
        return number if unit.engine is Engine.CDP else unit.groups[number].reader

    def _enable_if_free(self, unit: _Unit, number: int) -> None:
        group = unit.groups[number]
        if group.index is not None and self._waiting[group.index] == 0:
            self._enable(unit, number)

    def _enable(self, unit: _Unit, number: int) -> None:
        """Enable a group that is programmed (``dla_enable_operation``)."""
        group = unit.groups[number]
        if group.pending or group.programming or group.active or group.index is None:
            return
        self._made.append(Enable(group.index, number, self._reader(unit, number), group.reads))
        if unit.engine is Engine.BDMA:
            self.launched[group.index] = number
        group.active = True
        self._signal(group.index, DependencyEvent.OP_ENABLED)

    def _signal(self, index: int, event: DependencyEvent) -> None:
        """Tell those that wait for `event` of an operation (``dla_update_consumers``)."""
        entry = self.task.common[index]
        for other, wanted, _ in (*entry["consumers"].tolist(), entry["fused_parent"].tolist()):
            if other == -1 or wanted != event:
                continue
            self._waiting[other] -= 1
            if self._waiting[other] == 0:
                self._enable_operation(other)

    def _enable_operation(self, index: int) -> None:
        unit = self._units[self.task.engines[index]]
        for number, group in enumerate(unit.groups):
            if group.index == index:
                self._enable(unit, number)

    def _complete(self, unit: _Unit, number: int, index: int) -> None:
        """Free a group, and go on (``dla_op_completion``)."""
        group, other = unit.groups[number], 1 - number
        self.left -= 1
        self.turns.units[unit.engine] = other
        if group.reads:
            self.turns.readers[unit.engine] = 1 - self._reader(unit, number)
        group.index, group.active, group.reads, group.table = None, False, False, NO_TABLE
        self._signal(index, DependencyEvent.OP_COMPLETED)
        if unit.groups[other].pending and self._is_ready(unit, other):
            self._program(unit, other)
            self._enable_if_free(unit, other)
        self._submit(unit)

    def _is_left(self, index: int, count: int) -> bool:
        held = any(group.index == index for group in self._units[self.task.engines[index]].groups)
        return held or index in self._units[self.task.engines[index]].chain or count > 0


def fused(firmware: Firmware) -> tuple[Engine, ...]:
    """Return the units whose next operations are all enabled and run together: the SDP and what it is joined to.

    Empty where the SDP has none, or one that waits for its partner.
    """
    index = firmware.due(Engine.SDP)
    if index is None:
        return ()
    surface = firmware.task.surface(index)
    units = [Engine.SDP]
    if surface["src_data"]["type"] == MemoryType.ON_THE_FLY:
        units.insert(0, Engine.CONV)
    if surface["dst_data"]["type"] == MemoryType.ON_THE_FLY:
        units.append(Engine.PDP)
    return tuple(units) if all(firmware.due(unit) is not None for unit in units) else ()


def alone(firmware: Firmware) -> tuple[Engine, ...]:
    """Return the other units whose next operation is enabled and needs no partner."""
    found = [engine for engine in (Engine.CDP, Engine.RUBIK) if firmware.due(engine) is not None]
    index = firmware.due(Engine.PDP)
    if index is not None and firmware.task.surface(index)["src_data"]["type"] != MemoryType.ON_THE_FLY:
        found.insert(0, Engine.PDP)
    return tuple(found)


def endings(firmware: Firmware, units: Sequence[Engine]) -> list[Wait]:
    """Return the interrupts that tell what ends with the next operations of `units`, in this order."""
    sources = [source for unit in units for source in ENDINGS.get(unit, (DONE[unit],))]
    return [Wait(source, firmware.turns.units[EVENTS[source][0]]) for source in sources]


def _ending_next(firmware: Firmware) -> list[Wait]:
    """Return the next interrupts of hardware that runs one operation after the other."""
    for group in firmware.launched.values():
        return [Wait("BDMA", group)]
    units = fused(firmware) or alone(firmware)[:1]
    if not units:
        raise firmware.stuck()
    return endings(firmware, units)
