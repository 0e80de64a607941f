"""Run the fp32 network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.execution.fp32 import scores_and_logits
from nvdla_quant.images.preprocess import Normalised, Preprocessing
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import write_npz
from nvdla_quant.network.files import read_model


def compute_reference(files: Sequence[str], images: str, scores: str, preprocessing: Mapping[str, Any]) -> None:
    """Run a network in fp32 on prepared test `images`; write `scores`, what a final Softmax read, and labels."""
    network = read_model(files)
    chosen = read_images(Path(images))
    inputs = Normalised(chosen.pixels, Preprocessing.from_config(preprocessing))
    outputs = scores_and_logits(network, inputs, progress=logs.log_progress("fp32"))
    write_npz(scores, {**outputs, "labels": chosen.classes})
