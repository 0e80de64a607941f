"""Download a file and check its digest."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.jobs.downloads import Source, obtain

with logs.capture(snakemake.log[0]):
    source = Source(**snakemake.params.source)
    obtain(source, Path(snakemake.output.file), progress=logs.log_progress(source.name, unit="bytes"))
