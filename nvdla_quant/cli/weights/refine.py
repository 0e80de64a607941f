"""``nvdla-quant refine``."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nvdla_quant.cli.options import (
    DEFAULT_TARGET,
    Caffemodel,
    ConfigTarget,
    CutAt,
    InputShape,
    Mode,
    Onnx,
    Output,
    Prototxt,
    WeightStepsFile,
    bar_of,
    existing,
    network_of,
    read_array,
)
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.jobs.files import format_records, write_text
from nvdla_quant.network.passes import prepare
from nvdla_quant.quantization.refine import Refined, refine
from nvdla_quant.quantization.steps import read_weight_steps, write_weight_steps
from nvdla_quant.table.table import read_table


class Correction(StrEnum):
    """What is corrected."""

    NONE = "none"
    BIAS = "bias"


class Rounding(StrEnum):
    """How weights are rounded."""

    NEAREST = "nearest"
    ADAROUND = "adaround"


def command(
    output: Output,
    images: Annotated[
        Path, typer.Option(callback=existing, help="Calibration images, [N, C, H, W] in the network's own domain.")
    ],
    calibtable: Annotated[Path, typer.Option(callback=existing, help="The table that it will be compiled with.")],
    prototxt: Prototxt = None,
    caffemodel: Caffemodel = None,
    onnx: Onnx = None,
    input_shape: InputShape = None,
    cut_at: CutAt = None,
    configtarget: ConfigTarget = DEFAULT_TARGET,
    quantization_mode: Mode = QuantizationMode.PER_KERNEL,
    correction: Annotated[Correction, typer.Option(help="Take back what rounding shifts the outputs by.")] = (
        Correction.BIAS
    ),
    rounding: Annotated[
        Rounding, typer.Option(help="Each weight to its nearest step, or to the one that serves the layer's outputs.")
    ] = Rounding.ADAROUND,
    searched: WeightStepsFile = None,
    changes: Annotated[Path | None, typer.Option(help="Also write what changed, layer by layer, as TSV.")] = None,
) -> None:
    """Correct biases and choose roundings for int8.

    Writes the file that `compile --weight-steps` takes: int8 steps of the folded network's weights, and biases.
    """
    network = prepare(network_of(prototxt, caffemodel, onnx, input_shape, cut_at), "fold")
    with bar_of("layers") as bar:
        task = bar.add_task("layers", total=len(network.layers))
        refinement = refine(
            network,
            read_table(calibtable),
            target_of(configtarget),
            quantization_mode,
            read_array(images).astype(np.float32),
            correction=correction.value,
            rounding=rounding.value,
            searched=None if searched is None else read_weight_steps(searched),
            threads=os.cpu_count() or 1,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    write_weight_steps(refinement.steps, output)
    if changes is not None:
        write_text(changes, format_records(refinement.layers, Refined))
