"""Put the accuracies and verdicts of a sweep side by side, and its paired comparisons."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.reporting.summary import summarize_sweep

with logs.capture(snakemake.log[0]):
    keys = "accuracies", "comparisons", "verdicts", "costs", "fidelities", "fidelity_pairs"
    files = {key: snakemake.input[key] for key in keys}
    summarize_sweep(files, snakemake.params.groups, **dict(snakemake.output.items()))
