"""An answer: what to use for a case, and why."""

from dataclasses import dataclass

from nvdla_quant.report.frames import Row

LEVEL = 0.05
"""Corrected p-values below this are called significant."""
KEPT = 99.0
"""Percent of fp32's accuracy that MLPerf's inference rules ask int8 to keep."""
ALIKE = 1.01
"""Times that differ by less than this factor are as good as the same: estimates are not that exact."""


@dataclass(frozen=True)
class Recommendation:
    """The answer for a case on some targets.

    Attributes
    ----------
    case : tuple[str, str]
        Model and data set.
    targets : tuple[str, ...]
        Targets with the same answer.
    choices : tuple[Row, ...]
        What to use on each of them, lines of the groups; none where nothing can be recommended.
    headline : str
        The answer in one sentence.
    reasons : tuple[str, ...]
        Why, and how sure that is, one sentence or two each.
    pair : Row or None
        The choice beside fp32, a line of the comparisons.
    times : tuple[str, ...]
        How long it takes on each target, and the others beside it.
    by_labels : bool
        Whether labels say what is right; else fp32's outputs do.
    """

    case: tuple[str, str]
    targets: tuple[str, ...]
    choices: tuple[Row, ...]
    headline: str
    reasons: tuple[str, ...]
    pair: Row | None = None
    times: tuple[str, ...] = ()
    by_labels: bool = True

    @property
    def choice(self) -> Row | None:
        """Return what to use, as the first target has it; None where nothing can be recommended."""
        return next(iter(self.choices), None)
