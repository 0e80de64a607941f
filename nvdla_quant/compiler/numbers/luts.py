"""Look-up tables: functions of one value for the SDP, powers of sums of squares for the CDP.

Both units have two tables, which the hardware interpolates linearly (docs/hardware/tables.md): LO with 256 intervals of
equal width, and LE with 64 intervals, of equal width or each twice as wide as the one before. LO
covers the range that calibration saw and counts wherever it has a value; LE covers what lies beyond.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.lowering.operations import CdpProgram
from nvdla_quant.compiler.numbers.fixed import factorise
from nvdla_quant.loadable import structs
from nvdla_quant.network.graph import (
    GELU,
    LRN,
    HardSigmoid,
    HardSwish,
    Power,
    Sigmoid,
    Swish,
    Tabulated,
    TanH,
)

Floats = NDArray[np.floating[Any]]

ENTRY_LIMIT = (1 << 15) - 1
"""Largest entry, 16 bits; the smallest is not used, so that the range is symmetric."""
TABLE_STEP = 128 / ENTRY_LIMIT
"""Steps of the output in one of an entry: entries reach what int8 holds."""
LO_INTERVALS, LE_INTERVALS = 256, 64
WIDER = 4
"""Log2 of how much wider LE's intervals are than LO's: four times the range."""
LE_REACH = (LE_INTERVALS << WIDER) // LO_INTERVALS
"""How much farther LE reaches than LO."""
INT8_STEPS = 128
"""Steps that int8 reaches on each side of 0, and with it LO."""
HALF_RANGES: dict[type[Tabulated], int] = {Sigmoid: -4, TanH: -5, Swish: -4, HardSwish: -5, GELU: -5}
"""fp16: log2 of LO's intervals. 256 of 1/16 reach 8, where a sigmoid is 3.4e-4 below 1; 256 of 1/32 reach 4, where a
hyperbolic tangent is 6.7e-4 below 1; LE reaches 4 times as far. Between entries the error is below 2**-2a / 8 times the
largest second derivative (0.096 and 0.77): 4.7e-5 and 9.4e-5.

The others are x beyond LE, up to 1e-12, and 0 below. Their second derivatives are at most 0.5 (Swish), 1/3 (HardSwish,
whose kinks at 3 and -3 are entries) and 0.8 or, approximate, 0.82 (GELU), so they are off by 2.4e-4, 4.1e-5 and 1.0e-4;
in LE's wider intervals by 1.7e-4 (Swish beyond 8), 0 and 2.7e-5 (GELU beyond 4)."""
HALF_NORMALISATION_ERROR = 2.5e-4
"""fp16: largest relative error of a normalisation between LO's entries; half a step of fp16 is 2.4e-4 at worst."""
LARGEST_SQUARE = 128**2


def evaluate(operation: Tabulated | Power, values: Floats) -> Floats:
    """Values of the function; what is not a number (a root of a negative one) counts as 0."""
    result: Floats
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        match operation:
            case Sigmoid():
                result = 1 / (1 + np.exp(-values))
            case TanH():
                result = np.tanh(values)
            case HardSigmoid():
                result = np.clip(operation.alpha * values + operation.beta, 0, 1)
            case HardSwish():
                result = values * np.clip(values / 6 + 0.5, 0, 1)
            case Swish():
                result = values / (1 + np.exp(-values))
            case GELU():
                result = values * _normal_share(values, operation.approximate)
            case Power():
                result = np.nan_to_num((operation.shift + operation.scale * values) ** operation.power, nan=0.0)
    return result


def _normal_share(values: Floats, approximate: bool) -> Floats:
    """Return the normal distribution's share below values, as `graph.GELU` has it."""
    if approximate:
        tanh: Floats = np.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3))
        return 0.5 * (1 + tanh)
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in values])


