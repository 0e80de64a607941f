"""Contents of memories in files: ``.dat`` of NVIDIA's two kinds of traces.

Master's have ``{offset:0x0, size:4, payload:0x75 0x1d ...},`` lines in one pair of braces; nvdlav1's have a head of
other lines, then bytes (``0x..``), 32 to a line. Sources: nvdla/hw ``verif/vip/mem_model/mem_core.svh`` (master),
``verif/traces/traceplayer`` (nvdlav1).
"""

import re

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import TraceError

LINE_BYTES = 32
MOST_BYTES = 1 << 27
"""Most bytes of one file."""
_CHUNK = re.compile(r"\{\s*offset\s*:\s*(\w+)\s*,\s*size\s*:\s*(\w+)\s*,\s*payload\s*:([^{}]*)\}")


def parse_payload(text: str, name: str) -> NDArray[np.uint8]:
    """Return the bytes of a ``.dat`` file.

    Parameters
    ----------
    text : str
        The file.
    name : str
        Names the file in errors.

    Raises
    ------
    TraceError
        Not the format, or more than `MOST_BYTES`.
    """
    if len(text) > 16 * MOST_BYTES:
        raise TraceError(f"{name}: {len(text)} characters, expected at most {16 * MOST_BYTES}")
    return _chunks(text, name) if "{" in text else _plain(text, name)


def _chunks(text: str, name: str) -> NDArray[np.uint8]:
    parts = []
    end = 0
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip().rstrip(", \t")
        if bare in ("", "{", "}"):
            continue
        match = _CHUNK.fullmatch(bare)
        if match is None:
            raise TraceError(f"{name}:{number}: {bare[:60]!r}, expected {{offset:N, size:N, payload:0xNN ...}}")
        offset, size = (_number(text, name, number) for text in match.groups()[:2])
        content = _bytes(match[3], f"{name}:{number}")
        if len(content) != size:
            raise TraceError(f"{name}:{number}: {len(content)} bytes of payload, expected the size, {size}")
        end = max(end, offset + size)
        if end > MOST_BYTES:
            raise TraceError(f"{name}:{number}: ends at byte {end}, expected at most {MOST_BYTES}")
        parts.append((offset, content))
    whole = np.zeros(end, np.uint8)
    for offset, content in parts:
        whole[offset : offset + len(content)] = np.frombuffer(content, np.uint8)
    return whole


def _number(text: str, name: str, line: int) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise TraceError(f"{name}:{line}: {text!r} is no number") from None


def _bytes(text: str, where: str) -> bytes:
    try:
        return bytes(int(byte, 16) for byte in text.split())
    except ValueError:
        raise TraceError(f"{where}: {text.strip()[:40]!r}, expected bytes from 0x00 to 0xff") from None


def _plain(text: str, name: str) -> NDArray[np.uint8]:
    lines = [line for line in text.splitlines() if line.lstrip().startswith("0x")]
    content = b"".join(_bytes(line, name) for line in lines)
    if not content:
        raise TraceError(f"{name}: no bytes, expected lines of 0x.. or {{offset:N, size:N, payload:0x.. ...}}")
    return np.frombuffer(content, np.uint8)


def format_chunks(content: NDArray[np.uint8]) -> str:
    """Return bytes as a ``.dat`` file of master's traces."""
    lines = [
        f"{{offset:{start:#x}, size:{len(part)}, payload:{_spelled(part)}}},"
        for start in range(0, len(content), LINE_BYTES)
        for part in (content[start : start + LINE_BYTES],)
    ]
    return "\n".join(("{", *lines, "}", ""))


def format_plain(content: NDArray[np.uint8]) -> str:
    """Return bytes as a ``.dat`` file of nvdlav1's traces."""
    return "".join(f"{_spelled(content[start : start + LINE_BYTES])}\n" for start in range(0, len(content), LINE_BYTES))


def _spelled(part: NDArray[np.uint8]) -> str:
    return " ".join(f"{byte:#04x}" for byte in part.tolist())
