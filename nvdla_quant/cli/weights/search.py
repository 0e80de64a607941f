"""``nvdla-quant search``."""

import os
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
    bar_of,
    existing,
    network_of,
    read_array,
)
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.jobs.files import format_records, write_text
from nvdla_quant.network.passes import prepare
from nvdla_quant.quantization.search import Trial, fp32_scores, quantized_feed, search
from nvdla_quant.quantization.steps import write_weight_steps
from nvdla_quant.table.table import read_table, write_table

TRIALS = 300
"""Loadables that are tried, at most, where nothing is said; as the workflow's ``search_trials``."""


def command(
    output: Output,
    weights: Annotated[Path, typer.Option(help="Also written: weights whose scales were chosen, for --weight-steps.")],
    images: Annotated[
        Path, typer.Option(callback=existing, help="Calibration images, [N, C, H, W] in the network's own domain.")
    ],
    calibtable: Annotated[Path, typer.Option(callback=existing, help="The fixed table where the search begins.")],
    prototxt: Prototxt = None,
    caffemodel: Caffemodel = None,
    onnx: Onnx = None,
    input_shape: InputShape = None,
    cut_at: CutAt = None,
    configtarget: ConfigTarget = DEFAULT_TARGET,
    quantization_mode: Mode = QuantizationMode.PER_KERNEL,
    trials: Annotated[int, typer.Option(min=1, help="Loadables that are compiled and run, at most.")] = TRIALS,
    changes: Annotated[Path | None, typer.Option(help="Also write the moves that were kept, as TSV.")] = None,
) -> None:
    """Search the scales with which the loadable gives the best scores.

    Writes a calibration table, and the weights whose scales were chosen too.
    """
    network = prepare(network_of(prototxt, caffemodel, onnx, input_shape, cut_at), "fold")
    inputs = read_array(images).astype(np.float32)
    threads = os.cpu_count() or 1
    with bar_of("loadables") as bar:
        task = bar.add_task("loadables", total=trials)
        found = search(
            network,
            read_table(calibtable),
            target_of(configtarget),
            quantization_mode,
            quantized_feed(inputs, network.only_input.name),
            fp32_scores(network, inputs, threads),
            trials=trials,
            threads=threads,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    write_table(found.table, output)
    write_weight_steps(found.steps, weights)
    if changes is not None:
        write_text(changes, format_records(found.kept, Trial))
    end = "nothing improves it any more" if found.settled else "all trials are used up; --trials allows more"
    print(f"SQNR of the scores {found.first:.2f} dB, now {found.last:.2f} dB, after {found.trials} loadables: {end}")
