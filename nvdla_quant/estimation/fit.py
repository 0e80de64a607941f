"""The memory's latency and bandwidth that explain the times that a user measured on a board."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize_scalar

from nvdla_quant.errors import MeasurementError
from nvdla_quant.estimation.estimate import Estimate, Row
from nvdla_quant.hardware.targets import Target
from nvdla_quant.timing.cost import cost_together
from nvdla_quant.timing.memory import Memory, beat_bytes
from nvdla_quant.timing.records import Operation

LATENCIES = (10, 40, 160, 640)
SHARES = (1.0, 0.5, 0.2, 0.05)
"""Where the search begins: all pairs are tried, and the best go on."""
BEGINNINGS = 3
MOST_LATENCY, LEAST_SHARE = 50_000, 1e-3
OFFSET = 20
"""Latency is sought as log(latency + this): alike in cycles where it is small, in parts where it is large."""
OUTLIER = 0.02
"""Relative error beyond which a time counts less, and hardly at all where it is far off."""
MODEL_ERROR = 0.003
"""Relative error that the model has by itself (docs/timing.md)."""
WIDEST = 0.25
"""Standard deviation, of the logarithm, beyond which the times do not determine a value."""
POOR = 0.1
"""Median error beyond which the model does not explain the times."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Value:
    """A fitted value.

    Attributes
    ----------
    value : float
        Itself.
    deviation : float
        Its standard deviation; infinite where the times do not say.
    determined : bool
        Whether the times determine it.
    """

    value: float
    deviation: float
    determined: bool


@dataclass(frozen=True)
class Residual:
    """One measured time beside that of the fitted model, in cycles."""

    operation: int
    unit: str
    measured: float
    fitted: float

    @property
    def error(self) -> float:
        """Relative error of the model."""
        return self.fitted / self.measured - 1


