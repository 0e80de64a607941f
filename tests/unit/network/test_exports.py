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
from tests.conftest import REPOSITORY
from tests.exports.tensorrt_caches import BATCH, Noise

FOLDER = REPOSITORY / "tests" / "data" / "exports"
EXPORTS = sorted(FOLDER.glob("*.onnx"))
CACHES = sorted(FOLDER.glob("*.cache"))
MOST_BYTES = 1_000_000
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


def test_they_are_small() -> None:
    assert 0 < sum(path.stat().st_size for path in EXPORTS) < MOST_BYTES


def test_both_exporters_and_all_versions_are_there() -> None:
    kinds = {(opset(onnx.load(path)), path.stem.split("-")[-1] == "dynamo") for path in EXPORTS}
    assert kinds == {(11, False), (13, False), (17, False), (18, True), (21, True)}


def test_operators() -> None:
    """Each operator that PyTorch and tf2onnx write for the networks of `tests.exports`."""
    found = Counter(node.op_type for path in EXPORTS for node in onnx.load(path).graph.node)
    assert set(found) >= {
        *("Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose"),
        *("Div", "Erf", "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid"),
        *("HardSwish", "LeakyRelu", "LogSoftmax", "MatMul", "Max", "MaxPool", "Mul", "PRelu", "Pad", "ReduceMax"),
        *("ReduceMean", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Sub"),
        *("Tanh", "Transpose", "Unsqueeze"),
    }


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
def test_export(path: Path) -> None:
    """It is valid, as its name says, names no folder of the machine that made it, and tells images apart."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    *_, version, exporter = path.stem.removesuffix("-plain").split("-")
    assert (opset(model), model.producer_name) == (int(version), PRODUCERS[exporter])
    assert not re.search(rb"site-packages|/home/|/root/|/tmp/", path.read_bytes())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    shape, random = source.shape[1:], np.random.default_rng(0)
    images = random.integers(0, 256, (4, *shape)).astype(np.float32)
    if "uint8" in source.type:
        images = images.astype(np.uint8)
    elif not path.stem.startswith(("assorted", "keras")):  # These take pixels.
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


def test_tf2onnx_takes_nhwc() -> None:
    models = [onnx.load(path) for path in EXPORTS if path.stem.endswith("tf2onnx")]
    shapes = [[axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] for model in models]
    assert shapes == [[0, 32, 32, 3]] * 2
    types = {model.graph.input[0].type.tensor_type.elem_type for model in models}
    assert types == {TensorProto.FLOAT, TensorProto.UINT8}
