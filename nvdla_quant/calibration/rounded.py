"""Clipping thresholds from the tensor that int8 makes of a tensor: of least squared error, or of largest cosine.

A threshold T makes of a magnitude x the value ``q(x) = s * min(round(x / s), 127)``, ``s = T / 127``: what the hardware
stores, by its magnitude (the one step that negative values have more, -128, is left aside). Where T is small, values
beyond it are clipped; where it is large, all values are rounded coarsely. The best T is between. Choosing it by squared
error is from Sung, Shin and Hwang, "Resiliency of Deep Neural Networks under Quantization" (arXiv:1511.06488), and
section 3.1 of Nagel et al., "A White Paper on Neural Network Quantization" (arXiv:2106.08295); by cosine, from Wu et
al., "EasyQuant" (arXiv:2006.16669).

Values lie evenly in their bin, so that sums over values are integrals. Of bin 0, the zeros of a ReLU for the most part,
no more values count than bin 1 holds: a density is continuous, and zeros are exact under every T.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.calibration.histogram import Histogram

STEPS = 127
"""int8 steps from 0 to the clipping threshold."""

_TIE = 1e-12
"""Losses that differ by less, beside the tensor's energy, are equal: rounding in the sums below stays under it."""

_AT_ONCE = 256
"""Candidates whose sums are computed together; it bounds the memory."""


@dataclass(frozen=True)
class Rounded:
    """What int8 makes of a tensor, for each of several thresholds, in the unit of a bin's width.

    Attributes
    ----------
    energy : float
        Sum of ``x ** 2`` over the values.
    product : NDArray[float64]
        Sum of ``x * q(x)``.
    left : NDArray[float64]
        Sum of ``q(x) ** 2``.
    """

    energy: float
    product: NDArray[np.float64]
    left: NDArray[np.float64]

    @property
    def noise(self) -> NDArray[np.float64]:
        """Squared error beside the energy: sum of ``(x - q(x)) ** 2``, multiplied out, over that of ``x ** 2``."""
        error = np.maximum(self.energy - 2 * self.product + self.left, 0)
        return error / self.energy if self.energy else error

    @property
    def sqnr(self) -> NDArray[np.float64]:
        """Signal to noise, ``-10 * log10(noise)`` in dB (Lin et al., arXiv:1511.06393); infinite without noise."""
        with np.errstate(divide="ignore"):
            return -10 * np.log10(self.noise)

    @property
    def cosine(self) -> NDArray[np.float64]:
        """Cosine of x and q(x), their product over their lengths; 0 where q is 0 for all values."""
        lengths = np.sqrt(self.energy * self.left)
        return np.divide(self.product, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def mse_threshold(histogram: Histogram) -> float:
    """Return the clipping threshold of least squared error, in the unit of the values.

    Parameters
    ----------
    histogram : Histogram
        With a range above 0.

    Returns
    -------
    float
        The upper edge of a bin, up to the last that is not empty; of several equally good ones the largest.
    """
    candidates = upper_edges(histogram)
    return _largest_of_the_least(rounded(histogram, candidates).noise, candidates) * histogram.bin_width


def cosine_threshold(histogram: Histogram) -> float:
    """Return the clipping threshold of largest cosine of the tensor and its int8 version; else as `mse_threshold`.

    The cosine does not see a common factor: of a tensor of one magnitude every threshold is equally good.
    """
    candidates = upper_edges(histogram)
    return _largest_of_the_least(-rounded(histogram, candidates).cosine, candidates) * histogram.bin_width


def upper_edges(histogram: Histogram) -> NDArray[np.float64]:
    """Return the upper edges of the bins, in bin widths, up to the last that is not empty: beyond it nothing clips."""
    return np.arange(1, np.flatnonzero(histogram.counts)[-1] + 2, dtype=np.float64)


def resolved(histogram: Histogram) -> NDArray[np.float64]:
    """Return the counts that the sums are over: as many values in bin 0 as in bin 1, at most."""
    counts = histogram.counts.astype(np.float64)
    counts[0] = min(counts[0], counts[1])
    return counts


def rounded(histogram: Histogram, thresholds: NDArray[np.float64]) -> Rounded:
    """Return what int8 makes of the values of `histogram`, for `thresholds` above 0 in bin widths.

    q goes from step k - 1 to k at ``(k - 1/2) s``. With N(x) and M(x) the number and the sum of the values up to x,
    summation by parts gives, over k = 1 to 127::

        sum of q(x)**2 = s**2 * (127**2 * N(all) - sum of (2 k - 1) * N((k - 1/2) s))
        sum of x q(x)  = s * (127 * M(all) - sum of M((k - 1/2) s))
    """
    counts = resolved(histogram)
    edges = np.arange(counts.size + 1, dtype=np.float64)
    # One more, empty, for what lies beyond the last bin.
    density = np.append(counts, 0.0)
    number = np.concatenate([[0.0], np.cumsum(counts)])
    moment = np.concatenate([[0.0], np.cumsum(counts * (edges[:-1] + 0.5))])
    k = np.arange(1, STEPS + 1)
    product, left = np.empty_like(thresholds), np.empty_like(thresholds)
    for start in range(0, thresholds.size, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        steps = thresholds[part] / STEPS
        places = np.minimum((k - 0.5) * steps[:, np.newaxis], edges[-1])
        bins = places.astype(np.int64)
        numbers = number[bins] + density[bins] * (places - bins)
        moments = moment[bins] + density[bins] * (places - bins) * (places + bins) / 2
        left[part] = steps**2 * (STEPS**2 * number[-1] - (numbers * (2 * k - 1)).sum(axis=1))
        product[part] = steps * (STEPS * moment[-1] - moments.sum(axis=1))
    return Rounded(float((counts * np.diff(edges**3)).sum()) / 3, product, left)


def _largest_of_the_least(loss: NDArray[np.float64], candidates: NDArray[np.float64]) -> float:
    """Return the last of the candidates with the least loss: of equally good ones, what clips least."""
    return float(candidates[np.flatnonzero(loss <= loss.min() + _TIE)[-1]])
