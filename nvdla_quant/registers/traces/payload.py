"""Contents of memories in files: ``.dat`` of NVIDIA's two kinds of traces.

Master's have ``{offset:0x0, size:4, payload:0x75 0x1d ...},`` lines in one pair of braces; nvdlav1's have a head of
other lines, then bytes (``0x..``), 32 to a line. Sources: nvdla/hw ``verif/vip/mem_model/mem_core.svh`` (master),
``verif/traces/traceplayer`` (nvdlav1).
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import TraceError
from nvdla_quant.registers.memory import ADDRESS_BITS

LINE_BYTES = 32
MOST_CHARACTERS = 1 << 31
"""Most characters of one file: some 400 MB of memory."""
_CHUNK = re.compile(r"\{\s*offset\s*:\s*(\w+)\s*,\s*size\s*:\s*(\w+)\s*,\s*payload\s*:([^{}]*)\}")


@dataclass(frozen=True, eq=False)
class Payload:
    """What a file puts into a memory: runs of bytes, (offset, bytes), in its order; between them it says nothing.

    A few lines may name places that are as far apart as a memory is large, so bytes in between are not kept.
    """

    runs: tuple[tuple[int, NDArray[np.uint8]], ...]

    @property
    def end(self) -> int:
        """First byte behind the last run."""
        return max((offset + len(content) for offset, content in self.runs), default=0)

    def up_to(self, size: int) -> "Payload":
        """Return its first `size` bytes."""
        return Payload(tuple((offset, content[: size - offset]) for offset, content in self.runs if offset < size))


def parse_payload(text: str, name: str) -> Payload:
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
        Not the format, more than `MOST_CHARACTERS`, or addresses of more than `ADDRESS_BITS`.
    """
    if len(text) > MOST_CHARACTERS:
        raise TraceError(f"{name}: {len(text)} characters, expected at most {MOST_CHARACTERS}")
    return _chunks(text, name) if "{" in text else _plain(text, name)


def _chunks(text: str, name: str) -> Payload:
    runs: list[tuple[int, bytearray]] = []
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
        if offset + size > 1 << ADDRESS_BITS:
            raise TraceError(f"{name}:{number}: ends at byte {offset + size}, expected at most {1 << ADDRESS_BITS}")
        if runs and offset == runs[-1][0] + len(runs[-1][1]):
            runs[-1][1].extend(content)
        else:
            runs.append((offset, bytearray(content)))
    return Payload(tuple((offset, np.frombuffer(content, np.uint8)) for offset, content in runs))


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


def _plain(text: str, name: str) -> Payload:
    lines = [line for line in text.splitlines() if line.lstrip().startswith("0x")]
    content = b"".join(_bytes(line, name) for line in lines)
    if not content:
        raise TraceError(f"{name}: no bytes, expected lines of 0x.. or {{offset:N, size:N, payload:0x.. ...}}")
    return Payload(((0, np.frombuffer(content, np.uint8)),))


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
