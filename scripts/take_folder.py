"""Take a folder out of an archive."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.jobs.downloads import Source, take_folder

with logs.capture(snakemake.log[0]):
    take_folder(Source(**snakemake.params.source), Path(snakemake.input.archive), Path(snakemake.output.folder))
