"""Run a quantized file as it is."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.quantized import run_quantized

with logs.capture(snakemake.log[0]):
    given, scores = snakemake.input, snakemake.output.scores
    run_quantized(given.model[0], given.network, given.images, scores, snakemake.params.preprocessing)
