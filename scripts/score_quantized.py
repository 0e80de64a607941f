"""Score what onnxruntime made of a quantized file."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.quantized import score_quantized

with logs.capture(snakemake.log[0]):
    given, subject = snakemake.input, snakemake.params.subject
    score_quantized(given.scores, given.reference, snakemake.output.accuracy, subject)
