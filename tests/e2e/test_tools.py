"""The whole flow with every real tool named, stand-ins in their places, and names that no shell may read."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nvdla_quant.network.caffe_writer import write_caffemodel, write_prototxt
from tests.fakes import bare_interpreter, fake_gpu, install
from tests.sweeps import run, tiny_network

pytestmark = pytest.mark.e2e
NASTY = "a b'c\"d$(touch canary)`touch canary`;touch canary"


@pytest.fixture(scope="module")
def checkout(
    new_checkout: Callable[..., Path], tiny_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    tools = tmp_path_factory.mktemp("tools")
    checkout = new_checkout()
    nasty = checkout / "inputs" / NASTY
    nasty.mkdir()
    write_prototxt(tiny_network(0), nasty / "deploy.prototxt")
    write_caffemodel(tiny_network(0), nasty / "-weights.caffemodel")
    model = {
        "prototxt": f"inputs/{NASTY}/deploy.prototxt",
        "caffemodel": f"inputs/{NASTY}/-weights.caffemodel",
        "preprocessing": {"channels": "gray", "mean": [100], "scale": 0.00390625},
    }
    int8 = {"precision": "int8", "mode": "per-filter", "calibrator": "trt", "feeding": "stock-runtime"}
    config = tiny_config | {
        "models": {"tiny": model},
        "calibrators": {"trt": {"method": "tensorrt-entropy", "images": 16, "batch_size": 8}},
        "targets": ["nv_small"],
        "variants": [
            {**int8, "name": "theirs", "compiler": "nvdla_compiler", "runtime": "nvdla_runtime"},
            {**int8, "name": "ours"},
        ],
        "backends": {
            "tensorrt": {"python": str(bare_interpreter(tools / "bare", ["numpy"], *fake_gpu()))},
            "nvdla_compiler": {"path": str(install("nvdla_compiler", tools / NASTY))},
            "nvdla_runtime": {"device": "local", "path": str(install("nvdla_runtime", tools / NASTY)), "spot_check": 2},
        },
    }
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_JOB", str(checkout / "results/tiny/noise/tensorrt/job.json"))
        patch.setenv("FAKE_STATE", str(tools / "state"))
        finished = run(checkout)
    logs = "".join(path.read_text()[-600:] for path in (checkout / "results" / "logs").rglob("*.log"))
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:] + logs[-3000:]
    return checkout


def test_the_cache_of_tensorrt_goes_on_to_the_end(checkout: Path) -> None:
    case = checkout / "results" / "tiny" / "noise"
    assert (case / "calibration/trt/calibration.cache").read_text().startswith("TRT-853-EntropyCalibration2\n")
    with (checkout / "results" / "summary.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found = [(row["variant"], row["target"], row["calibrate_backend"], row["compile_backend"]) for row in rows]
    assert found == [
        ("fp32", "", "", ""),
        ("tensorrt-fp32", "", "", "tensorrt"),
        ("tensorrt-fp16", "", "", "tensorrt"),
        ("tensorrt-int8-trt", "", "tensorrt", "tensorrt"),
        ("theirs", "nv_small", "tensorrt", "nvdla_compiler"),
        ("ours", "nv_small", "tensorrt", "builtin"),
    ]
    assert "calibration cache taken" in (checkout / "results/logs/tiny/noise/run_tensorrt/int8-trt.log").read_text()


def test_the_device_was_checked_and_both_backends_agree(checkout: Path) -> None:
    """The stand-ins compute with this package's compiler and emulator, so the numbers must be equal."""
    folder = checkout / "results/tiny/noise/nv_small"
    theirs, ours = (np.load(folder / name / "dumps/1-of-1.npz") for name in ("theirs", "ours"))
    assert np.array_equal(theirs["output"], ours["output"])
    assert "2 of 32 images ran on nvdla_runtime (local), every bit the same" in str(theirs["exactness"][0])
    report = json.loads((folder / "theirs/compile.json").read_text())
    assert report["compiler"] == "nvdla_compiler"
    assert len(report["sha256"]["nvdla_compiler"]) == 64
    assert json.loads((folder / "support.json").read_text())["nvdla_compiler"] == {"theirs": {"findings": []}}
    assert not list(folder.rglob("*.partial"))


def test_no_name_reached_a_shell(checkout: Path) -> None:
    assert not [path for path in checkout.rglob("canary*") if path.is_file()]
    assert not (Path.cwd() / "canary").exists()
    assert "canary" not in os.listdir(checkout)
