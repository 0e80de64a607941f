"""The command line as a stranger meets it: outputs, exit status, one line for each mistake."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from nvdla_quant.cli import main
from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.runtime.dimg import read_dimg
from nvdla_quant.table.table import read_table
from tests.networks.peaks import peak_network, peaks
from tests.sweeps import tiny_network

Result = subprocess.CompletedProcess[str]


def process(*arguments: object) -> Result:
    """Run a command as a user does: it has only what it imports itself, and takes a second to."""
    command = [sys.executable, "-m", "nvdla_quant", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def cli(*arguments: object) -> Result:
    """Run a command within this process."""
    command, output, errors = ["nvdla-quant", *map(str, arguments)], io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", command),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Result(command, int(ended.value.code or 0), output.getvalue(), errors.getvalue())


def succeed(*arguments: object) -> str:
    return output_of(cli(*arguments))


def output_of(result: Result) -> str:
    """Return what a command that ended well has printed."""
    assert result.returncode == 0, result.stderr
    return result.stdout


def fail(*arguments: object) -> str:
    """Run a command that must end with status 2 and one line; return the line."""
    result = cli(*arguments)
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("nvdla-quant: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, calibration images, and everything that the commands make of them, each a process of its own."""
    folder = tmp_path_factory.mktemp("cli")
    network = tiny_network(3)
    write_prototxt(network, folder / "deploy.prototxt")
    write_caffemodel(network, folder / "tiny.caffemodel")
    images = np.random.default_rng(4).random((16, 1, 8, 8), np.float32)
    np.save(folder / "images.npy", images)
    model = ("--prototxt", folder / "deploy.prototxt", "--caffemodel", folder / "tiny.caffemodel")
    cache = folder / "calibration.cache"
    images_of = ("--images", folder / "images.npy", "--batch-size", 8)
    output_of(process("calibrate", *model, *images_of, "--output", cache))
    output_of(process("convert-cache", cache, "--output", folder / "raw.json"))
    prototxt = ("--prototxt", folder / "deploy.prototxt")
    fixed = folder / "fixed.json"
    changes = ("--changes", folder / "changes.tsv")
    output_of(process("fix-table", *prototxt, "--cache", cache, "--output", fixed, *changes))
    options = ("--configtarget", "nv_small", "--cprecision", "int8", "--quantizationMode", "per-filter")
    output_of(process("compile", *model, "--calibtable", fixed, *options, "--output", folder / "tiny.nvdla"))
    steps = np.clip(np.rint(images / read_table(fixed)["data"]), -128, 127).astype(np.int8)
    np.save(folder / "device.npy", np.concatenate([steps, np.zeros((16, 3, 8, 8), np.int8)], axis=1))
    return folder


def test_tables_have_the_cache_s_names_and_the_layers_names(folder: Path) -> None:
    """`relu1` is in place on blob `conv1`, so TensorRT calls its output `conv1` and the convolution's by a number."""
    assert list(json.loads((folder / "raw.json").read_text())) == [
        "data",
        "(Unnamed Layer* 0) [Convolution]_output",
        "conv1",
        "pool1",
        "ip1",
        "prob",
    ]
    fixed = read_table(folder / "fixed.json")
    assert list(fixed.scales) == ["data", "conv1", "relu1", "pool1", "ip1", "prob"]
    assert fixed["pool1"] == fixed["relu1"]
    assert fixed["prob"] == pytest.approx(1 / 127)


def test_emulate_writes_output_steps_and_raw_dump(folder: Path, tmp_path: Path) -> None:
    output, dump, steps = tmp_path / "out.npy", tmp_path / "output.dimg", tmp_path / "steps"
    arguments = ("--input", folder / "device.npy", "--output", output, "--steps", steps, "--rawdump", dump)
    result = process("emulate", folder / "tiny.nvdla", *arguments)
    assert result.returncode == 0, result.stderr
    assert "target: nv_small (from the loadable)" in result.stderr
    scores = np.load(output)
    assert scores.shape == (16, 6, 1, 1)
    assert scores.dtype == np.int8
    assert read_dimg(dump, shape=(6, 1, 1), dtype=np.int8).tolist() == scores[0].tolist()
    entries = json.loads((steps / "steps.json").read_text())
    assert [entry["unit"] for entry in entries] == ["SDP", "PDP", "SDP", "EMU"]
    assert np.array_equal(np.load(steps / entries[-1]["file"]), scores)
    best = int(scores[0].reshape(-1).argmax())
    assert succeed("top", dump, "-k", 1) == f"{best}\t{scores[0, best, 0, 0]}.0\n"


