"""What was done to a scale and why: the rows of ``changes.tsv``."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nvdla_quant.jobs.files import format_records, write_text


@dataclass(frozen=True)
class Change:
    """One name that was mapped, or one scale that was set.

    Attributes
    ----------
    name : str
        Name in the fixed table: a layer, or the blob of a network input. Empty where the cache's entry has no place.
    cache_name : str
        Entry of the calibration cache that the scale came from; empty where the scale came from a rule.
    scale_before, scale_after : float
        Real value of one int8 step before and after.
    rule : str
        Short name of the rule, one word of letters and hyphens.
    reason : str
        The rule in this place, in words.
    """

    name: str
    cache_name: str
    scale_before: float
    scale_after: float
    rule: str
    reason: str


def write_changes(changes: Iterable[Change], path: Path) -> None:
    """Write `changes` to `path`, whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    write_text(path, format_records(changes, Change))
