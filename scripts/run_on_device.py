"""Run a loadable on one shard of the test images with nvdla_runtime."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.device import run_on_device

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    table = given.table if params.quantized else None
    files = given.loadable, given.images, table, snakemake.output.dumps
    run_on_device(*files, params.target, params.preprocessing, params.feeding, params.backend)
