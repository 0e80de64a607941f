"""Read an ONNX model."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.networks.forms import import_network

with logs.capture(snakemake.log[0]):
    made, params = snakemake.output, snakemake.params
    files = made.network, made.names, made.remarks, made.size
    import_network(snakemake.input.model[0], *files, params.input_shape, params.cut_at)
