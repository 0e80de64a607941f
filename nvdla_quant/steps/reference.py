"""Run the fp32 network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.execution.fp32 import outputs_of, scores_and_logits
from nvdla_quant.images.preprocess import Normalised, Preprocessing
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import write_npz
from nvdla_quant.network.files import read_model
from nvdla_quant.runtime.base import named_outputs


def compute_reference(
    files: Sequence[str], images: str, reference: str, preprocessing: Mapping[str, Any], metric: str
) -> None:
    """Run a network in fp32 on prepared test images.

    Parameters
    ----------
    files : Sequence[str]
        Those of the network.
    images, reference : str
        What it runs on, and what is written: to be measured by labels the scores, what a final Softmax read, and the
        labels; else all outputs, by what the network's file calls them.
    preprocessing : Mapping
        How images are prepared.
    metric : str
        What the case is measured by.
    """
    network = read_model(files)
    chosen = read_images(Path(images))
    inputs = Normalised(chosen.pixels, Preprocessing.from_config(preprocessing))
    progress = logs.log_progress("fp32")
    if metric == "classification":
        write_npz(reference, {**scores_and_logits(network, inputs, progress=progress), "labels": chosen.classes})
    else:
        write_npz(reference, named_outputs(outputs_of(network, inputs, progress=progress)))
