"""Write a calibration cache as JSON, names as they are."""

from pathlib import Path

from nvdla_quant import logs
from nvdla_quant.table.cache import read_cache
from nvdla_quant.table.table import CalibrationTable, write_table

with logs.capture(snakemake.log[0]):
    cache = read_cache(Path(snakemake.input.cache))
    write_table(CalibrationTable(cache.scales), Path(snakemake.output.table))
