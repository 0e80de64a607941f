"""Clipping threshold that keeps a given share of the magnitudes."""

import numpy as np

from nvdla_quant.calibration.histogram import Histogram


def percentile_threshold(histogram: Histogram, percentile: float) -> float:
    """Return the upper edge of the first bin up to which at least `percentile` % of all values lie, zeros included.

    Parameters
    ----------
    histogram : Histogram
        With a range above 0; its bins are the resolution of the result.
    percentile : float
        Above 0, at most 100; 100 gives the end of the last bin that is not empty.

    Raises
    ------
    ValueError
        `percentile` is outside that range.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile is {percentile}, expected above 0 and at most 100")
    reached = np.cumsum(histogram.counts)
    bins = int(np.searchsorted(reached, reached[-1] * (percentile / 100))) + 1
    return bins * histogram.bin_width
