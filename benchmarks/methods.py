"""What bias correction and adaptive rounding gain on the shipped networks, and what they cost.

usage: python -m benchmarks.methods gains [--seeds N] [--images N]
       python -m benchmarks.methods cost [CASE ...]

gains: LeNet on MNIST and ResNet-20 on Fashion-MNIST, nv_small, min-max and both modes. For each seed other calibration
images are drawn, and the loadable runs on held-out images; the SQNR of its scores (before Softmax) in dB is compared
with that of the same loadable without the method: the mean over the seeds, and the worst seed's difference. Ends with
exit status 1 where a mean is lower, or a seed's more than 0.2 dB lower.

cost: adaptive rounding, per-filter on nv_small: resnet20 (500 images of 32 x 32), resnet18 (64 images of 224 x 224),
each in a process of its own with one thread. Seconds run from when network, table and images are there; the peak is the
most that the process ever had in memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.calibration.cpu import Calibrator, calibrate
from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode
from nvdla_quant.images.datasets import IdxRecord, open_dataset
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare
from nvdla_quant.quantization.refine import Correction, Rounding, refine, sqnr
from nvdla_quant.quantization.search import before_softmax, fp32_scores, quantized_feed
from nvdla_quant.quantization.steps import with_steps
from nvdla_quant.table.fix import fix_table
from nvdla_quant.table.table import CalibrationTable
from tests.networks.residual import resnet18, resnet20

RESOURCES = Path(__file__).resolve().parents[1] / "resources"
TARGET = TARGETS["nv_small"]
CALIBRATION, HELD_OUT = 250, 1000
"""Images of a calibration, drawn from the pool, and images that the loadable then runs on."""
METHODS: Mapping[str, tuple[Correction, Rounding]] = {
    "bias": ("bias", "nearest"),
    "adaround": ("none", "adaround"),
    "bias-adaround": ("bias", "adaround"),
}
WORST = -0.2
"""dB that a single seed may lose."""
COSTS = {"resnet20": (lambda: resnet20(32), 500), "resnet18": (lambda: resnet18(224), 64)}
"""Network and number of images."""

Images = NDArray[np.float32]


def shipped() -> dict[str, tuple[Network, Images, Images]]:
    """Return the shipped networks that have images here, the images to calibrate on, and the held-out ones."""
    mnist = RESOURCES / "mnist"
    digits = pixels(mnist / "images-idx3-ubyte.gz", mnist / "labels-idx1-ubyte.gz") / np.float32(256)
    fashion = RESOURCES / "fashion-mnist"
    files = {
        name: [fashion / f"{name}-{what}" for what in ("images-idx3-ubyte.xz", "labels-idx1-ubyte.gz")]
        for name in ("calibration", "t10k")
    }
    clothes = {name: (pixels(*both) - np.float32(73)) * np.float32(0.01) for name, both in files.items()}
    lenet, residual = RESOURCES / "lenet-mnist", RESOURCES / "resnet20-fashion-mnist"
    order = np.random.default_rng(0).permutation(len(digits))
    pool, held_out = digits[order[:1000]], digits[order[1000 : 1000 + HELD_OUT]]
    return {
        "lenet": (read_network(lenet / "deploy.prototxt", lenet / "lenet.caffemodel"), pool, held_out),
        "resnet20": (
            read_network(residual / "deploy.prototxt", residual / "resnet20.caffemodel"),
            clothes["calibration"],
            clothes["t10k"][:HELD_OUT],
        ),
    }


def pixels(images: Path, labels: Path) -> Images:
    """Return the images of a data set, (n, 1, height, width)."""
    dataset = open_dataset(IdxRecord(images, labels))
    return np.stack(dataset.load(range(len(dataset)))).reshape(len(dataset), 1, 28, 28).astype(np.float32)


def table_of(network: Network, prepared: Network, images: Images) -> CalibrationTable:
    """Calibrate by min-max."""
    return fix_table(network, prepared, calibrate(network, images, Calibrator("minmax", 64)))[0]


def loadable_sqnr(
    network: Network, table: CalibrationTable, mode: QuantizationMode, images: Images, exact: Images
) -> float:
    """Compile, run, and compare the scores with fp32's."""
    compiled = compile_network(network, table, TARGET, Precision.INT8, mode)
    inputs = quantized_feed(images, network.only_input.name)(table, compiled.loadable.inputs[0].c)
    return sqnr(exact, before_softmax(compiled, decode(compiled.loadable, TARGET), inputs, exact.shape[1], 1))


