"""Search the scales with which a variant's loadable gives the best output."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.networks.refinement import search_scales

with logs.capture(snakemake.log[0]):
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    files = given.network, given.table, given.images, made.table, made.weights, made.report
    asked = params.target, params.options, params.preprocessing, params.feeding
    search_scales(*files, *asked, snakemake.threads)
