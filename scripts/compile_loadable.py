"""Compile a network to a loadable."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.compilation import compile_loadable

with logs.capture(snakemake.log[0]):
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    files = given.network, given.table or None, made.loadable, made.report
    compile_loadable(*files, params.target, params.options)
