"""Find the scale of each tensor over the calibration images."""

from pathlib import Path

from nvdla_quant.calibration.cpu import Calibrator, calibrate
from nvdla_quant.images.preprocess import Preprocessing, normalise
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs import logs
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.table.cache import write_cache

with logs.capture(snakemake.log[0]):
    network = read_network(Path(snakemake.input.prototxt), Path(snakemake.input.caffemodel))
    images = read_images(Path(snakemake.input.images))
    inputs = normalise(images.pixels, Preprocessing.from_config(snakemake.params.preprocessing))
    cache = calibrate(
        network, inputs, Calibrator(**snakemake.params.calibrator), progress=logs.log_progress("calibration")
    )
    write_cache(cache, Path(snakemake.output.cache))
