"""What NVIDIA's `nvdla_runtime` can be told, for those who read a configuration and for those who run it."""

from math import isfinite

from nvdla_quant.errors import DatasetError

MAX_NORMALIZE = 255
"""``--normalize`` is kept in 8 bits: 256 becomes 0 (RuntimeTest.h:48)."""


def normalize_option(scale: float) -> int:
    """Return the number for ``--normalize`` that multiplies pixels by `scale`, as fp16 loadables are fed.

    Raises
    ------
    DatasetError
        The option cannot say it.
    """
    normalize = 1 / scale
    if not isfinite(normalize) or abs(normalize - round(normalize)) > 1e-6 or not 1 <= normalize <= MAX_NORMALIZE:
        raise DatasetError(
            f"nvdla_runtime: --normalize would be {normalize:.9g} (1 / preprocessing.scale), which it keeps in 8 "
            f"bits; expected a whole number from 1 to {MAX_NORMALIZE}. Use feeding stock-runtime, which folds the "
            "preprocessing into the network"
        )
    return round(normalize)
