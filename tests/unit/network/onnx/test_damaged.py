"""Files that are malformed, hostile or not supported: one clear line each, and nothing read outside of the folder."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.onnx.files.load import MOST_NODES
from nvdla_quant.network.onnx.graphs import normalise
from nvdla_quant.network.onnx.operators.table import ADVICE, READERS
from nvdla_quant.network.onnx.reader import read_onnx
from nvdla_quant.network.problems import LayersError
from tests.unit.network.onnx.test_operators import model, node, normal, text

WEIGHTS = {"w": normal(4, 6, 3, 3), "b": normal(4)}


def good() -> onnx.ModelProto:
    return model([node("Conv", "x w b", "c"), node("Relu", "c")], WEIGHTS)


def refused(path: Path, built: onnx.ModelProto | bytes, *arguments: Any) -> str:
    """The message, which is one line."""
    path.write_bytes(built if isinstance(built, bytes) else built.SerializeToString())
    begin = time.perf_counter()
    with pytest.raises(NetworkError) as caught:
        read_onnx(path, *arguments)
    assert time.perf_counter() - begin < 10
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{path}: ")


def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    built = good()
    change(built)
    return built


def twice_named(built: onnx.ModelProto) -> None:
    built.graph.node[1].output[0] = "c"


def cycle(built: onnx.ModelProto) -> None:
    built.graph.node[0].input[0] = "y"


def claims(built: onnx.ModelProto) -> None:
    built.graph.initializer[0].dims[:] = [2**15, 2**15, 3, 3]


def claims_less(built: onnx.ModelProto) -> None:
    built.graph.initializer[0].dims[:] = [4, 5, 3, 3]


def wrong_channels(built: onnx.ModelProto) -> None:
    built.graph.initializer[0].CopyFrom(numpy_helper.from_array(normal(4, 5, 3, 3), "w"))


def strings(built: onnx.ModelProto) -> None:
    built.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.STRING, [1], [b"text"]))


def sparse(built: onnx.ModelProto) -> None:
    values = helper.make_tensor("w2", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    built.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


def not_a_number(built: onnx.ModelProto) -> None:
    built.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((4, 6, 3, 3), np.nan, np.float32), "w"))


def calls_itself(built: onnx.ModelProto) -> None:
    built.opset_import.append(helper.make_opsetid("own", 1))
    inner = helper.make_node("f", ["a"], ["b"], domain="own")
    opsets = [helper.make_opsetid("own", 1)]
    built.functions.append(helper.make_function("own", "f", ["a"], ["b"], [inner, inner], opsets))
    built.graph.node[1].op_type, built.graph.node[1].domain = "f", "own"


def doubles(built: onnx.ModelProto) -> None:
    """Functions of two calls each, 15 deep."""
    built.opset_import.append(helper.make_opsetid("own", 1))
    opsets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    for level in range(15):
        kind, domain = (f"f{level - 1}", "own") if level else ("Relu", "")
        nodes = [
            helper.make_node(kind, ["a"], ["m"], domain=domain),
            helper.make_node(kind, ["m"], ["b"], domain=domain),
        ]
        built.functions.append(helper.make_function("own", f"f{level}", ["a"], ["b"], nodes, opsets))
    built.graph.node[1].op_type, built.graph.node[1].domain = "f14", "own"


DAMAGED: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "name written twice": (twice_named, "'c' stands 2 times as output of a node; rename one"),
    "cycle": (cycle, "nodes wait for each other: 'c_node' -> 'y_node' -> 'c_node'"),
    "missing weights": (lambda m: m.graph.initializer.pop(0), "reads 'w', which is no input, no initialiser"),
    "claims gigabytes": (claims, "initialiser 'w' claims the shape .* bytes, expected at most"),
    "claims less": (claims_less, r"initialiser 'w' claims the shape \(4, 5, 3, 3\), 720 bytes, and holds 864"),
    "wrong channels": (wrong_channels, "channels"),
    "strings": (strings, "initialiser 'w' is of type STRING, expected numbers"),
    "sparse": (sparse, "initialiser 'w2' is a sparse tensor"),
    "not a number": (not_a_number, r"input 1 \('w'\) holds NaN or infinity"),
    "no outputs": (lambda m: m.graph.ClearField("output"), "output"),
    "unknown output": (lambda m: setattr(m.graph.output[0], "name", "z"), "no node writes the graph's output 'z'"),
    "no nodes": (lambda m: m.graph.ClearField("node"), "holds no graph with nodes"),
    "no graph": (lambda m: m.ClearField("graph"), "holds no graph with nodes"),
    "no opset": (lambda m: m.ClearField("opset_import"), "0 versions of the ONNX operators"),
    "old opset": (lambda m: setattr(m.opset_import[0], "version", 6), "opset 6, expected 7 to"),
    "future opset": (lambda m: setattr(m.opset_import[0], "version", 999), "opset 999, expected 7 to"),
    "function calls itself": (calls_itself, "a function calls itself"),
    "functions double": (doubles, "nodes, subgraphs and functions counted, expected at most"),
    "unknown attribute": (
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("colour", 1)),
        "onnx.checker refuses it: Unrecognized attribute: colour",
    ),
    "attribute of another type": (
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("group", "x")),
        "onnx.checker refuses it: Mismatched attribute type",
    ),
    "kernel of three axes": (
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("pads", [1, 1, 1])),
        "c_node",
    ),
    "group of none": (
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("group", 0)),
        "c_node.*group 0",
    ),
    "giant image": (
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 2**40),
        "more than 268435456 values",
    ),
    "negative size": (
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", -3),
        "expected sizes of 1 or more",
    ),
    "input of text": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.STRING),
        "input 'x' is of type STRING, expected one of FLOAT",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_wrong_is_told(name: str, tmp_path: Path) -> None:
    change, expected = DAMAGED[name]
    message = refused(tmp_path / "net.onnx", changed(change))
    assert re.search(expected, message), message


@pytest.mark.parametrize("content", [b"", b"\x08", b"not a model", bytes(100), b"\xff" * 1000], ids=range(5))
def test_no_protobuf(content: bytes, tmp_path: Path) -> None:
    refused(tmp_path / "net.onnx", content)


def test_cut_off(tmp_path: Path) -> None:
    whole = good().SerializeToString()
    for length in range(0, len(whole), 7):
        refused(tmp_path / "net.onnx", whole[:length])


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_no_file(what: str, tmp_path: Path) -> None:
    path = tmp_path if what == "folder" else tmp_path / "none.onnx"
    with pytest.raises(NetworkError, match=re.escape(f"{path}: ")):
        read_onnx(path)


def test_many_nodes(tmp_path: Path) -> None:
    nodes = [node("Relu", f"v{i}" if i else "x", f"v{i + 1}") for i in range(MOST_NODES)]
    refused_path = tmp_path / "net.onnx"
    message = refused(refused_path, model([*nodes, node("Relu", f"v{MOST_NODES}")]))
    assert f"{MOST_NODES + 1} nodes" in message


def test_as_many_nodes_as_allowed(tmp_path: Path) -> None:
    kinds = ["Relu", "Sigmoid", "Tanh", "Relu", "Mul"]
    nodes = []
    for i in range(MOST_NODES - 1):
        source = f"v{i}" if i else "x"
        nodes.append(node(kinds[i % 5], f"{source} {source}" if i % 5 == 4 else source, f"v{i + 1}"))
    path = tmp_path / "net.onnx"
    onnx.save(model([*nodes, node("Relu", f"v{MOST_NODES - 1}")]), path)
    begin = time.perf_counter()
    assert len(read_onnx(path).network.layers) == MOST_NODES
    assert time.perf_counter() - begin < 60


def test_nodes_in_another_order(tmp_path: Path) -> None:
    built = good()
    nodes = [onnx.NodeProto.FromString(item.SerializeToString()) for item in reversed(built.graph.node)]
    del built.graph.node[:]
    built.graph.node.extend(nodes)
    onnx.save(built, tmp_path / "net.onnx")
    assert [layer.name for layer in read_onnx(tmp_path / "net.onnx").network.layers] == ["c", "y"]


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_open_sizes_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    built = text("c = Conv(x, w) y = Relu(c)", WEIGHTS, "n, 6, height, width")
    message = refused(path, built)
    assert "input 'x' is (n, 6, height, width): the size of height, width is not fixed" in message
    assert "--input-shape" in message
    assert "input_shape" in message
    for shape in ((6, 8, 9), (1, 6, 8, 9)):
        assert read_onnx(path, shape).network.only_input.shape == (6, 8, 9)
    for wrong in ((5, 8, 9), (8, 9), (6, 8, 0)):
        assert "does not fit the input 'x', which is (n, 6, height, width)" in refused(path, built, wrong)


def test_an_input_without_a_shape(tmp_path: Path) -> None:
    built = good()
    built.graph.input[0].type.tensor_type.ClearField("shape")
    path = tmp_path / "net.onnx"
    assert "input 'x' has no shape; give it by --input-shape" in refused(path, built)
    assert read_onnx(path, (6, 8, 9)).network.only_input.shape == (6, 8, 9)


# --- external data ----------------------------------------------------------------------------------------------------


def external(folder: Path, location: str, **more: str) -> Path:
    """A model whose weights are in another file."""
    built = good()
    tensor = built.graph.initializer[0]
    (folder / "weights.bin").write_bytes(b"....." + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": "5", "length": "864", **more}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "net.onnx").write_bytes(built.SerializeToString())
    return folder / "net.onnx"


def test_external_data(tmp_path: Path) -> None:
    imported = read_onnx(external(tmp_path, "weights.bin"))
    assert imported.files == (tmp_path / "net.onnx", tmp_path / "weights.bin")
    np.testing.assert_array_equal(imported.network.layers[0].operation.weights, WEIGHTS["w"])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "location",
    [
        "../weights.bin",
        "a/../../weights.bin",
        "/etc/passwd",
        "C:\\weights.bin",
        "\\\\host\\share",
        "..\\weights.bin",
        "",
        "a\0b",
    ],
)
def test_external_data_elsewhere(location: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(1000))
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder, location)
    with pytest.raises(NetworkError, match="expected a file in the model's own folder"):
        read_onnx(path)


def test_external_data_by_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(1000))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "below").symlink_to(tmp_path)
    (folder / "circle").symlink_to("circle")
    for location, expected in (("link", "leads out"), ("below/secret", "leads out"), ("circle", "c")):
        with pytest.raises(NetworkError, match=expected):
            read_onnx(external(folder, location))
    (folder / "within").symlink_to("weights.bin")
    assert read_onnx(external(folder, "within")).network.layers


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"offset": "6"}, "bytes 6 to 870, and the file has 869"),
        ({"offset": str(2**62)}, "and the file has 869"),
        ({"length": "1"}, "has 1 bytes of external data, expected 864"),
        ({"offset": "-1"}, "offset of its external data is '-1', expected a number"),
        ({"offset": "9" * 30}, "expected a number"),
        ({"location": "none.bin"}, "cannot be read"),
        ({"location": "."}, "no regular file"),
    ],
)
def test_external_data_that_is_not_there(more: dict[str, str], expected: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=expected):
        read_onnx(external(tmp_path, **{"location": "weights.bin", **more}))


def test_external_data_that_would_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NetworkError, match="no regular file"):
        read_onnx(external(tmp_path, "pipe"))


# --- what is not supported --------------------------------------------------------------------------------------------


def test_all_that_is_not_supported_is_told(tmp_path: Path) -> None:
    nodes = [
        node("Elu", "x", "e"),
        node("Conv", "e w", "c"),
        node("Mish", "c", "m"),
        node("AveragePool", "m", "p", kernel_shape=[2, 2], dilations=[2, 2]),
        node("TopK", "p k", "y indices"),
    ]
    path = tmp_path / "net.onnx"
    onnx.save(model(nodes, {"w": normal(4, 6, 3, 3), "k": np.array([1])}, opset=19), path)
    with pytest.raises(LayersError) as caught:
        read_onnx(path)
    problems = [(problem.layer, problem.rule) for problem in caught.value.problems]
    assert problems == [
        ("e_node", "layer-type"),
        ("m_node", "layer-type"),
        ("p_node", "layer"),
        ("y indices_node", "layer-type"),
    ]
    assert all(problem.is_unsupported for problem in caught.value.problems)
    assert all(problem.rewrite for problem in caught.value.problems if problem.rule == "layer-type")
    assert caught.value.known is not None
    assert [layer.name for layer in caught.value.known.layers] == ["e", "c", "m"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = PRelu(x, five)", "does not fit"),
        ("y = MatMul(x, x)", "multiplies two tensors"),
        ("r = Relu(x) y = Div(x, r)", "divides by a tensor"),
        ("y = Add(x, pixels)", "from pixel to pixel"),
        ("y = Transpose<perm=[0, 1, 3, 2]>(x)", "axes are exchanged"),
        ("r = Relu(x) t = Transpose<perm=[0, 2, 1, 3]>(r) y = Conv(t, eight)", "axes are exchanged"),
        ('y = Pad<mode="reflect">(x, pads)', "mode 'reflect'"),
        ('y = Resize<mode="linear">(x, , scales)', "mode 'linear'"),
        ("y = LogSoftmax(x) ", None),
        ("l = LogSoftmax<axis=1>(x) y = Relu(l)", "expected its end"),
        ("y = Concat<axis=1>(x, pixels)", "appends a constant"),
        ("y = Mean(x)", "operator 'Mean' is not supported"),
        ("y = com.own.Thing(x)", "operators of other domains"),
        ("y = Cast<to=6>(x) ", "rounds values"),
        ("y = Slice(x, two, one, rows, back)", "expected rows and columns in their order"),
        ("y = Softmax<axis=2>(x)", "over axis 2 of .* expected the channels"),
        (
            "t = Reshape(x, cut) u = Transpose<perm=[0, 1, 3, 2, 4]>(t) v = Reshape(u, whole) "
            "y = MaxPool<kernel_shape=[2, 2]>(v)",
            "axes are exchanged",
        ),
        ("y = DepthToSpace<blocksize=2>(x)", "blocksize 2 for 6 channels"),
    ],
)
def test_what_is_not_supported(body: str, expected: str | None, tmp_path: Path) -> None:
    constants = {
        "pixels": normal(1, 6, 8, 9),
        "eight": normal(4, 8, 3, 3),
        "five": normal(5, 1, 1),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "one": np.array([1]),
        "two": np.array([3]),
        "rows": np.array([2]),
        "back": np.array([-1]),
        "cut": np.array([0, 6, 4, 2, 9]),
        "whole": np.array([0, 6, 8, 9]),
    }
    built = text(body, constants)
    built.opset_import.append(helper.make_opsetid("com.own", 1))
    if "Cast" in body:
        built.graph.output[0].type.tensor_type.elem_type = TensorProto.INT32
    message = refused(tmp_path / "net.onnx", built)
    if expected is not None:
        assert re.search(expected, message), message


def test_control_flow(tmp_path: Path) -> None:
    built = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1, 6, 8, 9] x) => (float[1, 6, 8, 9] y) {
            m = ReduceMax<keepdims=0>(x)  c = Cast<to=9>(m)
            y = If (c) <then_branch = t () => (float[1, 6, 8, 9] a) { a = Relu(x) },
                        else_branch = e () => (float[1, 6, 8, 9] b) { b = Tanh(x) }>
        }"""
    )
    path = tmp_path / "net.onnx"
    onnx.save(built, path)
    with pytest.raises(LayersError, match="operator 'If' is not supported; export the model for inference"):
        read_onnx(path)


