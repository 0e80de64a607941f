"""Tables of a sweep that measures some cases by labels and some without: the columns of both, those of labels first.

Of a sweep that measures by labels alone they are what they were.
"""

import pandas as pd

from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.fidelity.frames import ADDED, BY_LABELS, FIDELITY_PAIRS, MEASURED, SPREAD
from nvdla_quant.report.frames import PAIRS, SEEDS, SUMMARY, Schema, cast, spreads

Table = tuple[pd.DataFrame, Schema]


def summary_together(evidence: Evidence) -> Table:
    """Return what ``summary.tsv`` holds: a row for each run."""
    if evidence.fidelity.empty:
        return evidence.accuracies, SUMMARY
    labelled = evidence.accuracies.assign(metric=BY_LABELS)
    return _joined(labelled, evidence.fidelity, {**SUMMARY, **MEASURED})


def pairs_together(evidence: Evidence, pairs: pd.DataFrame) -> Table:
    """Return what ``pairs.tsv`` holds: the `pairs` by labels, and those without."""
    if evidence.fidelity.empty:
        return pairs, PAIRS
    return _joined(pairs, evidence.fidelity_pairs[list(FIDELITY_PAIRS)], {**PAIRS, **ADDED})


def seeds_together(evidence: Evidence, seeds: pd.DataFrame) -> Table:
    """Return what ``seeds.tsv`` holds: the `seeds` by labels, and those without."""
    if evidence.fidelity.empty:
        return seeds, SEEDS
    groups = evidence.fidelity_groups[evidence.fidelity_groups["seeds"] > 1]
    return _joined(seeds, groups.assign(variant=groups["group"]), {**SEEDS, **spreads(*SPREAD)})


def _joined(first: pd.DataFrame, second: pd.DataFrame, schema: Schema) -> Table:
    """Return the lines of both below each other; a cell whose column one of them lacks is empty."""
    parts = [frame.reindex(columns=list(schema)).astype(object) for frame in (first, second)]
    return cast(pd.concat(parts, ignore_index=True), schema), schema
