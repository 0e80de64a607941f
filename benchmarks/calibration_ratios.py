"""Compare our calibration with TensorRT's: the ratio of every scale, and the accuracy that follows.

usage: python benchmarks/calibration_ratios.py [GOLDEN_DIR]

GOLDEN_DIR holds one folder a network: deploy.prototxt, model.caffemodel, images.npz (calibration, test, labels) and
``<calibrator>.batch<N>.cache`` files that TensorRT wrote from the calibration images in batches of N. Images stored as
uint8 are pixels, and the network reads pixel / 256.
"""

import re
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.calibration.cpu import Calibrator, calibrate, measure
from nvdla_quant.calibration.rounded import STEPS
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.execution.simulated import Simulation
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import Network
from nvdla_quant.table.cache import CalibrationCache, read_cache
from nvdla_quant.table.consistency import unify
from nvdla_quant.table.naming import match, tensor_names

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "tensorrt"
METHODS = {"entropy": "entropy", "entropy2": "entropy", "minmax": "minmax"}
"""Our method for each of TensorRT's calibrators."""

ACCURACY_OF = "resnet-digits"
SAME = 1e-5
"""Relative difference up to which a scale counts as the same: it is far below one bin of the histogram."""


def images_of(folder: Path, which: str) -> NDArray[np.float32]:
    """Return the images of a golden folder as the network reads them."""
    images = np.load(folder / "images.npz")[which]
    return images.astype(np.float32) / np.float32(256 if images.dtype == np.uint8 else 1)


def ours(network: Network, images: NDArray[np.float32], calibrator: str, batch_size: int) -> dict[str, float]:
    """Return our scales by cache name.

    TensorRT's first entropy calibrator works after fusion and gives poolings a threshold of their own.
    """
    chosen = Calibrator(METHODS[calibrator], batch_size)  # type: ignore[arg-type]
    if calibrator != "entropy":
        return calibrate(network, images, chosen).scales
    names = tensor_names(network)
    return {names[name]: value / STEPS for name, value in measure(network, images, chosen, tuple(names)).items()}


def accuracy(
    network: Network, cache: CalibrationCache, images: NDArray[np.float32], labels: NDArray[np.int64]
) -> float:
    """Return the share of images that the simulated int8 network gets right; k tied winners count 1/k."""
    table, _ = unify(network, match(cache, network)[0])
    logits = network.layers[-1].inputs[0]
    scores = Simulation(network, table, QuantizationMode.PER_FILTER, [logits]).run(images)[logits]
    winners = scores.reshape(len(labels), -1) == scores.reshape(len(labels), -1).max(axis=1, keepdims=True)
    return float((winners[np.arange(len(labels)), labels] / winners.sum(axis=1)).mean())


def main(golden: Path) -> None:
    """Print one line for each cache, then the accuracies."""
    caches = sorted(golden.glob("*/*.batch*.cache"))
    if not caches:
        sys.exit(f"{golden}: no <network>/<calibrator>.batch<N>.cache; name the folder of golden TensorRT caches")
    print("ratio of our scale to TensorRT's")
    print(f"{'network':<15}{'calibrator':<11}{'batch':>5}{'entries':>9}{'same':>7}{'within 10 %':>13}", end="")
    print(f"{'median':>10}{'min':>9}{'max':>9}{'seconds':>9}")
    accuracies = []
    for path in caches:
        folder = path.parent
        parts = re.fullmatch(r"(\w+)\.batch(\d+)", path.stem)
        if parts is None or parts[1] not in METHODS:
            sys.exit(f"{path}: expected <calibrator>.batch<N>.cache with one of {', '.join(METHODS)}")
        network = read_network(folder / "deploy.prototxt", folder / "model.caffemodel")
        theirs = read_cache(path)
        start = time.perf_counter()
        scales = ours(network, images_of(folder, "calibration"), parts[1], int(parts[2]))
        seconds = time.perf_counter() - start
        ratio = np.array([scales[name] / scale for name, scale in theirs.entries])
        print(f"{folder.name:<15}{parts[1]:<11}{parts[2]:>5}{len(ratio):>9}", end="")
        print(f"{np.mean(abs(ratio - 1) < SAME):>7.1%}{np.mean(abs(ratio - 1) < 0.1):>13.1%}", end="")
        print(f"{np.median(ratio):>10.5f}{ratio.min():>9.4f}{ratio.max():>9.4f}{seconds:>9.1f}")
        if folder.name == ACCURACY_OF:
            mine = CalibrationCache("ours", tuple((name, scales[name]) for name, _ in theirs.entries))
            test, labels = images_of(folder, "test"), np.load(folder / "images.npz")["labels"]
            accuracies.append((path.stem, *(accuracy(network, cache, test, labels) for cache in (mine, theirs))))
    if accuracies:
        print(f"\nint8 accuracy of {ACCURACY_OF}, simulated, per filter, unified scales")
        print(f"{'cache':<20}{'our scales':>12}{'TensorRT':>12}")
        for stem, mine, theirs in accuracies:
            print(f"{stem:<20}{mine:>12.2%}{theirs:>12.2%}")
        folder = golden / ACCURACY_OF
        network = read_network(folder / "deploy.prototxt", folder / "model.caffemodel")
        logits = network.layers[-1].inputs[0]
        scores = Reference(network, [logits]).run(images_of(folder, "test"))[logits]
        fp32 = np.mean(scores.reshape(len(scores), -1).argmax(axis=1) == np.load(folder / "images.npz")["labels"])
        print(f"{'fp32':<20}{fp32:>12.2%}")


if __name__ == "__main__":
    if len(sys.argv) > 2 or any(argument.startswith("-") for argument in sys.argv[1:]):
        sys.exit(__doc__)
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else GOLDEN)