def test_control_flow_that_is_decided(tmp_path: Path) -> None:
    built = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1, 6, 8, 9] x) => (float[1, 6, 8, 9] y) {
            s = Size(x)  z = Constant<value_int = 5>()  c = Greater(s, z)
            y = If (c) <then_branch = t () => (float[1, 6, 8, 9] a) { a = Relu(x) },
                        else_branch = e () => (float[1, 6, 8, 9] b) { b = Tanh(x) }>
        }"""
    )
    onnx.save(built, tmp_path / "net.onnx")
    assert [layer.kind for layer in read_onnx(tmp_path / "net.onnx").network.layers] == ["ReLU"]


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile", "Range"])
def test_constants_are_not_computed_without_bounds(kind: str, tmp_path: Path) -> None:
    """A few bytes of the file that would make gigabytes."""
    large = np.array([10**5, 10**5])
    bodies = {
        "ConstantOfShape": "c = ConstantOfShape(large)",
        "Expand": "c = Expand(one, large)",
        "Tile": "c = Tile(ones, large)",
        "Range": "c = Range(zero, most, step)",
    }
    constants = {
        "large": large,
        "one": np.float32(1),
        "ones": np.ones((1, 1), np.float32),
        "zero": np.float32(0),
        "most": np.float32(1e12),
        "step": np.float32(1),
    }
    built = text(f"{bodies[kind]} m = ReduceMean<keepdims=0>(c) y = Add(x, m)", constants)
    refused(tmp_path / "net.onnx", built)


@pytest.mark.parametrize(
    "body",
    [
        'y = Resize<mode="nearest">(x, , sizes)',
        "y = Pad(x, pads)",
        "y = ConvTranspose<strides=[1000000, 1000000]>(x, w)",
        "c = Conv<pads=[100000, 100000, 100000, 100000]>(x, v) y = Relu(c)",
        "a = MaxPool<kernel_shape=[2, 2]>(x) y = Pad(a, pads)",
    ],
)
def test_no_tensor_is_giant(body: str, tmp_path: Path) -> None:
    constants = {
        "sizes": np.array([1, 1, 2**30, 2**30], np.float32),
        "pads": np.array([0, 2**33, 0, 0, 0, 0, 0, 0]),
        "w": normal(6, 1, 1, 1),
        "v": normal(1, 6, 3, 3),
    }
    assert "more than 268435456 values" in refused(tmp_path / "net.onnx", text(body, constants))


def test_no_number_of_nodes_makes_constants_giant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is small, all together are not: some are left, and refused."""
    monkeypatch.setattr(normalise, "_MOST_FOLDED", 2**20)
    nodes = [node("ConstantOfShape", "size", f"c{i}") for i in range(9)]
    sums = [node("Add", f"c{i} {f's{i - 1}' if i else 'c0'}", f"s{i}") for i in range(9)]
    nodes += [*sums, node("ReduceMean", "s8", "m", keepdims=0), node("Add", "x m")]
    message = refused(tmp_path / "net.onnx", model(nodes, {"size": np.array([2**9, 2**8])}))
    assert "'ConstantOfShape' is not supported" in message


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_are_made_safe_and_unique(tmp_path: Path) -> None:
    long = "n" * 300
    nodes = [
        node("Relu", "x", "/layer1/relu:0"),
        helper.make_node("Relu", ["/layer1/relu:0"], ["a\tb"]),
        helper.make_node("Relu", ["a\tb"], ["a_b"]),
        helper.make_node("Relu", ["a_b"], [long]),
        helper.make_node("Relu", [long], ["y"]),
    ]
    path = tmp_path / "net.onnx"
    onnx.save(model(nodes), path)
    imported = read_onnx(path)
    names = [layer.name for layer in imported.network.layers]
    assert names[:3] == ["/layer1/relu:0", "a_b", "a_b_"]
    assert len(names[3]) == 200
    assert list(imported.names.values()) == ["x", "/layer1/relu:0", "a\tb", "a_b", long, "y"]
    assert [tensor.blob for tensor in imported.network.tensors.values()] == list(imported.names.values())


def test_tables_name_operators() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    named = {name.removeprefix("com.microsoft::") for name in (*READERS, *ADVICE)}
    newer = {"Attention", "Swish"}  # Than the oldest onnx that the package takes.
    assert named - newer <= known
    assert not READERS.keys() & ADVICE.keys()
    assert list(READERS) == sorted(READERS)
    assert list(ADVICE) == sorted(ADVICE)


def test_unsupported_is_a_network_error() -> None:
    assert issubclass(UnsupportedError, NetworkError)
