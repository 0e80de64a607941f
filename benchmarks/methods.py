"""What bias correction and adaptive rounding gain on the shipped networks, and what they cost.

usage: python -m benchmarks.methods gains [--seeds N] [--images N]
       python -m benchmarks.methods cost [CASE ...]
       python -m benchmarks.methods table RESULTS

gains: LeNet on MNIST and ResNet-20 on Fashion-MNIST, nv_small, min-max and both modes. For each seed other calibration
images are drawn, and the loadable runs on held-out images; the SQNR of its scores (before Softmax) in dB is compared
with that of the same loadable without the method: the mean over the seeds, and the worst seed's difference. Ends with
exit status 1 where a mean is lower, or a seed's more than 0.2 dB lower.

cost: adaptive rounding, per-filter on nv_small: resnet20 (500 images of 32 x 32), resnet18 (64 images of 224 x 224),
each in a process of its own with one thread. Seconds run from when network, table and images are there; the peak is the
most that the process ever had in memory.

table: what docs/quantization.md says of a finished run of config/methods.yaml, as Markdown: top-1 of every variant,
behind it on how many images its class is fp32's; and for each mode the variant that agrees most with fp32 on the data
set `choosing`, beside fp32, plain entropy and plain min-max on the test images: paired difference with its 95 %
interval, and McNemar's exact test, corrected by Holm.
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
from nvdla_quant.evaluation.accuracy import Accuracy, Interval, read_accuracy
from nvdla_quant.evaluation.comparison import Comparison, Scored, compare, holm, read_comparisons
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode
from nvdla_quant.images.datasets import IdxRecord, open_dataset
from nvdla_quant.jobs.files import read_npz
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare
from nvdla_quant.quantization.refine import Correction, Rounding, refine
from nvdla_quant.quantization.search import Scores, device_scores, fp32_scores, quantized_feed, scores_sqnr
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
    network: Network, table: CalibrationTable, mode: QuantizationMode, images: Images, exact: Scores
) -> float:
    """Compile, run, and compare the scores with fp32's."""
    compiled = compile_network(network, table, TARGET, Precision.INT8, mode)
    inputs = quantized_feed(images, network.only_input.name)(table, compiled.loadable.inputs[0].c)
    return scores_sqnr(exact, device_scores(compiled, decode(compiled.loadable, TARGET), inputs, 1))


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


def table(results: Path) -> None:
    """Print the tables of a finished run."""
    for case in sorted(path.parent for path in results.glob("*/*/comparisons.json")):
        found = accuracies(case)
        fp32 = found["fp32"]
        print(f"**{case.parent.name}** on {case.name}, {fp32.n:,} images, fp32 {percent(fp32.output.top1)}\n")
        modes = [str(mode) for mode in QuantizationMode]
        names = {name.replace(mode, "*") for name in found for mode in modes if mode in name}
        print("| variant | " + " | ".join(modes) + " |\n|---|" + "---|" * len(modes))
        for name in sorted(names):
            cells = [cell(found.get(name.replace("*", mode))) for mode in modes]
            print(f"| `{name.removeprefix('int8-*-')}` | " + " | ".join(cells) + " |")
        print()
    chosen_on_other_images(results / "mobilenet")


def accuracies(case: Path) -> dict[str, Accuracy]:
    """Return the accuracies of a case by variant, fp32 among them."""
    files = {path.parent.name: path for path in case.glob("nv_small/*/accuracy.json")}
    return {name: read_accuracy(path) for name, path in {"fp32": case / "reference/accuracy.json", **files}.items()}


def chosen_on_other_images(model: Path) -> None:
    """Print what was chosen on the data set `choosing`, and how it does on the test images beside plain calibrators."""
    choosing, found = accuracies(model / "choosing"), []
    for mode in QuantizationMode:
        best = max((name for name in choosing if str(mode) in name), key=lambda name: agreement(choosing[name]))
        baselines = ("fp32", *(f"int8-{mode}-{plain}-images-500" for plain in ("entropy", "minmax")))
        found += [beside(model / "cifar10", best, baseline) for baseline in baselines]
    corrected = holm([one.p for one in found])
    print(
        "| chosen | beside | top-1 % | its | difference | won / lost | p | p, Holm |\n|---|---|---|---|---|---|---|---|"
    )
    for one, p in zip(found, corrected, strict=True):
        low, high = 100 * one.delta.low, 100 * one.delta.high
        difference = f"{100 * one.delta.value:+.2f} ({low:+.2f} to {high:+.2f})"
        cells = (f"`{one.variant}`", f"`{one.baseline}`", f"{100 * one.top1:.2f}", f"{100 * one.baseline_top1:.2f}")
        print("|", " | ".join((*cells, difference, f"{one.won} / {one.lost}", f"{one.p:.2g}", f"{p:.2g}")), "|")


def beside(case: Path, variant: str, baseline: str) -> Comparison:
    """Return the comparison of two variants on the test images."""
    reference = read_npz(*sorted(case.glob("reference/*.npz")))

    def scored(name: str) -> Scored:
        if name == "fp32":
            return Scored.of(reference["scores"], 1.0)
        (with_fp32,) = read_comparisons(case / "nv_small" / name / "comparison.json")
        assert with_fp32.step is not None
        return Scored.of(read_npz(*sorted(case.glob(f"nv_small/{name}/dumps/*.npz")))["output"], with_fp32.step)

    names = {"model": "mobilenet", "dataset": case.name, "target": "nv_small", "kind": "best"}
    found = compare(
        {**names, "variant": variant, "baseline": baseline}, reference["labels"], scored(variant), scored(baseline)
    )
    assert found is not None, "both mean something"
    return found


def agreement(accuracy: Accuracy) -> float:
    """Return the share of images with fp32's class: it tells variants apart with fewer images than their accuracy."""
    assert accuracy.output.agreement is not None
    return accuracy.output.agreement


def cell(accuracy: Accuracy | None) -> str:
    """Return a variant's top-1 and, behind it, its agreement with fp32, in per cent."""
    return "" if accuracy is None else f"{percent(accuracy.output.top1)} ({100 * agreement(accuracy):.2f})"


def percent(value: Interval | None) -> str:
    """Return a share in per cent."""
    return "" if value is None else f"{100 * value.value:.2f}"


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
    parser.add_argument("what", choices=("gains", "cost", "table", "child"))
    parser.add_argument("names", nargs="*", help=f"of cost: {', '.join(COSTS)}; of table: the folder of the results")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--images", type=int, default=CALIBRATION)
    options = parser.parse_args()
    if options.what == "gains":
        return gains(options.seeds, options.images)
    if options.what == "child":
        child(options.names[0])
    elif options.what == "table":
        table(Path(*options.names))
    else:
        cost(options.names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
