"""Run a loadable on one shard of the test images."""

from pathlib import Path

from nvdla_quant.emulator.operations import Fp16
from nvdla_quant.hardware.targets import target_of
from nvdla_quant.images.preprocess import Preprocessing, to_device
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import write_npz
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.runtime.base import as_arrays
from nvdla_quant.runtime.emulator import EmulatorRuntime, sample_size
from nvdla_quant.table.table import read_table

with logs.capture(snakemake.log[0]):
    options = snakemake.params.emulator
    loadable = Path(snakemake.input.loadable)
    port = read_loadable(loadable).inputs[0]
    scale = read_table(Path(snakemake.input.table))[port.name] if snakemake.params.quantized else None
    images = read_images(Path(snakemake.input.images))
    preprocessing = Preprocessing.from_config(snakemake.params.preprocessing)
    inputs = to_device(images.pixels, preprocessing, scale=scale, channels=port.c, **snakemake.params.feeding)
    target, progress = target_of(snakemake.params.target), logs.log_progress(snakemake.params.target)
    fp16, batch, sample = Fp16(options["fp16"]), options.get("batch_size"), sample_size(**snakemake.params.part)
    runtime = EmulatorRuntime(target, snakemake.threads, batch, progress, fp16, sample)
    write_npz(snakemake.output.dumps, as_arrays(runtime.run(loadable, inputs), images.indices))
