"""Quantize the shipped ResNet-20 for Fashion-MNIST by onnxruntime, and count what each file classifies correctly.

Usage, from the repository's root, in the project's own environment::

    python -m tests.exports.quantize FOLDER

writes ``resnet20.onnx`` (fp32) and, by `onnxruntime.quantization.quantize_static` on the shipped calibration images,
``resnet20-qdq-symmetric.onnx`` (int8 tensors, a scale for each filter, all symmetric) and ``resnet20-qdq-default.onnx``
(its defaults: ranges of tensors that are not symmetric, one scale for all weights of a layer, and no ReLU where a range
begins at zero). ``resnet20-qdq-uint8.onnx`` is as that, with tensors of uint8.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from nvdla_quant.images.datasets import IdxRecord, open_dataset
from nvdla_quant.images.preprocess import Preprocessing, normalise
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.onnx.writer import to_onnx

RESOURCES = Path("resources")
PREPROCESSING = Preprocessing("gray", mean=(73.0,), scale=0.01)
CALIBRATION = 1000
BATCH = 100
WAYS = {
    "symmetric": {"per_channel": True, "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True}},
    "default": {},
    "uint8": {"activation_type": quantization.QuantType.QUInt8},
}


def images(part: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the network's inputs and the labels of ``calibration`` or ``t10k``."""
    folder = RESOURCES / "fashion-mnist"
    dataset = open_dataset(IdxRecord(folder / f"{part}-images-idx3-ubyte.xz", folder / f"{part}-labels-idx1-ubyte.gz"))
    pixels = np.stack(dataset.load(range(len(dataset)))).reshape(len(dataset), 1, 28, 28)
    return normalise(pixels, PREPROCESSING), dataset.labels.astype(np.int64)


class Batches(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Hands out the first calibration images."""

    def __init__(self, name: str) -> None:
        values, _ = images("calibration")
        self._batches: Iterator[NDArray[np.float32]] = iter(values[:CALIBRATION].reshape(-1, BATCH, *values.shape[1:]))
        self._name = name

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next batch, None behind the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def correct(path: Path) -> int:
    """Count the test images that a file classifies correctly."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    values, labels = images("t10k")
    parts = zip(values.reshape(-1, BATCH, *values.shape[1:]), labels.reshape(-1, BATCH), strict=True)
    return sum(int((session.run(None, {"data": x})[0].reshape(BATCH, -1).argmax(1) == y).sum()) for x, y in parts)


def main() -> None:
    """Write the three files and their accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    plain, folded = folder / "resnet20.onnx", folder / "resnet20-folded.onnx"
    shipped = RESOURCES / "resnet20-fashion-mnist"
    onnx.save(to_onnx(read_network(shipped / "deploy.prototxt", shipped / "resnet20.caffemodel")), plain)
    quant_pre_process(plain, folded, skip_symbolic_shape=True)  # onnxruntime folds BatchNorm before it quantizes.
    for way, how in WAYS.items():
        quantization.quantize_static(folded, folder / f"resnet20-qdq-{way}.onnx", Batches("data"), **how)
    folded.unlink()
    for path in (plain, *(folder / f"resnet20-qdq-{way}.onnx" for way in WAYS)):
        print(f"{path.name}: {path.stat().st_size:,} bytes, {correct(path)} of 10,000 correct", flush=True)


if __name__ == "__main__":
    main()
