"""Quantized ONNX graphs: pairs vanish, ranges and scales of weights stay, in each exporter's form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.errors import NetworkError
from nvdla_quant.execution.fp32 import scores
from nvdla_quant.execution.quantized_file import run_file
from nvdla_quant.network.files import import_onnx, read_model, write_model
from nvdla_quant.network.graph import BatchNorm, Convolution, Deconvolution, InnerProduct, Layer, Scale, Tensor
from nvdla_quant.network.onnx.reader import Imported
from nvdla_quant.network.onnx.written import as_written, model_of
from nvdla_quant.network.passes import prepare
from nvdla_quant.network.quantized import Range, dequantized, quantized_layers, rescaled, steps_of
from nvdla_quant.network.shapes import assemble
from tests.qdq import ACTIVATION_SCALE, BIAS, INPUT_SCALE, SCALES, SCORE_SCALE, STEPS, Graph, integers, static

INT8 = (-128, 127, "INT8")


def imported(model: onnx.ModelProto, folder: Path) -> Imported:
    onnx.save(model, folder / "net.onnx")
    return import_onnx(folder / "net.onnx")


def kinds(found: Imported) -> list[tuple[str, str]]:
    return [(layer.kind, layer.name) for layer in found.network.layers]


def operation(found: Imported, name: str) -> Any:
    return found.network.by_name[name].operation


def test_onnxruntime_symmetric(tmp_path: Path) -> None:
    found = imported(static(), tmp_path)
    assert kinds(found) == [
        ("Convolution", "sum"),
        ("ReLU", "act"),
        ("Pooling", "pool"),
        ("InnerProduct", "scores"),
    ]
    assert found.ranges == {
        "data": (Range(INPUT_SCALE, 0, *INT8),),
        **{name: (Range(ACTIVATION_SCALE, 0, *INT8),) for name in ("sum", "act", "pool")},
        "scores": (Range(SCORE_SCALE, 0, *INT8),),
    }
    convolution = operation(found, "sum")
    assert (convolution.weights == STEPS.astype(np.float32) * SCALES[:, None, None, None]).all()
    assert (convolution.scales == SCALES).all()
    assert (convolution.bias == BIAS.astype(np.float32) * (SCALES * np.float32(INPUT_SCALE))).all()
    assert (operation(found, "scores").scales == np.float32(0.004)).all()
    assert operation(found, "scores").scales.shape == (10,)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_onnxruntime_without_symmetry_gets_its_relu_back(kind: str, tmp_path: Path) -> None:
    found = imported(static(symmetric=False, kind=kind), tmp_path)
    assert kinds(found)[:3] == [("Convolution", "act:sum"), ("ReLU", "act"), ("Pooling", "pool")]
    assert found.ranges["act"][0].low == 0
    assert found.ranges["act"][0].high == pytest.approx(255 * ACTIVATION_SCALE)
    assert not found.ranges["act"][0].is_symmetric


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_float_network_is_the_file_s_but_for_rounding(symmetric: bool, tmp_path: Path) -> None:
    """Which is some steps of the output: what is rounded in 64 values adds up."""
    found = imported(static(symmetric), tmp_path)
    images = np.random.default_rng(3).uniform(-0.4, 0.4, (16, 1, 8, 8)).astype(np.float32)
    theirs = run_file(tmp_path / "net.onnx", images, found.network.only_input)
    (limits,) = found.ranges["scores"]
    ours = np.clip(scores(found.network, images), limits.low, limits.high)
    assert np.abs(ours - theirs).mean() < 2 * SCORE_SCALE
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("opset", [10, 13, 19, 21])
def test_opsets(opset: int, tmp_path: Path) -> None:
    g = Graph(opset)
    weights = g.stored("w", STEPS, np.float32(0.01), zero=0)
    g.node("Conv", [g.pair("data", 0.1), weights], "sum")
    g.node("Relu", ["sum"], "out")
    found = imported(g.model((1, 8, 8), "out", 4), tmp_path)
    assert list(found.ranges) == ["data"]
    assert (steps_of(operation(found, "sum")) == STEPS).all()


def test_model_optimizer_quantizes_float_weights_and_some_tensors(tmp_path: Path) -> None:
    """Explicit quantization for TensorRT: weights per axis through a pair, the fully connected ones transposed."""
    g = Graph(17)
    g.constant("w", dequantized(STEPS, SCALES[:, None, None, None]) * np.float32(1.001))
    g.node("Conv", [g.pair("data", 0.1), g.pair("w", SCALES, axis=0)], "sum")
    g.node("GlobalAveragePool", ["sum"], "pool")
    g.node("Flatten", ["pool"], "flat")
    g.constant("fw", dequantized(integers(4, 5, 4), np.full((5, 1), 0.01, np.float32)))
    transposed = g.node("Transpose", [g.pair("fw", np.full(5, 0.01, np.float32), axis=0)], "fwt", perm=[1, 0])
    g.node("Add", [g.node("MatMul", [g.pair("flat", 0.3), transposed], "product"), g.constant("fb", np.ones(5))], "out")
    found = imported(g.model((1, 8, 8), "out"), tmp_path)
    assert list(found.ranges) == ["data", "pool"]
    assert (operation(found, "sum").weights == dequantized(STEPS, SCALES[:, None, None, None])).all()
    assert (operation(found, "out").scales == np.float32(0.01)).all()
    assert (steps_of(operation(found, "out")) == integers(4, 5, 4)).all()


def test_pt2e_with_stored_weights_and_dedicated_pairs(tmp_path: Path) -> None:
    g = Graph(18)
    data = g.pair("data", 0.1)
    g.node("Conv", [data, g.stored("w", STEPS, SCALES, zero=0, axis=0)], "sum")
    left, right = g.pair("sum", 0.2), "sum"
    g.node("QuantizeLinear", [right, "sum_s", "sum_z"], "other_q")
    g.node("DequantizeLinear", ["other_q", "sum_s", "sum_z"], "other_dq")
    g.node("Add", [left, "other_dq"], "out")
    found = imported(g.model((1, 8, 8), "out", 4), tmp_path)
    assert found.ranges["sum"] == (Range(float(np.float32(0.2)), 0, *INT8),)


def test_readers_with_ranges_of_their_own(tmp_path: Path) -> None:
    g = Graph()
    g.node("Relu", [g.pair("data", 0.1)], "sum")
    first = g.pair("sum", 0.2)
    shared = [g.constant("s", 0.3), g.constant("z", 0, "int8")]
    g.node("DequantizeLinear", [g.node("QuantizeLinear", ["sum", *shared], "q"), *shared], "second")
    g.node("Add", [first, "second"], "out")
    found = imported(g.model((1, 8, 8), "out", 4), tmp_path)
    assert [item.scale for item in found.ranges["sum"]] == pytest.approx([0.2, 0.3])


def test_fake_quantize_clips_integers(tmp_path: Path) -> None:
    """PyTorch's TorchScript exporter writes 7 bits, and symmetric ranges, as a Clip of the integers."""
    g = Graph(13)
    shared = [g.constant("s", 0.1), g.constant("z", 0, "uint8")]
    bounds = [g.constant("low", 0, "uint8"), g.constant("high", 127, "uint8")]
    clipped = g.node("Clip", [g.node("QuantizeLinear", ["data", *shared], "q"), *bounds], "c")
    g.node("Conv", [g.node("DequantizeLinear", [clipped, *shared], "dq"), g.stored("w", STEPS, SCALES, axis=0)], "out")
    found = imported(g.model((1, 8, 8), "out", 4), tmp_path)
    (data,) = found.ranges["data"]
    assert (data.lowest, data.highest) == (0, 127)
    assert data.high == pytest.approx(12.7)
    assert kinds(found) == [("Convolution", "out")]  # An image that has nothing below 0 gets no ReLU.


