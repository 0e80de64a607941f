"""Hold a loadable to the float network on a few test images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nvdla_quant.hardware.spec import target_of
from nvdla_quant.images.preprocess import Preprocessing, normalise
from nvdla_quant.images.selection import read_images
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.network.files import read_model
from nvdla_quant.quantization.steps import with_steps_of
from nvdla_quant.table.table import read_table


def verify_loadable(
    loadable: str,
    report: str | None,
    files: Sequence[str],
    table: str | None,
    weights: str | None,
    images: str,
    verdict: str,
    layers: str,
    target: str | Mapping[str, str],
    subject: Mapping[str, str],
    preprocessing: Mapping[str, Any] | None,
    count: int,
) -> None:
    """Verify a loadable and write its `verdict` and `layers`.

    Parameters
    ----------
    loadable : str
        NVIDIA's or ours.
    report : str or None
        The ``compile.json`` that claims what its operations stand for; NVIDIA's compiler makes no claim.
    files : Sequence[str]
        Those of the prepared network.
    table : str or None
        Its fixed calibration table; fp16 has none.
    weights : str or None
        A ``weights.steps.npz`` whose weights and biases it was compiled with.
    images : str
        Prepared test images, of which the first `count` are run.
    verdict, layers : str
        What is written.
    target : str or Mapping
        The hardware, see `target_of`.
    subject : Mapping
        Which row of the summary the verdict belongs to.
    preprocessing : Mapping or None
        Mean and scale of the pixels; None where the prepared network has them.
    count : int
        Number of images.
    """
    from nvdla_quant.compiler.claim.file import read_claim
    from nvdla_quant.verification.verify import verify_in_sweep, write_layers, write_verdict

    pixels = read_images(Path(images)).pixels[:count]
    if preprocessing is None:
        inputs = pixels.astype(np.float32)
    else:
        inputs = normalise(pixels, Preprocessing.from_config(preprocessing))
    network = with_steps_of(read_model(files), weights)
    scales = read_table(Path(table)) if table else None
    claim = read_claim(Path(report)) if report else None
    found = verify_in_sweep(read_loadable(Path(loadable)), network, scales, inputs, target_of(target), claim)
    write_verdict(Path(verdict), found, subject)
    write_layers(Path(layers), found)
