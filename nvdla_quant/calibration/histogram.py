"""Streaming histogram of magnitudes, as TensorRT's entropy calibrator takes it.

2048 bins from 0 to a range. The range is the largest magnitude of the first batch; it doubles, and pairs of bins are
merged, each time a later batch goes beyond it. So the batch size and the order of the images change the result. (From
NVIDIA's public talks on TensorRT; our caches of four batch sizes confirm the doubling, see docs/calibration.md.)

How a batch is cut into parts does not change it, once the range holds the first batch: merging pairs of bins counts as
bins of twice the width do. A value v falls into bin ``floor(round(v * k))``, k bins to the unit; with k / 2, another
exponent of the same float32, the product rounds to half of what it did, and ``floor(p / 2) == floor(floor(p) / 2)``.
The one exception is the end of the range, at which p is 2048: a batch that goes beyond it has it in bin 1024, one that
ends there in bin 2047. So it is counted in a bin of its own until the batch ends.
"""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit

BINS = 2048
"""Bins of a histogram."""


SMALLEST_RANGE = BINS / float(np.finfo(np.float32).max)
"""Below this the bins of one unit are no float32; a tensor so small counts as zero."""


class Histogram:
    """Counts of magnitudes in equal bins; add batches, each in one part or several, then read.

    Attributes
    ----------
    range : float
        Upper end of the last bin; 0 until a value other than 0 came. The end itself falls into the last bin.
    """

    def __init__(self) -> None:
        self.range = 0.0
        # The last one is for the end of the range, within a batch.
        self._bins = np.zeros(BINS + 1, np.int64)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Values of each bin, shape (2048,), of the batches that have ended."""
        return self._bins[:BINS]

    @property
    def bin_width(self) -> float:
        """Width of a bin."""
        return self.range / BINS

    def widen(self, largest: float) -> None:
        """Let the range hold a magnitude; the first one other than 0 sets it, so give the first batch's largest."""
        if not self.range and largest >= SMALLEST_RANGE:
            self.range = largest
        while self.range and largest > self.range:
            self._double()

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the magnitudes of a part of a batch, of any shape, and widen the range to them.

        Raises
        ------
        ValueError
            A value is NaN or infinite.
        """
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        self.widen(largest_magnitude(flat))
        if self.range:
            # TensorRT bins in float32: the bins of our caches agree with this product, not with one in float64.
            _count(flat, np.float32(BINS / self.range), self._bins)
        else:
            self._bins[0] += flat.size

    def end_batch(self) -> None:
        """Let the end of the range belong to the last bin, as far as it was counted."""
        self._bins[BINS - 1] += self._bins[BINS]
        self._bins[BINS] = 0

    def _double(self) -> None:
        """Double the range: each pair of bins becomes one, and the end of the old range begins the upper half."""
        merged = np.zeros_like(self._bins)
        merged[: BINS // 2] = self.counts.reshape(-1, 2).sum(axis=1)
        merged[BINS // 2] = self._bins[BINS]
        self._bins = merged
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


_BLOCK = 1024
"""Values whose bins are computed together, by vector instructions."""


@jit
def _count(values: NDArray[np.float32], bins_per_unit: np.float32, counts: NDArray[np.int64]) -> None:
    """Add one to the bin of each magnitude; every bin must be there."""
    bins = np.empty(_BLOCK, np.int32)
    places = bins.view(np.uint32)  # numba would ask of each signed one whether it counts from the end.
    # Neighbours are often in the same bin, zeros above all: four tables, or each addition waits for the one before.
    tables = np.zeros((4, counts.size), np.int64)
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        for i in range(block.size):
            bins[i] = np.int32(abs(block[i]) * bins_per_unit)
        whole = block.size // 4 * 4
        for i in range(0, whole, 4):
            tables[0, places[i]] += 1
            tables[1, places[i + 1]] += 1
            tables[2, places[i + 2]] += 1
            tables[3, places[i + 3]] += 1
        for i in range(whole, block.size):
            tables[0, places[i]] += 1
    for table in tables:
        counts += table
