"""Hold what a device gave to fp32's outputs."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.measures.fidelity import score_fidelity

with logs.capture(snakemake.log[0]):
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    run = given.dumps, given.reference, given.network, given.table or None
    score_fidelity(*run, given.numbers, made.fidelity, made.images, params.subject, params.task)
