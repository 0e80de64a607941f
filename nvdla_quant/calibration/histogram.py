"""Streaming histogram of magnitudes, as TensorRT's entropy calibrator takes it.

2048 bins from 0 to a range. The range is the largest magnitude of the first batch; it doubles, and pairs of bins are
merged, each time a later batch goes beyond it. So the batch size and the order of the images change the result. (From
NVIDIA's public talks on TensorRT; our caches of four batch sizes confirm the doubling, see docs/calibration.md.)
"""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit

BINS = 2048
"""Bins of a histogram."""


SMALLEST_RANGE = BINS / float(np.finfo(np.float32).max)
"""Below this the bins of one unit are no float32; a tensor so small counts as zero."""


class Histogram:
    """Counts of magnitudes in equal bins; add batches, then read.

    Attributes
    ----------
    range : float
        Upper end of the last bin; 0 until a value other than 0 came. The end itself falls into the last bin.
    counts : NDArray[int64], shape (2048,)
        Values of each bin.
    """

    def __init__(self) -> None:
        self.range = 0.0
        self.counts = np.zeros(BINS, np.int64)

    @property
    def bin_width(self) -> float:
        """Width of a bin."""
        return self.range / BINS

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the magnitudes of one batch, of any shape.

        Raises
        ------
        ValueError
            A value is NaN or infinite.
        """
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        largest = largest_magnitude(flat)
        if largest >= SMALLEST_RANGE and not self.range:
            self.range = largest
        if self.range:
            while largest > self.range:
                self._double()
            # TensorRT bins in float32: the bins of our caches agree with this product, not with one in float64.
            _count(flat, np.float32(BINS / self.range), self.counts)
        else:
            self.counts[0] += flat.size

    def _double(self) -> None:
        """Double the range: each pair of bins becomes one."""
        self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
        self.range *= 2


def largest_magnitude(values: NDArray[np.float32]) -> float:
    """Return max(|x|), 0 where there are no values.

    Raises
    ------
    ValueError
        A value is NaN or infinite.
    """
    if not values.size:
        return 0.0
    largest = float(max(values.max(), -values.min()))
    if not np.isfinite(largest):
        raise ValueError("values are not finite")
    return largest


@jit
def _count(values: NDArray[np.float32], bins_per_unit: np.float32, counts: NDArray[np.int64]) -> None:
    """Add one to the bin of each magnitude."""
    last = counts.size - 1
    for value in values:
        counts[min(int(abs(value) * bins_per_unit), last)] += 1