def test_inspect_lists_operations(folder: Path) -> None:
    text = succeed("inspect", folder / "tiny.nvdla")
    for word in ("data", "prob", "conv", "sdp", "pdp"):
        assert word in text.lower()
    assert json.loads(succeed("inspect", folder / "tiny.nvdla", "--json"))


def test_check_ends_with_three_where_something_cannot_run(folder: Path) -> None:
    model = ("--prototxt", folder / "deploy.prototxt")
    assert "runs all 5 layers" in succeed("check", *model, "--configtarget", "nv_small", "--cprecision", "int8")
    result = cli("check", *model, "--configtarget", "nv_small", "--cprecision", "fp16", "--json")
    assert result.returncode == 3
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["rule"] == "precision"
    assert set(finding) == {"layer", "rule", "severity", "message", "rewrite"}


def test_fp16_is_refused_on_nv_small(folder: Path, tmp_path: Path) -> None:
    model = ("--prototxt", folder / "deploy.prototxt", "--caffemodel", folder / "tiny.caffemodel")
    output = tmp_path / "x.nvdla"
    line = fail("compile", *model, "--cprecision", "fp16", "--configtarget", "nv_small", "--output", output)
    assert "nv_small has no fp16 multipliers; targets that have: nv_full" in line
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_one_line(folder: Path, tmp_path: Path) -> None:
    model = ("--prototxt", folder / "deploy.prototxt", "--caffemodel", folder / "tiny.caffemodel")
    missing = tmp_path / "missing"
    output = ("--output", tmp_path / "out")
    device = ("--input", folder / "device.npy")
    assert "missing" in fail("emulate", missing, *device, *output)
    limits = ("emulate", folder / "tiny.nvdla", *device, *output)
    assert "the limit is 100; raise --max-macs" in fail(*limits, "--max-macs", 100)
    assert "the limit is 4096; raise --max-memory" in fail(*limits, "--max-memory", 4096)
    assert "malformed" in fail("emulate", folder / "images.npy", *device, *output)
    assert "expected int8" in fail("emulate", folder / "tiny.nvdla", "--input", folder / "images.npy", *output)
    assert "nv_tiny" in fail("compile", *model, "--configtarget", "nv_tiny", *output)
    assert "needs a calibration table" in fail("compile", *model, *output)
    assert "--output" in fail("compile", *model)
    assert "tiny.nvdla" in fail("convert-cache", folder / "tiny.nvdla", *output)
    assert "no such command" in fail("compil").lower()
    images = ("--images", folder / "images.npy")
    assert "percentile" in fail("calibrate", *model, *images, "--method", "percentile", *output)
    assert list(tmp_path.iterdir()) == []


def test_calibration_warns_of_what_it_clips_too_far(tmp_path: Path) -> None:
    network = peak_network()
    write_prototxt(network, tmp_path / "deploy.prototxt")
    write_caffemodel(network, tmp_path / "peaks.caffemodel")
    np.save(tmp_path / "images.npy", peaks(32, 1))
    model = ("--prototxt", tmp_path / "deploy.prototxt", "--caffemodel", tmp_path / "peaks.caffemodel")
    given = ("calibrate", *model, "--images", tmp_path / "images.npy", "--output", tmp_path / "made.cache")
    entropy = cli(*given)
    assert entropy.returncode == 0
    assert "warning: tensor 'relu': clipped at " in entropy.stderr
    for method, name in (("mse", "MseCalibration"), ("cosine", "CosineCalibration")):
        done = cli(*given, "--method", method)
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "made.cache").read_text().splitlines()[0].endswith(f"-{name}")


