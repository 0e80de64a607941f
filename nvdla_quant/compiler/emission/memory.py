"""Memory: where weights and activations lie in their pools.

Two pools as the real compiler's: one that the loadable fills (weights, biases) and one for activations. Activations
share room where the schedule makes sure that whoever used it is complete.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from nvdla_quant.compiler.lowering.operations import Window
from nvdla_quant.compiler.lowering.schedule import Schedule, reads, written
from nvdla_quant.hardware.cbuf import round_up

ALIGNMENT = 256
"""Bytes that offsets are a multiple of: at least the widest atom and CBUF entry, and whole memory bursts."""
ATTEMPTS = 24
"""Orders in which tensors are placed before the smallest pool counts."""
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
    first one that writes the new tensor does so. Each tensor goes to the lowest place where it fits. The smallest pool
    counts of taking the tensors as they are written, the largest ones first, and then again and again the one first
    that ended highest.

    Parameters
    ----------
    schedule : Schedule
        Operations in order.
    sizes : Mapping[str, int]
        Bytes of every tensor to place; those that stand inside of others are placed with them.
    """
    users, first = _uses(schedule, sizes)
    known = {name: schedule.complete_before[first[name]] for name in sizes}
    in_order = sorted(sizes, key=lambda tensor: first[tensor])
    by_size = sorted(in_order, key=lambda tensor: -sizes[tensor])
    least = largest_live(schedule, sizes)
    pools: list[Pool] = []
    for attempt in range(ATTEMPTS):
        order = in_order if attempt == 0 else by_size
        offsets: dict[str, int] = {}
        for name in order:
            apart = (other for other in offsets if users[other] & ~known[name] and users[name] & ~known[other])
            taken = sorted((offsets[other], offsets[other] + sizes[other]) for other in apart)
            offsets[name] = _lowest(taken, sizes[name])
        end = max((offset + sizes[name] for name, offset in offsets.items()), default=0)
        pools.append(Pool(offsets, round_up(end, PAGE)))
        if end <= least:
            break
        if attempt:
            highest = max(by_size, key=lambda name: offsets[name] + sizes[name])
            by_size = [highest, *(name for name in by_size if name != highest)]
    return min(pools, key=lambda pool: pool.size)


def largest_live(schedule: Schedule, sizes: Mapping[str, int]) -> int:
    """Bytes of all tensors that are in use at one moment, where that is most: no allocation can take less.

    A tensor is in use from the operation that first writes it to the last one that reads it, in order of execution; a
    convolution and the SDP operation that writes its result are one.
    """
    users, first = _uses(schedule, sizes)
    first |= {name: at for name, index in first.items() if (at := schedule.edges[index].fused_parent) is not None}
    changes = [0] * (len(schedule.operations) + 1)
    for name, size in sizes.items():
        changes[first[name]] += size
        changes[users[name].bit_length()] -= size
    return max(accumulate(changes))


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
