"""Take the scales of a quantized ONNX model, run it as it is, and score what comes out."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.calibration import qdq
from nvdla_quant.evaluation.accuracy import Subject, measure, write_accuracy
from nvdla_quant.execution.fp32 import images_at_once
from nvdla_quant.execution.quantized_file import run_file
from nvdla_quant.images.preprocess import Normalised, Preprocessing
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import read_npz, write_npz
from nvdla_quant.network.files import import_onnx, read_model
from nvdla_quant.table.cache import write_cache
from nvdla_quant.table.changes import write_changes

EXACTNESS = (
    "onnxruntime's int8: it rounds ties to even where NVDLA rounds them away from zero, scales sums by a float32 where "
    "NVDLA has a multiplier of 15 bits and a shift, adds biases of 32 bits where NVDLA has 16 and a shift, and "
    "computes in float between operators that the file does not quantize"
)
"""What the numbers of a quantized file are to the hardware's (docs/hardware/integers.md, calibration-table.md)."""


def take_scales(
    model: str,
    cache: str,
    ranges: str,
    input_shape: Sequence[int] | None,
    cut_at: Sequence[str],
    handling: qdq.QdqRanges,
) -> None:
    """Write the scales of a quantized ONNX `model` as a `cache`, and to `ranges` where each is from."""
    imported = import_onnx(Path(model), None if input_shape is None else tuple(input_shape), cut_at)
    taken = qdq.take_scales(imported.network, imported.ranges, handling)
    for change in taken.covered:
        print(f"{change.name}: {change.scale_after:.9g} {change.reason}")
    write_cache(taken.cache, Path(cache))
    write_changes(taken.changes, Path(ranges))


def run_quantized(
    model: str,
    files: Sequence[str],
    images: str,
    scores: str,
    preprocessing: Mapping[str, Any],
    cut_at: Sequence[str],
) -> None:
    """Run a quantized `model` by onnxruntime on prepared test `images`.

    Parameters
    ----------
    model : str
        The user's file.
    files : Sequence[str]
        Those of the network that was read from it.
    images, scores : str
        What is read and written.
    preprocessing : Mapping
        As of the fp32 network.
    cut_at : Sequence[str]
        Values that the file ends at; none where it ends as it does.
    """
    network = read_model(files)
    inputs = Normalised(read_images(Path(images)).pixels, Preprocessing.from_config(preprocessing))
    progress = logs.log_progress("onnxruntime")
    at_once = images_at_once(network)
    found = run_file(Path(model), inputs, network.only_input, cut_at, batch_size=at_once, progress=progress)
    write_npz(scores, {"scores": found})


def score_quantized(scores: Iterable[str], reference: Iterable[str], accuracy: str, subject: Mapping[str, Any]) -> None:
    """Score a quantized file as onnxruntime runs it against the labels and against fp32, shards in the same order."""
    found, fp32 = read_npz(*map(Path, scores)), read_npz(*map(Path, reference))
    labels = fp32["labels"]
    measured = measure(Subject(**subject), labels, found["scores"], exactness=EXACTNESS, reference=fp32["scores"])
    write_accuracy(Path(accuracy), measured)
