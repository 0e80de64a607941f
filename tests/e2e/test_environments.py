"""Jobs in environments that have what their file lists, and not the package: as `--sdm conda` runs them.

Conda is a stand-in (its environments share the tests' files); Snakemake, its preamble before each script and every
interpreter are real.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from nvdla_quant.network.onnx.writer import to_onnx
from tests.conftest import REPOSITORY
from tests.fakes import bare_interpreter, fake_gpu, install
from tests.qdq import static
from tests.sweeps import run_apart, tiny_network
from tests.workflow.test_rules import PROGRAMS, imported_by, rules_of

pytestmark = pytest.mark.e2e

NUMBERING = [sys.executable, "-c", "import sys, numpy\nfor one in numpy.load(sys.argv[1])['pool1']: print(one.max())"]
"""A measure of the user's, in an interpreter of its own."""

WITNESS = """

def _witness() -> None:
    import json, os, pathlib, sys
    stdlib, package = pathlib.Path(json.__file__).parents[1], pathlib.Path(__file__).parent
    files = {name: pathlib.Path(getattr(module, "__file__", None) or json.__file__)
             for name, module in sys.modules.items() if name != "__main__"}
    known = (pathlib.Path(sys.prefix), stdlib, package)
    strange = [name for name, file in files.items() if not any(file.is_relative_to(folder) for folder in known)]
    line = {"program": sys.argv[0], "prefix": sys.prefix, "package": str(package),
            "first": os.environ.get("PYTHONPATH"), "from elsewhere": strange}
    with (package.parent / "witness.txt").open("a") as log:
        log.write(json.dumps(line) + "\\n")


import atexit
atexit.register(_witness)
"""
"""Appended to the package: each process that imports it says who it is and what it took from where."""


