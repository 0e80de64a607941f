"""Draw the figures of a sweep."""

from nvdla_quant.jobs import logs
from nvdla_quant.report.evidence import read_evidence
from nvdla_quant.report.figures import FIGURES
from nvdla_quant.report.style import write_chart

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    more = {key: given[key] for key in ("tables", "verdicts", "layers")}
    evidence = read_evidence(given.accuracies, given.comparisons, params.groups, calibrators=params.calibrators, **more)
    charts = {name: draw(evidence) for name, draw in FIGURES.items()}
    for key, path in snakemake.output.items():
        write_chart(path, charts[key.rpartition("_")[0]])
