"""Each ONNX operator, as onnxruntime computes it from the original file, beside what was read of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.network.onnx.reader import Imported, read_onnx

SHAPE = (6, 8, 9)
RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Any] | None = None,
    shape: Sequence[int] = SHAPE,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model that reads `x`, with constants as initialisers; whole numbers are int64."""
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", kind, ["n", *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initial,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 22 else 10)


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node; inputs are separated by blanks, `-` is one that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(kind, names, output.split(), name=f"{output}_node", **attributes)


def compare(
    folder: Path,
    built: onnx.ModelProto,
    images: np.ndarray | None = None,
    layout: str = "NCHW",
    change: Callable[[np.ndarray], np.ndarray] = lambda values: values,
) -> Imported:
    """Compare every output of two images with onnxruntime's."""
    path = folder / "model.onnx"
    onnx.save(built, path)
    imported = read_onnx(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Up to 1.22 it makes a Pad with 0 the padding of a MaxPool, which is less than any value.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    if images is None:
        # The same whatever tests ran before.
        images = np.random.default_rng(1).normal(0, 1, (2, *imported.network.only_input.shape)).astype(np.float32)
    dtype = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32
    fed = np.ascontiguousarray(images.transpose(0, 2, 3, 1) if layout == "NHWC" else images).astype(dtype)
    names = [output.name for output in session.get_outputs()]
    expected = session.run(names, {"x": fed})
    ours = {name: tensor for tensor, name in imported.names.items()}
    ours = {name: ours.get(name, imported.network.outputs[0].name) for name in names}  # Said in a remark.
    results = Reference(imported.network, list(ours.values())).run(images)
    for name, values in zip(names, map(change, expected), strict=True):
        got = results[ours[name]]
        if layout == "NHWC" and values.ndim == 4 and got.shape != values.shape:
            got = got.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(got.ravel(), values.ravel(), rtol=1e-5, atol=1e-5 * np.abs(values).max())
    return imported


def kinds(imported: Imported) -> list[str]:
    return [layer.kind for layer in imported.network.layers]


# --- one operator -----------------------------------------------------------------------------------------------------

CONV = {"w": normal(4, 6, 3, 3), "b": normal(4)}
DECONV = {"w": normal(6, 4, 3, 3), "b": normal(4)}
SINGLE: dict[str, tuple[onnx.NodeProto, dict[str, Any], list[str]]] = {
    "conv": (node("Conv", "x w b"), CONV, ["Convolution"]),
    "conv asymmetric": (node("Conv", "x w", pads=[0, 1, 2, 2], strides=[2, 1]), CONV, ["Convolution"]),
    "conv upper": (node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 2]), CONV, ["Convolution"]),
    "conv lower": (node("Conv", "x w", auto_pad="SAME_LOWER", strides=[2, 2]), CONV, ["Convolution"]),
    "conv valid": (node("Conv", "x w", auto_pad="VALID"), CONV, ["Convolution"]),
    "conv grouped": (node("Conv", "x g", group=6), {"g": normal(12, 1, 3, 3)}, ["Convolution"]),
    "deconv": (node("ConvTranspose", "x w b", strides=[2, 2], pads=[1, 1, 1, 1]), DECONV, ["Deconvolution"]),
    "deconv appended": (
        node("ConvTranspose", "x w", strides=[2, 3], pads=[1, 0, 1, 0], output_padding=[1, 2]),
        DECONV,
        ["Deconvolution"],
    ),
    "deconv shape": (node("ConvTranspose", "x w", strides=[2, 2], output_shape=[16, 18]), DECONV, ["Deconvolution"]),
    "deconv upper": (
        node("ConvTranspose", "x w", strides=[2, 2], output_shape=[16, 18], auto_pad="SAME_UPPER"),
        DECONV,
        ["Deconvolution"],
    ),
    "deconv grouped": (
        node("ConvTranspose", "x g", group=2, dilations=[2, 1]),
        {"g": normal(6, 2, 3, 3)},
        ["Deconvolution"],
    ),
    "max": (node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2]), {}, ["Pooling"]),
    "max ceil": (node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1), {}, ["Pooling"]),
    "max asymmetric": (node("MaxPool", "x", kernel_shape=[3, 3], pads=[0, 1, 1, 2]), {}, ["Pooling"]),
    "max upper": (node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), {}, ["Pooling"]),
    "max lower": (node("MaxPool", "x", kernel_shape=[2, 2], auto_pad="SAME_LOWER"), {}, ["Pooling"]),
    "average": (node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}, ["Pooling"]),
    "average padded": (
        node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 1], count_include_pad=1),
        {},
        ["Pooling"],
    ),
    "average ceil": (node("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1), {}, ["Pooling"]),
    "average ceil padded": (
        node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1, count_include_pad=1),
        {},
        ["Pooling"],
    ),
    "average upper": (
        node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        {},
        ["Pooling"],
    ),
    "global average": (node("GlobalAveragePool", "x"), {}, ["Pooling"]),
    "global max": (node("GlobalMaxPool", "x"), {}, ["Pooling"]),
    "mean": (node("ReduceMean", "x", axes=[2, 3]), {}, ["Pooling"]),
    "mean dropped": (node("ReduceMean", "x", axes=[-1, -2], keepdims=0), {}, ["Pooling"]),
    "mean of rows": (node("ReduceMean", "x", axes=[2]), {}, ["Pooling"]),
    "largest": (node("ReduceMax", "x", axes=[2, 3], keepdims=0), {}, ["Pooling"]),
    "norm": (
        node("BatchNormalization", "x s b m v"),
        {"s": normal(6), "b": normal(6), "m": normal(6), "v": np.abs(normal(6)) + 1},
        ["BatchNorm", "Scale"],
    ),
    "relu": (node("Relu", "x"), {}, ["ReLU"]),
    "leaky": (node("LeakyRelu", "x", alpha=0.2), {}, ["ReLU"]),
    "leaky default": (node("LeakyRelu", "x"), {}, ["ReLU"]),
    "prelu": (node("PRelu", "x s"), {"s": normal(6, 1, 1)}, ["PReLU"]),
    "prelu of one": (node("PRelu", "x s"), {"s": normal(1)}, ["PReLU"]),
    "sigmoid": (node("Sigmoid", "x"), {}, ["Sigmoid"]),
    "tanh": (node("Tanh", "x"), {}, ["TanH"]),
    "hard sigmoid": (node("HardSigmoid", "x", alpha=0.3), {}, ["HardSigmoid"]),
    "hard swish": (node("HardSwish", "x"), {}, ["HardSwish"]),
    "clip": (node("Clip", "x low high"), {"low": np.float32(0), "high": np.float32(1)}, ["Clip"]),
    "clip to a relu": (node("Clip", "x low"), {"low": np.float32(0)}, ["ReLU"]),
    "clip above": (node("Clip", "x - high"), {"high": np.float32(0.5)}, ["Clip"]),
    "max with 0": (node("Max", "x c"), {"c": np.float32(0)}, ["ReLU"]),
    "min with 1": (node("Min", "c x"), {"c": np.float32(1)}, ["Clip"]),
    "add a number": (node("Add", "x c"), {"c": np.float32(0.5)}, ["Power"]),
    "add to a number": (node("Add", "c x"), {"c": normal(1)}, ["Power"]),
    "add per channel": (node("Add", "x c"), {"c": normal(1, 6, 1, 1)}, ["Scale"]),
    "add all alike": (node("Add", "x c"), {"c": np.full((1, 6, 8, 9), 0.5, np.float32)}, ["Scale"]),
    "subtract": (node("Sub", "x c"), {"c": normal(6, 1, 1)}, ["Scale"]),
    "subtract from": (node("Sub", "c x"), {"c": normal(6, 1, 1)}, ["Scale"]),
    "subtract from a number": (node("Sub", "c x"), {"c": np.float32(1)}, ["Power"]),
    "multiply": (node("Mul", "x c"), {"c": normal(6, 1, 1)}, ["Scale"]),
    "divide": (node("Div", "x c"), {"c": np.abs(normal(6, 1, 1)) + 1}, ["Scale"]),
    "divide by a number": (node("Div", "x c"), {"c": np.float32(255)}, ["Power"]),
    "square": (node("Pow", "x c"), {"c": np.float32(2)}, ["Power"]),
    "negate": (node("Neg", "x"), {}, ["Power"]),
    "softmax": (node("Softmax", "x", axis=1), {}, ["Softmax"]),
    "lrn": (node("LRN", "x", size=3, alpha=0.1, bias=2.0), {}, ["LRN"]),
    "slice": (
        node("Slice", "x s e a"),
        {"s": np.array([1]), "e": np.array([-1]), "a": np.array([1])},
        ["Gather"],
    ),
    "slice backwards": (
        node("Slice", "x s e a t"),
        {"s": np.array([-1]), "e": np.array([-100]), "a": np.array([1]), "t": np.array([-2])},
        ["Gather"],
    ),
    "every second pixel": (
        node("Slice", "x s e a t"),
        {"s": np.array([0, 0]), "e": np.array([2**31, 2**31]), "a": np.array([2, 3]), "t": np.array([2, 2])},
        ["Pooling"],
    ),
    "rows": (
        node("Slice", "x s e a"),
        {"s": np.array([2]), "e": np.array([-1]), "a": np.array([2])},
        ["Crop"],
    ),
    "rectangle": (
        node("Slice", "x s e a"),
        {"s": np.array([1, -4]), "e": np.array([7, 2**31]), "a": np.array([2, 3])},
        ["Crop"],
    ),
    "channels of a rectangle": (
        node("Slice", "x s e a t"),
        {"s": np.array([0, 3, 0]), "e": np.array([6, 5, 9]), "a": np.array([1, 2, 3]), "t": np.array([2, 1, 3])},
        ["Gather", "Crop", "Pooling"],
    ),
    "every second pixel from the second on": (
        node("Slice", "x s e a t"),
        {"s": np.array([1, 0]), "e": np.array([99, 99]), "a": np.array([2, 3]), "t": np.array([2, 2])},
        ["Crop", "Pooling"],
    ),
    "space to depth": (node("SpaceToDepth", "x", blocksize=1), {}, ["SpaceToDepth"]),
    "depth to space": (node("DepthToSpace", "x", blocksize=1), {}, ["DepthToSpace"]),
    "gather": (node("Gather", "x i", axis=1), {"i": np.array([3, -1, 0])}, ["Gather"]),
    "pad": (node("Pad", "x p"), {"p": np.array([0, 0, 1, 0, 0, 0, 2, 3])}, ["Convolution"]),
    "pad that takes away": (node("Pad", "x p"), {"p": np.array([0, 0, -1, 0, 0, 0, -2, -3])}, ["Crop"]),
    "pad channels": (node("Pad", "x p"), {"p": np.array([0, 1, 0, 0, 0, 2, 0, 0])}, ["Convolution"]),
    "repeat": (
        node("Resize", "x - f", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        {"f": np.array([1, 1, 2, 3], np.float32)},
        ["Deconvolution"],
    ),
    "repeat by size": (
        node("Resize", "x - - f", mode="nearest", coordinate_transformation_mode="half_pixel", axes=[2, 3]),
        {"f": np.array([16, 27])},
        ["Deconvolution"],
    ),
    "flatten": (node("Flatten", "x"), {}, ["Flatten"]),
    "reshape": (node("Reshape", "x s"), {"s": np.array([0, 12, 4, 9])}, ["Reshape"]),
    "unsqueeze nothing": (node("Cast", "x", to=TensorProto.FLOAT), {}, []),
}


@pytest.mark.parametrize("name", [name for name in SINGLE if SINGLE[name][2]])
def test_one_operator(name: str, tmp_path: Path) -> None:
    one, constants, expected = SINGLE[name]
    if name == "average ceil padded" and tuple(map(int, onnxruntime.__version__.split(".")[:2])) <= (1, 22):
        pytest.skip("this onnxruntime divides by the whole kernel where a window leaves the padded image")
    imported = compare(tmp_path, model([one], constants, opset=18 if one.op_type == "Resize" else 17))
    assert kinds(imported) == expected
    assert imported.network.layers[-1].name == "y"
    assert all(layer.inner for layer in imported.network.layers[:-1])


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
def test_bounds_were_attributes(opset: int, tmp_path: Path) -> None:
    assert kinds(compare(tmp_path, model([node("Clip", "x", min=0.0, max=6.0)], opset=opset))) == ["Clip"]


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 13, 18, 21])
def test_a_network_of_each_opset(opset: int, tmp_path: Path) -> None:
    """What moved from attributes to inputs, or changed its default."""
    text = opset >= 13
    constants: dict[str, Any] = {"w": normal(4, 6, 3, 3), "f": normal(4, 5), "c": normal(5)}
    nodes = [node("Conv", "x w", "conv"), node("Relu", "conv", "relu")]
    if opset < 10:
        constants["scales"] = np.array([1, 1, 2, 2], np.float32)
        nodes.append(
            node("Upsample", "relu scales", "up")
            if opset >= 9
            else node("Upsample", "relu", "up", scales=[1.0, 1.0, 2.0, 2.0])
        )
    else:
        constants["scales"] = np.array([1, 1, 2, 2], np.float32)
        constants["roi"] = np.array([], np.float32)
        resize = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"} if opset >= 11 else {}
        nodes.append(
            node("Resize", "relu roi scales" if opset >= 11 else "relu scales", "up", mode="nearest", **resize)
        )
    if opset >= 18:
        constants["axes"] = np.array([2, 3])
        nodes.append(node("ReduceMean", "up axes", "mean"))
    else:
        nodes.append(node("ReduceMean", "up", "mean", axes=[2, 3]))
    if text:
        constants["last"] = np.array([2, 3])
        nodes.append(node("Squeeze", "mean last", "vector"))
    else:
        nodes.append(node("Squeeze", "mean", "vector", axes=[2, 3]))
    nodes += [node("Gemm", "vector f c", "fc", **({"alpha": 0.5, "beta": 2.0}))]
    nodes += [node("Dropout", "fc", "dropped"), node("Softmax", "dropped", "y")]
    imported = compare(tmp_path, model(nodes, constants, opset=opset))
    assert kinds(imported) == ["Convolution", "ReLU", "Deconvolution", "Pooling", "InnerProduct", "Softmax"]


