"""Draw the figures of a sweep."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.report.evidence import read_evidence
from nvdla_quant.report.figures import FIGURES
from nvdla_quant.report.style import write_chart

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    files = {key: given[key] for key in ("tables", "verdicts", "layers")}
    evidence = read_evidence(
        given.accuracies, given.comparisons, params.groups, calibrators=params.calibrators, **files
    )
    for name, draw in FIGURES.items():
        chart = draw(evidence)
        write_chart(Path(snakemake.output[f"{name}_svg"]), chart)
        write_chart(Path(snakemake.output[f"{name}_pdf"]), chart)
