"""A network of two inputs: compiled and emulated by the commands; what takes one image refuses it by name."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.hardware.targets import TARGETS
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.network.files import write_model
from nvdla_quant.network.graph import Convolution, Eltwise, Layer, Network, ReLU, Tensor
from nvdla_quant.network.onnx.writer import to_onnx
from tests.unit.test_cli_outputs import call
from tests.verified import correlation

MODEL = ["--prototxt", "net.prototxt", "--caffemodel", "net.caffemodel"]


def two_inputs() -> Network:
    """A convolution of each of two images, their sum, a ReLU."""
    rng = np.random.default_rng(0)
    shapes = {"left": (3, 8, 8), "right": (3, 8, 8), "a": (8, 6, 6), "b": (8, 6, 6), "sum": (8, 6, 6), "out": (8, 6, 6)}
    tensors = {name: Tensor(name, shape, name) for name, shape in shapes.items()}
    weights = [rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32) for _ in "ab"]
    layers = (
        Layer("a", Convolution(weights[0], np.zeros(8, np.float32)), ("left",)),
        Layer("b", Convolution(weights[1], np.zeros(8, np.float32)), ("right",)),
        Layer("sum", Eltwise("sum"), ("a", "b")),
        Layer("out", ReLU(), ("sum",)),
    )
    return Network("two", (tensors["left"], tensors["right"]), layers, tensors)


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.normal(0, 1, (4, 3, 8, 8)).astype(np.float32) for name in ("left", "right")}


@pytest.fixture
def exact(tmp_path: Path, inputs: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What onnxruntime makes of the images, in a folder with the network's files and a table."""
    monkeypatch.chdir(tmp_path)
    network = two_inputs()
    write_model(network, ["net.prototxt", "net.caffemodel"])
    session = onnxruntime.InferenceSession(to_onnx(network).SerializeToString(), providers=["CPUExecutionProvider"])
    (values,) = session.run(None, inputs)
    scales = {"left": 4, "right": 4, "a": 8, "b": 8, "sum": 8, "out": 8}
    entries = {name: {"scale": top / 127, "min": 0, "max": 0, "offset": 0} for name, top in scales.items()}
    Path("table.json").write_text(json.dumps(entries))
    found: np.ndarray = values
    return found


@pytest.mark.parametrize(("target", "precision"), [("nv_small", "int8"), ("nv_full", "int8"), ("nv_full", "fp16")])
def test_each_input_has_its_file(exact: np.ndarray, inputs: dict[str, np.ndarray], target: str, precision: str) -> None:
    """Swapped, they give something else: the convolutions differ."""
    table = ["--calibtable", "table.json"] if precision == "int8" else []
    options = ["--configtarget", target, "--cprecision", precision, "--output", "net.nvdla"]
    call("compile", *MODEL, *table, *options)
    assert "left" in call("inspect", "net.nvdla")
    ports = {port.name: port for port in decode(read_loadable(Path("net.nvdla")), TARGETS[target]).inputs}
    assert set(ports) == {"left", "right"}
    near = {}
    for order in (("left", "right"), ("right", "left")):
        folder = Path("-".join(order))
        folder.mkdir()
        for name, source in zip(ports, order if list(ports) == ["left", "right"] else order[::-1], strict=True):
            real = inputs[source]
            device = real.astype(np.float16) if precision == "fp16" else np.clip(np.round(real / (4 / 127)), -128, 127)
            # An image has a fourth channel, which counts for nothing.
            more = ports[name].shape[0] - device.shape[1]
            device = np.pad(device, ((0, 0), (0, more), (0, 0), (0, 0)))
            np.save(folder / f"{name}.npy", device.astype(ports[name].dtype))
        call("emulate", "net.nvdla", "--configtarget", target, "--input", folder, "--output", f"{folder}.npy")
        near[order] = correlation(np.load(f"{folder}.npy").astype(np.float64), exact)
    assert near["left", "right"] > 0.999 if precision == "fp16" else near["left", "right"] > 0.99
    assert near["right", "left"] < 0.9


def test_files_that_are_not_there_are_named(exact: np.ndarray) -> None:
    call("compile", *MODEL, "--configtarget", "nv_full", "--cprecision", "fp16", "--output", "net.nvdla")
    np.save("one.npy", np.zeros((1, 3, 8, 8), np.float16))
    refused = call("emulate", "net.nvdla", "--input", "one.npy", "--output", "out.npy", status=2)
    assert "2 inputs (left, right); give a folder with left.npy, right.npy" in " ".join(refused.split())
    Path("some").mkdir()
    np.save("some/left.npy", np.zeros((1, 3, 8, 8), np.float16))
    refused = call("emulate", "net.nvdla", "--input", "some", "--output", "out.npy", status=2)
    assert "has no right.npy" in " ".join(refused.split())


def test_what_takes_one_image_says_so(exact: np.ndarray) -> None:
    """Calibration and verification; the message names the inputs."""
    np.save("images.npy", np.zeros((2, 3, 8, 8), np.float32))
    for command in (
        ["calibrate", *MODEL, "--images", "images.npy", "--method", "minmax", "--output", "cache"],
        ["equalize", *MODEL, "--images", "images.npy", "--output", "even.onnx"],
    ):
        assert "left" in call(*command, status=2)
