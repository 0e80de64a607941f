"""The exported networks of `tests/data/exports`: what they must be for the tests that read them to mean something."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from nvdla_quant.calibration.cpu import Calibrator, MeasuringMethod, calibrate
from nvdla_quant.network.files import read_model
from nvdla_quant.network.graph import InnerProduct, Network
from nvdla_quant.table.cache import parse_cache
from nvdla_quant.table.naming import match, tensor_names
from tests.exports.pack import rounded
from tests.exports.packed import FOLDER, names
from tests.exports.tensorrt_caches import BATCH, Noise

CACHES = sorted(FOLDER.glob("*.cache"))
MOST_BYTES = 400_000
PRODUCERS = {"script": "pytorch", "plain": "pytorch", "dynamo": "pytorch", "tf2onnx": "tf2onnx"}
ADDED_FOR_A_GEMM = [
    *["(Unnamed Layer* N) [Constant]_output"] * 2,
    "(Unnamed Layer* N) [Matrix Multiply]_output",
    "(Unnamed Layer* N) [Shuffle]_output",
]
"""What TensorRT's ONNX parser adds: the weights, the bias and its shape, and the product before the bias is added."""


def opset(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators."""
    (version,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return int(version)


def models(exports: Path) -> dict[str, onnx.ModelProto]:
    """Return all networks by name."""
    return {name: onnx.load(exports / f"{name}.onnx") for name in names()}


def test_they_are_small() -> None:
    assert 0 < sum(path.stat().st_size for path in FOLDER.glob("*.onnx*")) < MOST_BYTES


def test_weights_are_rounded_to_steps_of_a_power_of_two() -> None:
    """The largest is 1.5, so a step is the power of two below 1.5 / 7: an eighth."""
    values = np.array([[1.5, -0.07, 0.06], [0.19, -1.5, 0.0]], np.float32)
    np.testing.assert_array_equal(rounded(values), [[1.5, -0.125, 0.0], [0.25, -1.5, 0.0]])
    assert rounded(values).dtype == np.float32


def test_both_exporters_and_all_versions_are_there(exports: Path) -> None:
    kinds = {(opset(model), name.endswith("dynamo")) for name, model in models(exports).items()}
    assert kinds == {(11, False), (13, False), (17, False), (18, True), (21, True)}


def test_operators(exports: Path) -> None:
    """Each operator that PyTorch and tf2onnx write for the networks of `tests.exports`."""
    found = Counter(node.op_type for model in models(exports).values() for node in model.graph.node)
    assert set(found) >= {
        *("Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose"),
        *("Div", "Erf", "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid"),
        *("HardSwish", "LeakyRelu", "LogSoftmax", "MatMul", "Max", "MaxPool", "Mul", "PRelu", "Pad", "ReduceMax"),
        *("ReduceMean", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Sub"),
        *("Tanh", "Transpose", "Unsqueeze"),
    }


@pytest.mark.parametrize("name", names())
def test_export(name: str, exports: Path) -> None:
    """It is valid, as its name says, names no folder of the machine that made it, and tells images apart."""
    path = exports / f"{name}.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    *_, version, exporter = name.removesuffix("-plain").split("-")
    assert (opset(model), model.producer_name) == (int(version), PRODUCERS[exporter])
    assert not re.search(rb"site-packages|/home/|/root/|/tmp/", path.read_bytes())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    shape, random = source.shape[1:], np.random.default_rng(0)
    images = random.integers(0, 256, (4, *shape)).astype(np.float32)
    if "uint8" in source.type:
        images = images.astype(np.uint8)
    elif not name.startswith(("assorted", "keras")):  # These take pixels.
        images = (images - 127.5) / 73.6
    outputs = np.concatenate([session.run(None, {source.name: image[None]})[0] for image in images]).reshape(4, -1)
    assert np.isfinite(outputs).all()
    assert 1e-3 < np.abs(outputs - outputs.mean(0)).max() < 100


@pytest.mark.parametrize("path", CACHES, ids=lambda path: path.stem)
def test_cache_of_tensorrts_onnx_parser(path: Path) -> None:
    """Each name is a tensor of ours, or one of those that the parser adds, which are listed as such."""
    network, cache = network_of(path), parse_cache(path.read_bytes())
    assert cache.header.startswith("TRT-8503-")
    table, changes = match(cache, network)
    assert set(table.scales) == set(tensor_names(network))
    unused = {change.cache_name: change.reason for change in changes if change.rule == "unused"}
    assert {name for name, _ in cache.entries} == {change.cache_name for change in changes if change.cache_name}
    added = {name for name, reason in unused.items() if reason == "TensorRT's parser added it"}
    assert sorted(re.sub(r"\d+", "N", name) for name in added) == sorted(
        ADDED_FOR_A_GEMM * sum(isinstance(layer.operation, InnerProduct) for layer in network.layers)
    )
    views = unused.keys() - added
    assert len(views) == 1
    assert views <= {"/Reshape_output_0", "/Flatten_output_0"}


@pytest.mark.parametrize("path", CACHES, ids=lambda path: path.stem)
def test_our_calibration_is_tensorrts_of_the_same_onnx(path: Path) -> None:
    """The same images, in the same batches. Of 112 tensors 3 differ by entropy; two global averages by both.

    The ONNX parser makes those averages a Reduce layer, which has a scale of its own; a pooling has its input's, here
    as by the Caffe parser, and in every table as the hardware needs it.
    """
    network = network_of(path)
    method: MeasuringMethod = "entropy" if path.stem.endswith(".entropy") else "minmax"
    batch = 1 if "resnet18" in path.stem else BATCH
    images = Noise(network.inputs[0].shape[-3:], batch).pixels
    ours = match(calibrate(network, images, Calibrator(method, batch)), network)[0].scales
    theirs = match(parse_cache(path.read_bytes()), network)[0].scales
    whole = {layer.name for layer in network.layers if "GlobalAveragePool" in layer.name}
    apart = {name for name in ours.keys() - whole if abs(ours[name] / theirs[name] - 1) > 1e-3}
    assert len(apart) <= (2 if method == "entropy" else 0), apart
    assert all(theirs[name] < ours[name] for name in whole)


def network_of(cache: Path) -> Network:
    """Return the network that `cache` was taken of."""
    return read_model([FOLDER / f"{cache.stem.rpartition('.')[0]}.onnx"])


def test_tf2onnx_takes_nhwc(exports: Path) -> None:
    kinds = [model.graph.input[0].type.tensor_type for name, model in models(exports).items() if "tf2onnx" in name]
    assert [[axis.dim_value for axis in kind.shape.dim] for kind in kinds] == [[0, 32, 32, 3]] * 2
    types = {kind.elem_type for kind in kinds}
    assert types == {TensorProto.FLOAT, TensorProto.UINT8}
