"""Write the report of a sweep as one page."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.jobs.provenance import read_manifest
from nvdla_quant.report.evidence import read_evidence
from nvdla_quant.report.page import write_page
from nvdla_quant.report.times import read_times

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    more = {key: given[key] for key in ("tables", "verdicts", "layers")}
    evidence = read_evidence(given.accuracies, given.comparisons, params.groups, calibrators=params.calibrators, **more)
    write_page(snakemake.output.html, evidence, read_times(params.benchmarks), read_manifest(Path(given.manifest)))
