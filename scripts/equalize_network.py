"""Even out the ranges of a network's channels, and leave what it computes."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.networks.refinement import equalize_network

with logs.capture(snakemake.log[0]):
    given, report = snakemake.input, snakemake.output.report
    made = [path for path in snakemake.output if path != report]
    how = snakemake.params.preprocessing, snakemake.threads
    equalize_network(given.network, made, report, list(given.images), *how)
