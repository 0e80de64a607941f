"""Find accesses whose order the dependency graph leaves open: there the hardware's timing decides, not the loadable.

What the firmware and the units order, as moments of an operation X: it is programmed, then enabled, then its reads and
its results begin, then it is complete (all its writes are done). docs/hardware/firmware.md has the whole.

* Each unit is given its operations one by one, from ``op_head`` along the consumers of its own kind, not in list order
  (nvdla/sw ``kmd/firmware/scheduler.c``: ``dla_initiate_processors``, ``dla_dequeue_operation``).
* A unit has two sets of registers, so an operation is programmed only once the last but one before it is complete
  (``dla_op_completion`` dequeues the next; ``engine.c``: ``utils_get_free_group``).
* An operation is enabled once its dependencies are met, whether or not the one before it on the unit is
  (``dla_update_dependency`` and ``dla_enable_operation`` look at no other operation). A consumer with event
  OP_COMPLETED is enabled after that operation is complete; with OP_PROGRAMMED, after it is programmed; a convolution is
  enabled after the SDP operation that takes its output (OP_ENABLED).
* Yet the unit begins operations in the order in which they were programmed: its consumer pointer waits for the set
  whose turn it is, even if the other one is enabled first, and moves on when that operation is done (nvdla/hw ``cmod``:
  ``SdpConsumerThread`` and its like in cdma, csc, cmac, cacc, pdp, cdp and rubik take group 0 and group 1 in turns).
  BDMA has no second set: the firmware does not program an operation while one before it is programmed but not yet
  launched (``dla_bdma_is_ready``).
* The read engines of SDP, PDP and CDP have registers and a consumer pointer of their own (``SdpRdmaConsumerThread``),
  and only operations that read memory take a turn (``dla_sdp_rdma_check``). So reads run ahead of results: an operation
  may read while the one before it still writes, or even waits to begin, if that one reads nothing itself (an SDP
  operation behind a convolution, with operands in registers; a pooling behind an SDP operation).
* An SDP operation behind a convolution may fetch operands once it is enabled, but has nothing to write before the
  convolution is, and is complete after it; so it goes on with a pooling that takes what an SDP operation hands over.
  The operation behind it on its unit has no turn before that, so it does not write before the convolution begins.
* What a convolution finds in its buffer (`reuse`) it does not read.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nvdla_quant.emulator.operations import (
    ConvOperation,
    Cube,
    Operation,
    SdpOperation,
    arrays_read,
    cube_of_bytes,
    cubes_fetched,
    cubes_written,
    handing_over,
    operand_cubes,
    sources_read,
)
from nvdla_quant.loadable.structs import DependencyEvent, Engine

Link = tuple[int, int, int]
"""(before, after, event of `DependencyEvent`), by index in the task."""
MAX_OPERATIONS = 512
MAX_ACCESSES = 2048
"""The work grows with the square of each; ResNet-50 has about 180 operations."""
Moment = tuple[int, str]
"""An operation of the task, and ``programmed``, ``enabled``, ``reading``, ``started`` or ``complete``."""


@dataclass(frozen=True)
class Access:
    """One operation's use of a cube; it does not begin before any of `starts`."""

    operation: int
    starts: tuple[Moment, ...]
    cube: Cube
    writes: bool


def describe_races(
    operations: Mapping[int, Operation],
    chains: Mapping[Engine, Sequence[int]],
    links: Iterable[Link],
    base: int,
) -> Iterator[str]:
    """Yield a sentence for each pair of operations of a task that may touch the same bytes at the same time.

    Parameters
    ----------
    operations : Mapping[int, Operation]
        What writes memory, by index in the task, in the order in which it is run here.
    chains : Mapping[Engine, Sequence[int]]
        All operations of the task by unit, each in the order in which it is given them.
    links : Iterable[Link]
        Consumers and fused parents.
    base : int
        Number in the program of the task's first operation.
    """
    engines = {index: engine for engine, chain in chains.items() for index in chain}
    if len(engines) > MAX_OPERATIONS:
        yield f"races are not looked for: the task has {len(engines)} operations, more than {MAX_OPERATIONS}"
        return
    # What nobody writes cannot race: most constants.
    written = {cube.memory for operation in operations.values() for cube in cubes_written(operation)}
    found = {
        index: [a for a in _accesses(index, operation, operations, base) if a.cube.memory in written]
        for index, operation in operations.items()
    }
    count = sum(map(len, found.values()))
    if count > MAX_ACCESSES:
        yield f"races are not looked for: the task reads and writes {count} cubes, more than {MAX_ACCESSES}"
        return
    after = _reachable(_edges(chains, operations, links, base))
    earlier: list[Access] = []
    for accesses in found.values():
        for second in accesses:
            for first in earlier:
                if (first.writes or second.writes) and first.cube.overlaps(second.cube):
                    in_order = second.writes and engines[first.operation] == engines[second.operation]
                    if not in_order and not any(after((first.operation, "complete"), start) for start in second.starts):
                        yield _sentence(first, second, operations, base)
        earlier += accesses


