"""95 % intervals by the bootstrap over images, and what they are intervals of."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import DatasetError
from nvdla_quant.evaluation.accuracy import Interval

Numbers = NDArray[np.float64]
RESAMPLES = 1000
"""Draws of as many images as there are, with repetition, from the same seed each time."""
_AT_ONCE = 1 << 21
"""Images that are drawn at a time."""
LEAST_NOISE = 1e-30
"""Noise over signal that stands for none: 300 dB, which no number of a file has to be infinite for."""


def interval(statistic: Callable[..., Numbers], *samples: Numbers) -> Interval:
    """Return a statistic of images with its 95 % interval: the percentiles of its values over resampled images.

    Efron's percentile method, by `scipy.stats.bootstrap`; samples are drawn together, image by image.

    Parameters
    ----------
    statistic : callable
        Takes the samples ``(..., n)`` and returns ``(...)``.
    samples : NDArray[float64]
        ``(n,)`` each.

    Raises
    ------
    DatasetError
        Fewer than two images.
    """
    from scipy.stats import bootstrap  # Here: it takes longer to import than most jobs take to score.

    n = len(samples[0])
    if n < 2:
        raise DatasetError(f"{n} test image: an interval over images needs at least two; test on more")

    def along(*drawn: Numbers, axis: int = -1) -> Numbers:
        return statistic(*drawn)

    found = bootstrap(
        samples,
        along,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, _AT_ONCE // n),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    value = float(statistic(*samples))
    # Percentiles of few images may miss the estimate; an interval holds it.
    return Interval(value, min(value, float(found.low)), max(value, float(found.high)))


def mean(values: Numbers) -> Numbers:
    """Return the mean over images."""
    average: Numbers = values.mean(axis=-1)
    return average


def sqnr(signal: Numbers, noise: Numbers) -> Numbers:
    """Return ``10 log10(sum of signal / sum of noise)`` in dB (Lin et al., arXiv:1511.06393), at most 300."""
    return decibels(noise.sum(axis=-1) / signal.sum(axis=-1))


def decibels(noise: Numbers) -> Numbers:
    """Return how far below the signal noise is, in dB: at most 300, which stands for none."""
    found: Numbers = -10 * np.log10(np.maximum(noise, LEAST_NOISE))
    return found


def lower_by(noise: Numbers, baseline: Numbers) -> Numbers:
    """Return by how many dB the mean of `noise` is below that of a baseline."""
    return decibels(mean(noise)) - decibels(mean(baseline))


def difference(values: Numbers, baseline: Numbers) -> Numbers:
    """Return the mean of the differences to a baseline."""
    return mean(values - baseline)
