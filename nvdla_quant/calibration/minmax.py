"""Clipping threshold at the largest magnitude, as TensorRT's min-max calibrator."""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.calibration.histogram import largest_magnitude


class Largest:
    """Largest magnitude of all values; add them in parts, then read.

    Attributes
    ----------
    value : float
        The largest absolute value so far; 0 before the first value.
    """

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in values, of any shape.

        Raises
        ------
        ValueError
            A value is NaN or infinite.
        """
        self.value = max(self.value, largest_magnitude(values))

    def end_batch(self) -> None:
        """Nothing depends on the batches."""
