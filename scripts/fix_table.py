"""Give a calibration table layer names and consistent scales."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.tables import fix_table

with logs.capture(snakemake.log[0]):
    given, made = snakemake.input, snakemake.output
    fix_table(given.network, given.prepared, given.cache, made.table, made.changes, snakemake.params.options)
