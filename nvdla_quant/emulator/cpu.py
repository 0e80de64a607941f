"""The CPU's operations, softmax and power, with the roundings of nvdla/sw's runtime (docs/hardware/cpu.md)."""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import CpuOperation
from nvdla_quant.loadable.structs import EmuOperation


def to_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round to float16, nearest with ties away from zero, as the runtime's half library is built to do.

    (nvdla/sw ``umd/external/include/half.h``: ``HALF_ROUND_STYLE`` 1, ``HALF_ROUND_TIES_TO_EVEN`` 0.) numpy and the
    processor round ties to even.
    """
    exact = values.astype(np.float64)
    exponent = np.frexp(exact)[1]
    # Halves have 11 significant bits and no exponent below that of the subnormals' step, 2**-24.
    step = np.ldexp(1.0, np.maximum(exponent - 11, -24))
    rounded = np.copysign(np.floor(np.abs(exact) / step + 0.5) * step, exact)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.isfinite(exact), rounded, exact).astype(np.float16)


def run_cpu(operation: CpuOperation, values: Values) -> Values:
    """Run a CPU operation.

    Parameters
    ----------
    operation : CpuOperation
        What to do.
    values : NDArray[np.int8] or NDArray[np.float16]
        ``(n, channels, h, w)``; softmax has h = w = 1.

    Returns
    -------
    NDArray
        Of the same shape and type.
    """
    # What leaves the range of floats does so in C too, without a word.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return _run(operation, values)


def _run(operation: CpuOperation, values: Values) -> Values:
    integer = values.dtype == np.int8
    scale_in, scale_out = np.float32(operation.input_scale), np.float32(operation.output_scale)
    real = values.astype(np.float32)
    if integer:
        real = real * scale_in
    if operation.kind is EmuOperation.SOFTMAX:
        probabilities = to_half(softmax(to_half(real).astype(np.float32) if integer else real))
        if not integer:
            return probabilities
        real = probabilities.astype(np.float32)
    else:
        base = np.float32(operation.shift) + np.float32(operation.scale) * real
        # powf is correctly rounded in all but a few cases in a million; float64 gives the correctly rounded value.
        real = np.power(base.astype(np.float64), float(np.float32(operation.power))).astype(np.float32)
        if not integer:
            return to_half(real)
    return saturate_int8(real / scale_out)


def softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax over axis 1 in float32, summed in channel order.

    ``expf`` is taken from float64, which gives the correctly rounded value.
    """
    # Infinite inputs give NaN, as in C.
    with np.errstate(invalid="ignore"):
        shifted = values - values.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted.astype(np.float64)).astype(np.float32)
    # add.accumulate, unlike sum, adds one channel after the other.
    total = np.add.accumulate(exponentials, axis=1)[:, -1:]
    probabilities: NDArray[np.float32] = exponentials / total
    return probabilities


def saturate_int8(values: NDArray[np.float32]) -> NDArray[np.int8]:
    """Clamp to int8 and truncate toward zero, as a C cast does; NaN, undefined there, gives 0 as on x86."""
    return np.trunc(np.clip(np.nan_to_num(values, nan=0.0), -128.0, 127.0)).astype(np.int8)
