"""A convolution by dot products and the rounding behind it, all tiles in one compiled call.

Threads wait for each other only in the interpreter, which holds a lock: here they enter it once an operation. A tile's
sums are in the processor's cache when they are rounded.
"""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.integer.dots import DotConvolution, Summing, sum_tile
from nvdla_quant.emulator.integer.stage_loop import Rounding, round_tile
from nvdla_quant.emulator.tiles import Workspace


def convolve_and_round(
    convolution: DotConvolution, source: NDArray[np.int8], job: Rounding, images: int, workspace: Workspace
) -> None:
    """Convolve the first `images` of `source`, ``(n, bytes)``, and write what `job` makes of the accumulators."""
    tiling = convolution.tiling
    size = images, tiling.images, tiling.height, tiling.rows
    _every_tile(convolution.summing(source, images, workspace), job, size)


@jit
def _every_tile(summing: Summing, job: Rounding, size: tuple[int, int, int, int]) -> None:
    """Go through the tiles as `Tiling.tiles` does; `size` is all images, a tile's, all rows, a tile's."""
    every, images, height, rows = size
    for first in range(0, every, images):
        for row in range(0, height, rows):
            part = (first, min(images, every - first), row, min(rows, height - row))
            sum_tile(summing, part)
            round_tile(summing.sums, job, part)
