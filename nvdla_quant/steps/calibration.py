"""Calibrate on the CPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.calibration import cpu
from nvdla_quant.images.preprocess import Normalised, Preprocessing
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs import logs
from nvdla_quant.network.files import read_model
from nvdla_quant.table.cache import write_cache


def calibrate(
    files: Sequence[str],
    images: str,
    cache: str,
    preprocessing: Mapping[str, Any],
    calibrator: Mapping[str, Any],
    threads: int,
) -> None:
    """Find the scale of each tensor of the network in `files` over the calibration `images`, and write the `cache`."""
    network = read_model(files)
    inputs = Normalised(read_images(Path(images)).pixels, Preprocessing.from_config(preprocessing))
    progress = logs.log_progress("calibration")
    found = cpu.calibrate(network, inputs, cpu.Calibrator(**calibrator), threads=threads, progress=progress)
    write_cache(found, Path(cache))
