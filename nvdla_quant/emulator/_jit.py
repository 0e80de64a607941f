"""Compile the hot loops with numba, and keep what was compiled wherever this installation allows it."""

from collections.abc import Callable
from functools import cache, update_wrapper
from threading import Lock
from types import ModuleType
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])

_making = Lock()


def jit(function: _Function) -> _Function:
    """Compile `function` on its first call, without the interpreter lock.

    numba itself is imported then too: whoever only reads a loadable does not wait for it.

    numba keeps machine code beside the source or, where that is read-only, in the user's cache folder
    (``NUMBA_CACHE_DIR`` overrides both). Where neither can be written, it refuses to cache at all; then each
    process compiles anew, a few seconds, with the same results.
    """
    return cast(_Function, _Compiled(function))


class _Compiled:
    """A function that numba compiles when it is first called, from Python or from another compiled function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._dispatcher: Callable[..., Any] | None = None
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        return (self._dispatcher or self.dispatcher())(*arguments)

    def dispatcher(self) -> Callable[..., Any]:
        """Return numba's function, the same one in every thread."""
        with _making:
            if self._dispatcher is None:
                self._dispatcher = _dispatcher(_numba(), self._function)
            return self._dispatcher


@cache
def _numba() -> ModuleType:
    """Import numba, and tell it that a global of our kind is the compiled function behind it."""
    import numba
    from numba.extending import typeof_impl

    @typeof_impl.register(_Compiled)  # type: ignore[untyped-decorator]
    def _(value: _Compiled, context: Any) -> Any:
        return typeof_impl(value.dispatcher(), context)

    return cast(ModuleType, numba)


def _dispatcher(numba: ModuleType, function: Callable[..., Any]) -> Callable[..., Any]:
    options = {"nogil": True, "fastmath": False, "error_model": "numpy"}
    try:
        return cast(Callable[..., Any], numba.njit(cache=True, **options)(function))
    except RuntimeError:
        return cast(Callable[..., Any], numba.njit(**options)(function))
