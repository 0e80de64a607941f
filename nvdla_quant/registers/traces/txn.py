"""Traces of nvdla/hw's branch nvdlav1: ``.txn``, a statement a line.

The low 16 bits of a register's address are its byte address divided by 4. What stands in DRAM and what in SRAM is told
by the address alone: the testbench has SRAM at 0x50000000 to 0x7fffffff, DRAM from 0x80000000 on.

Source: nvdla/hw ``verif/traces/traceplayer`` (nvdlav1).
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from nvdla_quant.errors import TraceError
from nvdla_quant.registers.map import RegisterMap, spelling
from nvdla_quant.registers.traces.statements import (
    PRIMARY,
    SECONDARY,
    CheckFile,
    Expect,
    Load,
    Remark,
    Statement,
    Trace,
    WaitInterrupt,
    Write,
)

SRAM, DRAM = 0x50000000, 0x80000000
CSB = 0xFFFF0000
"""What NVIDIA's traces have in the upper half of a register's address."""


def parse_txn(text: str, path: Path, registers: RegisterMap) -> Trace:
    """Parse a ``.txn``; see `parse_cfg`."""
    statements = []
    for line, content in enumerate(text.splitlines(), 1):
        words = content.partition("#")[0].split()
        if not words:
            continue
        try:
            statements.append(_parse(words, line, registers))
        except TraceError as error:
            raise type(error)(f"{path}:{line}: {error}") from None
    return Trace(path, tuple(statements), streams=False)


def _parse(words: list[str], line: int, registers: RegisterMap) -> Statement:
    name, *arguments = words
    if name not in _PARSERS:
        raise TraceError(f"{name[:40]}: unknown statement, expected one of {', '.join(_PARSERS)}")
    count, parser = _PARSERS[name]
    if len(arguments) != count:
        raise TraceError(f"{name}: {len(arguments)} arguments, expected {count}")
    return parser(line, arguments, registers)


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise TraceError(f"{text[:40]!r} is no number") from None
    if not 0 <= value < 1 << 32:
        raise TraceError(f"{text[:40]}: expected 32 bits")
    return value


def _write(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    address, value = map(_number, arguments)
    return Write(line, registers.at((address & 0xFFFF) * 4), value)


def _read(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    address, mask, value = map(_number, arguments)
    return Expect(line, registers.at((address & 0xFFFF) * 4), mask, value & mask, wait=True)


def _place(arguments: list[str]) -> tuple[int, int, int, str]:
    address, size, file = _number(arguments[0]), _number(arguments[1]), arguments[2]
    if "/" in file or "\\" in file or file in (".", ".."):
        raise TraceError(f"file {file[:60]!r}: expected the name of a file beside the trace")
    return SECONDARY if SRAM <= address < DRAM else PRIMARY, address, size, file


def _load(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    memory, address, size, file = _place(arguments)
    return Load(line, memory, address, file, size)


def _dump(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    return CheckFile(line, None, *_place(arguments))


def _wait(line: int, arguments: list[str], registers: RegisterMap) -> Statement:
    return WaitInterrupt(line)


_PARSERS: dict[str, tuple[int, Callable[[int, list[str], RegisterMap], Statement]]] = {
    "write_reg": (2, _write),
    "read_reg": (3, _read),
    "load_mem": (3, _load),
    "dump_mem": (3, _dump),
    "wait": (0, _wait),
}


def format_txn(statements: Iterable[Statement], registers: RegisterMap) -> str:
    """Return statements as the text of a ``.txn``; their lines are not looked at."""
    return "".join(f"{_spell(statement, registers)}\n" for statement in statements)


def _spell(statement: Statement, registers: RegisterMap) -> str:
    match statement:
        case Write(_, register, value):
            return f"write_reg {CSB | registers.address(register) // 4:#x} {value:#x} #{spelling(register)}"
        case Expect(_, register, mask, value, True):
            address = CSB | registers.address(register) // 4
            return f"read_reg {address:#x} {mask:#x} {value:#x} #{spelling(register)}"
        case Load(_, _, address, file, int(size), None):
            return f"load_mem {address:#x} {size:#x} {file}"
        case CheckFile(_, None, _, address, size, file):
            return f"dump_mem {address:#x} {size:#x} {file}"
        case WaitInterrupt():
            return "wait"
        case Remark(_, text):
            return f"# {text}"
    raise TraceError(f"{type(statement).__name__}: a .txn has no such statement")
