"""Clipping threshold of least relative entropy, as TensorRT's entropy calibrators choose it.

A candidate keeps the first i of 2048 bins, i = 128 to 2048, and clips at ``(i + 0.5) * bin width``. Its reference
distribution P is the kept bins, with all that is clipped added to the last of them. Its quantized distribution Q has
128 levels: kept bin k belongs to level ``k * 128 // i``; the counts of a level, without the clipped ones, are spread
evenly over those of its bins that are not empty. The candidate with the least relative entropy of P to Q wins. Bin 0
takes no part. docs/calibration.md says how each of these was found, and how well they reproduce TensorRT's caches.
"""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.calibration.histogram import BINS, Histogram

LEVELS = 128
"""Levels of a quantized magnitude, and the fewest bins that a candidate keeps."""

_TIE = 1e-12
"""Relative entropies that differ by less are equal: rounding in the sums below stays under it."""

_KEPT = np.arange(LEVELS, BINS + 1)
_EDGES = -(np.arange(LEVELS + 1) * _KEPT[:, np.newaxis] // -LEVELS)
"""First bin of each level, and the end of the last: level l of i bins starts at ceil(l * i / 128)."""


def entropy_threshold(histogram: Histogram) -> float:
    """Return the clipping threshold, in the unit of the values.

    Parameters
    ----------
    histogram : Histogram
        With a range above 0.

    Returns
    -------
    float
        ``(i + 0.5) * bin width`` of the best candidate; of several equally good ones the smallest.
    """
    divergence = relative_entropies(histogram.counts)
    best = int(np.flatnonzero(divergence <= divergence.min() + _TIE)[0])
    return (int(_KEPT[best]) + 0.5) * histogram.bin_width


def relative_entropies(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the relative entropy of every candidate, in nats.

    With S the counts of a level, N its bins that are not empty, C the clipped counts, T all counts, and H the counts of
    the bins of P, the sum over P * log(P / Q) falls apart into sums over bins and over levels, and prefix sums give all
    of them::

        (sum of H log H - sum of S log(S / N) - C log(S / N of the last level)) / T - log T + log(T - C)

    Parameters
    ----------
    counts : NDArray[int64], shape (2048,)
        Values of each bin; some bin other than the first is not empty.

    Returns
    -------
    NDArray[float64], shape (1921,)
        For 128 to 2048 kept bins; infinite where values are clipped into a bin that is empty, since Q is 0 there.
    """
    from scipy.special import xlogy  # Here: other methods do without, and it is slow to import.

    kept = counts.astype(np.float64)
    # Zeros, the whole lower half of a ReLU's output, would outweigh all else.
    kept[0] = 0
    total = kept.sum()
    sums = np.concatenate([[0.0], np.cumsum(kept)])
    filled = np.concatenate([[0], np.cumsum(kept > 0)])
    self_terms = np.concatenate([[0.0], np.cumsum(xlogy(kept, kept))])

    inside = sums[_KEPT]
    clipped = total - inside
    last = kept[_KEPT - 1]
    reference = self_terms[_KEPT - 1] + xlogy(last + clipped, last + clipped)

    level_sums = np.diff(sums[_EDGES], axis=1)
    level_means = level_sums / np.maximum(np.diff(filled[_EDGES], axis=1), 1)
    impossible = (clipped > 0) & (last == 0)
    last_mean = np.where(impossible | (level_means[:, -1] == 0), 1.0, level_means[:, -1])
    quantized = xlogy(level_sums, level_means).sum(axis=1) + xlogy(clipped, last_mean)

    with np.errstate(divide="ignore"):
        divergence = (reference - quantized) / total - np.log(total) + np.log(inside)
    return np.where(impossible | (inside == 0), np.inf, divergence)
