"""Write dumps as nvdla_runtime does, a file for each image and output."""

from pathlib import Path

from nvdla_quant.hardware.spec import target_of
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import read_npz
from nvdla_quant.runtime.base import outputs_in
from nvdla_quant.runtime.dimg import write_dumps

with logs.capture(snakemake.log[0]):
    params, outputs = snakemake.params, outputs_in(read_npz(Path(snakemake.input.dumps)))
    atom_bytes = target_of(params.target).feature_atom_bytes
    write_dumps(Path(snakemake.output.folder), outputs, atom_bytes=atom_bytes, **params.raw_dumps)
