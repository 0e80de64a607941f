"""Compiled loops: the machine code is cached where it can be, and works where it cannot."""

from typing import Any

import numba
import pytest

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
