"""Write a prepared network as Caffe's files."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.networks.forms import convert_network

with logs.capture(snakemake.log[0]):
    made = [snakemake.output.prototxt, snakemake.output.caffemodel]
    convert_network([snakemake.input.network], made)
