"""Ask a command about what a device gave."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.measures.command import number_variant

with logs.capture(snakemake.log[0]):
    given = snakemake.input
    run = given.dumps, given.reference, given.network, given.table or None
    number_variant(*run, given.images, snakemake.params.command, snakemake.output.numbers)
