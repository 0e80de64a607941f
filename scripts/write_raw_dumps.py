"""Write dumps as nvdla_runtime does, one file an image."""

from pathlib import Path

from nvdla_quant import logs
from nvdla_quant.runtime.dimg import write_dumps

with logs.capture(snakemake.log[0]):
    write_dumps(
        Path(snakemake.output.folder),
        Path(snakemake.input.dumps),
        **snakemake.params.raw_dumps,
        target=snakemake.params.target,
    )
