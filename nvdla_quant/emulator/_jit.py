"""Compile the hot loops with numba, and keep what was compiled wherever this installation allows it."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def jit(function: _Function) -> _Function:
    """Compile `function` on its first call, without the interpreter lock.

    numba keeps machine code beside the source or, where that is read-only, in the user's cache folder
    (``NUMBA_CACHE_DIR`` overrides both). Where neither can be written, it refuses to cache at all; then each
    process compiles anew, a few seconds, with the same results.
    """
    options = {"nogil": True, "fastmath": False, "error_model": "numpy"}
    try:
        compiled: _Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        compiled = numba.njit(**options)(function)
    return compiled
