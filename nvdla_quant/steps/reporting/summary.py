"""Put what was measured and judged in a sweep side by side, and its paired comparisons."""

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
        ``accuracies``, ``comparisons``, ``verdicts``, ``costs``, ``fidelities`` and ``fidelity_pairs``, see
        `read_evidence`.
    groups : sequence of Mapping
        Variants without their seeds, see there.
    tsv, tex, md : str
        Where what was measured and judged goes, as data and for readers.
    pairs, seeds : str
        Where the paired comparisons go, and the spread over seeds.
    """
    from nvdla_quant.report.evidence import pair_rows, read_evidence, seed_rows
    from nvdla_quant.report.fidelity.tables import fidelity_sheets
    from nvdla_quant.report.fidelity.together import pairs_together, seeds_together, summary_together
    from nvdla_quant.report.frames import write_tsv
    from nvdla_quant.report.tables import sheets_of
    from nvdla_quant.report.writers import write_sheets

    evidence = read_evidence(groups=groups, calibrators=(), **files)
    write_tsv(tsv, *summary_together(evidence))
    write_tsv(pairs, *pairs_together(evidence, pair_rows(evidence)))
    write_tsv(seeds, *seeds_together(evidence, seed_rows(evidence)))
    write_sheets([*sheets_of(evidence), *fidelity_sheets(evidence)], tex, md)


def summarize_fidelity(fidelities: Sequence[str], tsv: str) -> None:
    """Write a line for each output of each run that was measured without labels."""
    from nvdla_quant.evaluation.fidelity.figures import read_fidelity
    from nvdla_quant.report.fidelity.frames import OUTPUTS, output_rows
    from nvdla_quant.report.frames import write_tsv

    write_tsv(tsv, output_rows(map(read_fidelity, fidelities)), OUTPUTS)
