"""``nvdla-quant calibrate``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nvdla_quant.calibration.cpu import Calibrator, calibrate
from nvdla_quant.cli.options import (
    Caffemodel,
    InputShape,
    Onnx,
    Output,
    Prototxt,
    bar_of,
    existing,
    network_of,
    read_array,
)
from nvdla_quant.table.cache import write_cache


class Method(StrEnum):
    """Calibration methods."""

    ENTROPY = "entropy"
    MINMAX = "minmax"
    PERCENTILE = "percentile"


def command(
    images: Annotated[
        Path, typer.Option(callback=existing, help="[N, C, H, W] in the network's own domain, after preprocessing.")
    ],
    output: Output,
    prototxt: Prototxt = None,
    caffemodel: Caffemodel = None,
    onnx: Onnx = None,
    input_shape: InputShape = None,
    method: Annotated[Method, typer.Option(help="How to choose clipping thresholds.")] = Method.ENTROPY,
    batch_size: Annotated[int, typer.Option(help="Images at once; changes the result of entropy.")] = 64,
    percentile: Annotated[float | None, typer.Option(help="Per cent of the magnitudes to keep.")] = None,
) -> None:
    """Find the scale of each tensor; writes TensorRT's cache format."""
    calibrator = Calibrator(method.value, batch_size, percentile)
    network = network_of(prototxt, caffemodel, onnx, input_shape)
    inputs = read_array(images).astype(np.float32)
    with bar_of("images") as bar:
        task = bar.add_task("images", total=len(inputs))
        progress = lambda done, total: bar.update(task, completed=done, total=total)  # noqa: E731
        write_cache(calibrate(network, inputs, calibrator, progress=progress), output)