def gains(seeds: int, count: int) -> int:
    """Print a line for each network, mode and method."""
    failed = 0
    print(
        f"{seeds} seeds, {count} calibration images, {HELD_OUT} held-out images, nv_small, min-max; SQNR of scores, dB"
    )
    print("network   mode        method          plain   with  difference  worst seed")
    for name, (network, pool, held_out) in shipped().items():
        prepared = prepare(network, "fold")
        exact = fp32_scores(prepared, held_out)
        found: dict[tuple[QuantizationMode, str], list[tuple[float, float]]] = {}
        for seed in range(seeds):
            images = pool[np.random.default_rng(seed).choice(len(pool), count, replace=False)]
            table = table_of(network, prepared, images)
            for mode in QuantizationMode:
                plain = loadable_sqnr(prepared, table, mode, held_out, exact)
                for method, (correction, rounding) in METHODS.items():
                    how = refine(
                        prepared, table, TARGET, mode, images, correction=correction, rounding=rounding, seed=seed
                    )
                    value = loadable_sqnr(with_steps(prepared, how.steps), table, mode, held_out, exact)
                    found.setdefault((mode, method), []).append((plain, value))
        for (mode, method), pairs in sorted(found.items()):
            before, after = np.array(pairs).T
            mean, worst = float((after - before).mean()), float((after - before).min())
            failed += mean < 0 or worst < WORST
            print(
                f"{name:9} {mode:11} {method:14} {before.mean():6.2f} {after.mean():6.2f} {mean:+10.2f} {worst:+11.2f}",
                flush=True,
            )
    return int(failed > 0)


def child(case: str) -> None:
    """Round the weights of a case and print what it took, as JSON."""
    make, count = COSTS[case]
    network = prepare(make(), "fold")
    images = np.random.default_rng(0).standard_normal((count, *network.only_input.shape), np.float32)
    table = table_of(network, network, images[:16])
    start, before = time.perf_counter(), time.process_time()
    done = refine(network, table, TARGET, QuantizationMode.PER_FILTER, images, rounding="adaround")
    seconds, processor = time.perf_counter() - start, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    flipped, weights = (sum(getattr(one, key) for one in done.layers) for key in ("flipped", "weights"))
    print(
        json.dumps(
            {"seconds": seconds, "processor": processor, "peak": peak, "used": done.images, "share": flipped / weights}
        )
    )


def cost(cases: list[str]) -> None:
    """Print a line for each case, each run in a process of its own."""
    print("case      images used  seconds  of processor  peak MiB  weights not at the nearest step")
    for case in cases or COSTS:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.methods", "child", case], check=True, capture_output=True, text=True
        )
        one = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{case:9} {one['used']:11} {one['seconds']:8.1f} {one['processor']:13.1f} {one['peak']:9.0f}",
            f"{one['share']:9.1%}",
            flush=True,
        )


def main() -> int:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gains", "cost", "child"))
    parser.add_argument("cases", nargs="*", choices=[*COSTS, []], help="of cost")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--images", type=int, default=CALIBRATION)
    options = parser.parse_args()
    if options.what == "gains":
        return gains(options.seeds, options.images)
    if options.what == "child":
        child(options.cases[0])
    else:
        cost(options.cases)
    return 0


if __name__ == "__main__":
    sys.exit(main())
