"""Run the fp32 network on one shard of the test images."""

from pathlib import Path

from nvdla_quant.execution.fp32 import scores_and_logits
from nvdla_quant.images.preprocess import Preprocessing, normalise
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import write_npz
from nvdla_quant.network.caffe.reader import read_network

with logs.capture(snakemake.log[0]):
    network = read_network(Path(snakemake.input.prototxt), Path(snakemake.input.caffemodel))
    images = read_images(Path(snakemake.input.images))
    inputs = normalise(images.pixels, Preprocessing.from_config(snakemake.params.preprocessing))
    outputs = scores_and_logits(network, inputs, progress=logs.log_progress("fp32"))
    write_npz(snakemake.output.scores, {**outputs, "labels": images.labels})
