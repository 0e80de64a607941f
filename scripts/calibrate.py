"""Find the scale of each tensor over the calibration images."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.calibration import calibrate

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    files = given.network, given.images, snakemake.output.cache
    calibrate(*files, params.preprocessing, params.calibrator, snakemake.threads)
