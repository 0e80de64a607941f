"""Run the fp32 network on one shard of the test images."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.reference import compute_reference

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    files = given.network, given.images, snakemake.output.scores
    compute_reference(*files, params.preprocessing, params.metric)