def test_pytorch_s_as_strided_of_an_adaptive_pooling(tmp_path: Path) -> None:
    g = Graph(18)
    g.node("ReduceMean", [g.pair("data", 0.1), g.constant("axes", [-1, -2], np.int64)], "mean", keepdims=1)
    flat = g.node("Reshape", ["mean", g.constant("all", [-1], np.int64)], "flat")
    g.node("Gather", [flat, g.constant("order", np.arange(4).reshape(1, 4, 1, 1), np.int64)], "strided")
    rows = g.node("Reshape", [g.pair("strided", 0.2), g.constant("rows", [1, 4], np.int64)], "rows_of")
    g.node("Gemm", [rows, g.stored("w", integers(7, 3, 4), np.float32(0.1))], "out", transB=1)
    model = g.model((4, 5, 5), "out")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    found = imported(model, tmp_path)
    assert kinds(found) == [("Pooling", "mean"), ("InnerProduct", "out")]
    assert list(found.ranges) == ["data", "mean"]


def test_microsoft_s_operators(tmp_path: Path) -> None:
    g = Graph()
    shared = [g.constant("s", 0.1), g.constant("z", 0, "int8")]
    q = g.node("QuantizeLinear", ["data", *shared], "q", domain="com.microsoft")
    g.node("Relu", [g.node("DequantizeLinear", [q, *shared], "dq", domain="com.microsoft")], "out")
    assert list(imported(g.model((1, 8, 8), "out", 4), tmp_path).ranges) == ["data"]


