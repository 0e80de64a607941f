"""Run a quantized file as it is."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.quantized import run_quantized

with logs.capture(snakemake.log[0]):
    given, scores, params = snakemake.input, snakemake.output.scores, snakemake.params
    run_quantized(given.model[0], given.network, given.images, scores, params.preprocessing, params.cut_at)
