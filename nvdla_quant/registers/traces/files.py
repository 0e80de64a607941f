"""Reading traces and their memory images."""

from collections.abc import Iterator
from pathlib import Path

from nvdla_quant.errors import TraceError
from nvdla_quant.registers.map import RegisterMap
from nvdla_quant.registers.traces.cfg import parse_cfg
from nvdla_quant.registers.traces.payload import Payload, parse_payload
from nvdla_quant.registers.traces.statements import Trace
from nvdla_quant.registers.traces.txn import parse_txn

PARSERS = {".cfg": parse_cfg, ".txn": parse_txn}
"""Formats by the ends of files' names."""


def read_trace(path: Path, registers: RegisterMap) -> Trace:
    """Read a trace.

    Raises
    ------
    TraceError
        Neither format, or malformed.
    """
    if path.suffix not in PARSERS:
        raise TraceError(f"{path}: ends in {path.suffix!r}, expected {' or '.join(PARSERS)}")
    return PARSERS[path.suffix](_text(path), path, registers)


def read_payload(path: Path) -> Payload:
    """Read the bytes of a ``.dat`` file."""
    return parse_payload(_text(path), str(path))


def traces_in(folder: Path) -> Iterator[Path]:
    """Yield the traces below a folder, in the order of their names."""
    yield from sorted(path for path in folder.rglob("*") if path.suffix in PARSERS and path.is_file())


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read()
