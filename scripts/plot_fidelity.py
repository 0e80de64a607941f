"""Draw the outputs of a sweep beside fp32's."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.reporting.figures import plot_fidelity

with logs.capture(snakemake.log[0]):
    files = {key: snakemake.input[key] for key in ("fidelities", "fidelity_pairs", "verdicts", "costs")}
    plot_fidelity(files, snakemake.params.groups, list(snakemake.output))
