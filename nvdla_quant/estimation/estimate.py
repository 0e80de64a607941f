"""How long a loadable takes on a target with a memory: its operations, and the network."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from nvdla_quant.emulator.decode import emu
from nvdla_quant.emulator.decode.addresses import AddressSpace
from nvdla_quant.estimation import work
from nvdla_quant.estimation.timeline import Run, run_task
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable.descriptors import DlaTask, read_task
from nvdla_quant.loadable.layout import layouts_of
from nvdla_quant.loadable.records import Interface, Loadable
from nvdla_quant.loadable.structs import Engine
from nvdla_quant.loadable.tasks import static_bytes, tasks_in_order
from nvdla_quant.registers.program.schedule import Turns
from nvdla_quant.timing.cost import cost
from nvdla_quant.timing.memory import Memory
from nvdla_quant.timing.records import Cost, Operation, Point, Traffic

CPU = "CPU"


@dataclass(frozen=True)
class Row:
    """One operation of a loadable, or several that run together: a convolution with the SDP behind it.

    Attributes
    ----------
    operation : int
        Its number in the loadable; of several that of the first.
    others : tuple[int, ...]
        The numbers of those that run with it.
    unit : str
        Unit, or units.
    start, end : float
        Cycles from the first access to a register.
    cycles : float
        What it takes from its start, alone.
    bound : str
        What most of them are spent on.
    traffic : Traffic
        Bytes by client.
    extrapolated : tuple[str, ...]
        Why no measurement stands behind it.
    macs : int
        Multiplications of a convolution.
    """

    operation: int
    others: tuple[int, ...]
    unit: str
    start: float
    end: float
    cycles: float
    bound: str
    traffic: Traffic
    extrapolated: tuple[str, ...]
    macs: int = 0


@dataclass(frozen=True)
class Estimate:
    """How long a network takes.

    Attributes
    ----------
    target, memory
        On what, with what.
    rows : tuple[Row, ...]
        Its operations in the order in which they start.
    cycles : float
        From the first access to a register until the last interrupt is handled.
    """

    target: Target
    memory: Memory
    rows: tuple[Row, ...]
    cycles: float

    @property
    def seconds(self) -> float:
        """How long an image takes."""
        return self.memory.seconds(self.cycles)

    @property
    def traffic(self) -> Traffic:
        """Bytes that all operations read and write."""
        return sum((row.traffic for row in self.rows), Traffic())

    @property
    def macs(self) -> int:
        """Multiplications of all convolutions."""
        return sum(row.macs for row in self.rows)

    @property
    def peak_bandwidth(self) -> float:
        """Most bytes a cycle that any operation reads and writes, over the whole of it."""
        return max((row.traffic.bytes / row.cycles for row in self.rows if row.cycles), default=0.0)

    @property
    def bound(self) -> str:
        """What most of the cycles of all operations are spent on."""
        spent: defaultdict[str, float] = defaultdict(float)
        for row in self.rows:
            spent[row.bound] += row.cycles
        return max(spent, key=lambda bound: spent[bound])

    @property
    def extrapolated(self) -> tuple[str, ...]:
        """Why no measurement stands behind it; each reason once."""
        return tuple(dict.fromkeys(reason for row in self.rows for reason in row.extrapolated))


def estimate(loadable: Loadable, target: Target, memory: Memory, cpu_cycles: float = 0.0) -> Estimate:
    """Estimate how long a loadable takes, without running it.

    Parameters
    ----------
    loadable : Loadable
        That `nvdla_quant.emulator.decode.program.decode` takes for the target: what it checks is not checked again.
    target : Target
        The hardware.
    memory : Memory
        The memory, and the processor's speed.
    cpu_cycles : float
        Cycles that the processor takes for each value that it computes: the user's figure, for no two are alike.

    Raises
    ------
    TraceError
        The firmware would wait for ever.
    """
    static = static_bytes(loadable)
    layouts, turns = layouts_of(loadable, static), Turns()
    rows: list[Row] = []
    now, base = 0.0, 0
    for task in tasks_in_order(loadable):
        space = AddressSpace(loadable, task, static, layouts)
        if task.interface == Interface.DLA1:
            descriptors = read_task(space)
            pricing = _Pricing(descriptors, target, memory)
            runs, now = run_task(descriptors, target, memory, turns, pricing.price, now)
            rows += (_row(run, base) for run in runs)
            base += descriptors.count
        else:
            operations = emu.decode_task(space, target, base)
            for operation in operations:
                cycles = cpu_cycles * prod(operation.destination.shape)
                rows.append(_on_cpu(operation.index, now, cycles))
                now += cycles
            base += len(operations)
    return Estimate(target, memory, tuple(sorted(rows, key=lambda row: (row.start, row.operation))), now)


def _row(run: Run, base: int) -> Row:
    first, *others = (base + index for index in run.indices)
    unit = "+".join(engine.name.lower() for engine in run.units)
    cost = run.cost
    spent = cost.cycles, cost.bound, cost.traffic, cost.extrapolated, cost.macs
    return Row(first, tuple(others), unit, run.start, run.end, *spent)


def _on_cpu(index: int, now: float, cycles: float) -> Row:
    return Row(index, (), CPU, now, now + cycles, cycles, CPU, Traffic(), ())


class _Pricing:
    """What the operations of a task cost."""

    def __init__(self, task: DlaTask, target: Target, memory: Memory) -> None:
        self._task, self._target, self._memory = task, target, memory

    def price(self, units: tuple[Engine, ...], indices: tuple[int, ...]) -> Cost:
        """Return the cost of operations that run together: they take as long as the longest, and its way out."""
        found = [cost(self._target, self._memory, one) for one in self._operations(units, indices)]
        first, *behind = found
        for other in behind:
            first = self._joined(first, other)
        return first

    def _joined(self, first: Cost, pooled: Cost) -> Cost:
        """Return the cost of an operation whose results the PDP takes as they come."""
        longer = max(first, pooled, key=lambda one: one.cycles)
        return replace(
            first,
            cycles=longer.cycles + self._target.timing.pooling,
            bound=longer.bound,
            shares=longer.shares,
            traffic=first.traffic + pooled.traffic,
            extrapolated=tuple(dict.fromkeys((*first.extrapolated, *pooled.extrapolated))),
        )

    def _operations(self, units: tuple[Engine, ...], indices: tuple[int, ...]) -> Iterator[Operation]:
        behind: Point | None = None
        of = dict(zip(units, indices, strict=True))
        if Engine.SDP in of:
            behind = work.point(self._target, *self._descriptors(of[Engine.SDP]))
        if Engine.CONV in of:
            assert behind is not None, "a convolution runs with the SDP that takes its results"
            yield work.convolution(self._target, *self._descriptors(of[Engine.CONV]), behind)
        elif behind is not None:
            yield behind
        if Engine.PDP in of:
            yield work.pooling(self._target, *self._descriptors(of[Engine.PDP]))
        if Engine.CDP in of:
            yield work.normalisation(self._target, *self._descriptors(of[Engine.CDP]))
        if Engine.RUBIK in of:
            yield work.layout(self._target, *self._descriptors(of[Engine.RUBIK]))
        if Engine.BDMA in of:
            yield work.copies(self._task.surface(of[Engine.BDMA]))

    def _descriptors(self, index: int) -> tuple[np.void, np.void]:
        return self._task.operation(index), self._task.surface(index)
