"""Compile a network to a loadable."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.compilation import compile_loadable

with logs.capture(snakemake.log[0]):
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    read = given.network, given.table or None, given.weights or None
    compile_loadable(*read, made.loadable, made.report, params.target, params.options)
