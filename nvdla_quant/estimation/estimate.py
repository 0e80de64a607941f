"""How long a loadable takes on a target with a memory: its operations, and the network."""

from collections import defaultdict
from dataclasses import dataclass, replace
from math import prod

from nvdla_quant.emulator.decode import emu
from nvdla_quant.emulator.decode.addresses import placed_tasks
from nvdla_quant.estimation.timeline import Run, run_task
from nvdla_quant.estimation.work import together
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable.descriptors import DlaTask, read_task
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.structs import Engine
from nvdla_quant.loadable.tasks import static_bytes
from nvdla_quant.registers.program.schedule import Turns
from nvdla_quant.timing.cost import cost_together
from nvdla_quant.timing.loading import early_bytes
from nvdla_quant.timing.memory import Memory
from nvdla_quant.timing.records import Convolution, Cost, Operation, Traffic

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
        Cycles from the first access to a register; the start is not before the end of what its unit did before.
    cycles : float
        From start to end.
    bound : str
        What most of them are spent on.
    traffic : Traffic
        Bytes by client.
    extrapolated : tuple[str, ...]
        Why no measurement stands behind it.
    works : tuple[Operation, ...]
        What it does; empty where the processor does it.
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
    works: tuple[Operation, ...] = ()
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
    def images_per_second(self) -> float | None:
        """How many images it takes in a second; None where nothing is counted that takes time."""
        return 1 / self.seconds if self.cycles else None

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
        return max(spent, key=lambda bound: spent[bound], default=CPU)

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
    turns = Turns()
    rows: list[Row] = []
    now = 0.0
    for task in placed_tasks(loadable, static_bytes(loadable)):
        if task.on_cpu:
            for operation in emu.decode_task(task.space, target, task.base):
                cycles = cpu_cycles * prod(operation.destination.shape)
                rows.append(_on_cpu(operation.index, now, cycles))
                now += cycles
        else:
            descriptors = read_task(task.space)
            pricing = _Pricing(descriptors, target, memory)
            runs, now = run_task(descriptors, target, memory, turns, pricing.price, now)
            rows += (_row(run, task.base, pricing.works[run.indices]) for run in runs)
    return Estimate(target, memory, tuple(sorted(rows, key=lambda row: (row.start, row.operation))), now)


def _row(run: Run, base: int, works: tuple[Operation, ...]) -> Row:
    first, *others = (base + index for index in run.indices)
    cost = run.cost
    return Row(
        operation=first,
        others=tuple(others),
        unit="+".join(engine.name.lower() for engine in run.units),
        start=run.start,
        end=run.end,
        cycles=run.end - run.start,
        bound=cost.bound,
        traffic=cost.traffic,
        extrapolated=cost.extrapolated,
        works=works,
        macs=cost.macs,
    )


def _on_cpu(index: int, now: float, cycles: float) -> Row:
    return Row(index, (), CPU, now, now + cycles, cycles, CPU, Traffic(), ())


class _Pricing:
    """What the operations of a task do and cost."""

    def __init__(self, task: DlaTask, target: Target, memory: Memory) -> None:
        self._task, self._target, self._memory = task, target, memory
        self._before: Convolution | None = None
        self.works: dict[tuple[int, ...], tuple[Operation, ...]] = {}

    def price(self, units: tuple[Engine, ...], indices: tuple[int, ...], waits: float) -> Cost:
        """Return the cost of operations that run together and were enabled `waits` cycles before they could start."""
        works = list(together(self._task, self._target, dict(zip(units, indices, strict=True))))
        match works:
            case [Convolution() as first, *_]:
                if self._before is not None and waits > 0:
                    early = early_bytes(self._target, self._memory, self._before, first, waits)
                    works[0] = replace(first, early_bytes=early)
                self._before = first
        self.works[indices] = tuple(works)
        return cost_together(self._target, self._memory, works)
