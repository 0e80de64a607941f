"""A user's measured times: a table of tabs with a line for each operation."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from nvdla_quant.errors import MeasurementError
from nvdla_quant.estimation.estimate import CPU, Estimate, Row
from nvdla_quant.estimation.record import layers_of

NAMES = ("op", "layer")
UNITS = {"cycles": None, "us": 1e-6, "ms": 1e-3}
"""Columns of times, and the seconds of one."""


def read_measured(
    path: Path, estimate: Estimate, layers: Mapping[int, Sequence[str]] | None = None
) -> dict[int, float]:
    """Return measured cycles by the number of a row's first operation.

    Parameters
    ----------
    path : Path
        Lines of values between tabs under a line of names: ``op`` or ``layer``, and ``cycles``, ``us`` or ``ms``;
        others are left alone.
    estimate : Estimate
        Of the loadable; its clock says how many cycles a time is.
    layers : Mapping[int, Sequence[str]], optional
        Layers that each operation computes; without it lines cannot name any.

    Raises
    ------
    MeasurementError
        The file cannot be read, or a line is no time of an operation of the hardware.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            lines, heads = list(reader), reader.fieldnames or ()
    except (OSError, ValueError, csv.Error) as error:
        raise MeasurementError(f"{path}: not a readable table of tabs ({error})") from error
    name, unit = _one(path, heads, NAMES), _one(path, heads, tuple(UNITS))
    if name == "layer" and layers is None:
        raise MeasurementError(f"{path}: lines name layers; give --report, the compile.json that says which they are")
    known = _known(estimate, layers if name == "layer" else None)
    found: dict[int, float] = {}
    for number, line in enumerate(lines, 2):
        where = f"{path}: line {number}"
        row = known.get((line[name] or "").strip())
        if row is None:
            raise MeasurementError(f"{where}: {name} {line[name]!r}, expected one of {_some(known)}")
        if row.unit == CPU:
            raise MeasurementError(f"{where}: the processor computes {name} {line[name]}; leave the line out")
        if row.operation in found:
            others = ", ".join(map(str, (row.operation, *row.others)))
            raise MeasurementError(f"{where}: a second time of operations {others}, which run together; give one line")
        found[row.operation] = _cycles(where, unit, line[unit], estimate.memory.clock)
    return found


def _one(path: Path, heads: Sequence[str], names: tuple[str, ...]) -> str:
    """Return the one of `names` that a table has."""
    there = [name for name in names if name in heads]
    if len(there) != 1:
        got = ", ".join(heads) or "none"
        raise MeasurementError(f"{path}: columns {got}; expected one of {', '.join(names)}, between tabs")
    return there[0]


def _known(estimate: Estimate, layers: Mapping[int, Sequence[str]] | None) -> dict[str, Row]:
    """Return rows by what a line may call them."""
    if layers is None:
        return {str(number): row for row in estimate.rows for number in (row.operation, *row.others)}
    return {name: row for row in reversed(estimate.rows) for name in layers_of(row, layers)}


def _some(known: Mapping[str, Row], count: int = 8) -> str:
    names = list(known)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _cycles(where: str, unit: str, text: str | None, clock: float) -> float:
    try:
        value = float((text or "").replace(",", ""))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise MeasurementError(f"{where}: {unit} {text!r}, expected a number above 0")
    seconds = UNITS[unit]
    return value if seconds is None else value * seconds * clock
