"""Traces of nvdla/hw's branch master: ``.cfg``, statements of the form ``name(argument, ...);``.

Source: nvdla/hw ``verif/tools/nvdla_trace_parser.py`` (grammar), ``verif/testbench/trace_player`` (meaning).
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from nvdla_quant.errors import MissingUnitError, TraceError
from nvdla_quant.registers.map import PREFIX, RegisterMap, spelling
from nvdla_quant.registers.traces.statements import (
    INTERRUPTS,
    MEMORIES,
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
    Remark,
    Statement,
    Trace,
    Write,
)

_STATEMENT = re.compile(r"(\w+)\s*\(([^()]*)\)\s*;\s*(?://.*)?")
_NAME = re.compile(r"[\w.]+")
_FILE = re.compile(r'"([^"/\\]+)"')
MOST_FILL = 1 << 40
_INTERRUPT_NAMES = {"RBK": "RUBIK"}


def parse_cfg(text: str, path: Path, registers: RegisterMap) -> Trace:
    """Parse a ``.cfg``.

    Parameters
    ----------
    text : str
        The file.
    path : Path
        Where it stands.
    registers : RegisterMap
        What the target has.

    Raises
    ------
    TraceError
        Not the format, or a register outside the map; names file and line.
    """
    statements: list[Statement] = []
    for line, content in enumerate(text.splitlines(), 1):
        bare = content.strip()
        if not bare or bare.startswith("//"):
            continue
        try:
            statement = _parse(bare, line, registers)
        except TraceError as error:
            raise type(error)(f"{path}:{line}: {error}") from None
        if statement is not None:
            statements.append(statement)
    return Trace(path, tuple(statements), streams=True)


def _parse(text: str, line: int, registers: RegisterMap) -> Statement | None:
    match = _STATEMENT.fullmatch(text)
    if match is None:
        raise TraceError(f"{text[:60]!r}: expected name(argument, ...);")
    name = match[1]
    arguments = [argument.strip() for argument in match[2].split(",")]
    if name not in _PARSERS:
        raise TraceError(f"{name}: unknown statement, expected one of {', '.join(_PARSERS)}")
    counts, parser = _PARSERS[name]
    if len(arguments) not in counts:
        raise TraceError(f"{name}: {len(arguments)} arguments, expected {' or '.join(map(str, counts))}")
    return parser(line, arguments, registers)


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise TraceError(f"{text[:40]!r} is no number") from None


def _value(text: str) -> int:
    value = _number(text)
    if not 0 <= value < 1 << 32:
        raise TraceError(f"value {text}: expected 32 bits")
    return value


def _range(address: str, size: str) -> tuple[int, int]:
    start, count = _number(address), _number(size)
    if start < 0 or not 0 <= count <= MOST_FILL:
        raise TraceError(f"address {address}, size {size}: expected no negative numbers, and at most {MOST_FILL} bytes")
    return start, count


def _word(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise TraceError(f"{text[:40]!r}: expected a name")
    return text


def _memory(text: str) -> int:
    # Some of NVIDIA's checks call the primary memory 1.
    if text == "1":
        return PRIMARY
    if text.lower() not in MEMORIES:
        raise TraceError(f"memory {text[:40]!r}: expected {' or '.join(MEMORIES)}")
    return MEMORIES[text.lower()]


def _file(text: str) -> str:
    match = _FILE.fullmatch(text)
    if match is None or match[1] in (".", ".."):
        raise TraceError(f"file {text[:60]}: expected the name, in quotes, of a file beside the trace")
    return match[1]


def _unit(text: str, registers: RegisterMap) -> str:
    unit = text.removeprefix(PREFIX)
    if unit not in registers.units:
        raise MissingUnitError(f"unit {text[:40]}: outside the register map, which has {', '.join(registers.units)}")
    return unit


def _write(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    return Write(line, registers.spelled(arguments[0]), _value(arguments[1]))


def _read(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    return Read(line, registers.spelled(arguments[0]), _word(arguments[1]))


def _expect(wait: bool) -> "Callable[[int, list[str], RegisterMap], Statement]":
    def parse(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
        return Expect(line, registers.spelled(arguments[0]), 0xFFFFFFFF, _value(arguments[1]), wait)

    return parse


def _fill(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    memory, *others = arguments
    address, size, pattern = others[:3]
    if pattern != "ALL_ZERO":
        raise TraceError(f"pattern {pattern[:40]}: expected ALL_ZERO; what others hold only a simulator knows")
    return Fill(line, _memory(memory), *_range(address, size), _word(others[3]) if len(others) > 3 else None)


def _load(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    memory, address, file, *event = arguments
    start, _ = _range(address, "0")
    return Load(line, _memory(memory), start, _file(file), event=_word(event[0]) if event else None)


def _reserve(line: int, arguments: list[str], registers: RegisterMap) -> None:
    """Check what only a simulator's allocation of memory needs."""
    _memory(arguments[0])
    _range(arguments[1], "0")


