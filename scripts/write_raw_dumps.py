"""Write dumps as nvdla_runtime does, a file for each image and output."""

from pathlib import Path

from nvdla_quant.hardware.spec import target_of
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import read_npz
from nvdla_quant.runtime.base import outputs_in
from nvdla_quant.runtime.dimg import write_dumps

with logs.capture(snakemake.log[0]):
    dumps, form = outputs_in(read_npz(Path(snakemake.input.dumps))), snakemake.params.raw_dumps
    few = {name: values[: form["images"]] for name, values in dumps.items()}
    write_dumps(
        Path(snakemake.output.folder), few, form["format"], target_of(snakemake.params.target).feature_atom_bytes
    )