def test_weights_that_int8_around_0_does_not_hold_lose_their_scales(tmp_path: Path) -> None:
    g = Graph()
    g.node("Conv", ["data", g.stored("w", STEPS.astype(np.int16) + 128, np.float32(0.01), "uint8", 3)], "out")
    found = imported(g.model((1, 8, 8), "out", 4), tmp_path)
    expected = (STEPS.astype(np.float32) + 125) * np.float32(0.01)
    assert (operation(found, "out").weights == expected).all()
    assert operation(found, "out").scales is None
    assert any("their scales are chosen anew" in remark for remark in found.remarks)


def test_uint8_weights_around_128_are_int8_s(tmp_path: Path) -> None:
    g = Graph()
    g.node("Conv", ["data", g.stored("w", STEPS.astype(np.int16) + 128, np.float32(0.01), "uint8", 128)], "out")
    found = imported(g.model((1, 8, 8), "out", 4), tmp_path)
    assert (steps_of(operation(found, "out")) == STEPS).all()


def test_transposed_convolutions_and_gemm_with_alpha(tmp_path: Path) -> None:
    g = Graph()
    weights = integers(5, 4, 3, 2, 2)
    g.node("ConvTranspose", ["data", g.stored("w", weights, SCALES[:3], zero=0, axis=1)], "up", group=2)
    flat = g.node("Flatten", [g.node("GlobalAveragePool", ["up"], "pool")], "flat")
    g.node("Gemm", [flat, g.stored("fw", integers(6, 6, 2), SCALES[:2], zero=0, axis=1)], "out", alpha=-0.5)
    found = imported(g.model((4, 4, 4), "out"), tmp_path)
    assert (operation(found, "up").scales == np.tile(SCALES[:3], 2)).all()
    assert (steps_of(operation(found, "up")) == weights).all()
    assert (operation(found, "out").scales == SCALES[:2] / 2).all()
    assert (steps_of(operation(found, "out")) == -integers(6, 6, 2).T).all()
    write_model(found.network, [tmp_path / "again.onnx"])
    again = read_model([tmp_path / "again.onnx"])
    for layer in quantized_layers(found.network):
        other = again.by_name[layer.name].operation
        assert (layer.operation.weights == other.weights).all()  # type: ignore[union-attr]
        assert (layer.operation.scales == other.scales).all()  # type: ignore[union-attr]


