"""Take the scales that a quantized ONNX model has in it."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.quantized import take_scales

with logs.capture(snakemake.log[0]):
    output, params = snakemake.output, snakemake.params
    how = params.input_shape, params.cut_at, params.calibrator["qdq_ranges"]
    take_scales(snakemake.input.model[0], output.cache, output.ranges, *how)
