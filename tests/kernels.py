"""Runs with each way that this processor has to compute int8 convolutions."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from nvdla_quant.emulator.integer.kernels import OVERRIDE, Kernel, chosen_kernel


@contextmanager
def using(kernel: Kernel | str) -> Iterator[None]:
    """Choose `kernel` for the programs that are first run within, and let the choice fall anew afterwards."""
    with patch.dict("os.environ", {OVERRIDE: str(kernel)}):
        chosen_kernel.cache_clear()
        try:
            yield
        finally:
            chosen_kernel.cache_clear()
