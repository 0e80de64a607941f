"""Record digests and versions of everything that a sweep read and made."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import write_json
from nvdla_quant.jobs.provenance import manifest

with logs.capture(snakemake.log[0]):
    content = manifest(
        inputs=map(Path, snakemake.input.inputs),
        artefacts=map(Path, [*snakemake.input.exact, *snakemake.input.processor_dependent]),
        config=snakemake.params.settings,
        command=snakemake.params.command,
        base=Path.cwd(),
        processor_dependent=map(Path, snakemake.input.processor_dependent),
    )
    write_json(snakemake.output.manifest, content)