def _notify(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    return Notify(line, _unit(arguments[0], registers), _word(arguments[1]))


def _await(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    return Await(line, _unit(arguments[0], registers), _word(arguments[1]))


def _interrupt(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    if len(arguments) == 1:
        return OnInterrupt(line, None, 0, _word(arguments[0]))
    source, _, group = arguments[0].upper().rpartition("_")
    source = _INTERRUPT_NAMES.get(source, source)
    if source not in INTERRUPTS or group not in ("0", "1"):
        raise TraceError(f"interrupt {arguments[0][:40]}: expected {', '.join(INTERRUPTS)}, then _0 or _1")
    return OnInterrupt(line, source, int(group), _word(arguments[1]))


def _check_crc(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    event, memory, address, size, crc = arguments
    return CheckCrc(line, _word(event), _memory(memory), *_range(address, size), _value(crc))


def _check_file(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    event, memory, address, size, file = arguments
    return CheckFile(line, _word(event), _memory(memory), *_range(address, size), _file(file))


def _check_nothing(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    return CheckNothing(line, _word(arguments[0]))


_Parser = Callable[[int, list[str], RegisterMap], Statement | None]
_PARSERS: dict[str, tuple[tuple[int, ...], _Parser]] = {
    "reg_write": ((2,), _write),
    "reg_read": ((2,), _read),
    "reg_read_check": ((2,), _expect(wait=False)),
    "poll_reg_equal": ((2,), _expect(wait=True)),
    "mem_init": ((4, 5), _fill),
    "mem_load": ((3, 4), _load),
    "mem_reserve": ((3, 4), _reserve),
    "mem_release": ((3,), _reserve),
    "sync_notify": ((2,), _notify),
    "sync_wait": ((2,), _await),
    "intr_notify": ((1, 2), _interrupt),
    "check_crc": ((5,), _check_crc),
    "check_file": ((5,), _check_file),
    "check_nothing": ((1,), _check_nothing),
}


def format_cfg(statements: Iterable[Statement]) -> str:
    """Return statements as the text of a ``.cfg``; their lines are not looked at."""
    return "".join(
        f"// {statement.text}\n" if isinstance(statement, Remark) else f"{_spell(statement)};\n"
        for statement in statements
    )


def _spell(statement: Statement) -> str:
    match statement:
        case Write(_, register, value):
            return f"reg_write({spelling(register)}, {value:#x})"
        case Read(_, register, event):
            return f"reg_read({spelling(register)}, {event})"
        case Expect(_, register, _, value, wait):
            return f"{'poll_reg_equal' if wait else 'reg_read_check'}({spelling(register)}, {value:#x})"
        case Fill(_, memory, address, size, event):
            behind = "" if event is None else f", {event}"
            return f"mem_init({MEMORY_NAMES[memory]}, {address:#x}, {size:#x}, ALL_ZERO{behind})"
        case Load(_, memory, address, file, _, event):
            behind = "" if event is None else f", {event}"
            return f'mem_load({MEMORY_NAMES[memory]}, {address:#x}, "{file}"{behind})'
        case Notify(_, unit, event):
            return f"sync_notify({PREFIX}{unit}, {event})"
        case Await(_, unit, event):
            return f"sync_wait({PREFIX}{unit}, {event})"
        case OnInterrupt(_, source, group, event):
            return f"intr_notify({event})" if source is None else f"intr_notify({source}_{group}, {event})"
        case CheckCrc(_, event, memory, address, size, crc):
            return f"check_crc({event}, {MEMORY_NAMES[memory]}, {address:#x}, {size:#x}, {crc:#x})"
        case CheckFile(_, str(event), memory, address, size, file):
            return f'check_file({event}, {MEMORY_NAMES[memory]}, {address:#x}, {size:#x}, "{file}")'
        case CheckNothing(_, event):
            return f"check_nothing({event})"
    raise TraceError(f"{type(statement).__name__}: a .cfg has no such statement")
