"""One step beside what its layers make of the values that the loadable itself read: only roundings may differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import CdpOperation, Operation
from nvdla_quant.execution.simulated import INT8_MAX, INT8_MIN
from nvdla_quant.verification.measures.comparison import Floats, lines_of
from nvdla_quant.verification.measures.tolerance import LARGEST, OCTAVES, step_tolerance

HALF_LARGEST = 65504.0
"""Largest half: what lies beyond saturates."""
DRIFT_DEVIATIONS = 5.0
"""Standard deviations that the mean of roundings may lie off 0: one channel in a million by chance."""
HALF_TOLERANCE = 0.01
"""fp16: share of a tensor's root mean square that a result may lie from the exact one; right ones reach 0.004."""
HALF_RELATIVE = 2.0**-9
"""fp16: share of its own size that a value may be off: rounding costs 2**-11, an average has three factors rounded."""
HALF_OPERAND = 2.0**-10
"""fp16: share of its own size that a rounded bias may be off, twice what rounding costs."""


@dataclass(frozen=True, eq=False)
class Detail:
    """What a wrong step wrote, and what it should have; see `Local`.

    Attributes
    ----------
    values : Values
        (n, channels, height, width) in the device's domain.
    expected : NDArray[float32]
        Real values.
    beyond : NDArray[bool]
        Values that roundings do not explain; a tolerance that is not a number explains none.
    drift : NDArray[float64]
        Mean difference of each channel beyond what roundings explain; 0 where they do.
    """

    values: Values
    expected: Floats
    beyond: NDArray[np.bool_]
    drift: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Local:
    """A step beside what the float layers make of the same inputs.

    Attributes
    ----------
    error : float
        Largest distance of a value from it, in int8 steps (fp16: in root mean squares of the tensor).
    tolerance : float
        Largest that roundings explain.
    share : float
        Share of values that they do not.
    reached : float
        Largest real value that it should have written.
    detail : Detail or None
        None where roundings explain every difference.
    """

    error: float
    tolerance: float
    share: float
    reached: float
    detail: Detail | None

    @property
    def is_right(self) -> bool:
        """Whether roundings explain every difference."""
        return self.detail is None


def local_of(
    operations: Sequence[Operation],
    values: Values,
    expected: Floats,
    scale: float,
    leeways: Sequence[NDArray[np.float64]] = (),
    largest: float | None = None,
    added: NDArray[np.float64] | None = None,
) -> Local:
    """Compare what operations wrote, at `scale`, with the real values that they should have written.

    Parameters
    ----------
    operations : Sequence[Operation]
        Those that wrote it.
    values : Values
        (n, channels, height, width) in the device's domain.
    expected : NDArray[float32]
        Of the same shape, real.
    scale : float
        Real value of 1.
    leeways : Sequence[NDArray[float64]]
        Relative errors that what weights make may have, (channels,) each.
    largest : float, optional
        Most steps that may count as rounding; by default what the operations' units can cost.
    added : NDArray[float64], optional
        fp16: size of the constants that the network adds to each channel, (channels,), whose rounding counts.
    """
    tables = any(isinstance(operation, CdpOperation) for operation in operations)
    if values.dtype == np.float16:
        constants = np.zeros(values.shape[1]) if added is None else added
        return _local_of_halves(values, expected, scale, constants, OCTAVES if tables else HALF_RELATIVE)
    largest = largest or (LARGEST + OCTAVES * INT8_MAX if tables else LARGEST)
    allowed = step_tolerance(operations, values.shape[1])
    for leeway in leeways:
        allowed = allowed.with_leeway(leeway)
    found = lines_of(values)
    exact = np.ascontiguousarray(expected, np.float32).reshape(found.shape)
    sums = np.zeros((values.shape[1], 9))
    _measure(found, exact, scale, allowed.fixed, allowed.relative, allowed.drift, largest, sums)
    error, tolerance, beyond, count, off, *bounds = sums.T
    drift = _drift(found, exact, scale, count, off, np.array(bounds))
    share = float(beyond.sum()) / max(values.size, 1)
    detail = None
    if share > 0 or drift.any():
        steps = np.clip(expected.astype(np.float64) / scale, INT8_MIN, INT8_MAX)
        detail = Detail(values, expected, ~(np.abs(values - steps) <= allowed.of(steps, largest)), drift)
    return Local(_largest(error), _largest(tolerance), share, float(expected.max(initial=-np.inf)), detail)


def _largest(values: NDArray[np.float64]) -> float:
    return float(values.max(initial=0.0))


