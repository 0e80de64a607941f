"""Lay a network ready for TensorRT."""

from pathlib import Path

from nvdla_quant.calibration.tensorrt_job import write_job
from nvdla_quant.images.preprocess import Preprocessing
from nvdla_quant.jobs import logs
from nvdla_quant.network.files import read_model

with logs.capture(snakemake.log[0]):
    network = read_model(snakemake.input.network)
    preprocessing = Preprocessing.from_config(snakemake.params.preprocessing)
    write_job(network, preprocessing, Path(snakemake.output.job), Path(snakemake.output.model))
