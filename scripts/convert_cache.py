"""Write a calibration cache as JSON, names as they are."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.table.foreign import read_scales
from nvdla_quant.table.table import write_table

with logs.capture(snakemake.log[0]):
    write_table(read_scales(Path(snakemake.input.cache)), Path(snakemake.output.table))