def _int16(g: Graph) -> None:
    shared = [g.constant("s", 0.1), g.constant("z", 0, "int16")]
    g.node(
        "Relu", [g.node("DequantizeLinear", [g.node("QuantizeLinear", ["data", *shared], "q"), *shared], "dq")], "out"
    )


def _blocks(g: Graph) -> None:
    weights = g.stored("w", integers(0, 4, 64), np.full((4, 2), 0.1, np.float32), axis=1, block_size=32)
    flat = g.node("Flatten", ["data"], "flat")
    g.node(
        "Reshape", [g.node("Gemm", [flat, weights], "y", transB=1), g.constant("sh", [-1, 1, 2, 2], np.int64)], "out"
    )


def _per_axis(g: Graph) -> None:
    g.node("Relu", [g.pair("data", np.full(8, 0.1, np.float32), axis=2)], "out")


def _dynamic(g: Graph) -> None:
    scale = g.node("ReduceMax", ["data"], "m", keepdims=0)
    g.node("Relu", [g.node("DequantizeLinear", [g.node("QuantizeLinear", ["data", scale], "q"), scale], "dq")], "out")


def _integers_read(g: Graph) -> None:
    shared = [g.constant("s", 0.1), g.constant("z", 0, "int8")]
    q = g.node("MaxPool", [g.node("QuantizeLinear", ["data", *shared], "q")], "p", kernel_shape=[2, 2])
    g.node("DequantizeLinear", [q, *shared], "out")


def _other_scale(g: Graph) -> None:
    q = g.node("QuantizeLinear", ["data", g.constant("s", 0.1), g.constant("z", 0, "int8")], "q")
    g.node("Relu", [g.node("DequantizeLinear", [q, g.constant("t", 0.2), "z"], "dq")], "out")