OLD: dict[str, tuple[onnx.NodeProto, dict[str, Any], Sequence[int], list[str]]] = {
    "pad": (node("Pad", "x", pads=[0, 0, 1, 0, 0, 0, 2, 3]), {}, SHAPE, ["Convolution"]),
    "slice": (node("Slice", "x", starts=[1], ends=[5], axes=[1]), {}, SHAPE, ["Gather"]),
    "split": (node("Split", "x", "y z", axis=1, split=[2, 4]), {}, SHAPE, ["Gather", "Gather"]),
    "softmax": (node("Softmax", "x"), {}, (6, 1, 1), ["Softmax"]),
    "softmax of a vector": (node("Softmax", "x"), {}, (6,), ["Softmax"]),
    "average": (
        node("AveragePool", "x", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
        {},
        SHAPE,
        ["Pooling"],
    ),
    "gemm": (node("Gemm", "x w c", alpha=2.0), {"w": normal(6, 5), "c": normal(1, 5)}, (6,), ["InnerProduct"]),
    "prelu": (node("PRelu", "x s"), {"s": normal(6, 1, 1)}, SHAPE, ["PReLU"]),
    "dropout": (node("Dropout", "x", "y", ratio=0.5), {}, SHAPE, []),
    "sum": (node("Sum", "x x x"), {}, SHAPE, ["Eltwise"]),
    "largest": (node("Max", "x x"), {}, SHAPE, ["Eltwise"]),
    "unsqueezed": (node("Unsqueeze", "x", axes=[2, 3]), {}, (6,), ["Reshape"]),
}


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("opset", [7, 8, 9])
def test_old_operators(name: str, opset: int, tmp_path: Path) -> None:
    one, constants, shape, expected = OLD[name]
    nodes = [node("Relu", "x", "r"), node("Sigmoid", "r", "x1"), one]
    one = onnx.NodeProto.FromString(one.SerializeToString())
    one.input[:] = ["x1" if source == "x" else source for source in one.input]
    imported = compare(tmp_path, model([*nodes[:2], one], constants, shape, opset, list(one.output)))
    assert kinds(imported) == ["ReLU", "Sigmoid", *expected]


def test_the_newest_opset(tmp_path: Path) -> None:
    """No onnxruntime may know it yet."""
    nodes = [node("Conv", "x w b", "c"), node("Relu", "c", "r"), node("MaxPool", "r", kernel_shape=[2, 2])]
    onnx.save(model(nodes, CONV, opset=onnx.defs.onnx_opset_version()), tmp_path / "net.onnx")
    assert kinds(read_onnx(tmp_path / "net.onnx")) == ["Convolution", "ReLU", "Pooling"]


def test_newest_functions(tmp_path: Path) -> None:
    nodes = [node("Gelu", "x", "a"), node("Gelu", "a", "y", approximate="tanh")]
    assert kinds(compare(tmp_path, model(nodes, opset=20))) == ["GELU", "GELU"]


# --- several operators ------------------------------------------------------------------------------------------------


def text(
    body: str, constants: dict[str, Any] | None = None, shape: str = "n, 6, 8, 9", opset: int = 17
) -> onnx.ModelProto:
    """A model by onnx's text format."""
    built = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]>\nnet (float[{shape}] x) => (float[] y) {{ {body} }}'
    )
    for name, value in (constants or {}).items():
        built.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    del built.graph.output[0].type.tensor_type.shape.dim[:]
    built.graph.output[0].type.tensor_type.ClearField("shape")
    return built


