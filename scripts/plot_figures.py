"""Draw the figures of a sweep."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.reporting.figures import plot_figures

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    keys = "accuracies", "comparisons", "tables", "verdicts", "layers", "costs", "fidelities", "fidelity_pairs"
    files = {key: given[key] for key in keys}
    plot_figures(files, params.groups, params.calibrators, params.keep, dict(snakemake.output.items()))
