"""Prepare one shard of the test images."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.images import select_test_images

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    output = snakemake.output.images
    select_test_images(given.network, output, params.dataset, params.preprocessing, **params.part, metric=params.metric)
