"""The whole flow with every real tool named, stand-ins in their places, and names that no shell may read."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from tests.fakes import CANARY, NASTY, bare_interpreter, fake_gpu, install
from tests.sweeps import MEASURED, run, tiny_network

pytestmark = pytest.mark.e2e


def tools_config(tiny_config: dict[str, Any], tools: Path) -> dict[str, Any]:
    """A sweep with every tool named, all in the folder `tools` with a name that no shell may read."""
    model = {
        "prototxt": f"inputs/{NASTY}/deploy.prototxt",
        "caffemodel": f"-{NASTY}",
        "preprocessing": {"channels": "gray", "mean": [100], "scale": 0.00390625},
    }
    int8 = {"precision": "int8", "mode": "per-filter", "calibrator": "trt", "feeding": "stock-runtime"}
    return tiny_config | {
        "models": {"tiny": model},
        "calibrators": {"trt": {"method": "tensorrt-entropy", "images": 16, "batch_size": 8}},
        "targets": ["nv_small"],
        "variants": [
            {**int8, "name": "theirs", "compiler": "nvdla_compiler", "runtime": "nvdla_runtime"},
            {**int8, "name": "ours"},
        ],
        "backends": {
            "tensorrt": {"python": str(tools / f"bare {NASTY}" / "bin" / "python")},
            "nvdla_compiler": {"path": str(tools / NASTY / "nvdla_compiler")},
            "nvdla_runtime": {"device": "local", "path": str(tools / NASTY / "nvdla_runtime"), "spot_check": 2},
        },
    }


def run_with_stand_ins(checkout: Path, mode: str = "") -> subprocess.CompletedProcess[str]:
    """Run the sweep; the stand-ins fail as `mode` says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_JOB", str(checkout / "results/tiny/noise/tensorrt/job.json"))
        patch.setenv("FAKE_STATE", str(checkout / "state"))
        patch.setenv("FAKE_MODE", mode)
        patch.setenv(CANARY, str(checkout / "canary"))
        (checkout / "temporary").mkdir(exist_ok=True)
        patch.setenv("TMPDIR", str(checkout / "temporary"))
        return run(checkout, *MEASURED)


@pytest.fixture(scope="module")
def checkout(
    new_checkout: Callable[..., Path], tiny_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    tools = tmp_path_factory.mktemp("tools")
    checkout = new_checkout()
    config = tools_config(tiny_config, tools)
    for name in ("nvdla_compiler", "nvdla_runtime"):
        install(name, tools / NASTY)
    bare_interpreter(tools / f"bare {NASTY}", ["numpy"], *fake_gpu())
    (checkout / "inputs" / NASTY).mkdir()
    write_prototxt(tiny_network(0), checkout / config["models"]["tiny"]["prototxt"])
    write_caffemodel(tiny_network(0), checkout / config["models"]["tiny"]["caffemodel"])
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    finished = run_with_stand_ins(checkout)
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
    assert json.loads((folder / "theirs/verdict.json").read_text())["verdict"] == "ok"
    assert not list(folder.rglob("*.partial"))


FAILURES = {
    "truncated": (
        "compile_with_nvdla_compiler",
        ("loadable.nvdla", "compile.json", "dumps/1-of-1.npz"),
        "its loadable is malformed: ",
    ),
    "early-failure": (
        "run_on_device",
        ("dumps/1-of-1.npz",),
        "the first 2 images all failed; the last: image 1",
    ),
}
"""By how the stand-ins fail: the job that does, what it and the jobs behind it would have made, and what it says."""


def test_a_failure_leaves_nothing_half_written_and_the_next_run_goes_on(checkout: Path) -> None:
    """The second failure is of the run that goes on after the first."""
    folder = checkout / "results/tiny/noise/nv_small/theirs"
    before = {name: (folder / name).read_bytes() for name in FAILURES["truncated"][1]}
    for name in before:
        (folder / name).unlink()
    for mode, (job, outputs, message) in FAILURES.items():
        failed = run_with_stand_ins(checkout, mode)
        assert failed.returncode == 1
        (log,) = (checkout / "results/logs/tiny/noise" / job).rglob("*.log")
        assert message in log.read_text().splitlines()[-1]
        assert message in failed.stdout + failed.stderr
        assert [name for name in before if not (folder / name).exists()] == list(outputs)
        assert not [path for path in (checkout / "temporary").iterdir() if path.name.startswith("nvdla-")]
    again = run_with_stand_ins(checkout)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not list(folder.rglob("*.partial"))


def test_no_name_reached_a_shell(checkout: Path) -> None:
    assert not (checkout / "canary").exists()


def test_jobs_take_turns_on_the_device_whatever_the_command_line_says(
    new_checkout: Callable[..., Path], tiny_config: dict[str, Any]
) -> None:
    """`--resources` replaces the profile's, so that Snakemake starts both at once."""
    checkout = new_checkout()
    install("nvdla_runtime", checkout / "tools")
    device = {"calibrator": "minmax", "feeding": "stock-runtime", "runtime": "nvdla_runtime"}
    config = tiny_config | {
        "targets": ["nv_small"],
        "variants": [{"precision": "int8", "mode": ["per-kernel", "per-filter"], **device}],
        "backends": {
            "nvdla_runtime": {"device": "local", "path": str(checkout / "tools/nvdla_runtime"), "spot_check": 3}
        },
    }
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_STATE", str(checkout / "state"))
        patch.setenv("FAKE_DEVICE", str(checkout / "hardware"))
        finished = run(checkout, "--resources", "nvdla_device=2", "--until", "run_on_device")
    logs = [path.read_text() for path in (checkout / "results/logs").rglob("run_on_device/**/*.log")]
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:] + "".join(logs)
    assert len(logs) == 2
    assert any("in use by another run" in log for log in logs), "they ran at once"
    assert not any("two runtimes on one device" in log for log in logs)
