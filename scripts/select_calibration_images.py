"""Choose and prepare the images that a calibrator sees."""

from pathlib import Path

from nvdla_quant.images.preprocess import Preprocessing
from nvdla_quant.images.selection import write_images
from nvdla_quant.images.sets import calibration_images
from nvdla_quant.jobs import logs
from nvdla_quant.network.caffe.reader import read_structure

with logs.capture(snakemake.log[0]):
    images = calibration_images(
        snakemake.params.dataset,
        Preprocessing.from_config(snakemake.params.preprocessing),
        read_structure(Path(snakemake.input.prototxt)).only_input.chw,
        count=snakemake.params.calibrator["images"],
        seed=snakemake.params.calibrator["seed"],
    )
    write_images(Path(snakemake.output.images), images)
