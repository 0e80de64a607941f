"""Cut the tail of a Caffe model off."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.networks.forms import cut_network

with logs.capture(snakemake.log[0]):
    made = [snakemake.output.prototxt, snakemake.output.caffemodel]
    cut_network(snakemake.input.model, made, snakemake.params.cut_at)
