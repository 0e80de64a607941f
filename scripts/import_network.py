"""Read an ONNX model."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.networks.forms import import_network

with logs.capture(snakemake.log[0]):
    given, made = snakemake.input, snakemake.output
    import_network(given.model[0], made.network, made.names, made.remarks, made.size, snakemake.params.input_shape)
