"""The commands of the methods, one after another as a user would call them, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.cli import main
from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.network.files import read_model, write_model
from nvdla_quant.network.onnx.written import as_onnx
from tests.unit.quantization.test_refine import images_of, small_network

MODEL = ["--prototxt", "deploy.prototxt", "--caffemodel", "weights.caffemodel"]
EQUALIZED = ["--prototxt", "equal/deploy.prototxt", "--caffemodel", "equal/weights.caffemodel"]
IMAGES = ["--images", "images.npy"]
TABLE = ["--calibtable", "table.json"]
TARGET = ["--configtarget", "nv_small", "--quantizationMode", "per-filter"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, which has a network and images."""
    monkeypatch.chdir(tmp_path)
    network = small_network()
    write_prototxt(network, Path("deploy.prototxt"))
    write_caffemodel(network, Path("weights.caffemodel"))
    np.save("images.npy", images_of(network, 32, 0))
    return tmp_path


def call(*arguments: str, status: int = 0) -> None:
    """Run a command; it must end with this exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["nvdla-quant", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code or 0) == status


def table(network: list[str]) -> None:
    call("calibrate", *network, *IMAGES, "--method", "mse", "--output", "calibration.cache")
    call("fix-table", *network[:2], "--cache", "calibration.cache", "--output", "table.json")


def test_from_a_network_to_a_verified_loadable(capsys: pytest.CaptureFixture[str]) -> None:
    call("equalize", *MODEL, *IMAGES, "--output", "equal")
    assert len(Path("equal/equalization.tsv").read_text().splitlines()) == 4
    table(EQUALIZED)
    searched = "--output", "searched.json", "--weights", "searched.npz", "--trials", "20", "--changes", "search.tsv"
    call("search", *EQUALIZED, *IMAGES, *TABLE, *TARGET, *searched)
    assert "dB, after 20 loadables: all trials are used up; --trials allows more" in capsys.readouterr().out
    best = ["--calibtable", "searched.json"]
    made = "--output", "weights.steps.npz", "--changes", "refinement.tsv"
    call("refine", *EQUALIZED, *IMAGES, *best, *TARGET, "--weight-steps", "searched.npz", *made)
    assert len(Path("refinement.tsv").read_text().splitlines()) == 5
    steps = ["--weight-steps", "weights.steps.npz"]
    call("compile", *EQUALIZED, *best, *steps, *TARGET, "--output", "a.nvdla", "--report", "a.json")
    assert all(one["honoured"] for one in json.loads(Path("a.json").read_text())["weights"])
    capsys.readouterr()
    verify = "verify", "a.nvdla", *EQUALIZED, *best, *steps, *IMAGES, "--report", "a.json", "--json"
    call(*verify)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["verdict"] == "ok"
    assert "--weight-steps" not in shown.err
    # Without the file these are other weights than the network's, which may be said; but also why they may be.
    call(*(one for one in verify if one not in steps), status=4)
    assert "no fault where --weight-steps has the file" in capsys.readouterr().err


def test_an_onnx_model_is_equalized_to_onnx() -> None:
    write_model(as_onnx(small_network()), ["network.onnx"])
    call("equalize", "--onnx", "network.onnx", *IMAGES, "--output", "equal")
    assert [path.name for path in sorted(Path("equal").iterdir())] == ["equalization.tsv", "network.onnx"]
    assert [layer.kind for layer in read_model(["equal/network.onnx"]).layers] == [
        layer.kind for layer in small_network().layers
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--correction", "none", "--rounding", "nearest"), "so nothing is refined; choose one"),
        (("--weight-steps", "images.npy"), "images.npy: one array as .npy, expected an archive of arrays, .npz"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    table(MODEL)
    call("refine", *MODEL, *IMAGES, *TABLE, *TARGET, *arguments, "--output", "weights.steps.npz", status=2)
    assert message in capsys.readouterr().err
    assert not Path("weights.steps.npz").exists()


def test_steps_of_another_network_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    table(MODEL)
    call("refine", *MODEL, *IMAGES, *TABLE, *TARGET, "--output", "weights.steps.npz")
    other = Path("deploy.prototxt").read_text().replace('"conv1"', '"conv9"').replace('"relu1"', '"relu9"')
    Path("deploy.prototxt").write_text(other)
    Path("weights.caffemodel").write_bytes(Path("weights.caffemodel").read_bytes().replace(b"conv1", b"conv9"))
    call("compile", *MODEL, *TABLE, *TARGET, "--weight-steps", "weights.steps.npz", "--output", "a.nvdla", status=2)
    assert "layer 'conv1' is no layer with weights in network 'small'" in capsys.readouterr().err