def function_table(operation: Tabulated | Power, unit: float, source: float, output: float) -> np.void:
    """Table of a function for the SDP in int8.

    LO has an entry at each step of the source's scale from -128 to 128, so an int8 value meets one exactly; finer
    values are interpolated between. Those may be beyond what calibration saw: where a function has a kink there, LO
    reaches as far, and not only LE, whose wide intervals would cut the corner. Cut it is all the same, by a quarter of
    an interval times the jump of the slope: so a table whose steps are large beside the function's bend is coarse.

    Parameters
    ----------
    operation : Tabulated or Power
        The function.
    unit : float
        Real value of 1 at the table's input, at most about the source's scale.
    source, output : float
        Scales of the function's input and output.
    """
    select = max(0, math.ceil(math.log2(source / unit) - 1e-9))
    if unit < source:
        select += _widened(operation, source)

    def entries(intervals: int, width: int) -> tuple[NDArray[np.int16], int]:
        start = -(intervals // 2) << width
        points = (start + (np.arange(intervals + 1, dtype=np.int64) << width)) * unit
        return _entries(evaluate(operation, points) / (output * TABLE_STEP)), start

    lo, lo_start = entries(LO_INTERVALS, select)
    le, le_start = entries(LE_INTERVALS, select + WIDER)
    return _record(le, lo, select + WIDER, select, (le_start, -le_start), (lo_start, -lo_start), exponential=False)


def _widened(operation: Tabulated | Power, source: float) -> int:
    """Return log2 of how much wider than the source's steps LO's intervals are, so that kinks within LE's are in it."""
    reach = INT8_STEPS * source
    farthest = max(map(abs, _kinks(operation)), default=0.0)
    return math.ceil(math.log2(farthest / reach)) if reach < farthest <= reach * LE_REACH else 0


def _kinks(operation: Tabulated | Power) -> tuple[float, ...]:
    """Return where the slope of a function jumps."""
    match operation:
        case HardSwish():
            return -3.0, 3.0
        case HardSigmoid():
            return -operation.beta / operation.alpha, (1 - operation.beta) / operation.alpha
    return ()


def half_function_table(operation: Tabulated | Power) -> np.void:
    """Table of a function for the SDP in fp16, over a fixed range (`HALF_RANGES`).

    Beyond it a function goes on as straight as it ends: with the slope 0 or 1.
    """
    assert not isinstance(operation, Power)
    if isinstance(operation, HardSigmoid):
        return _half_hard_sigmoid(operation)
    select = HALF_RANGES[type(operation)]

    def entries(intervals: int, width: int) -> tuple[NDArray[np.int16], float]:
        start = -(intervals // 2) * 2.0**width
        points = start + np.arange(intervals + 1) * 2.0**width
        return evaluate(operation, points).astype(np.float16).view(np.int16), start

    lo, lo_start = entries(LO_INTERVALS, select)
    le, le_start = entries(LE_INTERVALS, select + WIDER)
    ranges = [(_float_bits(start), _float_bits(-start)) for start in (le_start, lo_start)]
    record = _record(le, lo, select + WIDER, select, ranges[0], ranges[1], exponential=False)
    last, beyond = evaluate(operation, np.array([-le_start, 1 - le_start]))
    record["linear_exp_overflow_scale"] = int(np.float16(round(beyond - last)).view(np.int16))
    return record


def _half_hard_sigmoid(operation: HardSigmoid) -> np.void:
    """Table of straight lines, exact wherever the kinks are; entries are halves, 4.9e-4 off at most.

    LO has the slope, from the left kink on and beyond the right one; LE begins there, is constant, and counts where it
    has a value. Left of both LO's first entry counts.
    """
    left, right = sorted(_kinks(operation))
    select = math.ceil(math.log2((right - left) / LO_INTERVALS))
    points = left + np.arange(LO_INTERVALS + 1) * 2.0**select
    lo = (operation.alpha * points + operation.beta).astype(np.float16).view(np.int16)
    le = np.full(LE_INTERVALS + 1, np.float16(operation.alpha > 0)).view(np.int16)
    wide = select + 2 * WIDER
    ranges = (
        (_float_bits(start), _float_bits(start + count * 2.0**width))
        for start, count, width in ((right, LE_INTERVALS, wide), (left, LO_INTERVALS, select))
    )
    record = _record(le, lo, wide, select, next(ranges), next(ranges), exponential=False)
    record["hybrid_priority"], record["underflow_priority"] = 0, 1
    return record


def normalisation_table(operation: LRN, source: float, output: float, channels: int, where: str) -> CdpProgram:
    """Table and output converter of a normalisation in int8.

    The table's input is the sum of squared steps, its output the factor of the value. The widths of LO's intervals,
    and the kind of LE's, are those with the smallest largest error over all sums that can occur.

    Parameters
    ----------
    operation : LRN
        The normalisation.
    source, output : float
        Scales.
    channels : int
        Channels of the tensor.
    where : str
        The layer, for messages.
    """
    most = min(operation.local_size, channels) * LARGEST_SQUARE

    def factor(sums: Floats) -> Floats:
        return _factor(operation, sums * source**2)

    sums = np.unique(np.rint(np.concatenate([np.linspace(0, most, 4096), np.geomspace(1, most, 4096)])))
    knots = _best_knots(factor, sums, 0)
    unit = float(factor(sums).max()) / ENTRY_LIMIT
    lut = _record(
        _entries(factor(knots.le) / unit),
        _entries(factor(knots.lo) / unit),
        knots.le_offset,
        knots.lo_offset,
        (0, int(min(knots.le[-1], 2.0**37))),
        (0, int(knots.lo[-1])),
        exponential=knots.exponential,
    )
    return CdpProgram(factorise(unit * source / output, where), lut)


@dataclass(frozen=True, eq=False)
class _Knots:
    """Where the tables of a normalisation have their entries, both from 0 on, and how the hardware is told."""

    lo: Floats
    le: Floats
    lo_offset: int
    le_offset: int
    exponential: bool


def _best_knots(factor: Callable[[Floats], Floats], sums: Floats, lowest: int) -> _Knots:
    """Return the knots with the smallest largest relative error over `sums`, LO's at least 2**`lowest` apart."""
    most, exact = float(sums[-1]), factor(sums)
    widest = max(lowest, math.ceil(math.log2(most / LE_INTERVALS)))
    choices = []
    for select in range(lowest, max(lowest, math.ceil(math.log2(most / LO_INTERVALS))) + 1):
        lo = np.arange(LO_INTERVALS + 1) * 2.0**select
        doubled = 2.0 ** np.minimum(lowest + np.arange(LE_INTERVALS + 1), 100)
        even = np.arange(LE_INTERVALS + 1) * 2.0**widest
        for knots in (_Knots(lo, even, select, widest, False), _Knots(lo, doubled, select, lowest, True)):
            near, far = (np.interp(sums, points, factor(points)) for points in (knots.lo, knots.le))
            error = float(np.max(np.abs(np.where(sums < lo[-1], near, far) / exact - 1)))
            choices.append((error, knots))
    return min(choices, key=lambda choice: choice[0])[1]


def half_normalisation_table(operation: LRN, largest: float | None) -> CdpProgram:
    """Table of a normalisation in fp16.

    Where the largest value is known, the knots are chosen as in int8, for values up to twice as large. Where it is not,
    LO reaches from 0 on so far as `HALF_NORMALISATION_ERROR` allows, to alpha / n * sum of 5 to 10 times k, and beyond
    that LE interpolates over octaves: up to 8 % off for beta 0.75.

    Parameters
    ----------
    operation : LRN
        The normalisation.
    largest : float or None
        Largest magnitude of its input in calibration.
    """
    if largest is not None:
        most = operation.local_size * (2 * largest) ** 2
        sums = np.concatenate([np.linspace(0, most, 4096), np.geomspace(most * 2.0**-20, most, 4096)])
        knots = _best_knots(lambda values: _factor(operation, values), np.sort(sums), math.floor(math.log2(most)) - 24)
        return _half_normalisation(operation, knots)
    # Linear interpolation over a width h is off by h**2 / 8 times the second derivative, which is largest at 0:
    # beta (beta + 1) (alpha / n / k)**2 times the value.
    slope = abs(operation.alpha) / operation.local_size / operation.k
    curvature = max(operation.beta * (operation.beta + 1), 1e-3) * max(slope, 1e-9) ** 2
    select = min(max(math.floor(math.log2(math.sqrt(8 * HALF_NORMALISATION_ERROR / curvature))), -24), 24)
    lo = np.arange(LO_INTERVALS + 1) * 2.0**select
    le = 2.0 ** np.minimum(select + 8 + np.arange(LE_INTERVALS + 1), 100)
    return _half_normalisation(operation, _Knots(lo, le, select, select + 8, True))


def _half_normalisation(operation: LRN, knots: _Knots) -> CdpProgram:
    le, lo = (_factor(operation, points).astype(np.float16).view(np.int16) for points in (knots.le, knots.lo))
    ranges = [(0, _float_bits(float(points[-1]))) for points in (knots.le, knots.lo)]
    offsets = knots.le_offset, knots.lo_offset
    return CdpProgram(None, _record(le, lo, *offsets, ranges[0], ranges[1], exponential=knots.exponential))


def _factor(operation: LRN, squares: Floats) -> Floats:
    """Return what a normalisation multiplies a value by, given the sum of squares around it."""
    return (operation.k + operation.alpha / operation.local_size * squares) ** -operation.beta


def _entries(values: Floats) -> NDArray[np.int16]:
    return np.clip(np.rint(values), -ENTRY_LIMIT, ENTRY_LIMIT).astype(np.int16)


def _float_bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def _record(
    le: NDArray[np.int16],
    lo: NDArray[np.int16],
    le_offset: int,
    lo_offset: int,
    le_range: tuple[int, int],
    lo_range: tuple[int, int],
    *,
    exponential: bool,
) -> np.void:
    record: np.void = np.zeros(1, structs.LUT)[0]
    record["linear_exp_table"], record["linear_only_table"] = le, lo
    record["linear_exp_offset"], record["linear_only_offset"] = le_offset, lo_offset
    for name, (start, end) in (("linear_exp", le_range), ("linear_only", lo_range)):
        record[f"{name}_start"], record[f"{name}_end"] = start % (1 << 64), end
    # LO where it has a value (1); beyond both tables the end of the one that reaches farther. Both may begin at 0.
    record["hybrid_priority"] = 1
    record["underflow_priority"] = int(le_range[0] == lo_range[0])
    record["method"] = 0 if exponential else 1
    return record
