"""A function as an SDP operation's table has it: exact where there are entries, straight lines between them.

A table has 256 intervals for what int8 holds of the function's input. Where one is wide beside the function's bend, its
lines are far from the function, whoever made the table: that is for the scores to judge, and no defect of the loadable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.fields import signed
from nvdla_quant.emulator.operations import Operation, SdpOperation, TableHalf
from nvdla_quant.verification.measures.comparison import Floats

ENTRY_LIMIT = 32767
"""Largest entry."""
NEAR = 1
"""What `hybrid_priority` is where the table of equal intervals counts wherever it has a value."""
SAME_WIDTH = 1e-3
"""Relative difference of widths that rounding costs."""


@dataclass(frozen=True)
class Knots:
    """Where one of the two tables has entries: `count` of them from `start` on, `step` apart, in real values."""

    start: float
    step: float
    count: int

    @property
    def points(self) -> NDArray[np.float64]:
        """All of them."""
        points: NDArray[np.float64] = self.start + self.step * np.arange(self.count, dtype=np.float64)
        return points


@dataclass(frozen=True)
class FunctionTable:
    """Both tables: the near one counts where it has a value; no entry stands for more than `limit`."""

    near: Knots
    far: Knots
    limit: float

    def of(self, function: Callable[[Floats], Floats], values: Floats) -> Floats:
        """Return what the tables make of values if their entries are those of `function`."""
        near, far = (self._interpolated(function, values, knots) for knots in (self.near, self.far))
        points = self.near.points
        made: Floats = np.where((values > points[0]) & (values < points[-1]), near, far).astype(np.float32)
        return made

    def _interpolated(self, function: Callable[[Floats], Floats], values: Floats, knots: Knots) -> NDArray[np.float64]:
        points = knots.points
        entries = function(points.astype(np.float32).reshape(1, 1, 1, -1)).ravel()
        made: NDArray[np.float64] = np.interp(values, points, np.clip(entries, -self.limit, self.limit))
        return made


def table_of(operations: Sequence[Operation], unit: float, widest: float, output: float) -> FunctionTable | None:
    """Return where the table of operations that compute one function has its entries.

    None where that excuses nothing: they have several tables or none, or one whose near intervals are wider than
    `widest`, so that a wrong width cannot excuse itself.

    Parameters
    ----------
    operations : Sequence[Operation]
        In int8.
    unit : float
        Real value of 1 at the table's input.
    widest : float
        Real width that the near table's intervals need at most.
    output : float
        Scale of what the operations write.
    """
    found = {_table(operation, unit, output) for operation in operations}
    table = found.pop()
    if found or table is None or table.near.step > widest * (1 + SAME_WIDTH):
        return None
    return table


def _table(operation: Operation, unit: float, output: float) -> FunctionTable | None:
    lut = operation.lut if isinstance(operation, SdpOperation) else None
    if lut is None or lut.linear_exp.exponential or lut.hybrid_priority != NEAR:
        return None
    assert isinstance(operation, SdpOperation)
    gain = abs(operation.converter.scale) * 2.0**-operation.converter.shift
    near, far = (_knots(half, unit) for half in (lut.linear_only, lut.linear_exp))
    return FunctionTable(near, far, ENTRY_LIMIT * gain * output)


def _knots(half: TableHalf, unit: float) -> Knots:
    return Knots(half.start * unit, 2.0 ** signed(half.select, 8) * unit, len(half.entries))
