"""Commands that take a network as ONNX, and the one that turns it into Caffe's files and back."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.network.files import read_model
from nvdla_quant.network.graph import Clip, Layer, Network
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.network.shapes import assemble
from tests.sweeps import tiny_network
from tests.unit.test_cli import cli, fail, succeed

Options = tuple[object, ...]


def clipped(network: Network) -> Network:
    """The network with a ReLU6, which Caffe lacks, in the place of its ReLU."""
    layers = [Layer("relu1", Clip(0.0, 6.0), ("conv1",)) if item.name == "relu1" else item for item in network.layers]
    return assemble(network.name, network.inputs, layers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network in both formats, and images."""
    folder = tmp_path_factory.mktemp("onnx")
    network = tiny_network(3)
    write_prototxt(network, folder / "deploy.prototxt")
    write_caffemodel(network, folder / "tiny.caffemodel")
    onnx.save(to_onnx(network), folder / "tiny.onnx")
    onnx.save(to_onnx(clipped(network)), folder / "clipped.onnx")
    np.save(folder / "images.npy", np.random.default_rng(4).random((16, 1, 8, 8), np.float32))
    return folder


def in_caffe(folder: Path) -> Options:
    return "--prototxt", folder / "deploy.prototxt", "--caffemodel", folder / "tiny.caffemodel"


def flow(folder: Path, made: Path, model: Options, structure: Options) -> bytes:
    """Calibrate, fix the table, check, compile and verify; return the loadable."""
    images, cache, table = folder / "images.npy", made / "calibration.cache", made / "table.json"
    succeed("calibrate", *model, "--images", images, "--batch-size", 8, "--output", cache)
    succeed("fix-table", *structure, "--cache", cache, "--output", table)
    small = ("--configtarget", "nv_small")
    assert "runs all" in succeed("check", *model, *small)
    loadable, report = made / "x.nvdla", made / "x.json"
    options = (*small, "--quantizationMode", "per-filter", "--report", report)
    succeed("compile", *model, "--calibtable", table, *options, "--output", loadable)
    succeed("verify", loadable, *model, "--images", images, "--calibtable", table, "--report", report)
    return loadable.read_bytes()


def test_the_same_loadable_from_either_format(folder: Path, tmp_path: Path) -> None:
    for name in ("caffe", "onnx"):
        (tmp_path / name).mkdir()
    caffe = flow(folder, tmp_path / "caffe", in_caffe(folder), in_caffe(folder)[:2])
    model = ("--onnx", folder / "tiny.onnx")
    assert flow(folder, tmp_path / "onnx", model, model) == caffe


def test_exactly_one_network(folder: Path, tmp_path: Path) -> None:
    caffe, model = in_caffe(folder), ("--onnx", folder / "tiny.onnx")
    rest = ("--output", tmp_path / "x.nvdla")
    assert "no network: give --onnx FILE, or --prototxt FILE" in fail("compile", *rest)
    assert "no network: give --onnx FILE" in fail("check")
    assert "--onnx and a Caffe model: give one network" in fail("compile", *caffe, *model, *rest)
    assert "--onnx and a Caffe model" in fail("check", *caffe[2:], *model)
    assert "--prototxt without --caffemodel" in fail("compile", *caffe[:2], *rest)
    assert "--caffemodel without --prototxt" in fail("check", *caffe[2:])
    assert "tiny.onnx is called as an ONNX model; give it by --onnx" in fail("check", "--prototxt", model[1])
    assert "--input-shape goes with --onnx" in fail("check", *caffe, "--input-shape", "1,1,8,8")
    assert "expected the sizes of all axes" in fail("check", *model, "--input-shape", "8x8")
    assert list(tmp_path.iterdir()) == []


