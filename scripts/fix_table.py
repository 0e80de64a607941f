"""Give a calibration table layer names and consistent scales."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.network.caffe.reader import read_structure
from nvdla_quant.table.changes import write_changes
from nvdla_quant.table.fix import fix_table
from nvdla_quant.table.foreign import read_cache_of
from nvdla_quant.table.table import write_table

with logs.capture(snakemake.log[0]):
    network = read_structure(Path(snakemake.input.prototxt))
    table, changes = fix_table(
        network,
        read_structure(Path(snakemake.input.prepared)),
        read_cache_of(network, Path(snakemake.input.cache)),
        **snakemake.params.options,
    )
    write_table(table, Path(snakemake.output.table))
    write_changes(changes, Path(snakemake.output.changes))
