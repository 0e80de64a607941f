"""Bring a network to the form that is compiled."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.networks.forms import prepare_network

with logs.capture(snakemake.log[0]):
    made = [snakemake.output.prototxt, snakemake.output.caffemodel]
    prepare_network(snakemake.input.network, made, snakemake.params.preparation)
