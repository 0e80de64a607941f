"""Find accesses whose order the dependency graph leaves open: there the hardware's timing decides, not the loadable.

What the firmware and the units order, as moments of an operation X (nvdla/sw ``kmd/firmware/scheduler.c``): X is
programmed, then enabled (it may read from then on), then complete (all its writes are done).

* A consumer with event OP_COMPLETED is enabled after the operation is complete; with OP_PROGRAMMED, after it is
  programmed; a convolution is enabled after the SDP operation that takes its output.
* A unit has two sets of registers: an operation is programmed only once the last but one before it is complete.
* A unit starts and completes its operations in order: its registers' consumer pointer moves on from a set once that
  operation has been read in full. But its read engines run ahead: an operand may be fetched while the operation before
  still writes.
* An SDP operation behind a convolution may fetch operands once it is enabled, but has nothing to write before the
  convolution is, and is complete after it; so it goes on with a pooling that takes what an SDP operation hands over.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nvdla_quant.emulator.operations import (
    ConvOperation,
    Cube,
    Operation,
    SdpOperation,
    arrays_read,
    cubes_read,
    cubes_written,
    handing_over,
    operand_cubes,
    weights_read,
)
from nvdla_quant.loadable.structs import DependencyEvent, Engine
from nvdla_quant.loadable.tasks import Window

Link = tuple[int, int, int]
"""(before, after, event of `DependencyEvent`), by index in the task."""
MAX_OPERATIONS = 512
MAX_ACCESSES = 2048
"""The work grows with the square of each; ResNet-50 has about 180 operations."""
Moment = tuple[int, str]
"""An operation of the task, and ``programmed``, ``enabled``, ``started`` or ``complete``."""


@dataclass(frozen=True)
class Access:
    """One operation's use of a cube; it does not begin before any of `starts`, operations of the task, has started."""

    operation: int
    starts: tuple[int, ...]
    cube: Cube
    writes: bool


def describe_races(
    operations: Mapping[int, Operation],
    engines: Sequence[Engine],
    links: Iterable[Link],
    base: int,
) -> Iterator[str]:
    """Yield a sentence for each pair of operations of a task that may touch the same bytes at the same time.

    Parameters
    ----------
    operations : Mapping[int, Operation]
        What writes memory, by index in the task, in the order in which it is run here.
    engines : Sequence[Engine]
        Unit of each descriptor of the task.
    links : Iterable[Link]
        Consumers and fused parents.
    base : int
        Number in the program of the task's first operation.
    """
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
    after = _reachable(_edges(engines, links))
    earlier: list[Access] = []
    for accesses in found.values():
        for second in accesses:
            for first in earlier:
                if (first.writes or second.writes) and first.cube.overlaps(second.cube):
                    in_order = second.writes and engines[first.operation] == engines[second.operation]
                    if not in_order and not any(
                        (start, "started") in after[first.operation, "complete"] for start in second.starts
                    ):
                        yield _sentence(first, second, operations, base)
        earlier += accesses


def _accesses(index: int, operation: Operation, operations: Mapping[int, Operation], base: int) -> Iterator[Access]:
    """Yield what `operation` does in memory; what one unit hands over to the next is none of it."""
    start = _start(index, operation, operations, base)
    operands = operand_cubes(operation) if isinstance(operation, SdpOperation) else ()
    reads = cubes_read(operation)
    # Behind a convolution the source waits; operands are fetched from the start.
    waiting = *reads[: len(reads) - len(operands)], *map(_bytes, weights_read(operation))
    fetched = *operands, *map(_bytes, arrays_read(operation))
    written = [cube for cube in cubes_written(operation) if not cube.is_handed_over]
    yield from (Access(index, (start,), cube, writes=False) for cube in waiting if not cube.is_handed_over)
    yield from (Access(index, (index,), cube, writes=False) for cube in fetched)
    yield from (Access(index, (start, index), cube, writes=True) for cube in written)


def _bytes(window: Window) -> Cube:
    """Return `window` as a cube of bytes."""
    return Cube(window.memory, window.offset, 1, 1, window.size, 1, 1, window.size, window.size)


def _start(index: int, operation: Operation, operations: Mapping[int, Operation], base: int) -> int:
    """Return the operation that begins the chain of units of which `operation` is a part."""
    if isinstance(operation.source, ConvOperation):
        return operation.source.index - base
    if operation.source.is_handed_over:
        feeder = handing_over(operation.source) - base
        return _start(feeder, operations[feeder], operations, base)
    return index


def _edges(engines: Sequence[Engine], links: Iterable[Link]) -> dict[Moment, set[Moment]]:
    edges: dict[Moment, set[Moment]] = defaultdict(set)
    before: dict[Engine, list[int]] = defaultdict(list)
    for index, engine in enumerate(engines):
        edges[index, "programmed"].add((index, "enabled"))
        edges[index, "enabled"].add((index, "started"))
        edges[index, "started"].add((index, "complete"))
        if before[engine]:
            edges[before[engine][-1], "started"].add((index, "started"))
            edges[before[engine][-1], "complete"].add((index, "complete"))
        if len(before[engine]) > 1:
            edges[before[engine][-2], "complete"].add((index, "programmed"))
        before[engine].append(index)
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


def _reachable(edges: Mapping[Moment, set[Moment]]) -> Mapping[Moment, set[Moment]]:
    """Return what comes after the completion of each operation."""
    found: dict[Moment, set[Moment]] = {}
    for start in [moment for moment in edges if moment[1] == "complete"]:
        seen: set[Moment] = set()
        front = [start]
        while front:
            for moment in edges.get(front.pop(), ()):
                if moment not in seen:
                    seen.add(moment)
                    front.append(moment)
        found[start] = seen
    return defaultdict(set, found)


def _sentence(first: Access, second: Access, operations: Mapping[int, Operation], base: int) -> str:
    names = [f"operation {base + access.operation} ({operations[access.operation].unit})" for access in (first, second)]
    verbs = ["writes" if access.writes else "reads" for access in (first, second)]
    return (
        f"race: {names[1]} {verbs[1]} bytes from {second.cube.offset} of memory {second.cube.memory}, which {names[0]} "
        f"{verbs[0]}, without waiting until that is complete; here they run in list order, there the timing decides"
    )