HALF, ONE = np.float32(0.5), np.float32(1)
PATTERNS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "swish": ("s = Sigmoid(x) y = Mul(s, x)", {}, ["Swish"]),
    "hard swish by gate": ("s = HardSigmoid<alpha=0.16666667>(x) y = Mul(x, s)", {}, ["HardSwish"]),
    "hard swish of keras": (
        "a = Add(x, three) c = Clip(a, zero, six) d = Mul(c, sixth) y = Mul(x, d)",
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6), "sixth": np.float32(1 / 6)},
        ["HardSwish"],
    ),
    "hard swish of torch": (
        "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
        ["HardSwish"],
    ),
    "hard sigmoid": (
        "a = Add(three, x) r = Max(a, zero) c = Min(r, six) y = Div(c, six)",
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
        ["HardSigmoid"],
    ),
    "gelu": (
        "d = Div(x, root) e = Erf(d) s = Add(e, one) m = Mul(x, s) y = Mul(m, half)",
        {"root": np.float32(np.sqrt(2)), "one": ONE, "half": HALF},
        ["GELU"],
    ),
    "gelu otherwise": (
        "d = Mul(x, root) e = Erf(d) h = Mul(half, e) s = Add(half, h) y = Mul(s, x)",
        {"root": np.float32(np.sqrt(0.5)), "half": HALF},
        ["GELU"],
    ),
    "gelu by tanh": (
        "p = Pow(x, three) q = Mul(p, k) a = Add(x, q) i = Mul(a, root) t = Tanh(i) s = Add(t, one) "
        "h = Mul(x, half) y = Mul(h, s)",
        {"three": np.float32(3), "k": np.float32(0.044715), "root": np.float32(0.7978846), "one": ONE, "half": HALF},
        ["GELU"],
    ),
    "gelu by tanh, factored": (
        "p = Mul(x, x) q = Mul(p, k) a = Add(one, q) b = Mul(x, root) i = Mul(a, b) t = Tanh(i) s = Add(t, one) "
        "h = Mul(x, s) y = Mul(h, half)",
        {"k": np.float32(0.044715), "root": np.float32(0.7978846), "one": ONE, "half": HALF},
        ["GELU"],
    ),
    "no gelu": ("t = Tanh(x) s = Add(t, one) y = Mul(x, s)", {"one": ONE}, ["TanH", "Power", "Eltwise"]),
    "scale": ("m = Mul(x, g) y = Add(m, b)", {"g": normal(6, 1, 1), "b": normal(6, 1, 1)}, ["Scale"]),
    "scale by Sub": ("m = Mul(x, g) y = Sub(b, m)", {"g": normal(6, 1, 1), "b": normal(6, 1, 1)}, ["Scale"]),
    "difference": ("s = Relu(x) y = Sub(x, s)", {}, ["ReLU", "Eltwise"]),
    "least": ("s = Relu(x) t = Sigmoid(x) y = Min(x, s, t)", {}, ["ReLU", "Sigmoid", "Eltwise"]),
    "squeeze and excite": (
        "g = GlobalAveragePool(x) c = Conv(g, w) r = Relu(c) d = Conv(r, v) s = Sigmoid(d) y = Mul(s, x)",
        {"w": normal(2, 6, 1, 1), "v": normal(6, 2, 1, 1)},
        ["Pooling", "Convolution", "ReLU", "Convolution", "Sigmoid", "Eltwise"],
    ),
    "squeeze and excite by vectors": (
        "g = ReduceMean<axes=[2, 3], keepdims=0>(x) c = MatMul(g, w) s = Sigmoid(c) u = Unsqueeze(s, a) y = Mul(x, u)",
        {"w": normal(6, 6), "a": np.array([2, 3])},
        ["Pooling", "InnerProduct", "Sigmoid", "Eltwise"],
    ),
    "shuffle": (
        "r = Reshape(x, s) t = Transpose<perm=[0, 2, 1, 3, 4]>(r) y = Reshape(t, b)",
        {"s": np.array([0, 2, 3, 8, 9]), "b": np.array([0, 6, 8, 9])},
        ["Gather"],
    ),
    "split": (
        "a, b = Split<axis=1>(x, s) r = Relu(b) y = Concat<axis=1>(r, a)",
        {"s": np.array([2, 4])},
        ["Gather", "Gather", "ReLU", "Concat"],
    ),
    "shuffle and a ReLU at the end": (
        "r = Reshape(x, s) t = Transpose<perm=[0, 2, 1, 3, 4]>(r) b = Reshape(t, e) y = Relu(b)",
        {"s": np.array([0, 2, 3, 8, 9]), "e": np.array([0, 6, 8, 9])},
        ["Gather", "ReLU"],
    ),
    "split of rows": (
        "a, b = Split<axis=2>(x, s) y = Add(b, a)",
        {"s": np.array([4, 4])},
        ["Crop", "Crop", "Eltwise"],
    ),
    "focus of YOLOv5": (
        "a = Slice(x, o, e, c, t) b = Slice(x, p, e, c, t) y = Concat<axis=1>(a, b)",
        {"o": np.array([0, 0]), "p": np.array([1, 0]), "e": np.array([8, 8]), "c": np.array([2, 3]), "t": [2, 2]},
        ["Crop", "Pooling", "Crop", "Pooling", "Concat"],
    ),
    "reorg as exporters write it": (
        "r = Reshape(x, s) t = Transpose<perm=[0, 3, 5, 1, 2, 4]>(r) y = Reshape(t, b)",
        {"s": np.array([0, 6, 4, 2, 3, 3]), "b": np.array([0, 36, 4, 3])},
        ["SpaceToDepth"],
    ),
    "reorg of YOLOv2 by PyTorch": (
        "a = Reshape(x, s) b = Transpose<perm=[0, 1, 2, 4, 3, 5]>(a) c = Reshape(b, t) d = Transpose<perm=[0, 1, 3, 2]>"
        "(c) e = Reshape(d, u) f = Transpose<perm=[0, 2, 1, 3, 4]>(e) y = Reshape(f, v)",
        {
            "s": np.array([0, 6, 4, 2, 3, 3]),
            "t": np.array([0, 6, 12, 6]),
            "u": np.array([0, 6, 6, 4, 3]),
            "v": np.array([0, 36, 4, 3]),
        },
        ["SpaceToDepth"],
    ),
    "pixel unshuffle and shuffle": (
        "a = Reshape(x, s) b = Transpose<perm=[0, 1, 3, 5, 2, 4]>(a) c = Reshape(b, t) d = Relu(c) e = Reshape(d, u) "
        "f = Transpose<perm=[0, 1, 4, 2, 5, 3]>(e) y = Reshape(f, v)",
        {
            "s": np.array([0, 6, 4, 2, 3, 3]),
            "t": np.array([0, 36, 4, 3]),
            "u": np.array([0, 6, 2, 3, 4, 3]),
            "v": np.array([0, 6, 8, 9]),
        },
        ["SpaceToDepth", "ReLU", "DepthToSpace"],
    ),
    "blocks between convolutions": (
        'c = Conv(x, w) s = SpaceToDepth<blocksize=3>(c) d = Conv(s, v) y = DepthToSpace<blocksize=3, mode="CRD">(d)',
        {"w": normal(2, 6, 3, 1), "v": normal(9, 18, 1, 1)},
        ["Convolution", "SpaceToDepth", "Convolution", "DepthToSpace"],
    ),
    "blocks in ONNX's order": (
        "d = Conv(x, w) y = DepthToSpace<blocksize=2>(d)",
        {"w": normal(12, 6, 1, 1)},
        ["Convolution", "DepthToSpace"],
    ),
    "shuffle of pixels behind a convolution": (
        "d = Conv(x, w) a = Reshape(d, s) b = Transpose<perm=[0, 1, 4, 2, 5, 3]>(a) c = Reshape(b, t) y = Conv(c, v)",
        {
            "w": normal(12, 6, 1, 1),
            "s": np.array([0, 3, 2, 2, 8, 9]),
            "t": np.array([0, 3, 16, 18]),
            "v": normal(4, 3, 3, 3),
        },
        ["Convolution", "DepthToSpace", "Convolution"],
    ),
    "pad and conv": (
        "p = Pad(x, q) y = Conv<pads=[1, 0, 0, 0]>(p, w)",
        {"q": np.array([0, 0, 0, 1, 0, 0, 1, 2]), "w": normal(4, 6, 3, 3)},
        ["Convolution"],
    ),
    "pad and average": (
        "p = Pad(x, q) y = AveragePool<kernel_shape=[3, 3], strides=[2, 2]>(p)",
        {"q": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ["Pooling"],
    ),
    "pad and max": (
        "p = Pad(x, q) y = MaxPool<kernel_shape=[3, 3]>(p)",
        {"q": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ["Convolution", "Pooling"],
    ),
    "pad and max of what is positive": (
        "r = Relu(x) p = Pad(r, q) y = MaxPool<kernel_shape=[3, 3]>(p)",
        {"q": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ["ReLU", "Pooling"],
    ),
    "pad by the lowest and max": (
        "p = Pad(x, q, v) y = MaxPool<kernel_shape=[3, 3]>(p)",
        {"q": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "v": np.float32(-np.inf)},
        ["Pooling"],
    ),
    "pad by the edge and max": (
        'p = Pad<mode="edge">(x, q) y = MaxPool<kernel_shape=[3, 3], strides=[2, 2]>(p)',
        {"q": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ["Pooling"],
    ),
    "pad read twice": (
        "p = Pad(x, q) a = Conv(p, w) b = Conv(p, w) y = Add(a, b)",
        {"q": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": normal(4, 6, 3, 3)},
        ["Convolution", "Convolution", "Convolution", "Eltwise"],
    ),
    "flatten and gemm": ("f = Flatten(x) y = Gemm<transB=1>(f, w)", {"w": normal(5, 432)}, ["InnerProduct"]),
    "flatten read twice": (
        "f = Flatten(x) a = Gemm<transB=1>(f, w) b = Gemm<transB=1>(f, w) y = Add(a, b)",
        {"w": normal(5, 432)},
        ["Flatten", "InnerProduct", "InnerProduct", "Eltwise"],
    ),
    "by shape": (
        "s = Shape(x) b = Gather<axis=0>(s, zero) u = Unsqueeze(b, zeros) c = Concat<axis=0>(u, rest) "
        "f = Reshape(x, c) y = Gemm<transB=1>(f, w)",
        {"zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1]), "w": normal(5, 432)},
        ["InnerProduct"],
    ),
    "product and bias": (
        "f = Flatten(x) m = MatMul(f, w) y = Add(b, m)",
        {"w": normal(432, 5), "b": normal(5)},
        ["InnerProduct"],
    ),
    "product of turned weights": (
        "f = Flatten(x) t = Transpose(w) m = MatMul(f, t) y = Add(m, b)",
        {"w": normal(5, 432), "b": normal(5)},
        ["InnerProduct"],
    ),
    "training leftovers": (
        "i = Identity(x) d = Dropout(i, r, t) c = Cast<to=1>(d) y = Relu(c)",
        {"r": HALF, "t": np.array(False)},
        ["ReLU"],
    ),
    "bytes of pixels": (
        "d = Div(x, c) s = Sub(d, m) y = Div(s, v)",
        {"c": np.float32(255), "m": normal(1, 6, 1, 1), "v": np.abs(normal(1, 6, 1, 1)) + 1},
        ["Power", "Scale", "Scale"],
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_several_operators(name: str, tmp_path: Path) -> None:
    body, constants, expected = PATTERNS[name]
    imported = compare(tmp_path, text(body, constants))
    assert kinds(imported) == expected
    assert imported.network.layers[-1].name == "y"


# --- channels last ----------------------------------------------------------------------------------------------------

TO, BACK = "Transpose<perm=[0, 3, 1, 2]>", "Transpose<perm=[0, 2, 3, 1]>"
LAST: dict[str, tuple[str, dict[str, Any]]] = {
    "conv": (f"a = {TO}(x) c = Conv(a, w) y = {BACK}(c)", {"w": normal(4, 6, 3, 3)}),
    "own preprocessing": (
        f"d = Div(x, k) s = Sub(d, m) a = {TO}(s) y = Conv(a, w)",
        {"k": np.float32(255), "m": normal(6), "w": normal(4, 6, 3, 3)},
    ),
    "pad": (
        f"p = Pad(x, q) a = {TO}(p) y = Conv<strides=[2, 2]>(a, w)",
        {"q": np.array([0, 0, 0, 0, 0, 1, 1, 0]), "w": normal(4, 6, 3, 3)},
    ),
    "bias on the last axis": (
        f"a = {TO}(x) c = Conv(a, w) d = {BACK}(c) e = Add(d, b) r = Relu(e) f = {TO}(r) "
        "y = MaxPool<kernel_shape=[2, 2]>(f)",
        {"w": normal(4, 6, 3, 3), "b": normal(4)},
    ),
    "concat": (
        f"a = {TO}(x) c = Conv(a, w) d = {BACK}(c) r = Relu(d) e = Concat<axis=3>(d, r) f = {TO}(e) y = Conv(f, v)",
        {"w": normal(4, 6, 3, 3), "v": normal(2, 8, 1, 1)},
    ),
    "flatten": (
        f"a = {TO}(x) c = Conv(a, w) d = {BACK}(c) f = Reshape(d, s) m = MatMul(f, v) y = Softmax(m)",
        {"w": normal(4, 6, 3, 3), "s": np.array([-1, 168]), "v": normal(168, 5)},
    ),
    "mean": (
        f"a = {TO}(x) c = Conv(a, w) d = {BACK}(c) f = ReduceMean<axes=[1, 2], keepdims=0>(d) y = MatMul(f, v)",
        {"w": normal(4, 6, 3, 3), "v": normal(4, 5)},
    ),
    "gate": (
        f"a = {TO}(x) c = Conv(a, w) d = {BACK}(c) f = ReduceMean<axes=[1, 2]>(d) s = Sigmoid(f) g = Mul(d, s) "
        f"y = {TO}(g)",
        {"w": normal(4, 6, 3, 3)},
    ),
    "pixels by weights": (
        f"a = {TO}(x) c = Conv(a, w) d = {BACK}(c) m = MatMul(d, v) e = Add(m, b) y = {TO}(e)",
        {"w": normal(4, 6, 3, 3), "v": normal(4, 3), "b": normal(3)},
    ),
    "softmax of pixels": (
        f"a = {TO}(x) c = Conv(a, w) d = {BACK}(c) y = Softmax<axis=-1>(d)",
        {"w": normal(4, 6, 3, 3)},
    ),
    "sum": (
        f"a = {TO}(x) c = Conv(a, w) d = {BACK}(c) r = Relu(d) e = Relu(c) f = {BACK}(e) g = Add(r, f) y = {TO}(g)",
        {"w": normal(4, 6, 3, 3)},
    ),
}


@pytest.mark.parametrize("name", LAST)
def test_channels_last(name: str, tmp_path: Path) -> None:
    body, constants = LAST[name]
    imported = compare(tmp_path, text(body, constants, "n, 8, 9, 6"), layout="NHWC")
    assert imported.network.only_input.shape == (6, 8, 9)
    assert not {"Gather", "Reshape"} & set(kinds(imported))
    assert any("channels last" in remark for remark in imported.remarks)


def test_one_channel_is_reshaped(tmp_path: Path) -> None:
    """What tf2onnx makes of a transpose of one channel."""
    built = text(
        "a = Reshape(x, s) y = Conv(a, w)", {"s": np.array([-1, 1, 8, 9]), "w": normal(4, 1, 3, 3)}, "n, 8, 9, 1"
    )
    imported = compare(tmp_path, built, layout="NHWC")
    assert kinds(imported) == ["Convolution"]
    assert imported.network.only_input.shape == (1, 8, 9)


@pytest.mark.parametrize("shape", ["n, 8, 9", "n, 8, 9, 1"])
def test_images_that_are_flattened_at_once(shape: str, tmp_path: Path) -> None:
    built = text("f = Reshape(x, s) y = MatMul(f, w)", {"s": np.array([-1, 72]), "w": normal(72, 5)}, shape)
    path = tmp_path / "net.onnx"
    onnx.save(built, path)
    imported = read_onnx(path)
    assert kinds(imported) == ["InnerProduct"]
    images = normal(2, 1, 8, 9)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": images.reshape(2, 8, 9, *[1] * (shape.count(",") - 2))})
    np.testing.assert_allclose(Reference(imported.network).run(images)["y"], expected, rtol=1e-5, atol=1e-5)


def test_bytes(tmp_path: Path) -> None:
    nodes = [node("Cast", "x", "c", to=TensorProto.FLOAT), node("Mul", "c k")]
    images = RNG.integers(0, 256, (2, *SHAPE)).astype(np.float32)
    imported = compare(tmp_path, model(nodes, {"k": np.float32(1 / 255)}, kind=TensorProto.UINT8), images)
    assert kinds(imported) == ["Power"]
    assert any("UINT8" in remark for remark in imported.remarks)


def test_log_softmax_at_the_end(tmp_path: Path) -> None:
    built = text("f = Flatten(x) m = MatMul(f, w) y = LogSoftmax(m)", {"w": normal(432, 5) / 20})
    imported = compare(tmp_path, built, change=np.exp)
    assert kinds(imported) == ["InnerProduct", "Softmax"]
    assert any("LogSoftmax" in remark for remark in imported.remarks)


def test_a_fixed_batch_stays_the_batch(tmp_path: Path) -> None:
    built = text(
        "c = Conv(x, w) f = Reshape(c, s) y = MatMul(f, v)",
        {"w": normal(4, 6, 3, 3), "s": np.array([2, 168]), "v": normal(168, 5)},
        "2, 6, 8, 9",
    )
    assert kinds(compare(tmp_path, built)) == ["Convolution", "InnerProduct"]


def test_functions_are_written_out(tmp_path: Path) -> None:
    built = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        net (float[n, 6, 8, 9] x) => (float[n, 6, 8, 9] y) { y = own.twice(x) }
        <domain: "own", opset_import: ["" : 17]> twice (a) => (c) { b = Relu(a) c = Sigmoid(b) }"""
    )
    assert kinds(compare(tmp_path, built)) == ["ReLU", "Sigmoid"]


def test_half_precision(tmp_path: Path) -> None:
    nodes = [
        node("Cast", "x", "h", to=TensorProto.FLOAT16),
        node("Conv", "h w", "c"),
        node("Cast", "c", to=TensorProto.FLOAT),
    ]
    path = tmp_path / "half.onnx"
    onnx.save(model(nodes, {"w": normal(4, 6, 3, 3).astype(np.float16)}), path)
    imported = read_onnx(path)
    assert kinds(imported) == ["Convolution"]
    assert sum("Cast" in remark for remark in imported.remarks) == 2
