"""Estimate how long the loadables of a sweep take on the hardware."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.reporting.costs import estimate_costs

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    estimate_costs(given.loadables, given.claims, snakemake.output, params.runs, params.memory, params.cpu_cycles)