def _accesses(index: int, operation: Operation, operations: Mapping[int, Operation], base: int) -> Iterator[Access]:
    """Yield what `operation` does in memory; what one unit hands over to the next is none of it."""
    start = _start(index, operation, operations, base)
    source, destinations = operation.source, cubes_written(operation)
    # Behind a convolution the source waits; operands are fetched from the start.
    if isinstance(source, ConvOperation):
        waiting = cubes_fetched(source)
    else:
        waiting = tuple(cube for cube in sources_read(operation) if not cube.is_handed_over)
    yield from (Access(index, ((start, "reading"),), cube, writes=False) for cube in waiting)
    yield from (Access(index, ((index, "reading"),), cube, writes=False) for cube in _operands(operation))
    begins = (start, "started"), (index, "started")
    yield from (Access(index, begins, cube, writes=True) for cube in destinations if not cube.is_handed_over)


def _operands(operation: Operation) -> tuple[Cube, ...]:
    """Return the operands that `operation` reads from memory, arrays as cubes of bytes."""
    cubes = operand_cubes(operation) if isinstance(operation, SdpOperation) else ()
    return (*cubes, *map(cube_of_bytes, arrays_read(operation)))


def _reads(operation: Operation | None) -> bool:
    """Whether the read engine takes a turn for `operation`; None is a convolution, or BDMA without copies."""
    if operation is None:
        return True
    flies = isinstance(operation.source, ConvOperation) or operation.source.is_handed_over
    return not flies or bool(_operands(operation))


def _start(index: int, operation: Operation, operations: Mapping[int, Operation], base: int) -> int:
    """Return the operation that begins the chain of units of which `operation` is a part."""
    if isinstance(operation.source, ConvOperation):
        return operation.source.index - base
    if operation.source.is_handed_over:
        feeder = handing_over(operation.source) - base
        return _start(feeder, operations[feeder], operations, base)
    return index


def _edges(
    chains: Mapping[Engine, Sequence[int]], operations: Mapping[int, Operation], links: Iterable[Link], base: int
) -> dict[Moment, set[Moment]]:
    """Return which moments come directly after each."""
    edges: dict[Moment, set[Moment]] = defaultdict(set)
    for chain in chains.values():
        for place, index in enumerate(chain):
            edges[index, "programmed"].add((index, "enabled"))
            for begins in ("reading", "started"):
                edges[index, "enabled"].add((index, begins))
                edges[index, begins].add((index, "complete"))
            if place > 0:
                before = chain[place - 1]
                feeder = before if before not in operations else _start(before, operations[before], operations, base)
                for begun in (before, feeder):
                    edges[begun, "started"].add((index, "started"))
                edges[before, "complete"].add((index, "complete"))
            if place > 1:
                edges[chain[place - 2], "complete"].add((index, "programmed"))
        readers = [index for index in chain if _reads(operations.get(index))]
        for index, following in pairwise(readers):
            edges[index, "reading"].add((following, "reading"))
    moments = {
        DependencyEvent.OP_COMPLETED: "complete",
        DependencyEvent.OP_PROGRAMMED: "programmed",
        DependencyEvent.OP_ENABLED: "enabled",
    }
    for first, second, event in links:
        if event in moments:
            edges[first, moments[DependencyEvent(event)]].add((second, "enabled"))
        if event == DependencyEvent.OP_ENABLED:
            edges[second, "complete"].add((first, "complete"))
    return edges


@dataclass(frozen=True)
class _Later:
    """What comes after each moment: bit ``numbers[later]`` of ``after[moment]``."""

    numbers: Mapping[Moment, int]
    after: Mapping[Moment, int]

    def __call__(self, moment: Moment, later: Moment) -> bool:
        number = self.numbers.get(later)
        return number is not None and bool(self.after.get(moment, 0) >> number & 1)


def _reachable(edges: Mapping[Moment, set[Moment]]) -> _Later:
    """Return what comes after each moment; a loadable may hold circles."""
    numbers: dict[Moment, int] = {}
    for moment in (*edges, *(later for following in edges.values() for later in following)):
        numbers.setdefault(moment, len(numbers))
    after = dict.fromkeys(numbers, 0)
    order = [*edges][::-1]  # Most edges lead to what was added later, so few rounds do.
    growing = True
    while growing:
        growing = False
        for moment in order:
            found = after[moment]
            for later in edges[moment]:
                found |= after[later] | 1 << numbers[later]
            if found != after[moment]:
                after[moment], growing = found, True
    return _Later(numbers, after)


def _sentence(first: Access, second: Access, operations: Mapping[int, Operation], base: int) -> str:
    names = [f"operation {base + access.operation} ({operations[access.operation].unit})" for access in (first, second)]
    verbs = ["writes" if access.writes else "reads" for access in (first, second)]
    return (
        f"race: {names[1]} {verbs[1]} bytes from {second.cube.offset} of memory {second.cube.memory}, which {names[0]} "
        f"{verbs[0]}, without waiting until that is complete; here they run in list order, there the timing decides"
    )
