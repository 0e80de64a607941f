"""Play a trace: its statements on the hardware's model, its checks against the memories.

Of a ``.cfg``, the statements of each unit are a stream of their own, as in NVIDIA's player; a stream waits at
``sync_wait`` and ``poll_reg_equal`` and the others go on. Here they are taken in the order of the file, which is one of
the orders that the player allows. A check starts with its event, wherever it stands.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import DEFAULT_LIMITS, Limits
from nvdla_quant.emulator.operations import Operation
from nvdla_quant.errors import MissingDataError, TraceError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.registers.device import Device, Interrupt
from nvdla_quant.registers.memory import PAGE, TraceMemory
from nvdla_quant.registers.traces.files import read_payload
from nvdla_quant.registers.traces.payload import Payload
from nvdla_quant.registers.traces.statements import (
    MEMORY_NAMES,
    PRIMARY,
    Await,
    CheckCrc,
    CheckFile,
    CheckNothing,
    Expect,
    Fill,
    Load,
    Notify,
    OnInterrupt,
    Read,
    Statement,
    Trace,
    WaitInterrupt,
    Write,
)


@dataclass(frozen=True)
class Check:
    """What became of a check.

    Attributes
    ----------
    line : int
        Its line in the trace.
    kind : str
        ``crc``, ``file``, ``register`` or ``dump`` (of memory, with nothing to compare it with).
    place : str
        What was compared.
    expected, found : str
        The two values; of files, how many bytes are equal.
    """

    line: int
    kind: str
    place: str
    expected: str
    found: str

    @property
    def holds(self) -> bool:
        """Whether it found what it expected."""
        return self.kind == "dump" or self.expected == self.found


@dataclass(frozen=True)
class Dump:
    """Memory that a trace dumps or compares with a file."""

    file: str
    content: NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True)
class Replay:
    """What became of a trace: each check, each memory dumped, how many operations ran, and what hardware ignores."""

    checks: tuple[Check, ...]
    dumps: tuple[Dump, ...]
    operations: int
    warnings: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every check found what it expected."""
        return all(check.holds for check in self.checks)


def replay(
    trace: Trace,
    target: Target,
    limits: Limits = DEFAULT_LIMITS,
    on_operation: Callable[[Operation], None] | None = None,
) -> Replay:
    """Play a trace on a target.

    Parameters
    ----------
    trace : Trace
        What `read_trace` returned.
    target : Target
        The hardware; that whose registers the trace was read with.
    limits : Limits
        How much the trace may ask for.
    on_operation : callable, optional
        Called with each operation that has run.

    Raises
    ------
    TraceError
        The trace asks for what the hardware does not do, or what it names is not there; names file and line.
    """
    return _Player(trace, target, limits, on_operation).play()


class _Counter:
    """Counts operations, and tells of them.

    Apart from the player: memories are gone with the player only where nothing that it has refers back to it.
    """

    def __init__(self, on_operation: Callable[[Operation], None] | None) -> None:
        self.operations = 0
        self._tell = on_operation

    def count(self, operation: Operation) -> None:
        self.operations += 1
        if self._tell is not None:
            self._tell(operation)


