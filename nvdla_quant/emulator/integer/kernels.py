"""How int8 convolutions are computed on this processor: chosen once a process, by what is exact and fastest.

All ways give the same integers; a short check of the largest products says so before one is taken. None is named in any
artefact: the log of a job says which it was.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._instructions import Dots, Pairs256, Vnni256, Vnni512
from nvdla_quant.emulator._jit import processor_features
from nvdla_quant.emulator.integer.dots import multiplier
from nvdla_quant.errors import EmulationError

_LOG = logging.getLogger(__name__)
OVERRIDE = "NVDLA_QUANT_INT8"
"""Environment variable that names a kernel, or ``auto``."""


class Kernel(StrEnum):
    """A way to compute int8 convolutions."""

    VNNI512 = "vnni512"
    VNNI256 = "vnni256"
    AVX2 = "avx2"
    FLOAT32 = "float32"


DOTS: Mapping[Kernel, Dots] = MappingProxyType(
    {Kernel.VNNI512: Vnni512(), Kernel.VNNI256: Vnni256(), Kernel.AVX2: Pairs256()}
)
"""Dot products of the processor; float32 takes none."""
_NEEDS: Mapping[Kernel, tuple[frozenset[str], ...]] = MappingProxyType(
    {
        Kernel.VNNI512: (frozenset({"avx512f", "avx512vnni"}),),
        Kernel.VNNI256: (frozenset({"avx512vl", "avx512vnni"}), frozenset({"avx2", "avxvnni"})),
        Kernel.AVX2: (frozenset({"avx2"}),),
        Kernel.FLOAT32: (frozenset(),),
    }
)
"""Features of a processor, as LLVM names them; one of the sets."""
_PIXELS, _DEPTH, _COUNT = 96, 576, 64
"""Of the check: a product of matrices as a 3 x 3 convolution of 64 channels has."""
_REPEATS = 5


def possible_kernels() -> tuple[Kernel, ...]:
    """Return the kernels that this processor has."""
    features = processor_features()
    return tuple(kernel for kernel in Kernel if any(needs <= features for needs in _NEEDS[kernel]))


@cache
def chosen_kernel() -> Kernel:
    """Return the kernel of this process.

    Raises
    ------
    EmulationError
        `OVERRIDE` names none, or one that this processor has not.
    """
    possible = possible_kernels()
    asked = os.environ.get(OVERRIDE, "auto")
    if asked != "auto":
        if asked not in possible:
            raise EmulationError(
                f"environment variable {OVERRIDE}: {asked!r}, expected auto or one of those that this processor has: "
                f"{', '.join(possible)}"
            )
        _LOG.info("int8 convolutions: %s, as %s says", asked, OVERRIDE)
        return Kernel(asked)
    dots = next((kernel for kernel in possible if kernel in DOTS), None)
    if dots is None:
        _LOG.info("int8 convolutions: %s; this processor has no dot products", Kernel.FLOAT32)
        return Kernel.FLOAT32
    exact, seconds = _check(DOTS[dots])
    if not exact:
        _LOG.warning("int8 convolutions: %s is wrong on this processor, %s is taken", dots, Kernel.FLOAT32)
        return Kernel.FLOAT32
    plain = _seconds_of_float32()
    kernel = dots if seconds <= plain else Kernel.FLOAT32
    _LOG.info(
        "int8 convolutions: %s; %s takes %.2f of the time of float32, and is exact", kernel, dots, seconds / plain
    )
    return kernel


def _check(dots: Dots) -> tuple[bool, float]:
    """Return whether a product of extreme and of random numbers is right, and the seconds that it took."""
    random = np.random.default_rng(0)
    inputs = random.integers(-128, 128, (_PIXELS, _DEPTH)).astype(np.int8)
    weights = random.integers(-128, 128, (_COUNT, _DEPTH)).astype(np.int8)
    inputs[:4], weights[:2] = [[-128], [127], [0], [-1]], [[-128], [127]]
    right = inputs.astype(np.int64) @ weights.astype(np.int64).T
    multiply = multiplier(inputs, weights, dots)
    return bool(np.array_equal(multiply(), right)), min(_timed(multiply) for _ in range(_REPEATS))


def _seconds_of_float32() -> float:
    first, second = np.ones((_PIXELS, _DEPTH), np.float32), np.ones((_DEPTH, _COUNT), np.float32)
    return min(_timed(lambda: first @ second) for _ in range(_REPEATS))


def _timed(work: Callable[[], NDArray[np.generic]]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