@pytest.fixture(scope="module")
def checkout(
    new_checkout: Callable[..., Path], tiny_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a checkout in which every script rule has run in an environment that lacks the package."""
    checkout, conda = new_checkout(), tmp_path_factory.mktemp("conda")
    with (checkout / "nvdla_quant" / "__init__.py").open("a") as package:
        package.write(WITNESS)
    install("conda", conda / "bin")
    (conda / "bin" / "activate").write_text('export PATH="$1/bin:$PATH"\n')
    int8 = {"precision": "int8", "mode": "per-filter"}
    config = tiny_config | {
        "calibrators": {"trt": {"method": "tensorrt-entropy", "images": 16, "batch_size": 8}},
        "targets": ["nv_small"],
        # One variant whose jobs are of all rules: which those are, a test asserts.
        "variants": [
            {**int8, "calibrator": "trt", "preparation": "fold-equalize", "correction": "bias", "search": "output"}
        ],
        "search_trials": 2,
        "raw_dumps": {"format": "text", "images": 1},
    }
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{conda / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("FAKE_CONDA", str(REPOSITORY))
        patch.setenv("FAKE_JOB", str(checkout / "results/tiny/noise/tensorrt/job.json"))
        patch.delenv("PYTHONPATH", raising=False)
        runs = [run_apart(checkout, "--sdm", "conda")]
        # What a model in Caffe with TensorRT's scales has no job of: ONNX, scales of ours, scales in the model, a cut,
        # what is measured without labels.
        onnx.save(to_onnx(tiny_network(0)), checkout / "inputs" / "twin.onnx")
        onnx.save(static(), checkout / "inputs" / "quantized.onnx")
        names = ("twin", "quantized")
        more = config | {
            "models": {name: {"onnx": f"inputs/{name}.onnx", "preprocessing": {"channels": "gray"}} for name in names}
            | {"short": {**config["models"]["tiny"], "cut_at": ["pool1"]}},
            "cases": [{"model": name, "dataset": "noise"} for name in names]
            + [{"model": "short", "dataset": "noise", "metric": "command", "command": NUMBERING}],
            "exclude": [{"model": "short", "calibrator": "own"}],
            "calibrators": {
                "entropy": {"method": "entropy", "images": 16, "batch_size": 8},
                "own": {"method": "qdq"},
            },
            "variants": [{**int8, "calibrator": "entropy"}, {**int8, "calibrator": "own"}],
        }
        (checkout / "more.yaml").write_text(yaml.safe_dump(more))
        made = ("twin/noise/network/fold/deploy.prototxt", "twin/noise/calibration/entropy/calibration.cache")
        made += ("quantized/noise/calibration/own/calibration.cache", "quantized/noise/quantized/accuracy.json")
        made += ("short/noise/fidelity.pairs.json", "fidelity.tsv", "report/fidelity.svg")
        asked = [f"results/{name}" for name in made]
        runs.append(run_apart(checkout, *asked, "--sdm", "conda", "--configfile", "more.yaml"))
    for finished in runs:
        assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    return checkout


def program_of(name: str) -> Path:
    package = REPOSITORY / "nvdla_quant" / "calibration" / "tensorrt.py"
    return package if name == "tensorrt" else REPOSITORY / "scripts" / f"{name}.py"


def test_every_job_takes_the_package_from_the_checkout_and_the_rest_from_its_environment(checkout: Path) -> None:
    """What Snakemake's preamble needs to unpickle `snakemake` comes from where Snakemake is installed.

    So may what a dependency takes where it is there and else does without (numba: yaml), but nothing that we import.
    """
    jobs: dict[str, list[dict[str, Any]]] = {}
    for line in map(json.loads, (checkout / "witness.txt").read_text().splitlines()):
        path = Path(line["program"])
        if path.parent.name == "scripts":
            jobs.setdefault(path.stem.partition(".")[2], []).append(line)
        elif path.name == "tensorrt.py":
            jobs.setdefault("tensorrt", []).append(line)
    elsewhere = {"download_file", "take_member", "take_folder", "run_on_device", "compile_with_nvdla_compiler"}
    assert set(jobs) == set(rules_of(REPOSITORY)) - PROGRAMS - elsewhere | {"tensorrt"}
    for name, lines in jobs.items():
        for line in lines:
            assert Path(line["prefix"]).parent == checkout / ".snakemake" / "conda", name
            assert line["prefix"] != sys.prefix
            assert line["package"] == str(checkout / "nvdla_quant"), name
            assert line["first"] == str(checkout), "Snakemake adds its own search path, but last"
            roots = {module.split(".")[0] for module in line["from elsewhere"]}
            assert roots & imported_by(program_of(name)) == set(), name


def test_each_stack_has_an_environment_of_its_own(checkout: Path) -> None:
    made = {path.read_text() for path in (checkout / ".snakemake" / "conda").glob("*.yaml")}
    assert made == {
        (REPOSITORY / "envs" / f"{name}.yaml").read_text() for name in ("quantization", "report", "tensorrt-8.5")
    }


def test_a_container_sees_the_package_and_the_files_of_a_module_elsewhere(
    new_checkout: Callable[..., Path], tiny_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkout, the working directory, the model, and what a link there leads to are four separate places.

    Snakemake itself does not quote the image, which lies in the working directory: that one has no blank.
    """
    checkout, work, models, weights = (new_checkout(), *(tmp_path / name for name in ("work", "mo dels", "weights")))
    for folder in (work, models, weights):
        folder.mkdir()
    (checkout / "inputs" / "tiny.caffemodel").rename(weights / "tiny.caffemodel")
    (models / "tiny.caffemodel").symlink_to(weights / "tiny.caffemodel")
    (checkout / "inputs" / "deploy.prototxt").rename(models / "deploy.prototxt")
    config = tiny_config | {
        "models": {
            "tiny": {
                "prototxt": str(models / "deploy.prototxt"),
                "caffemodel": str(models / "tiny.caffemodel"),
                "preprocessing": {"channels": "gray"},
            }
        },
        "datasets": {
            "noise": {
                "source": {"format": "npz", "path": str(checkout / "inputs" / "noise.npz")},
                "calibration_pool": 16,
            }
        },
        "calibrators": {"trt": {"method": "tensorrt-entropy", "images": 16, "batch_size": 8}},
        "variants": [{"precision": "int8", "mode": "per-filter", "calibrator": "trt"}],
    }
    (work / "config.yaml").write_text(yaml.safe_dump(config))
    (work / "Snakefile").write_text(
        f'configfile: "config.yaml"\nmodule quant:\n    snakefile: {str(checkout / "Snakefile")!r}\n'
        "    config: config\nuse rule * from quant\n"
    )
    bare_interpreter(tmp_path / "container", ["numpy"], *fake_gpu())
    install("apptainer", tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_CONTAINER", str(tmp_path / "container"))
    monkeypatch.setenv("FAKE_JOB", str(work / "results/tiny/noise/tensorrt/job.json"))
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    cache = "results/tiny/noise/calibration/trt/calibration.cache"
    finished = run_apart(work, "--sdm", "apptainer", "--apptainer-args=--nv", cache)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    assert (work / cache).read_text().startswith("TRT-853-EntropyCalibration2\n")