@dataclass(frozen=True)
class Fit:
    """What fits the measured times best.

    Attributes
    ----------
    memory : Memory
        The memory with the fitted values, both ways alike.
    latency, bandwidth : Value
        Cycles, and bytes a cycle.
    residuals : tuple[Residual, ...]
        In the order of the operations.
    """

    memory: Memory
    latency: Value
    bandwidth: Value
    residuals: tuple[Residual, ...]

    @property
    def error(self) -> float:
        """Median of the relative errors."""
        return median(abs(residual.error) for residual in self.residuals)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the times do not determine, and whether the model explains them at all."""
        found = [
            f"the measured times do not determine the {name}: others than {fitted.value:g} {unit} fit as well; "
            f"measure operations that {how}"
            for name, fitted, unit, how in (
                ("latency", self.latency, "cycles", "take few cycles"),
                ("bandwidth", self.bandwidth, "bytes a cycle", "wait for data or weights, as fully connected ones do"),
            )
            if not fitted.determined
        ]
        if self.error > POOR:
            found.append(
                f"half of the times are more than {100 * POOR:g} % from the model: check that they are cycles of the "
                "core's clock (--clock), without the host's part, of this loadable on this target"
            )
        return tuple(found)


def fit(estimate: Estimate, measured: Mapping[int, float]) -> Fit:
    """Find the latency and bandwidth with which the model is closest to measured cycles.

    Parameters
    ----------
    estimate : Estimate
        Of the loadable on the target; of its memory all but latency and bandwidth are kept.
    measured : Mapping[int, float]
        Cycles by the number of a row's first operation.

    Raises
    ------
    MeasurementError
        There are fewer times than values to find.
    """
    if len(measured) < 2:
        raise MeasurementError(
            f"{len(measured)} measured time, which cannot tell latency and bandwidth apart; expected those of two "
            "operations or more, best of all: give more lines"
        )
    rows = [row for row in estimate.rows if row.operation in measured]
    problem = _Problem(estimate, rows, np.array([measured[row.operation] for row in rows]))
    starts = sorted(product(LATENCIES, SHARES), key=lambda start: problem.loss(_point(*start)))[:BEGINNINGS]
    best = min((problem.solved(_point(*start)) for start in starts), key=problem.loss)
    latency = round(_latency(best))
    best = problem.rounded(latency)
    deviations = problem.deviations(best)
    memory = problem.memory(best)
    fitted = memory.read_bytes
    return Fit(
        memory,
        Value(latency, deviations[0] * (latency + OFFSET), bool(deviations[0] < WIDEST)),
        Value(fitted, deviations[1] * fitted, bool(deviations[1] < WIDEST)),
        tuple(
            Residual(row.operation, row.unit, measured[row.operation], float(cycles))
            for row, cycles in zip(rows, problem.cycles(best), strict=True)
        ),
    )


def _point(latency: float, share: float) -> Floats:
    """Return a place in the search: logarithms, of which the second grows as bandwidth falls."""
    return np.array([np.log(latency + OFFSET), 1 - np.log(share)])


def _latency(point: Floats) -> float:
    return float(np.exp(point[0])) - OFFSET


class _Problem:
    """The model as a function of a point of the search."""

    def __init__(self, estimate: Estimate, rows: Sequence[Row], measured: Floats) -> None:
        self._target: Target = estimate.target
        self._memory, self._measured = estimate.memory, measured
        # Operations that are alike, as the blocks of a network have them, are priced once.
        self._works: tuple[tuple[Operation, ...], ...] = tuple(dict.fromkeys(row.works for row in rows))
        self._places = [self._works.index(row.works) for row in rows]
        # One that was enabled while another ran began before its start.
        costs = [cost_together(self._target, self._memory, row.works).cycles for row in rows]
        self._before = np.array([cost - row.cycles for cost, row in zip(costs, rows, strict=True)])

    def memory(self, point: Floats) -> Memory:
        latency, share = max(0.0, round(_latency(point), 6)), min(1.0, float(np.exp(1 - point[1])))
        each = share * beat_bytes(self._target)
        whole = int(latency) if latency == int(latency) else latency
        return replace(self._memory, read_latency=whole, write_latency=whole, read_bytes=each, write_bytes=each)

    def cycles(self, point: Floats) -> Floats:
        memory = self.memory(point)
        costs = [cost_together(self._target, memory, works).cycles for works in self._works]
        found: Floats = np.array([costs[place] for place in self._places]) - self._before
        return found

    def errors(self, point: Floats) -> Floats:
        return np.asarray(np.log(self.cycles(point) / self._measured), np.float64)

    def loss(self, point: Floats) -> float:
        return float(np.sum(np.log1p((self.errors(point) / OUTLIER) ** 2)))

    def solved(self, start: Floats) -> Floats:
        bounds = _point(0, 1.0), _point(MOST_LATENCY, LEAST_SHARE)
        found = least_squares(
            self.errors, start, bounds=bounds, loss="cauchy", f_scale=OUTLIER, diff_step=1e-3, max_nfev=40
        )
        return np.asarray(found.x)

    def rounded(self, latency: int) -> Floats:
        """Return the best point with a latency; the full rate where none is better."""
        least = 1 - np.log(LEAST_SHARE)
        found = minimize_scalar(
            lambda rate: self.loss(np.array([np.log(latency + OFFSET), rate])), bounds=(1, least), method="bounded"
        )
        full = _point(latency, 1.0)
        best: float = found.x
        return full if self.loss(full) <= found.fun + 1e-3 else np.array([full[0], best])

    def deviations(self, point: Floats) -> tuple[float, float]:
        """Return the standard deviations of the logarithms: infinite where another value changes nothing."""
        step = 0.05
        moved = [self.errors(point + np.array(by)) for by in ((step, 0.0), (0.0, step))]
        errors = self.errors(point)
        slopes = np.stack([(other - errors) / step for other in moved], axis=1)
        left = max(1, len(errors) - 2)
        # The median stands for most of them where few are far off.
        spread = max(MODEL_ERROR, 1.48 * float(np.median(np.abs(errors))) * np.sqrt(len(errors) / left))
        information = slopes.T @ slopes / spread**2
        if np.linalg.cond(information) > 1e12:
            return tuple(  # type: ignore[return-value]
                float("inf") if information[place, place] < 1 / WIDEST**2 else float(information[place, place] ** -0.5)
                for place in range(2)
            )
        covariance = np.linalg.inv(information)
        return float(np.sqrt(covariance[0, 0])), float(np.sqrt(covariance[1, 1]))
