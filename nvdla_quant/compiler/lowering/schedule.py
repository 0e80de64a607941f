"""Order of operations: tasks, the edges that the firmware waits for, and what is certain to be complete when.

Rules of the firmware that the edges rest on (docs/hardware/firmware.md, "Dependencies" and "Register groups"): an
operation names at most one consumer a unit; operations of one unit start in the order in which they are chained; a unit
has two register groups, so an operation is programmed only when the last but one on its unit is complete.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from nvdla_quant.compiler.lowering.operations import (
    ENGINE_OF,
    ConvOperation,
    CpuOperation,
    Operation,
    Part,
    SdpOperation,
    Window,
)
from nvdla_quant.loadable.structs import DependencyEvent, Engine

_ALL = 1 << 31
"""More channels than a tensor can have."""


@dataclass(frozen=True)
class Task:
    """Operations `first` up to `end` of the schedule, all on the accelerator or all on the CPU."""

    first: int
    end: int
    cpu: bool


@dataclass(frozen=True)
class Edges:
    """Who waits for one operation, and for how many it waits.

    Attributes
    ----------
    consumers : dict[Engine, tuple[int, DependencyEvent]]
        Operation of each unit that waits, by its number in the schedule, and for what.
    fused_parent : int or None
        Convolution that feeds it.
    dependencies : int
        Edges that lead here; for a convolution also its SDP, which has to be enabled first.
    """

    consumers: dict[Engine, tuple[int, DependencyEvent]]
    fused_parent: int | None
    dependencies: int


def reads(operation: Operation) -> tuple[Window, ...]:
    """Windows that an operation reads."""
    if isinstance(operation, SdpOperation):
        return tuple(window for window in (operation.source, operation.addend) if window is not None)
    return (operation.source,)


def written(operation: Operation) -> Window | None:
    """Window that an operation writes; a convolution hands its result on."""
    return None if isinstance(operation, ConvOperation) else operation.destination


def _overlap(a: Window, b: Window, parts: Mapping[str, Part]) -> bool:
    one, other = (parts.get(window.tensor, Part(window.tensor, 0, _ALL)) for window in (a, b))
    return (
        one.whole == other.whole
        and one.first < other.end
        and other.first < one.end
        and (one.step != other.step or one.row != other.row or (a.row < b.row + b.rows and b.row < a.row + a.rows))
        and one.column + a.column < other.column + b.column + b.columns
        and other.column + b.column < one.column + a.column + a.columns
    )


@dataclass(frozen=True)
class Schedule:
    """Operations in order of execution.

    Attributes
    ----------
    operations : Sequence[Operation]
        The operations.
    parts : Mapping[str, Part]
        Tensors that stand inside of others.
    serial : bool
        Whether each operation, but an SDP's behind its convolution, waits until the one before it is complete: less
        runs at a time, so less memory is in use.
    buffers : Mapping[int, tuple[int, int, bool]]
        How the convolutions of a step use the buffer: banks of data and of weights, and whether the data is an image.
    """

    operations: Sequence[Operation]
    parts: Mapping[str, Part] = field(default_factory=dict)
    serial: bool = False
    buffers: Mapping[int, tuple[int, int, bool]] = field(default_factory=dict)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Runs of operations on the accelerator, and on the CPU."""
        found: list[Task] = []
        for index, operation in enumerate(self.operations):
            cpu = isinstance(operation, CpuOperation)
            if found and found[-1].cpu == cpu:
                found[-1] = Task(found[-1].first, index + 1, cpu)
            else:
                found.append(Task(index, index + 1, cpu))
        return tuple(found)

    @cached_property
    def edges(self) -> tuple[Edges, ...]:
        """Edges of each operation; none between tasks, which run one after another."""
        consumers: list[dict[Engine, tuple[int, DependencyEvent]]] = [{} for _ in self.operations]
        parents: list[int | None] = [None] * len(self.operations)
        for task in self.tasks:
            if not task.cpu:
                self._link(task, consumers, parents)
        self._keep_apart(consumers, parents)
        counts = [0] * len(self.operations)
        for of_one in consumers:
            for consumer, _ in of_one.values():
                counts[consumer] += 1
        for parent in parents:
            if parent is not None:
                counts[parent] += 1
        return tuple(Edges(*parts) for parts in zip(consumers, parents, counts, strict=True))

    def _link(
        self, task: Task, consumers: list[dict[Engine, tuple[int, DependencyEvent]]], parents: list[int | None]
    ) -> None:
        last: dict[Engine, int] = {}
        for index in range(task.first, task.end):
            operation = self.operations[index]
            engine = ENGINE_OF[type(operation)]
            if engine in last:
                consumers[last[engine]][engine] = (index, DependencyEvent.OP_PROGRAMMED)
            last[engine] = index
            if isinstance(operation, SdpOperation) and operation.source is None:
                consumers[index - 1][engine] = (index, DependencyEvent.OP_PROGRAMMED)
                parents[index] = index - 1
            for writer in self._writers(task, index):
                known, event = consumers[writer].get(engine, (index, DependencyEvent.OP_COMPLETED))
                # A later reader on the same unit starts after the one that already waits.
                consumers[writer][engine] = (known, DependencyEvent.OP_COMPLETED if known == index else event)
            if self.serial and index > task.first and parents[index] is None:
                consumers[index - 1][engine] = (index, DependencyEvent.OP_COMPLETED)

    def _keep_apart(
        self, consumers: list[dict[Engine, tuple[int, DependencyEvent]]], parents: Sequence[int | None]
    ) -> None:
        """Let a convolution wait for the end of the one before it where they divide the buffer differently.

        The hardware fetches for the later one only once the other has read everything. NVIDIA's C-model, and so its
        virtual platform, fetches weights as soon as the other's are released, forgets them when it then changes the
        division, and hangs. Where the later one waits for what is made of the other's result, that is complete anyway.
        """
        sets = self._complete(consumers, parents)
        for before, operation in enumerate(self.operations):
            index, event = consumers[before].get(Engine.CONV, (0, DependencyEvent.OP_COMPLETED))
            later = self.operations[index]
            if (
                isinstance(operation, ConvOperation)
                and isinstance(later, ConvOperation)
                and event is DependencyEvent.OP_PROGRAMMED
                and self.buffers.get(operation.step) != self.buffers.get(later.step)
                and not any(
                    self._closed(sets, parents, done) >> before & 1
                    for done, edges in enumerate(consumers)
                    if (index, DependencyEvent.OP_COMPLETED) in edges.values()
                )
            ):
                consumers[before][Engine.CONV] = (index, DependencyEvent.OP_COMPLETED)

    def _writers(self, task: Task, index: int) -> list[int]:
        """For each window that an operation reads, the last operation of each unit of its task that writes some of it.

        Earlier ones of that unit are complete by then.
        """
        found: list[int] = []
        for window in reads(self.operations[index]):
            units: set[Engine] = set()
            for earlier in range(index - 1, task.first - 1, -1):
                target, unit = written(self.operations[earlier]), ENGINE_OF[type(self.operations[earlier])]
                if target is not None and unit not in units and _overlap(window, target, self.parts):
                    units.add(unit)
                    found.append(earlier)
        return found

    @cached_property
    def complete_before(self) -> tuple[int, ...]:
        """For each operation the set (bit i: operation i) of those that are complete before it writes.

        A unit may fetch operands of an operation while the one before it still runs, but writes in order.
        """
        return tuple(self._complete([e.consumers for e in self.edges], [e.fused_parent for e in self.edges]))

    def _complete(
        self, consumers: Sequence[Mapping[Engine, tuple[int, DependencyEvent]]], parents: Sequence[int | None]
    ) -> list[int]:
        sets: list[int] = []
        waits: list[list[int]] = [[] for _ in self.operations]
        for index, edges in enumerate(consumers):
            for consumer, event in edges.values():
                if event is DependencyEvent.OP_COMPLETED:
                    waits[consumer].append(index)
        for task in self.tasks:
            chains: dict[Engine, list[int]] = {}
            for index in range(task.first, task.end):
                operation = self.operations[index]
                known = (1 << task.first) - 1
                if task.cpu:
                    known = (1 << index) - 1
                else:
                    chain = chains.setdefault(ENGINE_OF[type(operation)], [])
                    if chain:
                        known |= sets[chain[-1]]
                    for done in [*waits[index], *chain[:-1][-1:]]:
                        known |= self._closed(sets, parents, done)
                    parent = parents[index]
                    if parent is not None:
                        known |= sets[parent]
                    chain.append(index)
                sets.append(known)
        return sets

    @staticmethod
    def _closed(sets: Sequence[int], parents: Sequence[int | None], done: int) -> int:
        """Return what is complete once `done` is: all before it, and the convolution that fed it."""
        parent = parents[done]
        return sets[done] | 1 << done | (0 if parent is None else sets[parent] | 1 << parent)