MALFORMED = {
    "a cycle": (
        "layer { name: 'a' type: 'ReLU' bottom: 'b' top: 'a' } layer { name: 'b' type: 'ReLU' bottom: 'a' top: 'b' }",
        "'a': reads 'b', which no earlier layer writes",
    ),
    "a missing bottom": (
        "layer { name: 'a' type: 'ReLU' bottom: 'dat' top: 'a' }",
        "'a': reads 'dat', which no earlier",
    ),
    "shapes that do not fit": (
        "layer { name: 'p' type: 'Pooling' bottom: 'data' top: 'p' pooling_param { kernel_size: 2 stride: 2 } } "
        "layer { name: 's' type: 'Eltwise' bottom: 'data' bottom: 'p' top: 's' }",
        "(6, 8, 8), (6, 4, 4)",
    ),
    "channels that the group does not divide": (
        "layer { name: 'c' type: 'Convolution' bottom: 'data' top: 'c' convolution_param { num_output: 8 "
        "kernel_size: 3 group: 4 } }",
        "does not divide both 6 input and 8 output",
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_networks_are_one_line(tmp_path: Path, what: str) -> None:
    text, message = MALFORMED[what]
    path = tmp_path / "deploy.prototxt"
    path.write_text(f"input: 'data' input_shape {{ dim: 1 dim: 6 dim: 8 dim: 8 }} {text}")
    line = fail("check", "--prototxt", path, "--configtarget", "nv_small")
    assert message in line
    assert str(path) in line


SEVERAL = (
    "layer { name: 'a' type: 'ReLU6' bottom: 'data' top: 'a' } layer { name: 'b' type: 'ReLU6' bottom: 'a' top: 'b' } "
    "layer { name: 'l' type: 'LRN' bottom: 'b' top: 'l' lrn_param { local_size: 11 } } "
    "layer { name: 'p' type: 'Permute' bottom: 'l' top: 'p' } layer { name: 'q' type: 'Foo' bottom: 'p' top: 'q' } "
    "layer { name: 'n' type: 'LRN' bottom: 'b' top: 'n' lrn_param { norm_region: WITHIN_CHANNEL } }"
)
INPUT = "layer { name: 'data' type: 'Input' top: 'data' input_param { shape { dim: 1 dim: 6 dim: 8 dim: 8 } } } "


def test_every_layer_that_cannot_run_is_listed_at_once(tmp_path: Path) -> None:
    """Those whose type is not read, wherever they stand, and what the target lacks of the others."""
    path = tmp_path / "deploy.prototxt"
    path.write_text(INPUT + SEVERAL)
    result = cli("check", "--prototxt", path, "--json")
    assert result.returncode == 3, result.stderr
    findings = json.loads(result.stdout)["findings"]
    assert {(finding["layer"], finding["rule"]) for finding in findings} == {
        ("a", "layer-type"), ("b", "layer-type"), ("l", "lrn"), ("p", "layer-type"), ("q", "layer-type"),
        ("n", "layer"),
    }  # fmt: skip
    assert all(finding["rewrite"] for finding in findings if finding["rule"] == "layer-type")
    cache = tmp_path / "cache"
    cache.write_text("TRT-8503-EntropyCalibration2\ndata: 3c010a14\n")
    line = fail("fix-table", "--prototxt", path, "--cache", cache, "--output", tmp_path / "t.json")
    for part in ("layers 'a', 'b': type 'ReLU6'", "'p': type 'Permute'", "'q': type 'Foo'", "'n' (LRN): norm_region"):
        assert part in line


def test_a_file_for_training_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "train_val.prototxt"
    data = "layer {{ name: 'd' type: 'Data' top: 'data' top: 'label' include {{ phase: {} }} {} }} "
    layers = "layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'r' } "
    loss = "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'r' bottom: 'label' }"
    crop = "transform_param { crop_size: 227 }"
    path.write_text(data.format("TRAIN", crop) + data.format("TEST", crop) + layers + loss)
    text = cli("check", "--prototxt", path)
    assert text.returncode == 3
    assert "'d' of type Data for TRAIN, 'd' of type Data for TEST" in text.stdout
    lines = (
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: CHANNELS dim: 227 dim: 227'
    )
    assert lines in text.stdout
    assert 'layer { name: "prob" type: "Softmax" bottom: "r" top: "prob" }' in text.stdout


def test_warnings_leave_the_line_that_all_layers_run(tmp_path: Path) -> None:
    """Two groups of 8 channels fill atoms of 8: nothing is written between them (AlexNet on nv_small)."""
    path = tmp_path / "deploy.prototxt"
    grouped = "layer { name: 'c' type: 'Convolution' bottom: 'data' top: 'c' convolution_param { %s kernel_size: 3 } }"
    path.write_text(INPUT.replace("dim: 6", "dim: 16") + grouped % "num_output: 16 group: 2")
    options = ("check", "--prototxt", path, "--configtarget")
    assert succeed(*options, "nv_small") == "nv_small runs all 1 layers in int8\n"
    assert succeed(*options, "nv_full").splitlines() == [
        "warning: c [group]: its 2 groups run 2 at a time, with zeros between: 2 times the weights.",
        "nv_full runs all 1 layers in int8",
    ]


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("inspect", None), ("emulate", "--input"), ("compile", "--prototxt"), ("compile", "--caffemodel"),
        ("compile", "--calibtable"), ("calibrate", "--images"), ("convert-cache", None), ("fix-table", "--cache"),
        ("fix-table", "--prototxt"), ("check", "--caffemodel"), ("verify", "--images"), ("top", None),
        ("top", "--labels"),
        ("compare-manifests", None),
    ],
)  # fmt: skip
def test_missing_files_are_named(folder: Path, tmp_path: Path, command: str, option: str | None) -> None:
    given: dict[str, list[object]] = {
        "inspect": [None], "emulate": [folder / "tiny.nvdla", "--input"], "convert-cache": [None], "top": [None],
        "compare-manifests": [folder / "raw.json"],
    }  # fmt: skip
    absent = folder / "calibration.cach"
    arguments = [absent if item is None else item for item in given.get(command, [])] if option is None else []
    if option is not None:
        arguments = [*(given[command][:1] if command == "emulate" else ()), option, absent]
        arguments = [folder / "raw.json", *arguments] if command == "top" else arguments
        arguments = [folder / "tiny.nvdla", *arguments] if command == "verify" else arguments
    elif command == "compare-manifests":
        arguments = [folder / "raw.json", absent]
    line = fail(command, *arguments)
    assert f"calibration.cach: no such file (did you mean {folder / 'calibration.cache'}?); check the path" in line