def test_a_shape_that_the_model_leaves_open(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "tiny.onnx")
    for axis, size in zip(model.graph.input[0].type.tensor_type.shape.dim, ("n", "c", "h", "w"), strict=True):
        axis.dim_param = size
    onnx.save(model, tmp_path / "open.onnx")
    given = ("check", "--onnx", tmp_path / "open.onnx")
    assert "open.onnx" in (line := fail(*given))
    assert "(all axes in the file's order, the batch 1)" in line
    assert "runs all" in succeed(*given, "--input-shape", "1,1,8,8")


def test_check_lists_all_that_an_onnx_model_asks_for(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Einsum", ["x"], ["a"], name="first", equation="nchw->nchw"),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Det", ["r"], ["b"], name="second"),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])
    shapes = {"a": [1, 3, 4, 4], "b": [1, 3]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "g", [value], outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "net.onnx")
    result = cli("check", "--onnx", tmp_path / "net.onnx", "--json")
    assert result.returncode == 3, result.stdout + result.stderr
    assert {finding["layer"] for finding in json.loads(result.stdout)["findings"]} >= {"first", "second"}


def test_onnx_to_caffe(folder: Path, tmp_path: Path) -> None:
    """What Caffe lacks is said by its layers."""
    files = tmp_path / "deploy.prototxt", tmp_path / "weights.caffemodel"
    options = ("--onnx", folder / "clipped.onnx", "--prototxt", files[0], "--caffemodel", files[1])
    succeed("convert", *options, "--names", tmp_path / "names.json")
    kinds = [layer.kind for layer in read_model(files).layers]
    assert kinds == ["Convolution", "ReLU", "Scale", "ReLU", "Scale", "Pooling", "InnerProduct", "Softmax"]
    assert json.loads((tmp_path / "names.json").read_text())["relu1"] == "relu1"
    first = [path.read_bytes() for path in files]
    line = fail("convert", *options)
    assert f"{files[0]} is there already; --force writes over it" in line
    succeed("convert", *options, "--force")
    assert [path.read_bytes() for path in files] == first


def test_caffe_to_onnx_and_back(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    succeed("convert", "--to", "onnx", *in_caffe(folder), "--onnx", path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert [value.name for value in onnx.load(path).graph.output] == ["prob"]
    files = tmp_path / "deploy.prototxt", tmp_path / "weights.caffemodel"
    succeed("convert", "--onnx", path, "--prototxt", files[0], "--caffemodel", files[1])
    there, back = read_model([folder / "deploy.prototxt", folder / "tiny.caffemodel"]), read_model(files)
    assert [(layer.name, layer.kind) for layer in back.layers] == [(layer.name, layer.kind) for layer in there.layers]


def test_mistakes_of_direction(folder: Path, tmp_path: Path) -> None:
    caffe, absent = in_caffe(folder), ("--onnx", tmp_path / "net.onnx")
    assert "net.onnx: no such file" in (line := fail("convert", *caffe, *absent))
    assert "or was --to onnx meant?" in line
    line = fail("convert", "--to", "onnx", *caffe[:3], tmp_path / "no.caffemodel", *absent)
    assert "or was --to caffe meant?" in line
    model = ("--onnx", folder / "tiny.onnx")
    assert "--force" in fail("convert", *model, *caffe)
    assert "--force" in fail("convert", "--to", "onnx", *model, *caffe)
    both = ("--prototxt", tmp_path / "one", "--caffemodel", tmp_path / "." / "one")
    assert "name one file; give three" in fail("convert", *model, *both, "--force")
    assert "name one file; give three" in fail("convert", *model, *caffe[:3], model[1], "--force")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_converted_leaves_nothing(tmp_path: Path) -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], name="gelu")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph([node], "g", value[:1], value[1:]), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    onnx.save(model, tmp_path / "net.onnx")
    files = ("--prototxt", tmp_path / "a.prototxt", "--caffemodel", tmp_path / "b.caffemodel")
    line = fail("convert", "--onnx", tmp_path / "net.onnx", *files)
    assert "layer 'y': GELU takes the error function, which Caffe has not" in line
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
