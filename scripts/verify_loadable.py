"""Compare a loadable with the float network on a few test images."""

from pathlib import Path

import numpy as np

from nvdla_quant.hardware.targets import target_of
from nvdla_quant.images.preprocess import Preprocessing, normalise
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs import logs
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.table.table import read_table
from nvdla_quant.verification.verify import verify, write_layers, write_verdict

with logs.capture(snakemake.log[0]):
    pixels = read_images(Path(snakemake.input.images)).pixels[: snakemake.params.images]
    preprocessing = Preprocessing.from_config(snakemake.params.preprocessing)
    images = pixels.astype(np.float32) if snakemake.params.raw_pixels else normalise(pixels, preprocessing)
    network = read_network(Path(snakemake.input.prototxt), Path(snakemake.input.caffemodel))
    table = read_table(Path(snakemake.input.table)) if snakemake.input.table else None
    loadable = read_loadable(Path(snakemake.input.loadable))
    verification = verify(loadable, network, table, images, target_of(snakemake.params.target))
    write_verdict(Path(snakemake.output.verdict), verification, snakemake.params.subject)
    write_layers(Path(snakemake.output.layers), verification)
