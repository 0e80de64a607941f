"""Run a loadable with `nvdla_runtime`."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.images.preprocess import Preprocessing
from nvdla_quant.jobs import logs
from nvdla_quant.runtime.on_device import check_target, runtime_of
from nvdla_quant.runtime.stock_images import StockFeeding
from nvdla_quant.steps.feeding import run_images


def run_on_device(
    loadable: str,
    images: str,
    table: str | None,
    dumps: str,
    target: str | Mapping[str, str],
    preprocessing: Mapping[str, Any],
    feeding: Mapping[str, Any],
    backend: Mapping[str, Any],
) -> None:
    """Run a loadable as `feeding.run_images` does, on what `backend` describes: ``backends.nvdla_runtime``."""
    pixels = Preprocessing.from_config(preprocessing)
    stock = StockFeeding.of(Precision(feeding["precision"]), feeding["feeding"], pixels)
    # Not an output: what is in it when a job ends early is where the next one goes on.
    kept = Path(dumps).with_suffix(".partial")
    hardware = target_of(target)
    check_target(Path(loadable), hardware)
    runtime = runtime_of(backend, hardware, stock, kept, logs.log_progress(backend["device"]))
    run_images(runtime, loadable, images, table, dumps, pixels, feeding)
    shutil.rmtree(kept)
