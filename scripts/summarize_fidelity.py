"""Put the outputs of a sweep side by side."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.reporting.summary import summarize_fidelity

with logs.capture(snakemake.log[0]):
    summarize_fidelity(snakemake.input.fidelities, snakemake.output.tsv)
