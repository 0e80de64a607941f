"""Pooling in fp16, bit for bit (docs/hardware/fp16.md, "Pooling").

Rows first, from left to right, then columns from the top. Averages are sums in fp17, multiplied by two reciprocals,
each time rounded; the firmware demands that padding be zero, and adding zero changes nothing. Facts: nvdla/hw
``cmod/hls_wrapper/pdp_hls_wrapper.cpp``, ``cmod/pdp/NV_NVDLA_pdp.cpp``; reciprocals: nvdla/sw ``kmd/firmware/pdp.c``.
"""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.fp16.floats import add, fp17_to_half, half_to_fp17, larger, multiply, word
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import PdpOperation
from nvdla_quant.loadable.structs import PoolMode

RECIPROCALS = (0x7C00, 0x7800, 0x7555, 0x7400, 0x7266, 0x7155, 0x7092, 0x7000)
"""fp17 of 1 to 1/8, by window size less one."""


def pool_halves(operation: PdpOperation, values: Values) -> NDArray[np.float16]:
    """Pool ``(n, c, h, w)``; a window that lies in the padding alone gives 0 (the hardware leaves it undefined)."""
    down, across = reciprocals_of(operation)
    result = np.zeros((*values.shape[:2], operation.destination.height, operation.destination.width), np.uint16)
    _pool(
        np.ascontiguousarray(values).view(np.uint16),
        result,
        operation.mode is PoolMode.AVERAGE,
        operation.mode is PoolMode.MAX,
        operation.kernel,
        operation.stride,
        (operation.pad_top, operation.pad_left),
        (across, down),
    )
    return result.view(np.float16)


def reciprocals_of(operation: PdpOperation) -> tuple[int, int]:
    """Return what averages of halves are multiplied by, in fp17 (y, x)."""
    height, width = operation.kernel
    return operation.reciprocals or (RECIPROCALS[height - 1], RECIPROCALS[width - 1])


@jit
def _pool(
    values: NDArray[np.uint16],
    result: NDArray[np.uint16],
    average: bool,
    maximum: bool,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    reciprocals: tuple[int, int],
) -> None:
    _, _, height, width = values.shape
    for n in range(result.shape[0]):
        for c in range(result.shape[1]):
            for y in range(result.shape[2]):
                top = y * stride[0] - pad[0]
                for x in range(result.shape[3]):
                    left = x * stride[1] - pad[1]
                    total, rows = 0, 0
                    for sy in range(max(top, 0), min(top + kernel[0], height)):
                        line, columns = 0, 0
                        for sx in range(max(left, 0), min(left + kernel[1], width)):
                            bits = word(values[n, c, sy, sx])
                            bits = half_to_fp17(bits) if average else bits
                            if columns == 0:
                                line = bits
                            elif average:
                                line = add(line, bits, 6, 10)
                            else:
                                line = larger(line, bits, 5, 10, maximum)
                            columns += 1
                        if columns == 0:
                            continue
                        if rows == 0:
                            total = line
                        elif average:
                            total = add(line, total, 6, 10)
                        else:
                            total = larger(line, total, 5, 10, maximum)
                        rows += 1
                    if rows and average:
                        total = multiply(multiply(total, reciprocals[0], 6, 10), reciprocals[1], 6, 10)
                        total = fp17_to_half(total)
                    result[n, c, y, x] = total
