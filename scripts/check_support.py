"""Say what a target can run of a network, before anything is compiled."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.networks.support import check_support

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    files = given.network, snakemake.output.support
    check_support(*files, params.target, params.nvdla_compiler, params.options)
