"""Put the accuracies and verdicts of a sweep side by side, and its paired comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any


def summarize_sweep(
    files: Mapping[str, Sequence[str]],
    groups: Sequence[Mapping[str, Any]],
    *,
    tsv: str,
    pairs: str,
    seeds: str,
    tex: str,
    md: str,
) -> None:
    """Write the tables of a sweep.

    Parameters
    ----------
    files : Mapping
        ``accuracies``, ``comparisons``, ``verdicts`` and ``costs``, see `read_evidence`.
    groups : sequence of Mapping
        Variants without their seeds, see there.
    tsv, tex, md : str
        Where the accuracies and verdicts go, as data and for readers.
    pairs, seeds : str
        Where the paired comparisons go, and the spread over seeds.
    """
    from nvdla_quant.report.evidence import pair_rows, read_evidence, seed_rows
    from nvdla_quant.report.frames import PAIRS, SEEDS, SUMMARY, write_tsv
    from nvdla_quant.report.tables import sheets_of
    from nvdla_quant.report.writers import write_sheets

    evidence = read_evidence(
        files["accuracies"], files["comparisons"], groups, verdicts=files["verdicts"], costs=files["costs"]
    )
    write_tsv(tsv, evidence.accuracies, SUMMARY)
    write_tsv(pairs, pair_rows(evidence), PAIRS)
    write_tsv(seeds, seed_rows(evidence), SEEDS)
    write_sheets(sheets_of(evidence), tex, md)
