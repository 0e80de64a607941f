"""Time and memory of entropy calibration, ours and onnxruntime's, from the same images on the same machine in one run.

usage: python -m benchmarks.calibration [CASE ...] [--threads N]

Cases: resnet20 (CIFAR size, 512 images), resnet18 (224 x 224, 128 images); both where none is named. onnxruntime's
calibrator gets 2048 bins, as TensorRT's and ours have; with its default of 128 there is one candidate and no search.
Both calibrate every tensor from the same images in batches of 64, each in a process of its own, whose peak is the most
that it ever had in memory (Python, libraries, the network and its images included). Seconds run from when the network
and the images are there to the last threshold; loading of libraries and of compiled code is in them. Where others use
the machine, the seconds of the processor (all threads) say more than those of the clock.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.network.graph import Network
from nvdla_quant.table.naming import tensor_names
from tests.networks.residual import resnet18, resnet20

CASES = {"resnet20": (resnet20, 512), "resnet18": (resnet18, 128)}
"""Network and number of images."""
BATCH, BINS = 64, 2048
SIDES = ("ours", "onnxruntime")


def ours(network: Network, images: NDArray[np.float32], threads: int) -> int:
    """Calibrate by this package; return how many thresholds were found."""
    from nvdla_quant.calibration.cpu import Calibrator, measure

    return len(measure(network, images, Calibrator("entropy", BATCH), tuple(tensor_names(network)), threads=threads))


def theirs(network: Network, images: NDArray[np.float32], threads: int) -> int:
    """Calibrate by onnxruntime; return how many thresholds were found."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    from nvdla_quant.network.onnx.writer import to_onnx

    class Reader(CalibrationDataReader):
        """Hands batches to onnxruntime."""

        def __init__(self) -> None:
            starts = range(0, len(images), BATCH)
            name = network.only_input.name
            self._left: Iterator[dict[str, NDArray[np.float32]]] = ({name: images[i : i + BATCH]} for i in starts)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._left, None)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(to_onnx(network), path)
        calibrator = create_calibrator(
            path,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.Entropy,
            extra_options={"num_bins": BINS, "symmetric": True},
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        calibrator.infer_session = onnxruntime.InferenceSession(
            calibrator.augmented_model_path, options, providers=["CPUExecutionProvider"]
        )
        calibrator.collect_data(Reader())
        return len(calibrator.compute_data().keys())


def child(case: str, side: str, threads: int) -> None:
    """Calibrate and print what it took, as JSON."""
    make, count = CASES[case]
    network = make()
    images = np.random.default_rng(0).standard_normal((count, *network.only_input.shape), np.float32)
    start, before = time.perf_counter(), time.process_time()
    found = (ours if side == "ours" else theirs)(network, images, threads)
    seconds, processor = time.perf_counter() - start, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "processor": processor, "peak": peak, "thresholds": found}))


def main() -> None:
    """Run both sides of each case and print a line."""
    parser = argparse.ArgumentParser(description="Entropy calibration, ours against onnxruntime's.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of both sides")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no case is called {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if options.side:
        child(options.cases[0], options.side, options.threads)
        return
    print(f"entropy, {BINS} bins, batches of {BATCH}, {options.threads} threads; a process each")
    print("case     side         thresholds  seconds  of processor  peak MiB")
    for case in options.cases or CASES:
        command = [sys.executable, "-m", "benchmarks.calibration", case, "--threads", str(options.threads), "--side"]
        runs = [subprocess.run([*command, side], check=True, capture_output=True, text=True) for side in SIDES]
        mine, other = found = [json.loads(run.stdout.splitlines()[-1]) for run in runs]
        for side, one in zip(SIDES, found, strict=True):
            print(f"{case:8} {side:12} {one['thresholds']:10} {one['seconds']:8.1f}", end="")
            print(f" {one['processor']:13.1f} {one['peak']:9.0f}")
        ratios = {key: other[key] / mine[key] for key in ("seconds", "processor", "peak")}
        print(f"{case:8} {'ratio':12} {'':10} {ratios['seconds']:8.1f}", end="")
        print(f" {ratios['processor']:13.1f} {ratios['peak']:9.1f}", flush=True)


if __name__ == "__main__":
    main()
