"""Prepare one shard of the test images."""

from pathlib import Path

from nvdla_quant.images.preprocess import Preprocessing
from nvdla_quant.images.selection import write_images
from nvdla_quant.images.sets import test_images
from nvdla_quant.jobs import logs
from nvdla_quant.network.caffe.reader import read_structure

with logs.capture(snakemake.log[0]):
    network = read_structure(Path(snakemake.input.prototxt))
    images = test_images(
        snakemake.params.dataset,
        Preprocessing.from_config(snakemake.params.preprocessing),
        network.only_input.chw,
        network.only_output.chw[0],
        **snakemake.params.part,
    )
    write_images(Path(snakemake.output.images), images)
