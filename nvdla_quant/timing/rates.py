"""What memory and the core's interface to it give."""

from nvdla_quant.hardware.targets import Target
from nvdla_quant.timing.memory import Memory, beat_bytes


def beats(target: Target, count: float) -> float:
    """Beats of the core's interface that `count` bytes take."""
    return count / beat_bytes(target)


def read_rate(target: Target, memory: Memory) -> float:
    """Beats a cycle that are read at most: the interface's one, the memory's, and those of all reads under way."""
    timing = target.timing
    outstanding = min(timing.most_outstanding, memory.outstanding or timing.most_outstanding)
    under_way = outstanding / (memory.read_latency + timing.outstanding)
    return min(1.0, memory.read_bytes / beat_bytes(target), under_way)


def write_rate(target: Target, memory: Memory) -> float:
    """Beats a cycle that are written at most."""
    return min(1.0, memory.write_bytes / beat_bytes(target))


def queue(target: Target, values: int) -> int:
    """Entries of the queue of a unit that reads `values` values a cycle.

    Source: nvdla/hw, branch master, ``spec/defs/projects.spec``, ``NVDLA_VMOD_..._LATENCY_FIFO_DEPTH``.
    """
    interface = target.memory.bits // 8
    widest = max(interface, target.secondary.bits // 8 if target.secondary else 0, target.feature_atom_bytes)
    used = min(values, interface // 4)
    return max(4, -(-target.memory.latency * used // widest))


def operand_queue(target: Target) -> int:
    """Entries of the SDP's queue of operands: two bytes for each of alu and multiplier."""
    return queue(target, 4 * target.rates.x1)