def _float8(g: Graph) -> None:
    zero = onnx.helper.make_tensor("z", onnx.TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    g.constants.append(zero)
    shared = [g.constant("s", 0.1), "z"]
    g.node(
        "Relu", [g.node("DequantizeLinear", [g.node("QuantizeLinear", ["data", *shared], "q"), *shared], "dq")], "out"
    )


def _int4(g: Graph) -> None:
    packed = onnx.helper.make_tensor("w_q", onnx.TensorProto.INT4, [4, 1, 1, 1], [1, 2, 3, -4])
    g.constants.append(packed)
    g.node("Conv", ["data", g.node("DequantizeLinear", ["w_q", g.constant("s", 0.1)], "w")], "out")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_int16, "quantizes to INT16, expected INT8, UINT8"),
        (_blocks, "scales of blocks of an axis"),
        (_per_axis, "8 scales for 'data'; NVDLA has one for an activation"),
        (_dynamic, "its scale is computed by the network"),
        (_integers_read, "MaxPool reads its integers; keep float operators between pairs"),
        (_other_scale, "dequantizes with another scale or zero point"),
        (_float8, "FLOAT8E4M3FN"),
        (_int4, "INT4"),
    ],
)
def test_what_is_refused_and_how_it_is_called(build: Callable[[Graph], None], message: str, tmp_path: Path) -> None:
    g = Graph(21)
    build(g)
    with pytest.raises(NetworkError) as caught:
        imported(g.model((1, 8, 8), "out", 4), tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none(scale: float, tmp_path: Path) -> None:
    g = Graph()
    g.node("Relu", [g.pair("data", scale)], "out")
    with pytest.raises(NetworkError, match="scale"):
        imported(g.model((1, 8, 8), "out", 4), tmp_path)


def test_batchnorm_folds_into_the_scales(tmp_path: Path) -> None:
    """Factors turn signs, and never the integers' size; the folded network reads back as it is."""
    factor = np.array([2.0, -0.5, 0.0, 1.5], np.float32)
    g = Graph()
    g.node("Conv", [g.pair("data", 0.1), g.stored("w", STEPS, SCALES, zero=0, axis=0)], "sum")
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    norm = [g.constant(name, value) for name, value in (("g", factor), ("be", ones), ("m", zeros), ("v", ones))]
    g.node("BatchNormalization", ["sum", *norm], "out", epsilon=0.0)
    network = prepare(imported(g.model((1, 8, 8), "out", 4), tmp_path).network, "fold")
    (layer,) = network.layers
    folded = layer.operation
    assert isinstance(folded, Convolution)
    assert folded.scales is not None
    assert folded.scales == pytest.approx(SCALES * [2, 0.5, 1, 1.5])
    assert (steps_of(folded) == STEPS * np.sign(factor).astype(int)[:, None, None, None]).all()
    write_model(network, [tmp_path / "folded.onnx"])
    (again,) = read_model([tmp_path / "folded.onnx"]).layers
    assert (again.operation.weights == folded.weights).all()  # type: ignore[union-attr]
    model = onnx.load(tmp_path / "folded.onnx")
    assert "DequantizeLinear" in [node.op_type for node in model.graph.node]
    assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in model.graph.initializer)
    feed = {"data": np.ones((1, 1, 8, 8), np.float32)}
    session = onnxruntime.InferenceSession(tmp_path / "folded.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, feed)[0].ravel() == pytest.approx(scores(network, feed["data"])[0], rel=1e-5, abs=1e-6)


def _network(operation: Convolution | Deconvolution | InnerProduct, shape: tuple[int, ...]) -> Any:
    data = Tensor("data", shape, "data")
    return assemble("one", [data], [Layer("out", operation, ("data",))], {"out": "out"})


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["Convolution", "Deconvolution", "InnerProduct"]),
    st.floats(-20, 20),
)
def test_integers_survive_any_factors_and_the_file(seed: int, kind: str, size: float) -> None:
    """Of any scales, also -128 times a negative factor, and of groups with scales of their own."""
    random = np.random.default_rng(seed)
    shape = {"Convolution": (6, 2, 3, 1), "Deconvolution": (4, 3, 2, 2), "InnerProduct": (6, 4)}[kind]
    group = 1 if kind == "InnerProduct" else 2
    scales = np.exp2(random.uniform(-20, 3, 6)).astype(np.float32)
    steps = random.integers(-128, 128, shape)
    plain: Any = {"Convolution": Convolution, "Deconvolution": Deconvolution, "InnerProduct": InnerProduct}[kind]
    more = {} if group == 1 else {"group": group}
    along = scales if kind != "Deconvolution" else scales.reshape(2, 3).repeat(2, 0)
    weights = dequantized(steps, along.reshape(*along.shape, *[1] * (len(shape) - along.ndim)))
    operation = plain(weights, None, scales=scales, **more)
    assert (steps_of(operation) == steps).all()
    factors = random.normal(0, np.exp2(size), 6) * (random.random(6) > 0.1)
    changed = rescaled(operation, factors)
    signs = np.sign(factors).astype(int)
    signs = np.repeat(signs.reshape(2, 3), 2, 0) if kind == "Deconvolution" else signs
    assert (steps_of(changed) == steps * signs.reshape(*signs.shape, *[1] * (len(shape) - signs.ndim))).all()
    network = _network(changed, (4,) if kind == "InnerProduct" else (4, 4, 4))
    again = as_written(model_of(network))
    assert (again.layers[0].operation.weights == changed.weights).all()  # type: ignore[union-attr]
    assert (again.layers[0].operation.scales == changed.scales).all()  # type: ignore[union-attr]


def test_normalisation_that_is_no_fold_keeps_no_scales() -> None:
    """What has no weights of its own has none."""
    ones = np.ones(2, np.float32)
    network = assemble(
        "norms",
        [Tensor("data", (2, 2, 2), "data")],
        [Layer("bn", BatchNorm(ones, ones, 0.0), ("data",)), Layer("sc", Scale(ones, None), ("bn",))],
        {"bn": "bn", "sc": "sc"},
    )
    assert quantized_layers(prepare(network, "fold")) == ()
