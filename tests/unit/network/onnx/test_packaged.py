"""Networks that the onnx package ships for tests of parsers: their weights are made within the graph."""

from collections import Counter
from pathlib import Path

import onnx
import pytest

from nvdla_quant.network.onnx.reader import read_onnx

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
CLASSES = {
    "densenet121": {"Convolution": 121, "Concat": 58, "Pooling": 5},
    "inception_v2": {"Convolution": 69, "Concat": 10, "InnerProduct": 1},
    "resnet50": {"Convolution": 53, "Eltwise": 16, "InnerProduct": 1},
    "shufflenet": {"Convolution": 49, "Concat": 3, "Eltwise": 13, "Gather": 16},
    "squeezenet": {"Convolution": 26, "Concat": 8, "Pooling": 4},
}
"""Layers of some kinds; the numbers are those of the papers' networks."""


@pytest.mark.parametrize("name", CLASSES)
def test_packaged_networks(name: str) -> None:
    path = LIGHT / f"light_{name}.onnx"
    if not path.is_file():
        pytest.skip(f"this version of onnx ships no {path.name}")
    network = read_onnx(path).network
    counts = Counter(layer.kind for layer in network.layers)
    assert {kind: counts[kind] for kind in CLASSES[name]} == CLASSES[name]
    assert network.only_output.chw == (1000, 1, 1)
    assert network.only_input.shape == (3, 224, 224)
