"""Calibrate on the CPU."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.calibration import cpu
from nvdla_quant.images.preprocess import Normalised, Preprocessing
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs import logs
from nvdla_quant.network.files import read_model
from nvdla_quant.table.cache import write_cache

_LOG = logging.getLogger(__name__)


def calibrate(
    files: Sequence[str],
    images: str,
    cache: str,
    preprocessing: Mapping[str, Any],
    calibrator: Mapping[str, Any],
    threads: int,
) -> None:
    """Find the scale of each tensor of the network in `files` over the calibration `images`, and write the `cache`.

    Thresholds that ruin the scores are warnings in the log.
    """
    network = read_model(files)
    inputs = Normalised(read_images(Path(images)).pixels, Preprocessing.from_config(preprocessing))
    progress = logs.log_progress("calibration")
    how = cpu.Calibrator(**calibrator)
    found = cpu.calibrate_and_judge(network, inputs, how, threads=threads, progress=progress)
    for warning in found.warnings:
        _LOG.warning("%s", warning)
    write_cache(found.cache, Path(cache))
