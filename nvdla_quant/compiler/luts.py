"""Look-up tables: functions of one value for the SDP, powers of sums of squares for the CDP.

Both units have two tables, which the hardware interpolates linearly (nvdla-arithmetic.md, sections 4 and 6): LO with
256 intervals of equal width, and LE with 64 intervals, of equal width or each twice as wide as the one before. LO
covers the range that calibration saw and counts wherever it has a value; LE covers what lies beyond.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.fixed import factorise
from nvdla_quant.compiler.operations import CdpProgram
from nvdla_quant.loadable import structs
from nvdla_quant.network.graph import LRN, Power, Sigmoid, TanH

Floats = NDArray[np.floating[Any]]

ENTRY_LIMIT = (1 << 15) - 1
"""Largest entry, 16 bits; the smallest is not used, so that the range is symmetric."""
TABLE_STEP = 128 / ENTRY_LIMIT
"""Steps of the output in one of an entry: entries reach what int8 holds."""
LO_INTERVALS, LE_INTERVALS = 256, 64
WIDER = 4
"""Log2 of how much wider LE's intervals are than LO's: four times the range."""
HALF_RANGES: dict[type[Sigmoid | TanH], int] = {Sigmoid: -4, TanH: -5}
"""fp16: log2 of LO's intervals. 256 of 1/16 reach 8, where a sigmoid is 3.4e-4 below 1; 256 of 1/32 reach 4, where a
hyperbolic tangent is 6.7e-4 below 1; LE reaches 4 times as far. Between entries the error is below 2**-2a / 8 times the
largest second derivative (0.096 and 0.77): 4.7e-5 and 9.4e-5."""
HALF_NORMALISATION_ERROR = 2.5e-4
"""fp16: largest relative error of a normalisation between LO's entries; half a step of fp16 is 2.4e-4 at worst."""
LARGEST_SQUARE = 128**2


def evaluate(operation: Sigmoid | TanH | Power, values: Floats) -> Floats:
    """Values of the function; what is not a number (a root of a negative one) counts as 0."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        match operation:
            case Sigmoid():
                return np.asarray(1 / (1 + np.exp(-values)))
            case TanH():
                return np.tanh(values)
            case Power():
                return np.nan_to_num((operation.shift + operation.scale * values) ** operation.power, nan=0.0)


def function_table(operation: Sigmoid | TanH | Power, unit: float, source: float, output: float) -> np.void:
    """Table of a function for the SDP in int8.

    LO has an entry at each step of the source's scale from -128 to 128, so an int8 value meets one exactly; finer
    values are interpolated between.

    Parameters
    ----------
    operation : Sigmoid or TanH or Power
        The function.
    unit : float
        Real value of 1 at the table's input, at most about the source's scale.
    source, output : float
        Scales of the function's input and output.
    """
    select = max(0, math.ceil(math.log2(source / unit) - 1e-9))

    def entries(intervals: int, width: int) -> tuple[NDArray[np.int16], int]:
        start = -(intervals // 2) << width
        points = (start + (np.arange(intervals + 1, dtype=np.int64) << width)) * unit
        return _entries(evaluate(operation, points) / (output * TABLE_STEP)), start

    lo, lo_start = entries(LO_INTERVALS, select)
    le, le_start = entries(LE_INTERVALS, select + WIDER)
    return _record(le, lo, select + WIDER, select, (le_start, -le_start), (lo_start, -lo_start), exponential=False)


def half_function_table(operation: Sigmoid | TanH | Power) -> np.void:
    """Table of a function for the SDP in fp16, over a fixed range (`HALF_RANGES`)."""
    assert not isinstance(operation, Power)
    select = HALF_RANGES[type(operation)]

    def entries(intervals: int, width: int) -> tuple[NDArray[np.int16], float]:
        start = -(intervals // 2) * 2.0**width
        points = start + np.arange(intervals + 1) * 2.0**width
        return evaluate(operation, points).astype(np.float16).view(np.int16), start

    lo, lo_start = entries(LO_INTERVALS, select)
    le, le_start = entries(LE_INTERVALS, select + WIDER)
    ranges = [(_float_bits(start), _float_bits(-start)) for start in (le_start, lo_start)]
    return _record(le, lo, select + WIDER, select, ranges[0], ranges[1], exponential=False)


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

    widest = max(0, math.ceil(math.log2(most / LE_INTERVALS)))
    sums = np.unique(np.rint(np.concatenate([np.linspace(0, most, 4096), np.geomspace(1, most, 4096)])))
    exact = factor(sums)
    choices = []
    for select in range(max(0, math.ceil(math.log2(most / LO_INTERVALS))) + 1):
        for exponential in (False, True):
            lo = np.arange(LO_INTERVALS + 1) * 2.0**select
            le = 2.0 ** np.arange(LE_INTERVALS + 1) if exponential else np.arange(LE_INTERVALS + 1) * 2.0**widest
            near, far = (np.interp(sums, knots, factor(knots)) for knots in (lo, le))
            found = np.where(sums < lo[-1], near, far)
            choices.append((float(np.max(np.abs(found / exact - 1))), exponential, select, lo, le))
    _, exponential, select, lo, le = min(choices, key=lambda choice: choice[:3])
    unit = float(exact.max()) / ENTRY_LIMIT
    lut = _record(
        _entries(factor(le) / unit),
        _entries(factor(lo) / unit),
        0 if exponential else widest,
        select,
        (0, int(min(le[-1], 2.0**37))),
        (0, int(lo[-1])),
        exponential=exponential,
    )
    return CdpProgram(factorise(unit * source / output, where), lut)


def half_normalisation_table(operation: LRN) -> CdpProgram:
    """Table of a normalisation in fp16: LO from 0 on, so far as `HALF_NORMALISATION_ERROR` allows; LE exponential.

    Beyond LO's range, where alpha / n * sum exceeds 5 to 10 times k, LE interpolates over octaves: up to 8 % off for
    beta 0.75.
    """
    # Linear interpolation over a width h is off by h**2 / 8 times the second derivative, which is largest at 0:
    # beta (beta + 1) (alpha / n / k)**2 times the value.
    slope = abs(operation.alpha) / operation.local_size / operation.k
    curvature = max(operation.beta * (operation.beta + 1), 1e-3) * max(slope, 1e-9) ** 2
    select = min(max(math.floor(math.log2(math.sqrt(8 * HALF_NORMALISATION_ERROR / curvature))), -24), 24)
    lo = np.arange(LO_INTERVALS + 1) * 2.0**select
    le = 2.0 ** np.minimum(select + 8 + np.arange(LE_INTERVALS + 1), 100)
    tables = [_factor(operation, knots).astype(np.float16).view(np.int16) for knots in (le, lo)]
    ranges = (0, _float_bits(float(le[-1]))), (0, _float_bits(float(lo[-1])))
    return CdpProgram(None, _record(tables[0], tables[1], select + 8, select, *ranges, exponential=True))


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
