"""Record digests and versions of everything that a sweep read and made."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import write_json
from nvdla_quant.jobs.provenance import manifest

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    inputs, exact, dependent = (list(map(Path, given[key])) for key in ("inputs", "exact", "processor_dependent"))
    files = {"inputs": inputs, "artefacts": exact + dependent, "processor_dependent": dependent}
    found = manifest(config=params.settings, command=params.command, base=Path(params.base), **files)
    write_json(snakemake.output.manifest, found)
