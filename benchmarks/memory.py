"""Memory that each rule asks for, and the most that its jobs had, at LeNet, ResNet-20 and ResNet-18 of 224 x 224.

usage: python -m benchmarks.memory [NETWORK ...] [--cores N]

Copies the checkout to a temporary folder and runs the workflow on random images: of each network as Caffe's files, by
labels and by a command, and as a quantized ONNX model, int8 for nv_small, with all methods too, and fp16 for nv_full
but for ResNet-18, whose exact sample takes long. The peak is the kernel's (VmHWM of the job's process; `ru_maxrss`
begins with that of the process that started it), written down as a job ends by a module that Python imports at each
start, `sitecustomize`. On a cluster the snakemake that runs a job has its memory beside it: "free" is what is left over
both, and where that is less than none, the status is 1.
Rules that need a GPU, a device, NVIDIA's compiler or a folder of images do not run here; they are listed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import yaml
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.files import write_model
from nvdla_quant.network.graph import Network
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.planning.memory import SNAKEMAKE
from tests.networks.residual import resnet18, resnet20

CHECKOUT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "results", "__pycache__", "*.egg-info", "tests", "docs")
LENET = CHECKOUT / "resources" / "lenet-mnist"
NETWORKS: dict[str, tuple[Callable[[], Network], int, int]] = {
    "lenet": (lambda: read_network(LENET / "deploy.prototxt", LENET / "lenet.caffemodel"), 512, 1000),
    "resnet20": (resnet20, 512, 200),
    "resnet18": (resnet18, 128, 32),
}
"""Each with its images to calibrate on and to test on."""
FEW = 8
"""Images for the ONNX models, and for a command."""
COMMAND = [sys.executable, "-c", "import sys, numpy; print('1\\n' * len(numpy.load(sys.argv[-1])['indices']), end='')"]
"""Numbers each image, and has the images alone in its memory."""
METHODS = {"preparation": "fold-equalize", "correction": "bias", "rounding": "adaround", "search": "output"}

HOOK = """
import atexit, json, os, sys

