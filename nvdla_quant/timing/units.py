"""What operations of the other units cost, on data in memory."""

from nvdla_quant.hardware.targets import Target
from nvdla_quant.timing.memory import Memory
from nvdla_quant.timing.rates import beats, queue, read_rate, write_rate
from nvdla_quant.timing.records import Bound, Move, Planar, Point, Traffic
from nvdla_quant.timing.sequence import throughput


def point_shares(target: Target, memory: Memory, work: Point) -> dict[Bound, float]:
    """Return the cycles of an operation of the SDP by what they are spent on."""
    values = target.rates.y if work.uses_y else throughput(target)
    return _streamed(target, memory, work.traffic, work.values, values, throughput(target), target.timing.point)


def planar_shares(target: Target, memory: Memory, work: Planar) -> dict[Bound, float]:
    """Return the cycles of an operation of the PDP or the CDP by what they are spent on."""
    timing = target.timing
    if work.pools:
        values, more = target.rates.pooling, timing.pooling
    else:
        values = target.rates.normalisation
        more = timing.normalisation + timing.normalisation_atoms // target.feature_atom_bytes
    return _streamed(target, memory, work.traffic, work.values, values, values, more)


def move_shares(target: Target, memory: Memory, work: Move) -> dict[Bound, float]:
    """Return the cycles of a copy: those of the memory, and its latencies."""
    moved = _memory_cycles(target, memory, work.traffic)
    return dict.fromkeys(Bound, 0.0) | {
        Bound.DATA: moved,
        Bound.LATENCY: float(memory.read_latency + memory.write_latency + target.timing.pooling),
    }


def _streamed(
    target: Target, memory: Memory, traffic: Traffic, values: int, rate: int, queued: int, more: int
) -> dict[Bound, float]:
    """Return the cycles of a unit that takes `rate` values a cycle, behind a queue for `queued` of them."""
    timing = target.timing
    atoms = beats(target, traffic.data)
    computed = values / rate
    awaited = atoms * (memory.read_latency + timing.queue_latency) / queue(target, queued)
    moved = _memory_cycles(target, memory, traffic)
    # The last value that waits in a queue leaves before the answer to what was written has come.
    last = min(float(timing.queue_done), memory.write_latency)
    ways = {
        Bound.OUTPUT: (computed, memory.write_latency),
        Bound.LATENCY: (awaited, last),
        Bound.DATA: (moved, memory.write_latency),
    }
    bound = max(ways, key=lambda way: sum(ways[way]))
    cycles, behind = ways[bound]
    found = dict.fromkeys(Bound, 0.0)
    found[bound] += cycles
    found[Bound.LATENCY] += memory.read_latency + behind + more
    return found


def _memory_cycles(target: Target, memory: Memory, traffic: Traffic) -> float:
    """Cycles in which memory gives what is read and takes what is written."""
    read = beats(target, traffic.read) / read_rate(target, memory)
    written = beats(target, traffic.output) / write_rate(target, memory)
    return read + written if memory.shared else max(read, written)
