"""Run a loadable on one shard of the test images with nvdla_runtime."""

import shutil
from pathlib import Path

from nvdla_quant.hardware.targets import Precision, target_of
from nvdla_quant.images.preprocess import Preprocessing, to_device
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import write_npz
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.runtime.base import as_arrays
from nvdla_quant.runtime.on_device import runtime_of
from nvdla_quant.runtime.stock_images import StockFeeding
from nvdla_quant.table.table import read_table

with logs.capture(snakemake.log[0]):
    loadable, params = Path(snakemake.input.loadable), snakemake.params
    port = read_loadable(loadable).inputs[0]
    scale = read_table(Path(snakemake.input.table))[port.name] if params.quantized else None
    preprocessing = Preprocessing.from_config(params.preprocessing)
    images = read_images(Path(snakemake.input.images))
    inputs = to_device(images.pixels, preprocessing, scale=scale, channels=port.c, **params.feeding)
    stock = StockFeeding.of(Precision(params.feeding["precision"]), params.feeding["feeding"], preprocessing)
    # Not an output: what is in it when a job ends early is where the next one goes on.
    kept = Path(snakemake.output.dumps).with_suffix(".partial")
    progress = logs.log_progress(params.backend["device"])
    runtime = runtime_of(params.backend, target_of(params.target), stock, kept, progress)
    write_npz(snakemake.output.dumps, as_arrays(runtime.run(loadable, inputs), images.indices))
    shutil.rmtree(kept)
