"""Signal to quantization noise of a tensor."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 16 << 20
"""Bytes of a tensor that are looked at together, so that what is computed in passing does not need its room again."""


def sqnr(exact: NDArray[np.float32], values: NDArray[np.float32]) -> float:
    """Return ``10 log10(sum of exact**2 / sum of (values - exact)**2)`` in dB (Lin et al., arXiv:1511.06393).

    Infinite where they are equal. Both are (n, ...), in real units.
    """
    noise = signal = 0.0
    for part in parts(exact):
        noise += float(np.square(values[part] - exact[part], dtype=np.float64).sum())
        signal += float(np.square(exact[part], dtype=np.float64).sum())
    return 10 * float(np.log10(max(signal, np.finfo(np.float64).tiny) / noise)) if noise else np.inf


def parts(values: NDArray[np.float32]) -> Iterator[slice]:
    """Yield the images of a tensor (n, ...), a few at a time."""
    at_once = max(1, AT_ONCE // max(values[:1].nbytes, 1))
    yield from (slice(start, start + at_once) for start in range(0, len(values), at_once))
