"""``nvdla-quant equalize``."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nvdla_quant.cli.options import Caffemodel, CutAt, InputShape, Onnx, Prototxt, existing, network_of, read_array
from nvdla_quant.jobs.files import atomic_path, format_records, write_text
from nvdla_quant.network.files import write_model
from nvdla_quant.network.passes import prepare
from nvdla_quant.quantization.equalization import Change
from nvdla_quant.quantization.unchanged import equalize_checked


def command(
    output: Annotated[Path, typer.Option(help="The folder for the network: deploy.prototxt and weights.caffemodel.")],
    images: Annotated[
        Path, typer.Option(callback=existing, help="Calibration images, [N, C, H, W] in the network's own domain.")
    ],
    prototxt: Prototxt = None,
    caffemodel: Caffemodel = None,
    onnx: Onnx = None,
    input_shape: InputShape = None,
    cut_at: CutAt = None,
) -> None:
    """Even out the weights of a network's channels, and prove that it computes the same.

    It is calibrated anew. Of an ONNX model network.onnx is written. Beside it equalization.tsv says what was changed.
    """
    network = network_of(prototxt, caffemodel, onnx, input_shape, cut_at)
    inputs = read_array(images).astype(np.float32)
    equalized = equalize_checked(network, prepare(network, "fold"), [inputs], threads=os.cpu_count() or 1)
    names = ["network.onnx"] if onnx is not None else ["deploy.prototxt", "weights.caffemodel"]
    with ExitStack() as stack:
        write_model(equalized.network, [stack.enter_context(atomic_path(output / name)) for name in names])
    write_text(output / "equalization.tsv", format_records(equalized.changes, Change))
    if not equalized.changes:
        print("note: no two layers in a row share channels that can be scaled; nothing was changed", file=sys.stderr)
