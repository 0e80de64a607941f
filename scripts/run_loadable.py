"""Run a loadable on one shard of the test images."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.emulation import run_loadable

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    table = given.table if params.quantized else None
    files = given.loadable, given.images, table, snakemake.output.dumps
    feeding = params.target, params.preprocessing, params.feeding
    run_loadable(*files, *feeding, params.emulator, snakemake.threads)