class _Player:
    """A trace that is played."""

    def __init__(
        self, trace: Trace, target: Target, limits: Limits, on_operation: Callable[[Operation], None] | None
    ) -> None:
        self._trace = trace
        self._most_bytes = limits.memory
        self._memory = TraceMemory(self._most_bytes)
        self._counter = _Counter(on_operation)
        self._device = Device(target, self._memory, limits, self._counter.count)
        self._checks: list[Check] = []
        self._dumps: list[Dump] = []
        self._dumped = 0
        self._happened: set[str] = set()
        self._blocked: dict[str, deque[Statement]] = {}
        self._interrupts = [one for one in trace.statements if isinstance(one, OnInterrupt)]
        self._behind: dict[str, list[Statement]] = {}

    def play(self) -> Replay:
        """Play all statements, and return what became of them."""
        try:
            if self._trace.streams:
                self._play_streams()
            else:
                self._play_in_order()
        except TraceError as error:
            place = "" if error.line is None else f":{error.line}"
            raise type(error)(f"{self._trace.path}{place}: {error}") from None
        checks = tuple(sorted(self._checks, key=lambda check: check.line))
        return Replay(checks, tuple(self._dumps), self._counter.operations, self._device.warnings)

    def _play_in_order(self) -> None:
        for statement in self._trace.statements:
            self._do(statement)
        while self._device.advance() is not None:
            pass
        self._expect_nothing_stuck()

    def _play_streams(self) -> None:
        streams = []
        for statement in self._trace.statements:
            match statement:
                case Fill(event=None) | Load(event=None):
                    self._do(statement)
                case Fill(event=str(event)) | Load(event=str(event)):
                    self._behind.setdefault(event, []).append(statement)
                case CheckCrc(event=event) | CheckNothing(event=event) | CheckFile(event=str(event)):
                    self._behind.setdefault(event, []).append(statement)
                case Write() | Read() | Expect() | Notify() | Await():
                    streams.append(statement)
        for statement in streams:
            self._offer(_unit_of(statement), statement)
            self._retry()
        self._device.settle()
        self._retry()
        while (interrupt := self._device.advance()) is not None:
            self._tell_of(interrupt)
            self._retry()
        self._expect_nothing_left()

    def _offer(self, unit: str, statement: Statement) -> None:
        """Do a statement of a unit's stream, or keep it where the stream waits."""
        if unit in self._blocked or not self._do(statement):
            self._blocked.setdefault(unit, deque()).append(statement)

    def _retry(self) -> None:
        """Go on with the streams that wait, as long as any can."""
        progress = bool(self._blocked)
        while progress:
            progress = False
            for unit in list(self._blocked):
                waiting = self._blocked[unit]
                while waiting and self._do(waiting[0]):
                    waiting.popleft()
                    progress = True
                if not waiting:
                    del self._blocked[unit]

    def _tell_of(self, interrupt: Interrupt) -> None:
        """Let happen what waits for an interrupt; NVIDIA's player then clears it."""
        if self._device.masked(interrupt):
            return
        for waiting in self._interrupts:
            if waiting.source is None or (waiting.source, waiting.group) == (interrupt.source, interrupt.group):
                self._interrupts.remove(waiting)
                self._device.clear(interrupt)
                self._happen(waiting.event)
                return

    def _happen(self, event: str) -> None:
        self._happened.add(event)
        for statement in self._behind.pop(event, ()):
            self._do(statement)

    def _do(self, statement: Statement) -> bool:
        """Do a statement; False where its stream has to wait, and nothing was done."""
        try:
            return self._done(statement)
        except TraceError as error:
            raise error.located(statement.line) from None

    def _done(self, statement: Statement) -> bool:
        match statement:
            case Write(line, register, value):
                self._device.write(register, value, line)
            case Expect(wait=True):
                return self._wait_for(statement)
            case Expect(line, register, mask, value):
                self._check_register(statement, self._device.read(register) & mask)
            case Read(_, register, event):
                self._device.read(register)
                self._happen(event)
            case Notify(_, _, event):
                self._happen(event)
            case Await(_, _, event):
                return event in self._happened
            case WaitInterrupt():
                self._wait_for_interrupt()
            case Fill(_, memory, address, size):
                self._memory.fill(memory, address, size)
            case Load():
                self._load(statement)
            case CheckCrc():
                self._check_crc(statement)
            case CheckFile():
                self._check_file(statement)
        return True

    def _wait_for(self, statement: Expect) -> bool:
        """Wait until a register holds what is expected: in a stream, later; else as long as anything runs."""
        while (found := self._device.read(statement.register) & statement.mask) != statement.value & statement.mask:
            if self._trace.streams:
                return False
            if not self._device.settle() and self._device.advance() is None:
                break
        if not self._trace.streams:
            self._check_register(statement, found)
        return True

    def _check_register(self, statement: Expect, found: int) -> None:
        expected = statement.value & statement.mask
        place = f"{statement.register} & {statement.mask:#x}"
        self._checks.append(Check(statement.line, "register", place, f"{expected:#x}", f"{found:#x}"))

    def _wait_for_interrupt(self) -> None:
        while not self._device.interrupted:
            if self._device.advance() is None:
                stuck = self._device.stuck()
                why = "nothing that runs raises one" if stuck is None else f"none comes: {stuck[1]}"
                raise TraceError(f"waits for an interrupt, and {why}")

    def _load(self, statement: Load) -> None:
        content = self._content(statement.file)
        if statement.size is not None:
            if content.end < statement.size:
                raise TraceError(f"{statement.file}: {content.end} bytes, expected {statement.size}")
            content = content.up_to(statement.size)
        _put(content, self._memory, statement.memory, statement.address)

    def _content(self, file: str) -> Payload:
        path = self._trace.path.parent / file
        if not path.is_file():
            raise MissingDataError(f"{file}: no such file beside the trace; the trace cannot be judged without it")
        return read_payload(path)

    def _check_crc(self, statement: CheckCrc) -> None:
        found = self._memory.crc(statement.memory, statement.address, statement.size)
        place = _place(statement)
        self._checks.append(Check(statement.line, "crc", place, f"{statement.crc:#010x}", f"{found:#010x}"))

    def _check_file(self, statement: CheckFile) -> None:
        content = self._dump(statement)
        path = self._trace.path.parent / statement.file
        if statement.event is None and not path.is_file():
            self._checks.append(Check(statement.line, "dump", _place(statement), "", statement.file))
            return
        expected = self._content(statement.file).up_to(statement.size)
        equal = _equal_bytes(expected, content, self._most_bytes)
        equals = f"{equal} equal bytes"
        self._checks.append(Check(statement.line, "file", _place(statement), f"{statement.size} equal bytes", equals))

    def _dump(self, statement: CheckFile) -> NDArray[np.uint8]:
        """Keep the bytes of a memory that a statement names, and return them."""
        self._dumped += statement.size
        if self._dumped > self._most_bytes:
            raise TraceError(
                f"{statement.file}: what the trace dumps has {self._dumped} bytes so far, the limit is "
                f"{self._most_bytes}; raise --max-memory"
            )
        content, _ = self._memory.read(statement.memory, statement.address, statement.size)
        self._dumps.append(Dump(statement.file, content))
        return content

    def _expect_nothing_left(self) -> None:
        """Refuse a trace that ends while something waits."""
        self._expect_nothing_stuck()
        for waiting in self._blocked.values():
            match waiting[0]:
                case Await(line, unit, event):
                    raise TraceError.at(line, f"{unit} waits for {event}, which never happens; it would hang")
                case Expect(line, register, _, value):
                    found = self._device.read(register)
                    raise TraceError.at(line, f"waits for {register} to be {value:#x}, which stays {found:#x}")
        for notice in self._interrupts:
            source = "any source" if notice.source is None else f"{notice.source}_{notice.group}"
            raise TraceError.at(
                notice.line, f"waits for an interrupt of {source}, which nothing raises, or which is masked"
            )
        for event, statements in self._behind.items():
            raise TraceError.at(statements[0].line, f"waits for {event}, which never happens")

    def _expect_nothing_stuck(self) -> None:
        stuck = self._device.stuck()
        if stuck is not None:
            raise TraceError.at(*stuck)


def _unit_of(statement: Statement) -> str:
    """Return the unit whose stream a statement belongs to."""
    match statement:
        case Write(register=register) | Read(register=register) | Expect(register=register):
            return register.unit
        case Notify(unit=unit) | Await(unit=unit):
            return unit
    raise AssertionError(f"{statement} belongs to no stream")


def _put(content: Payload, memory: TraceMemory, number: int, address: int) -> None:
    """Set what a file has of a memory."""
    for offset, run in content.runs:
        memory.write(number, address + offset, run)


def _equal_bytes(expected: Payload, found: NDArray[np.uint8], limit: int) -> int:
    """Return how many bytes of a memory are those of a file, as far as that goes; what it leaves out counts as 0."""
    wanted = TraceMemory(limit)
    _put(expected, wanted, PRIMARY, 0)
    parts = ((start, min(PAGE, expected.end - start)) for start in range(0, expected.end, PAGE))
    return sum(
        int(np.count_nonzero(wanted.read(PRIMARY, start, size)[0] == found[start : start + size]))
        for start, size in parts
    )


def _place(statement: CheckCrc | CheckFile) -> str:
    return f"{MEMORY_NAMES[statement.memory]} {statement.address:#x} +{statement.size:#x}"
