"""The memory and the host that a network is estimated with."""

from dataclasses import dataclass

from nvdla_quant.hardware.targets import Target

DEFAULT_LATENCY = 40
"""Cycles from an address to its data where the user states none: what most of the measurements were made with."""
DEFAULT_CLOCK = 1e9
"""Hertz where the user states none: NVIDIA's own estimates have it (nvdla/hw ``perf``)."""


@dataclass(frozen=True)
class Memory:
    """Memory behind the core's interface, and the processor that writes its registers.

    Attributes
    ----------
    read_latency, write_latency : float
        Cycles from an address to its data; from the last data to the answer.
    read_bytes, write_bytes : float
        Bytes a cycle, each way; the core takes as many as its interface is wide.
    shared : bool
        Whether reads and writes share `read_bytes`.
    outstanding : int or None
        Most reads under way; None: as many as the core asks for.
    clock : float
        Hertz.
    host_gap : int
        Idle cycles of the processor behind each access to a register.
    """

    read_latency: float
    write_latency: float
    read_bytes: float
    write_bytes: float
    shared: bool = False
    outstanding: int | None = None
    clock: float = DEFAULT_CLOCK
    host_gap: int = 0

    def seconds(self, cycles: float) -> float:
        """How long `cycles` take."""
        return cycles / self.clock


def memory_of(
    target: Target,
    *,
    latency: float = DEFAULT_LATENCY,
    bandwidth: float | None = None,
    clock: float = DEFAULT_CLOCK,
    host_gap: int = 0,
    shared: bool = False,
    outstanding: int | None = None,
) -> Memory:
    """Return a memory that is alike both ways.

    Parameters
    ----------
    target : Target
        The hardware.
    latency : float
        Cycles.
    bandwidth : float, optional
        Bytes a cycle; as many as the target's interface is wide if not given.
    clock, host_gap, shared, outstanding
        See `Memory`.
    """
    each = float(beat_bytes(target)) if bandwidth is None else bandwidth
    return Memory(latency, latency, each, each, shared, outstanding, clock, host_gap)


def beat_bytes(target: Target) -> int:
    """Bytes that the core's interface to memory takes in a cycle."""
    return target.memory.bits // 8
