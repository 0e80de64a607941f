"""Bring a network to the form that is compiled."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import atomic_path
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.network.passes import prepare

with logs.capture(snakemake.log[0]):
    network = prepare(read_network(*map(Path, snakemake.input)), **snakemake.params.preparation)
    with atomic_path(snakemake.output.prototxt) as prototxt, atomic_path(snakemake.output.caffemodel) as caffemodel:
        write_prototxt(network, prototxt)
        write_caffemodel(network, caffemodel)