def test_a_cache_of_another_network_is_refused(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "other.cache"
    cache.write_text("TRT-8503-EntropyCalibration2\ndata: 3c010a14\nfire1: 3c010a14\n")
    arguments = ("--prototxt", folder / "deploy.prototxt", "--cache", cache, "--output", tmp_path / "fixed.json")
    assert "fire1" in fail("fix-table", *arguments)


def test_verify(folder: Path, tmp_path: Path) -> None:
    """The table of the compilation gives ok and status 0, another one 4; a file that is amiss gives 2."""
    model = ("--prototxt", folder / "deploy.prototxt", "--caffemodel", folder / "tiny.caffemodel")
    images = ("--images", folder / "images.npy")
    good = (folder / "tiny.nvdla", *model, *images, "--calibtable")
    text = output_of(process("verify", *good, folder / "fixed.json", "--layers", tmp_path / "layers.tsv"))
    assert text.splitlines()[-1] == "verdict: ok (it computes what the network does)"
    assert (tmp_path / "layers.tsv").read_text().startswith("step\tlayer\t")
    table = json.loads((folder / "fixed.json").read_text())
    table["ip1"]["scale"] *= 2
    (tmp_path / "other.json").write_text(json.dumps(table))
    result = cli("verify", *good, tmp_path / "other.json", "--json")
    assert result.returncode == 4
    content = json.loads(result.stdout)
    assert (content["verdict"], content["cause"], content["first_bad_layer"]) == ("miscompiled", "wrong-factor", "ip1")
    assert [row["layer"] for row in content["layers"]] == ["relu1", "pool1", "ip1", "prob"]
    del table["ip1"]
    (tmp_path / "lacks.json").write_text(json.dumps(table))
    assert "'ip1'" in fail("verify", *good, tmp_path / "lacks.json")
    assert "no calibration table given" in fail("verify", folder / "tiny.nvdla", *model, *images)


def test_a_mistake_ends_the_process_with_status_two() -> None:
    result = process("compil")
    assert (result.returncode, result.stdout, result.stderr) == (2, "", cli("compil").stderr)


def test_version_and_help() -> None:
    """Each command in a process of its own, which has no other's imports."""
    assert output_of(process("--version")).startswith("nvdla-quant 0.")
    listed = output_of(process("--help"))
    for command in (
        "inspect",
        "emulate",
        "compile",
        "calibrate",
        "convert-cache",
        "fix-table",
        "check",
        "verify",
        "top",
    ):
        assert command in listed
        assert "Usage" in output_of(process(command, "--help"))


def test_manifests_are_compared(tmp_path: Path) -> None:
    software = {"nvdla_quant": {"source": "s"}, "distributions": {}, "machine": "x", "simd": []}
    for name, digest in (("a", "1"), ("b", "2")):
        content = {
            "command": "",
            "software": software,
            "config": {},
            "inputs": {},
            "artefacts": {"f": {"sha256": digest}},
        }
        (tmp_path / name).write_text(json.dumps(content))
    succeed("compare-manifests", tmp_path / "a", tmp_path / "a")
    differ = cli("compare-manifests", tmp_path / "a", tmp_path / "b")
    assert (differ.returncode, differ.stdout.split("\t")[0]) == (1, "f")
    assert "is a folder; give the path of a file" in fail("compare-manifests", tmp_path / "a", tmp_path)
