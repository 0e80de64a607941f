"""Accuracy of quantized ONNX files beside onnxruntime's own, as the table in docs/onnx.md.

usage: python -m benchmarks.qdq FILE... [--targets NAME...] [--images N]

The files are quantized forms of the shipped ResNet-20 for Fashion-MNIST (``python -m tests.exports.quantize FOLDER``
writes some). Each is run by onnxruntime as it is, then taken with its scales and compiled, with scales made to agree
and without; the emulator runs the loadables on the same test images. Prints Markdown. Exit status 1 where a loadable is
more than 0.3 points below onnxruntime, or where a scale differs from the file's though none was to be changed.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.calibration.qdq import Taken, take_scales
from nvdla_quant.compiler.compile import Compilation, compile_network
from nvdla_quant.evaluation.accuracy import top_k
from nvdla_quant.execution.fp32 import scores_and_logits
from nvdla_quant.execution.quantized_file import run_file
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.images.datasets import IdxRecord, open_dataset
from nvdla_quant.images.preprocess import Preprocessing, normalise, to_device
from nvdla_quant.jobs.files import write_bytes
from nvdla_quant.network.files import import_onnx
from nvdla_quant.network.graph import Network
from nvdla_quant.network.onnx.reader import Imported
from nvdla_quant.network.passes import prepare
from nvdla_quant.runtime.emulator import EmulatorRuntime
from nvdla_quant.table.fix import fix_table
from nvdla_quant.table.table import CalibrationTable

PREPROCESSING = Preprocessing("gray", mean=(73.0,), scale=0.01)
FOLDER = Path("resources/fashion-mnist")
TOLERATED = 0.3
"""Points below onnxruntime."""
HEAD = ("file", "onnxruntime", "fp32", "target", "mode", "scales", "logits top-1", "difference")
HEAD += ("weights honoured", "largest change, steps", "relative")


@dataclass(frozen=True)
class Images:
    """Test images."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--targets", nargs="+", default=["nv_small"], metavar="NAME")
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args(arguments)
    dataset = open_dataset(IdxRecord(FOLDER / "t10k-images-idx3-ubyte.xz", FOLDER / "t10k-labels-idx1-ubyte.gz"))
    pixels = np.stack(dataset.load(range(options.images))).reshape(options.images, 1, 28, 28)
    images = Images(pixels, dataset.labels[: options.images].astype(np.int64))
    print(_line(HEAD))
    print(_line(["---"] * len(HEAD)))
    right = True
    for path in options.files:
        right &= _measured(path, images, options.targets)
    return 0 if right else 1


def _measured(path: Path, images: Images, targets: Sequence[str]) -> bool:
    """Print the lines of a file, and tell whether all are as they should be."""
    imported = import_onnx(path)
    network, inputs = imported.network, normalise(images.pixels, PREPROCESSING)
    theirs = _top1(run_file(path, inputs, network.only_input), images)
    float_scores = scores_and_logits(network, inputs)
    fp32 = _top1(float_scores.get("logits", float_scores["scores"]), images)
    taken, right = take_scales(network, imported.ranges, "cover"), True
    for target in targets:
        for mode in QuantizationMode:
            for unify in (True, False):
                table, compilation = _compiled(network, taken, target, mode, unify)
                if not unify:
                    right &= _is_the_files(imported, taken, table)
                ours = _top1(_scores(compilation, table, target, images), images)
                facts = compilation.facts.weights
                honoured = f"{sum(layer.honoured for layer in facts)} of {len(facts)}"
                steps, relative = max(layer.steps for layer in facts), max(layer.relative for layer in facts)
                scales = "agree" if unify else "the file's"
                if taken.covered:
                    scales += f", {len(taken.covered)} covered"
                figures = f"{ours:.2f}", f"{ours - theirs:+.2f}", honoured, f"{steps:.3f}", f"{relative:.2%}"
                known = path.name, f"{theirs:.2f}", f"{fp32:.2f}", target, str(mode), scales
                print(_line([*known, *figures]), flush=True)
                right &= ours - theirs >= -TOLERATED
    return right


def _compiled(
    network: Network, taken: Taken, target: str, mode: QuantizationMode, unify: bool
) -> tuple[CalibrationTable, Compilation]:
    prepared = prepare(network, "fold")
    table, _ = fix_table(network, prepared, taken.cache, unify_scales=unify)
    return table, compile_network(prepared, table, target_of(target), "int8", mode)


def _is_the_files(imported: Imported, taken: Taken, table: CalibrationTable) -> bool:
    """Whether scales that nothing had to change are those in the file."""
    changed = {change.name for change in taken.changes if change.rule != "file"}
    given = {name: ranges[0].scale for name, ranges in imported.ranges.items() if name not in changed}
    return all(table[name] == scale for name, scale in given.items() if name in table.scales)


def _scores(compilation: Compilation, table: CalibrationTable, target: str, images: Images) -> NDArray[np.generic]:
    """Return what the emulator computes, before a final Softmax."""
    port = compilation.loadable.inputs[0]
    scale = table[port.name]
    inputs = to_device(
        images.pixels, PREPROCESSING, scale=scale, channels=port.c, precision="int8", feeding="quantized"
    )
    with tempfile.TemporaryDirectory() as folder:
        loadable = Path(folder) / "loadable.nvdla"
        write_bytes(loadable, compilation.data)
        result = EmulatorRuntime(target_of(target), threads=1).run(loadable, inputs)
    (output,) = result.outputs.values()
    return (output if result.before_softmax is None else result.before_softmax).reshape(len(inputs), -1)


def _top1(scores: NDArray[np.generic], images: Images) -> float:
    """Per cent of images whose label has the highest score, ties by expectation."""
    return 100 * float(top_k(scores, images.labels, 1).mean())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
