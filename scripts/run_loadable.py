"""Run a loadable on one shard of the test images."""

from nvdla_quant import logs

with logs.capture(snakemake.log[0]):
    ...
