"""Choose the steps of a variant's weights and biases."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.networks.refinement import refine_weights

with logs.capture(snakemake.log[0]):
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    files = given.network, given.table, given.searched or None, given.images, made.weights, made.changes
    preprocessing = None if params.raw_pixels else params.preprocessing
    refine_weights(*files, params.target, params.options, preprocessing, snakemake.threads)
