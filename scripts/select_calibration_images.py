"""Choose and prepare the images that a calibrator sees."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.images import select_calibration_images

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    chosen = {"count": params.calibrator["images"], "seed": params.calibrator["seed"]}
    output = snakemake.output.images
    select_calibration_images(given.network, output, params.dataset, params.preprocessing, **chosen)
