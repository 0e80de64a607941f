"""Memory: where weights and activations lie in their pools.

Two pools as the real compiler's: one that the loadable fills (weights, biases) and one for activations. Activations
share room where the schedule makes sure that whoever used it is complete.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nvdla_quant.cbuf import round_up
from nvdla_quant.compiler.operations import Window
from nvdla_quant.compiler.schedule import Schedule, reads, written

ALIGNMENT = 256
"""Bytes that offsets are a multiple of: at least the widest atom and CBUF entry, and whole memory bursts."""
PAGE = 4096
"""Bytes that pool sizes are a multiple of, and that memories are aligned to."""


@dataclass(frozen=True)
class Pool:
    """Offsets in one memory, and its size in bytes."""

    offsets: Mapping[str, int]
    size: int


def lay_out(sizes: Mapping[str, int]) -> Pool:
    """Pool in which everything stands side by side, in order."""
    offsets, end = {}, 0
    for name, size in sizes.items():
        offsets[name] = end
        end += round_up(size, ALIGNMENT)
    return Pool(offsets, round_up(end, PAGE))


def allocate(schedule: Schedule, sizes: Mapping[str, int]) -> Pool:
    """Pool for the tensors in `sizes`, with room used again.

    A tensor may lie where another lay if every operation that reads or writes the other is complete before the
    first one that writes the new tensor does so. Each tensor goes to the lowest place where it fits.

    Parameters
    ----------
    schedule : Schedule
        Operations in order.
    sizes : Mapping[str, int]
        Bytes of every tensor to place; those that stand inside of others are placed with them.
    """
    users, first = _uses(schedule, sizes)
    offsets: dict[str, int] = {}
    end = 0
    for name in sorted(sizes, key=lambda tensor: first[tensor]):
        complete = schedule.complete_before[first[name]]
        taken = sorted((offsets[other], offsets[other] + sizes[other]) for other in offsets if users[other] & ~complete)
        offsets[name] = _lowest(taken, sizes[name])
        end = max(end, offsets[name] + sizes[name])
    return Pool(offsets, round_up(end, PAGE))


def _uses(schedule: Schedule, names: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
    """For each tensor, the set (bits) of the operations that read or write it, and the first that writes it."""
    users = dict.fromkeys(names, 0)
    first: dict[str, int] = {}
    for index, operation in enumerate(schedule.operations):
        target = written(operation)
        for window in (*reads(operation), *(() if target is None else (target,))):
            name = _whole(schedule, window)
            if name in users:
                users[name] |= 1 << index
        if target is not None:
            first.setdefault(_whole(schedule, target), index)
    return users, first


def _whole(schedule: Schedule, window: Window) -> str:
    part = schedule.parts.get(window.tensor)
    return window.tensor if part is None else part.whole


def _lowest(taken: Sequence[tuple[int, int]], size: int) -> int:
    """Lowest aligned offset at which `size` bytes lie outside of `taken`, which is sorted."""
    offset = 0
    for start, end in taken:
        if offset + size <= start:
            break
        offset = max(offset, round_up(end, ALIGNMENT))
    return offset
