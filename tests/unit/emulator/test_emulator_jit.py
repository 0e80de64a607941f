"""Compiled loops: the machine code is cached where it can be, and works where it cannot."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import pytest

from nvdla_quant.emulator import _jit
from nvdla_quant.emulator._jit import jit


def double(x: int) -> int:
    return x * 2


def test_without_a_place_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """numba raises RuntimeError where neither the package nor the user's cache folder can be written."""
    real = numba.njit

    def refuse(*args: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(*args, **options)

    monkeypatch.setattr(numba, "njit", refuse)
    assert jit(double)(21) == 42


@jit
def quadruple(x: int) -> int:
    return doubled(doubled(x))


@jit
def doubled(x: int) -> int:
    return x * 2


def test_a_compiled_function_calls_another() -> None:
    """By its global name, whether or not that was compiled before, and whichever stands first in the file."""
    assert quadruple(3) == 12
    assert doubled(3) == 6


def test_threads_share_what_was_compiled() -> None:
    made = jit(double)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(made, range(16)))
    assert results == [2 * x for x in range(16)]
    assert len({id(made.made()) for _ in range(4)}) == 1  # type: ignore[attr-defined]


def test_importing_a_kernel_does_not_import_numba() -> None:
    code = "import sys, nvdla_quant.emulator.run as run; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_code_of_other_sources_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """numba itself would take it: the file of the function is the same."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def found(sources: str) -> int:
        monkeypatch.setattr(_jit, "_sources", lambda: sources)
        made = jit(double)
        assert made(21) == 42
        return sum(made.made().stats.cache_hits.values())  # type: ignore[attr-defined]

    assert [found(sources) for sources in ("first", "first", "second", "second")] == [0, 1, 0, 1]


def test_every_source_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that is new, other bytes, another time: each is another digest, and the same files are the same one."""
    (tmp_path / "emulator").mkdir()
    monkeypatch.setattr(_jit, "__file__", str(tmp_path / "emulator" / "_jit.py"))
    source, seen = tmp_path / "emulator" / "tiles.py", []

    def look() -> None:
        seen.append(_jit._sources.__wrapped__())

    look()
    source.write_text("PIXELS = 4")
    look()
    look()
    os.utime(source, ns=(1, 1))
    look()
    source.write_text("PIXELS = 12")
    os.utime(source, ns=(1, 1))
    look()
    assert seen[1] == seen[2]
    assert len(set(seen)) == 4
