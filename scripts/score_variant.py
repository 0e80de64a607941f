"""Score a variant against the labels and against fp32."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.measures.accuracy import score_variant

with logs.capture(snakemake.log[0]):
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    files = given.dumps, given.reference, given.network, given.table or None, made.accuracy, made.comparison
    score_variant(*files, params.subject, params.pair)
