"""Take a file out of an archive."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.jobs.downloads import Source, take_member

with logs.capture(snakemake.log[0]):
    take_member(Source(**snakemake.params.source), Path(snakemake.input.archive), Path(snakemake.output.file))
