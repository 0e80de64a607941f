"""Compile the hot loops with numba, and keep what was compiled wherever this installation allows it."""

from collections.abc import Callable
from functools import cache, update_wrapper
from hashlib import sha256
from pathlib import Path
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
    process compiles anew, a few seconds, with the same results. What was compiled from other sources than today's
    is never taken, see `_sources`.
    """
    return cast(_Function, _Compiled(function))


def instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make of `function` an instruction for compiled functions: what numba calls an intrinsic.

    `function` takes the types of the arguments, those of numbers with their values, and returns the signature and what
    writes LLVM's code. Compiled functions alone may call the result.
    """
    return cast(Callable[..., Any], _Instruction(function))


_ROOMS = ("calibration", "emulator", "execution", "quantization", "verification/measures")
"""Folders of the package with compiled functions, and with what these take from other modules."""


@cache
def _sources() -> str:
    """Return what changes with every source of compiled functions.

    numba looks at a function's own file alone: after an update it would go on with the code of functions of other files
    that were compiled into this one, or fail where an argument's class is no longer there.
    """
    package = Path(__file__).resolve().parents[1]
    files = sorted(path for room in _ROOMS for path in (package / room).rglob("*.py"))
    seen = [(str(path.relative_to(package)), path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    return sha256(repr(seen).encode()).hexdigest()


@cache
def processor_features() -> frozenset[str]:
    """Return what the processor has that functions are compiled for, as LLVM names it."""
    _numba()
    from numba.core.registry import cpu_target

    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return frozenset(feature.removeprefix("+") for feature in features.split(",") if feature.startswith("+"))


class _Later:
    """What becomes numba's object when it is first needed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._made: Callable[..., Any] | None = None
        update_wrapper(cast(Callable[..., Any], self), function)

    def made(self) -> Callable[..., Any]:
        """Return numba's object, the same one in every thread."""
        with _making:
            if self._made is None:
                self._made = self._make(_numba())
            return self._made

    def _make(self, numba: ModuleType) -> Callable[..., Any]:
        raise NotImplementedError


class _Compiled(_Later):
    """A function that numba compiles when it is first called, from Python or from another compiled function."""

    def __call__(self, *arguments: Any) -> Any:
        return (self._made or self.made())(*arguments)

    def _make(self, numba: ModuleType) -> Callable[..., Any]:
        options = {"nogil": True, "fastmath": False, "error_model": "numpy"}
        try:
            made = numba.njit(cache=True, **options)(self._function)
        except RuntimeError:
            return cast(Callable[..., Any], numba.njit(**options)(self._function))
        # The version of an index of another version is all that numba reads of it.
        index = made._cache._cache_file
        index._version = f"{index._version} {_sources()}"
        return cast(Callable[..., Any], made)


class _Instruction(_Later):
    """Code that is put where a compiled function calls it."""

    def _make(self, numba: ModuleType) -> Callable[..., Any]:
        from numba.extending import intrinsic

        return cast(Callable[..., Any], intrinsic(prefer_literal=True)(self._function))


@cache
def _numba() -> ModuleType:
    """Import numba, and tell it that a global of our kind is its own object behind that."""
    import numba
    from numba.core.registry import cpu_target
    from numba.extending import typeof_impl

    @typeof_impl.register(_Compiled)  # type: ignore[untyped-decorator]
    def _(value: _Compiled, context: Any) -> Any:
        return typeof_impl(value.made(), context)

    @typeof_impl.register(_Instruction)  # type: ignore[untyped-decorator]
    def _(value: _Instruction, _: Any) -> Any:
        made = value.made()
        cpu_target.typing_context.refresh()  # It may have been made since.
        return cpu_target.typing_context.resolve_value_type(made)

    return cast(ModuleType, numba)
