"""Write the report of a sweep as one page."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.reporting.page import write_report

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    keys = "accuracies", "comparisons", "tables", "verdicts", "layers", "costs", "fidelities", "fidelity_pairs"
    files = {key: given[key] for key in keys}
    sweep = params.groups, params.calibrators, params.keep
    write_report(files, given.manifest, snakemake.output.html, *sweep, params.benchmarks, params.runs)
