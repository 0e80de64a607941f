"""Draw the outputs of a sweep beside fp32's."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.reporting.figures import plot_fidelity

with logs.capture(snakemake.log[0]):
    plot_fidelity(snakemake.input.fidelities, snakemake.params.groups, list(snakemake.output))
