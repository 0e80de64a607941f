"""Write the report of a sweep as one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.jobs.provenance import read_manifest


def write_report(
    files: Mapping[str, Sequence[str]],
    manifest: str,
    html: str,
    groups: Sequence[Mapping[str, Any]],
    calibrators: Sequence[Mapping[str, Any]],
    keep: float,
    benchmarks: Mapping[str, str],
    runs: str,
) -> None:
    """Write the report.

    Parameters
    ----------
    files : Mapping
        ``accuracies``, ``comparisons``, ``tables``, ``verdicts``, ``layers``, ``costs``, ``fidelities`` and
        ``fidelity_pairs``, see `read_evidence`.
    manifest : str
        The run's ``manifest.json``.
    html : str
        Where the page goes.
    groups, calibrators : sequence of Mapping
        Variants without their seeds, and what calibrated them; see `read_evidence`.
    keep : float
        How much of fp32's accuracy the user wants kept, in percent.
    benchmarks : Mapping
        Where Snakemake wrote run times, see `read_times`.
    runs : str
        Logs of the jobs that run loadables, see `read_kernels`.
    """
    from nvdla_quant.report.evidence import read_evidence
    from nvdla_quant.report.page import write_page
    from nvdla_quant.report.times import read_kernels, read_times

    evidence = read_evidence(groups=groups, calibrators=calibrators, **files)
    write_page(html, evidence, keep, read_times(benchmarks), read_kernels(runs), read_manifest(Path(manifest)))
