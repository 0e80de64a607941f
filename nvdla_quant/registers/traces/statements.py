"""What a trace consists of: typed statements, each with its line in the file."""

from dataclasses import dataclass
from pathlib import Path

from nvdla_quant.registers.map import Register

PRIMARY, SECONDARY = 0, 1
"""The two memories: DRAM behind MCIF, SRAM behind CVIF."""
MEMORIES = {"pri_mem": PRIMARY, "sec_mem": SECONDARY}
MEMORY_NAMES = {memory: name for name, memory in MEMORIES.items()}
INTERRUPTS = ("SDP", "CDP", "PDP", "BDMA", "RUBIK", "CDMA_DAT", "CDMA_WT", "CACC")
"""What raises interrupts, one for each of its groups."""


@dataclass(frozen=True)
class Statement:
    """A statement, at `line` of its trace."""

    line: int


@dataclass(frozen=True)
class Write(Statement):
    """Write `value` to a register."""

    register: Register
    value: int


@dataclass(frozen=True)
class Expect(Statement):
    """Read a register until its bits in `mask` are those of `value`, or, where it does not `wait`, once."""

    register: Register
    mask: int
    value: int
    wait: bool


@dataclass(frozen=True)
class Read(Statement):
    """Read a register, whatever it holds; then `event` has happened."""

    register: Register
    event: str


@dataclass(frozen=True)
class Fill(Statement):
    """Set `size` bytes of a memory to 0, at the beginning or behind an event."""

    memory: int
    address: int
    size: int
    event: str | None = None


@dataclass(frozen=True)
class Load(Statement):
    """Put the bytes of a file into a memory, at the beginning or behind an event; `size`: how many it must have."""

    memory: int
    address: int
    file: str
    size: int | None = None
    event: str | None = None


@dataclass(frozen=True)
class Notify(Statement):
    """Let `event` happen once the statements of `unit` before this one are done."""

    unit: str
    event: str


@dataclass(frozen=True)
class Await(Statement):
    """Let the statements of `unit` behind this one wait for `event`."""

    unit: str
    event: str


@dataclass(frozen=True)
class OnInterrupt(Statement):
    """Let `event` happen with the next interrupt of group `group` of `source`; None: with the next of any."""

    source: str | None
    group: int
    event: str


@dataclass(frozen=True)
class WaitInterrupt(Statement):
    """Let all that follows wait for an interrupt."""


@dataclass(frozen=True)
class CheckCrc(Statement):
    """Compare the CRC-32 of `size` bytes of a memory once `event` has happened."""

    event: str
    memory: int
    address: int
    size: int
    crc: int


@dataclass(frozen=True)
class CheckFile(Statement):
    """Compare `size` bytes of a memory with those of a file once `event` has happened, or (None) here.

    A trace that dumps its memory has the expected bytes in a file of the dump's name, or no such file.
    """

    event: str | None
    memory: int
    address: int
    size: int
    file: str


@dataclass(frozen=True)
class CheckNothing(Statement):
    """Demand that `event` happens."""

    event: str


@dataclass(frozen=True)
class Remark(Statement):
    """What the statements behind do, for people: a trace that is read has none."""

    text: str


@dataclass(frozen=True)
class Trace:
    """A trace.

    Attributes
    ----------
    path : Path
        Its file; the files that it names stand beside it.
    statements : tuple[Statement, ...]
        In the order of the file.
    streams : bool
        Whether the statements of different units run beside each other (``.cfg``), memory is filled before all else,
        and checks start with their events.
    """

    path: Path
    statements: tuple[Statement, ...]
    streams: bool