def write():
    job = getattr(sys.modules["__main__"], "snakemake", None)
    if job is not None:
        with open("/proc/self/status") as status:
            (peak,) = (int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM:"))
        said = {"rule": job.rule, "model": job.wildcards.get("model", "-"), "asked": job.resources.mem_mb, "peak": peak}
        with open(os.path.join(FOLDER, f"{os.getpid()}.json"), "w") as file:
            json.dump(said, file)

atexit.register(write)
"""
"""Writes down what a job asked for, and the most memory that it had, in megabytes."""


class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Hands a few random images to onnxruntime's quantizer."""

    def __init__(self, network: Network) -> None:
        images = np.random.default_rng(0).random((2, *network.only_input.shape), np.float32)
        self._left: Iterator[dict[str, NDArray[np.float32]]] = ({network.only_input.name: one[None]} for one in images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next image, None behind the last."""
        return next(self._left, None)


def write_quantized(network: Network, path: Path) -> None:
    """Write `network` quantized by onnxruntime, symmetric, as NVDLA has it."""
    onnxruntime.set_default_logger_severity(3)
    plain, folded = path.with_suffix(".plain.onnx"), path.with_suffix(".folded.onnx")
    model = to_onnx(network)
    onnx.save(model, plain)
    quant_pre_process(plain, folded, skip_symbolic_shape=True)
    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True}
    quantization.quantize_static(
        folded,
        path,
        Images(network),
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options=symmetric,
    )
    plain.unlink()
    folded.unlink()


def write_case(folder: Path, name: str, served: str) -> dict[str, Any]:
    """Write the files of a network, and return its part of the configuration; `served` is the URL of `folder`."""
    make, calibration, test = NETWORKS[name]
    network = make()
    channels, height, width = network.only_input.chw
    files = [folder / f"{name}.prototxt", folder / f"{name}.caffemodel"]
    write_model(network, files)
    write_quantized(network, folder / f"{name}.onnx")
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (calibration + test, height, width, channels), np.uint8)
    labels = rng.integers(0, network.only_output.chw[0], len(images))
    np.savez(folder / f"{name}.npz", images=images if channels > 1 else images[..., 0], labels=labels)
    archive = folder / f"{name}.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(folder / f"{name}.npz", "set/images.npz")
    place = {"url": f"{served}/{archive.name}", "sha256": sha256(archive.read_bytes()).hexdigest()}
    source = {"format": "npz", "path": {**place, "member": "set/images.npz"}}
    preprocessing = {"channels": "gray" if channels == 1 else "rgb", "mean": [127.5], "scale": 0.01}
    prototxt, caffemodel = map(str, files)
    return {
        "models": {
            name: {"prototxt": prototxt, "caffemodel": caffemodel, "preprocessing": preprocessing},
            f"{name}-qdq": {"onnx": str(folder / f"{name}.onnx"), "preprocessing": preprocessing},
        },
        "datasets": {
            f"{name}-images": {"source": source, "calibration_pool": calibration},
            f"{name}-few": {"source": source, "calibration_pool": calibration, "test_images": FEW},
        },
        "cases": [
            {
                "model": name,
                "dataset": f"{name}-images",
                "overrides": {"calibrators": {"entropy": {"images": calibration}}},
            },
            {"model": name, "dataset": f"{name}-few", "metric": "command", "command": COMMAND},
            {"model": f"{name}-qdq", "dataset": f"{name}-few"},
        ],
    }


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder by HTTP on this machine; yield its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def asked_for(names: list[str]) -> list[str]:
    """Return what to make besides the sweep: what only TensorRT and NVIDIA's compiler read."""
    jobs = [f"results/{name}/{name}-images/tensorrt/job.json" for name in names]
    return ["all", *jobs, *(f"results/{name}-qdq/{name}-few/network/fold/deploy.prototxt" for name in names)]


def configuration(folder: Path, names: list[str], served: str) -> dict[str, Any]:
    """Return the configuration of the networks called `names`, whose files are written to `folder`."""
    parts = [write_case(folder, name, served) for name in names]
    merged: dict[str, Any] = {
        key: {k: v for part in parts for k, v in part[key].items()} for key in ("models", "datasets")
    }
    return {
        **merged,
        "cases": [case for part in parts for case in part["cases"]],
        "calibrators": {
            "entropy": {"method": "entropy", "images": 128, "batch_size": 64},
            "qdq": {"method": "qdq", "qdq_ranges": "cover"},
        },
        "targets": ["nv_full", "nv_small"],
        "variants": [
            {"precision": "fp16", "targets": ["nv_full"]},
            {"precision": "int8", "mode": "per-filter", "calibrator": ["entropy", "qdq"], "targets": ["nv_small"]},
            {"precision": "int8", "mode": "per-filter", "calibrator": "entropy", "targets": ["nv_small"], **METHODS},
        ],
        "search_trials": 3,
        "exclude": [
            *({"model": name, "precision": "fp16"} for name in names if name == "resnet18"),
            {"model": "*-qdq", "precision": "fp16"},
            {"model": "*-qdq", "calibrator": "entropy"},
            {"model": list(names), "calibrator": "qdq"},
        ],
        "raw_dumps": {"format": "text", "images": 2},
    }


def measured(names: list[str], cores: int) -> tuple[list[dict[str, Any]], set[str]]:
    """Run the workflow; return what each job wrote down, and the rules that there are."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, checkout, peaks = (Path(temporary) / name for name in ("files", "checkout", "peaks"))
        shutil.copytree(CHECKOUT, checkout, ignore=LEFT_OUT)
        folder.mkdir()
        peaks.mkdir()
        # Jobs have the checkout in PYTHONPATH, and so this.
        (checkout / "sitecustomize.py").write_text(HOOK.replace("FOLDER", repr(str(peaks))))
        command = [sys.executable, "-m", "snakemake", "--configfile", "memory.yaml", "--cores", str(cores)]
        with serving(folder) as served:
            (checkout / "memory.yaml").write_text(yaml.safe_dump(configuration(folder, names, served)))
            run = subprocess.run(
                [*command, *asked_for(names)], cwd=checkout, capture_output=True, text=True, check=False
            )
        if run.returncode:
            sys.exit(run.stdout[-3000:] + run.stderr[-6000:])
        listed = subprocess.run([*command, "--list-rules"], cwd=checkout, check=True, capture_output=True, text=True)
        return [json.loads(path.read_text()) for path in peaks.glob("*.json")], set(listed.stdout.split()) - {"all"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Memory asked for and had, by rule and network.")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    if unknown := set(options.networks) - set(NETWORKS):
        parser.error(f"no network is called {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    jobs, rules = measured(options.networks or list(NETWORKS), options.cores)
    largest: dict[tuple[str, str], dict[str, Any]] = defaultdict(lambda: {"peak": 0})
    for job in jobs:
        key = job["rule"], job["model"]
        largest[key] = max(largest[key], job, key=lambda one: one["peak"])
    print(f"the snakemake of a job on a cluster: {SNAKEMAKE} MB")
    print("rule                         network          asked MB   peak MB   free MB")
    short = []
    for (rule, model), job in sorted(largest.items()):
        free = job["asked"] - job["peak"] - SNAKEMAKE
        print(f"{rule:28} {model:16} {job['asked']:8} {job['peak']:9.0f} {free:9.0f}")
        if free < 0:
            short.append(f"{rule} of {model}")
    print("not run here:", ", ".join(sorted(rules - {rule for rule, _ in largest})) or "none")
    if short:
        sys.exit(f"more than asked for: {', '.join(short)}")


if __name__ == "__main__":
    main()
