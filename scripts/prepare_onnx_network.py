"""Bring a network that was read from ONNX to the form that is compiled."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.networks.forms import prepare_network

with logs.capture(snakemake.log[0]):
    prepare_network(snakemake.input.network, [snakemake.output.network], snakemake.params.preparation)
