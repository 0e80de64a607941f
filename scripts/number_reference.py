"""Ask a command about fp32's outputs."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.measures.command import number_reference

with logs.capture(snakemake.log[0]):
    given = snakemake.input
    number_reference(given.reference, given.images, snakemake.params.command, snakemake.output.numbers)
