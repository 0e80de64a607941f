"""The memories of a trace: sparse, each byte given by the trace, written by an operation, or neither."""

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import TraceError

PAGE = 1 << 14
ADDRESS_BITS = 40
"""Largest memory of any configuration (nvdla/hw ``spec/defs``, ``MEM_ADDRESS_WIDTH``: 32 or 64; buses have 40)."""
MOST_BYTES = 1 << 30


class TraceMemory:
    """Sparse memories.

    Parameters
    ----------
    limit : int
        Most bytes that may be given or written.
    """

    def __init__(self, limit: int = MOST_BYTES) -> None:
        self._pages: dict[tuple[int, int], tuple[NDArray[np.uint8], NDArray[np.bool_]]] = {}
        self._limit = limit

    def fill(self, memory: int, address: int, size: int) -> None:
        """Set bytes to 0."""
        self._check(address, size)
        nothing = np.zeros(PAGE, np.uint8)
        for start in range(0, size, PAGE):
            self.write(memory, address + start, nothing[: min(PAGE, size - start)])

    def write(
        self, memory: int, address: int, content: NDArray[np.uint8], given: NDArray[np.bool_] | None = None
    ) -> None:
        """Set bytes from `address` on; of `given` (default: all of them), whether each one is given from now on."""
        self._check(address, len(content))
        for page, inside, outside in _pieces(address, len(content)):
            key = memory, page
            if key not in self._pages:
                if (len(self._pages) + 1) * PAGE > self._limit:
                    raise TraceError(f"the trace uses more than {self._limit} bytes of memory; raise --max-memory")
                self._pages[key] = np.zeros(PAGE, np.uint8), np.zeros(PAGE, np.bool_)
            held, known = self._pages[key]
            held[inside] = content[outside]
            known[inside] = True if given is None else given[outside]

    def read(self, memory: int, address: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return copies of bytes, 0 where nothing set them, and whether each one is given."""
        self._check(address, size)
        content, given = np.zeros(size, np.uint8), np.zeros(size, np.bool_)
        for page, inside, outside in _pieces(address, size):
            if (memory, page) in self._pages:
                content[outside], given[outside] = (part[inside] for part in self._pages[memory, page])
        return content, given

    def crc(self, memory: int, address: int, size: int) -> int:
        """Return the CRC-32 of bytes, a page at a time: a trace may ask for that of any number."""
        self._check(address, size)
        found = 0
        for start in range(0, size, PAGE):
            content, _ = self.read(memory, address + start, min(PAGE, size - start))
            found = zlib.crc32(content.tobytes(), found)
        return found

    def _check(self, address: int, size: int) -> None:
        if address < 0 or address + size > 1 << ADDRESS_BITS:
            raise TraceError(f"bytes {address:#x} to {address + size:#x}: expected addresses of {ADDRESS_BITS} bits")
        if size > self._limit:
            raise TraceError(f"{size} bytes at {address:#x}: the limit is {self._limit}; raise --max-memory")


def _pieces(address: int, size: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield (page, bytes of it, bytes of the range) of a range of addresses."""
    end = address + size
    for page in range(address // PAGE, -(-end // PAGE)):
        start, stop = max(address, page * PAGE), min(end, (page + 1) * PAGE)
        yield page, slice(start - page * PAGE, stop - page * PAGE), slice(start - address, stop - address)
