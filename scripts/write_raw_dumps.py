"""Write dumps as nvdla_runtime does, one file an image."""

from pathlib import Path

from nvdla_quant.hardware.spec import target_of
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import read_npz
from nvdla_quant.runtime.dimg import write_dumps

with logs.capture(snakemake.log[0]):
    output = read_npz(Path(snakemake.input.dumps))["output"][: snakemake.params.raw_dumps["images"]]
    atom_bytes = target_of(snakemake.params.target).feature_atom_bytes
    write_dumps(Path(snakemake.output.folder), output, snakemake.params.raw_dumps["format"], atom_bytes)
