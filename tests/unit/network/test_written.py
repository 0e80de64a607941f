"""ONNX files of ours read back as the network that they were written from, and no other file does so."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings

from nvdla_quant.errors import NetworkError
from nvdla_quant.network.files import import_onnx, read_model
from nvdla_quant.network.graph import Layer, Network, Pooling
from nvdla_quant.network.onnx import written
from nvdla_quant.network.onnx.written import LAYERS, as_onnx, as_written, model_of, write_onnx
from tests.caffe_networks import assert_equal
from tests.networks.random import Drawn, networks
from tests.sweeps import tiny_network


def same(got: object, expected: Network) -> None:
    assert isinstance(got, Network)
    assert_equal(got, expected)
    assert [layer.inner for layer in got.layers] == [layer.inner for layer in expected.layers]


@given(networks())
@settings(max_examples=100)
def test_any_network_reads_back(drawn: Drawn) -> None:
    same(as_written(model_of(drawn.network)), drawn.network)


def test_caffe_s_names_read_back(tmp_path: Path) -> None:
    """`relu1` writes the blob of `conv1`."""
    write_onnx(tiny_network(0), tmp_path / "net.onnx")
    same(read_model([tmp_path / "net.onnx"]), tiny_network(0))
    assert as_onnx(tiny_network(0)).tensors["relu1"].blob == "relu1"


def test_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_onnx(tiny_network(0), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_edited_graph_is_read_as_anybody_s(tmp_path: Path) -> None:
    model = model_of(tiny_network(0))
    (pooling,) = (node for node in model.graph.node if node.op_type == "MaxPool")
    pooling.op_type = "AveragePool"
    onnx.save(model, tmp_path / "net.onnx")
    imported = import_onnx(tmp_path / "net.onnx")
    (layer,) = (layer for layer in imported.network.layers if isinstance(layer.operation, Pooling))
    assert layer.operation.method == "average"
    assert any("its graph was edited after nvdla-quant wrote it" in remark for remark in imported.remarks)


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", "null", '{"name": "a", "inputs": [{"name": 1}], "layers": []}', '{"name": "a", "inputs": 3}'],
)
def test_damaged_metadata_is_one_line(tmp_path: Path, content: str) -> None:
    model = model_of(tiny_network(0))
    next(entry for entry in model.metadata_props if entry.key == LAYERS).value = content
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(NetworkError, match=r"net\.onnx: .*metadata nvdla_quant\.layers is damaged"):
        read_model([tmp_path / "net.onnx"])


def test_constants_elsewhere_are_none_of_ours(tmp_path: Path) -> None:
    """A file whose digest is right and whose weights stand in a file of its choice; that is not opened."""
    model = model_of(tiny_network(0))
    held = model.graph.initializer[0]
    held.ClearField("raw_data")
    held.data_location = onnx.TensorProto.EXTERNAL
    held.external_data.add(key="location", value="../secret")
    next(entry for entry in model.metadata_props if entry.key == written.DIGEST).value = written._digest(model)
    (tmp_path / "secret").write_bytes(bytes(10**4))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(NetworkError, match="is damaged"):
        read_model([tmp_path / "models" / "net.onnx"])


def test_too_much_for_one_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "LARGEST", 1000)
    with pytest.raises(NetworkError, match="an ONNX file in one piece holds less than 2 GiB"):
        write_onnx(tiny_network(0), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_what_the_file_holds(tmp_path: Path) -> None:
    write_onnx(tiny_network(0), tmp_path / "net.onnx")
    network = read_model([tmp_path / "net.onnx"])
    layer: Layer = network.by_name["conv1"]
    model = onnx.load(tmp_path / "net.onnx")
    held = {constant.name: onnx.numpy_helper.to_array(constant) for constant in model.graph.initializer}
    assert np.array_equal(held["conv1:weights"], layer.operation.weights)  # type: ignore[union-attr]