@jit
def _measure(
    values: NDArray[np.int8],
    expected: Floats,
    scale: float,
    fixed: NDArray[np.float64],
    relative: NDArray[np.float64],
    drift: NDArray[np.float64],
    largest: float,
    sums: NDArray[np.float64],
) -> None:
    """Fill `sums`, a row a channel.

    Largest distance, largest tolerance, values beyond it; of those that do not saturate their number, the sum of
    differences, and four sums that bound what roundings make of it (see `_drift`).
    """
    images, channels, pixels = values.shape
    for channel in range(channels):
        row = sums[channel]
        for image in range(images):
            for pixel in range(pixels):
                exact = min(max(float(expected[image, channel, pixel]) / scale, -128.0), 127.0)
                size = abs(exact)
                difference = float(values[image, channel, pixel]) - exact
                distance = abs(difference)
                tolerance = min(fixed[channel] + relative[channel] * size, largest)
                if not distance <= tolerance:
                    row[2] += 1
                if not distance <= row[0]:
                    row[0] = distance if distance == distance else np.inf
                if not tolerance <= row[1]:
                    row[1] = tolerance
                if size < 127:
                    reach = min(drift[channel] + relative[channel] * size, largest)
                    row[3] += 1
                    row[4] += difference
                    row[5] += np.rint(exact - reach) - exact
                    row[6] -= reach
                    row[7] += np.rint(exact + reach) - exact
                    row[8] += reach


def _drift(
    values: NDArray[np.generic],
    expected: Floats,
    scale: float,
    count: NDArray[np.float64],
    off: NDArray[np.float64],
    bounds: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the mean difference of each channel where it is more than roundings explain, else 0.

    Values that saturate say nothing. What roundings have in common moves a channel by the tolerance's drift at most.
    What is left of the others is uniform in half a step; equal exact values round alike, so the number of independent
    ones is Kish's effective sample size, (sum of counts)**2 / sum of counts**2. But where a channel's values lie within
    a step, all may be rounded the same way, however many they are: as far as rounding the exact values, moved, goes.
    """
    number = np.maximum(count, 1)
    mean, (low_rounded, low, high_rounded, high) = off / number, bounds / number
    lowest, highest = np.minimum(low_rounded, low), np.maximum(high_rounded, high)
    least = DRIFT_DEVIATIONS / np.sqrt(12 * number)
    result = np.zeros(len(mean))
    # As many independent values as there are allow the least: only where that is too little does their number count.
    for channel in np.flatnonzero(~((mean >= lowest - least) & (mean <= highest + least))):
        exact = np.clip(expected[:, channel].astype(np.float64) / scale, INT8_MIN, INT8_MAX)
        noise = DRIFT_DEVIATIONS / np.sqrt(12 * _independent(exact[np.abs(exact) < INT8_MAX]))
        if not lowest[channel] - noise <= mean[channel] <= highest[channel] + noise:
            result[channel] = mean[channel]
    return result


def _independent(exact: NDArray[np.float64]) -> float:
    counts = np.unique(np.round(exact, 3), return_counts=True)[1].astype(np.float64)
    return float(counts.sum() ** 2 / np.sum(counts**2)) if len(counts) else 1.0


def _local_of_halves(
    values: Values, expected: Floats, scale: float, added: NDArray[np.float64], relative: float
) -> Local:
    channels = values.shape[1]
    found = lines_of(values)
    exact = np.ascontiguousarray(expected / np.float32(scale), np.float32).reshape(found.shape)
    size = float(np.sqrt(np.mean(np.clip(exact.astype(np.float64), -HALF_LARGEST, HALF_LARGEST) ** 2))) or 1.0
    offsets = HALF_TOLERANCE + HALF_OPERAND * added / scale / size
    beyond = np.zeros(found.shape, np.bool_)
    error, tolerance = _measure_halves(found, exact, size, offsets, relative, beyond)
    share = float(beyond.mean()) if beyond.size else 0.0
    detail = None
    if share > 0:
        detail = Detail(values, expected, beyond.reshape(values.shape), np.zeros(channels))
    return Local(error, tolerance, share, float(expected.max(initial=-np.inf)), detail)


@jit
def _measure_halves(
    values: Floats,
    expected: Floats,
    size: float,
    offsets: NDArray[np.float64],
    relative: float,
    beyond: NDArray[np.bool_],
) -> tuple[float, float]:
    error = 0.0
    most = 0.0
    images, channels, pixels = values.shape
    for image in range(images):
        for channel in range(channels):
            for pixel in range(pixels):
                value, want = float(values[image, channel, pixel]), float(expected[image, channel, pixel])
                exact = min(max(want, -HALF_LARGEST), HALF_LARGEST)
                distance = abs(min(max(value, -HALF_LARGEST), HALF_LARGEST) - exact) / size
                if value != value or want != want:
                    distance = np.inf
                tolerance = offsets[channel] + relative * abs(exact) / size
                beyond[image, channel, pixel] = not distance <= tolerance
                error = max(error, distance)
                most = max(most, tolerance)
    return error, most
