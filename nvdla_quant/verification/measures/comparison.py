"""Values beside a reference: what a loadable computed, and what it should have."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Comparison:
    """Values of a tensor beside a reference.

    Attributes
    ----------
    sqnr : float
        Signal to noise in dB; infinite where they are equal, -infinite where values are not finite.
    cosine : float
        Cosine of the angle between the two; 0 where one is all zero.
    correlation : float
        With the mean of each channel subtracted from both, over images and pixels: what varies with the input.
    """

    sqnr: float
    cosine: float
    correlation: float


class Comparing:
    """Compares values with a reference, some images at a time."""

    def __init__(self, channels: int) -> None:
        self._sums = np.zeros((channels, len(_SUMS)))
        self._count = 0

    def add(self, values: NDArray[np.generic], factor: float, reference: Floats) -> None:
        """Take in values times `factor`, ``(n, channels, ...)``, and the reference, of as many elements."""
        lines = lines_of(values)
        _accumulate(lines, factor, np.ascontiguousarray(reference, np.float32).reshape(lines.shape), self._sums)
        self._count += lines.shape[0] * lines.shape[2]

    @property
    def is_used(self) -> bool:
        """Whether anything was taken in."""
        return self._count > 0

    @property
    def result(self) -> Comparison:
        """What came out of all that was taken in."""
        if not np.isfinite(self._sums).all():
            return Comparison(-np.inf, 0.0, 0.0)
        got, want, got2, want2, product, noise = self._sums.T
        with np.errstate(divide="ignore"):
            sqnr = np.inf if noise.sum() == 0 else float(10 * np.log10(want2.sum() / noise.sum()))
        count = max(self._count, 1)
        centred = (
            float(np.sum(product - got * want / count)),
            float(np.sum(np.maximum(got2 - got**2 / count, 0))),
            float(np.sum(np.maximum(want2 - want**2 / count, 0))),
        )
        equal = bool(noise.sum() == 0)
        plain = float(product.sum()), float(got2.sum()), float(want2.sum())
        return Comparison(sqnr, _cosine(*plain, equal), _cosine(*centred, equal))


_SUMS = ("values", "reference", "values squared", "reference squared", "products", "differences squared")


def compare(values: NDArray[np.generic], reference: NDArray[np.generic]) -> Comparison:
    """Compare values with a reference of as many elements, ``(n, channels, ...)``."""
    comparing = Comparing(values.shape[1])
    comparing.add(values, 1.0, reference.astype(np.float32))
    return comparing.result


def _cosine(product: float, first: float, second: float, equal: bool) -> float:
    size = float(np.sqrt(first * second))
    # What is left of a constant when its mean is taken off is no signal.
    return float(np.clip(product / size, -1, 1)) if size > 1e-12 * max(first, second, 1e-300) else float(equal)


def lines_of(values: NDArray[Any]) -> NDArray[Any]:
    """Return values, (n, channels, ...), as (n, channels, pixels) of a type that compiled loops take."""
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    return np.ascontiguousarray(values).reshape(len(values), values.shape[1], -1)


@jit
def _accumulate(values: NDArray[np.generic], factor: float, reference: Floats, sums: NDArray[np.float64]) -> None:
    images, channels, pixels = values.shape
    for channel in range(channels):
        got = want = got2 = want2 = product = noise = 0.0
        for image in range(images):
            for pixel in range(pixels):
                a = float(values[image, channel, pixel]) * factor
                b = float(reference[image, channel, pixel])
                got += a
                want += b
                got2 += a * a
                want2 += b * b
                product += a * b
                noise += (a - b) * (a - b)
        sums[channel, 0] += got
        sums[channel, 1] += want
        sums[channel, 2] += got2
        sums[channel, 3] += want2
        sums[channel, 4] += product
        sums[channel, 5] += noise
