"""What an operation costs, whichever unit runs it, and what no measurement stands behind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from nvdla_quant.hardware.targets import NV_LARGE, NV_MEDIUM_512, NV_SMALL, NV_SMALL_256, Target
from nvdla_quant.timing.convolution import convolution_cycles
from nvdla_quant.timing.memory import Memory, beat_bytes
from nvdla_quant.timing.records import Bound, Convolution, Cost, Move, Operation, Planar, Point, Spent
from nvdla_quant.timing.units import move_shares, planar_shares, point_shares


@dataclass(frozen=True)
class Measured:
    """The settings of memory in which a target was measured: latencies, and least share of its interface's rate."""

    latencies: tuple[int, int]
    share: float
    outstanding: int | None = None
    host_gap: int = 0
    shared: bool = False


MEASURED = {
    NV_SMALL: Measured((20, 200), 0.5, 16, 100, shared=True),
    NV_SMALL_256: Measured((40, 200), 0.5),
    NV_MEDIUM_512: Measured((40, 100), 1.0),
    NV_LARGE: Measured((40, 100), 0.25),
}
"""What was measured (docs/timing.md, "Measurements")."""


def cost(target: Target, memory: Memory, work: Operation) -> Cost:
    """Return what an operation costs, from its start until its output is in memory.

    Parameters
    ----------
    target : Target
        The hardware.
    memory : Memory
        Where its data are.
    work : Operation
        What it does.
    """
    match work:
        case Convolution():
            spent = convolution_cycles(target, memory, work)
        case Point():
            spent = _at_once(point_shares(target, memory, work))
        case Planar():
            spent = _at_once(planar_shares(target, memory, work))
        case Move():
            spent = _at_once(move_shares(target, memory, work))
    shares = spent.shares
    return Cost(
        cycles=sum(shares.values()),
        bound=max(shares, key=lambda share: shares[share]),
        shares=shares,
        traffic=work.traffic,
        extrapolated=(*unmeasured_setting(target, memory), *_unmeasured_work(work)),
        data_loaded=spent.data_loaded,
        weights_loaded=spent.weights_loaded,
        sequenced=spent.sequenced,
        accumulated=spent.accumulated,
        macs=work.macs if isinstance(work, Convolution) else 0,
    )


def cost_together(target: Target, memory: Memory, works: Sequence[Operation]) -> Cost:
    """Return the cost of operations of which each hands its results to the next: the longest, and the way out.

    Parameters
    ----------
    target, memory
        See `cost`.
    works : Sequence[Operation]
        What they do, in that order.
    """
    first, *behind = (cost(target, memory, work) for work in works)
    for other in behind:
        longer = max(first, other, key=lambda one: one.cycles)
        way = float(target.timing.pooling)
        first = replace(
            first,
            cycles=longer.cycles + way,
            bound=longer.bound,
            shares=longer.shares | {Bound.LATENCY: longer.shares[Bound.LATENCY] + way},
            traffic=first.traffic + other.traffic,
            extrapolated=tuple(dict.fromkeys((*first.extrapolated, *other.extrapolated))),
        )
    return first


def _at_once(shares: dict[Bound, float]) -> Spent:
    """Return what an operation without steps spends."""
    cycles = sum(shares.values())
    return Spent(shares, cycles, cycles, cycles, cycles)


@lru_cache(maxsize=64)
def unmeasured_setting(target: Target, memory: Memory) -> tuple[str, ...]:
    """Return why a setting is outside of what was measured: empty where it is not."""
    measured = next((found for known, found in MEASURED.items() if replace(known, name=target.name) == target), None)
    if measured is None:
        return (f"{target.name} was not measured",)
    return tuple(_outside(measured, memory, beat_bytes(target)))


def _outside(measured: Measured, memory: Memory, width: int) -> Iterator[str]:
    """Yield what of a memory is outside of what was measured, with an interface of `width` bytes."""
    least, most = measured.latencies
    for latency in sorted({memory.read_latency, memory.write_latency}):
        if not least <= latency <= most:
            yield f"a latency of {latency:g} cycles; measured: {least} to {most}"
    for rate in sorted({memory.read_bytes, memory.write_bytes}):
        if not measured.share * width <= rate <= width:
            yield f"{rate:g} bytes a cycle; measured: {measured.share * width:g} to {width}"
    if memory.shared and not measured.shared:
        yield "reads and writes that share their rate"
    if memory.outstanding is not None and (measured.outstanding is None or memory.outstanding < measured.outstanding):
        yield f"{memory.outstanding} reads under way"
    if memory.host_gap > measured.host_gap:
        yield f"{memory.host_gap} cycles between accesses to registers; measured: up to {measured.host_gap}"


def _unmeasured_work(work: Operation) -> tuple[str, ...]:
    """Return what an operation has that no measured one had."""
    match work:
        case Move():
            return ("copies were not measured",)
        case Convolution(unmeasured=found, element_bytes=width, behind=behind):
            reasons = [*found, *_wide(max(width, behind.element_bytes))]
            return (*reasons, *(("results that the PDP takes",) if not behind.output_bytes else ()))
        case Point(element_bytes=width, output_bytes=written):
            return (*_wide(width), *(("results that the PDP takes",) if not written else ()))
        case Planar(element_bytes=width):
            return _wide(width)


def _wide(element_bytes: int) -> tuple[str, ...]:
    return ("types of two bytes were not measured",) if element_bytes > 1 else ()
