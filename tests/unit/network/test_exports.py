"""The exported networks of `tests/data/exports`: what they must be for the tests that read them to mean something."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from nvdla_quant.table.cache import parse_cache
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "tests" / "data" / "exports"
EXPORTS = sorted(FOLDER.glob("*.onnx"))
CACHES = sorted(FOLDER.glob("*.cache"))
MOST_BYTES = 1_000_000
PRODUCERS = {"script": "pytorch", "plain": "pytorch", "dynamo": "pytorch", "tf2onnx": "tf2onnx"}
OF_THE_PARSER = re.compile(r"\(Unnamed Layer\* \d+\) \[[^\]]+\]_output\Z|ONNXTRT_")
"""How TensorRT's ONNX parser calls tensors of its own: constants, reshapes, and a product before its bias is added."""


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


def tensors(model: onnx.ModelProto) -> set[str]:
    """Return the names of what is computed, and of the inputs."""
    return {value.name for value in model.graph.input} | {name for node in model.graph.node for name in node.output}


@pytest.mark.parametrize("path", CACHES, ids=lambda path: path.stem)
def test_names_of_a_cache_are_the_tensors_of_its_network(path: Path) -> None:
    model = onnx.load(FOLDER / f"{path.stem.rpartition('.')[0]}.onnx")
    cache = parse_cache(path.read_bytes())
    assert cache.header.startswith("TRT-8503-")
    added = [name for name, _ in cache.entries if name not in tensors(model)]
    assert all(OF_THE_PARSER.match(name) for name in added), added
    assert len(added) < len(cache.entries) / 2


def test_tf2onnx_takes_nhwc() -> None:
    models = [onnx.load(path) for path in EXPORTS if path.stem.endswith("tf2onnx")]
    shapes = [[axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] for model in models]
    assert shapes == [[0, 32, 32, 3]] * 2
    types = {model.graph.input[0].type.tensor_type.elem_type for model in models}
    assert types == {TensorProto.FLOAT, TensorProto.UINT8}
