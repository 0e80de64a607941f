"""Compare a loadable with the float network on a few test images."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.verification import verify_loadable

with logs.capture(snakemake.log[0]):
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    read = given.loadable, given.report or None, given.network, given.table or None, given.weights or None, given.images
    preprocessing = None if params.raw_pixels else params.preprocessing
    asked = params.target, params.subject, preprocessing, params.images
    verify_loadable(*read, made.verdict, made.layers, *asked)
