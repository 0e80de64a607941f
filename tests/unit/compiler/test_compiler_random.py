"""Loadables of random layers, run on the emulator, against the exact sum of products.

The weights are small integers times a power of two with 127 among them, so quantizing them loses nothing; what may
differ is what the hardware must round: the output (half a step), the bias (half a step of it) and the multiplier
(15 bits, so 2**-14 of each product).
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from nvdla_quant.compiler.compile import Compilation, compile_network
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.run import run, run_tensors
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode, Target
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.network.graph import (
    Concat,
    Convolution,
    Eltwise,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    ReLU,
    Softmax,
    Tensor,
)
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.table import CalibrationTable
from tests.networks.random import Drawn, Variant, drawn_case, has_long_product, networks, variants
from tests.profiles import examples, targets
from tests.verified import cosine, float_scores, simulated_scores

MODES = tuple(QuantizationMode)
INT8, FP16 = Precision.INT8, Precision.FP16


def chain(shape: tuple[int, ...], *operations: Operation) -> Network:
    layers = [Layer(f"l{i}", op, (f"l{i - 1}" if i else "data",)) for i, op in enumerate(operations)]
    return assemble("random", [Tensor("data", shape, "data")], layers)


def emulate(compilation: Compilation, target: Target, images: NDArray[np.generic]) -> NDArray[np.float64]:
    """Outputs in integer steps (int8) or real values (fp16); `images` (n, c, h, w) in the device's domain."""
    program = decode(parse_loadable(compilation.data), target)
    # A task of very many operations, on a small buffer, is not searched for races.
    assert all(warning.startswith("races are not looked for: the task has") for warning in program.warnings)
    port = program.inputs[0]
    padded = np.zeros((len(images), *port.shape), port.dtype)
    padded[:, : images.shape[1]] = images
    return run(program, padded).astype(np.float64)


def integers(rng: np.random.Generator, shape: tuple[int, ...], unit: float = 2.0**-7) -> NDArray[np.float32]:
    """Integers of int8 times `unit`, 127 among each filter's."""
    values = rng.integers(-60, 61, shape)
    values.reshape(shape[0], -1)[:, 0] = 127
    return (values * unit).astype(np.float32)


def absolute_sums(network: Network, images: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums of the absolute products of the first layer of `network` with these weights."""
    operation = network.layers[0].operation
    assert isinstance(operation, Convolution | InnerProduct)
    other = replace(operation, weights=np.abs(weights), bias=None)
    result = Reference(chain(network.inputs[0].shape, other), ["l0"]).run(np.abs(images))["l0"]
    return result.astype(np.float64)


def check_layer(
    network: Network, images: NDArray[np.int8], target: Target, mode: QuantizationMode, exact: bool = True
) -> Compilation:
    """Compile a network of one weighted layer and an optional ReLU, and hold each output to what rounding explains.

    Where the weights are not `exact`, each may also be off by half of its filter's scale. Per filter that scale is
    |w|/127, or what the bias needs to fit beside the filter of the largest scale (`quantize.weight_scales`).
    """
    source, name = 0.5, network.layers[-1].name
    real = images.astype(np.float32) * np.float32(source)
    expected = Reference(network, [name]).run(real)[name].astype(np.float64)
    output = max(float(np.abs(expected).max()) / 127, 2.0**-10)
    compilation = compile_network(network, CalibrationTable({"data": source, name: output}), target, INT8, mode)
    result = emulate(compilation, target, images).reshape(expected.shape) * output
    operation = network.layers[0].operation
    assert isinstance(operation, Convolution | InnerProduct)
    column = (-1, *[1] * (expected.ndim - 2))
    bias = np.zeros(len(operation.weights)) if operation.bias is None else np.abs(operation.bias).astype(np.float64)
    products = absolute_sums(network, real, operation.weights) + bias.reshape(column)
    # 1/64: half of the coarsest bias step that the compiler allows on a filter, in output steps.
    # 1/32: what a partial sum is kept to, where the channels are taken in parts (`lowering.split`).
    parts = len(compilation.facts.convolutions) - 1
    allowed = output * (0.5 + 1 / 64 + parts / 32 + 1e-6) + products * 2.0**-13
    if not exact:
        scale = np.abs(operation.weights).reshape(len(bias), -1).max(axis=1) / 127
        if mode is QuantizationMode.PER_KERNEL:
            scale[:] = scale.max()
        scale = np.maximum(scale * (1 + 2.0**-8), scale.max() * (bias / output / 500 + 2.0**-13))
        inputs = absolute_sums(network, real, np.ones_like(operation.weights))
        allowed += 0.5 * scale.reshape(column) * inputs
    excess = np.abs(result - np.clip(expected, -128 * output, 127 * output)) - allowed
    assert excess.max() <= 0, f"{excess.max() / output} steps beyond what rounding explains, {compilation.facts}"
    return compilation


def random_convolution(rng: np.random.Generator) -> tuple[tuple[int, int, int], Convolution]:
    kernel = rng.integers(1, 8, 2)
    dilation = tuple(int(d) for d in rng.choice([1, 1, 2, 3], 2))
    extent = [int((k - 1) * d + 1) for k, d in zip(kernel, dilation, strict=True)]
    pad = tuple(int(rng.integers(0, min(e, 6))) for e in extent)
    size = [int(rng.integers(max(1, e - 2 * p), e + 12)) for e, p in zip(extent, pad, strict=True)]
    channels = int(rng.choice([1, 2, 3, 4, 5, 8, 9, 31, 33, 64, 70]))
    kernels = int(rng.integers(1, 71))
    weights = integers(rng, (kernels, channels, *(int(k) for k in kernel)))
    bias = None if rng.random() < 0.25 else (rng.normal(0, 8, kernels)).astype(np.float32)
    stride = tuple(int(s) for s in rng.integers(1, 4, 2))
    return (channels, *size), Convolution(weights, bias, (stride[0], stride[1]), (pad[0], pad[1]), dilation)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", targets().values(), ids=targets())
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(14))
def test_random_convolutions(target: Target, mode: QuantizationMode, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, operation = random_convolution(rng)
    network = chain(shape, operation, *([ReLU()] if rng.random() < 0.5 else []))
    images = rng.integers(-128, 128, (2, *shape)).astype(np.int8)
    check_layer(network, images, target, mode)


@pytest.mark.parametrize("target", targets().values(), ids=targets())
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(6))
def test_filters_of_very_different_size_keep_their_biases(target: Target, mode: QuantizationMode, seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    kernels = int(rng.integers(2, 40))
    weights = rng.normal(0, 1, (kernels, 6, 3, 3)) * 2.0 ** rng.integers(-16, 1, (kernels, 1, 1, 1))
    weights[0] = rng.normal(0, 1, (6, 3, 3))
    weights[kernels // 2 :: 3] = 0
    bias = rng.normal(0, 300, kernels)
    operation = Convolution(weights.astype(np.float32), bias.astype(np.float32), pad=(1, 1))
    images = rng.integers(-128, 128, (2, 6, 9, 7)).astype(np.int8)
    check_layer(chain((6, 9, 7), operation), images, target, mode, exact=False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("biases", [(5.0, -7.0, 100.0), (0.0, 0.0, 1e-3), (1e6, 1.0, -1e6)])
def test_filters_that_are_all_zero_output_their_biases(mode: QuantizationMode, biases: tuple[float, ...]) -> None:
    # The real compiler outputs 0 for them per filter (docs/hardware/calibration-table.md, "Weights").
    operation = Convolution(np.zeros((3, 2, 3, 3), np.float32), np.array(biases, np.float32))
    check_layer(chain((2, 5, 5), operation), np.zeros((1, 2, 5, 5), np.int8), TARGETS["nv_small"], mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_layer_without_weights_or_bias_outputs_zero(mode: QuantizationMode) -> None:
    operation = Convolution(np.zeros((3, 2, 1, 1), np.float32), None)
    check_layer(chain((2, 5, 5), operation), np.full((1, 2, 5, 5), 9, np.int8), TARGETS["nv_small"], mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("steps", [32767, 32768, 65535, 65536, 70000])
def test_biases_around_16_bits(mode: QuantizationMode, steps: int) -> None:
    # One accumulator step is 0.5 (input scale) * 2**-7 (weight scale); 2**15 of them do not fit into int16.
    bias = np.array([steps, -steps, 3], np.float32) * np.float32(2.0**-8)
    operation = Convolution(integers(np.random.default_rng(1), (3, 4, 2, 2)), bias)
    images = np.random.default_rng(2).integers(-9, 9, (1, 4, 4, 4)).astype(np.int8)
    check_layer(chain((4, 4, 4), operation), images, TARGETS["nv_full"], mode)


@pytest.mark.parametrize("target", targets().values(), ids=targets())
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "outputs"), [((1, 28, 28), 12), ((50, 4, 4), 500), ((500,), 10), ((3,), 5), ((512, 3, 3), 65)]
)
def test_inner_products(target: Target, mode: QuantizationMode, shape: tuple[int, ...], outputs: int) -> None:
    rng = np.random.default_rng(outputs)
    weights = integers(rng, (outputs, int(np.prod(shape))))
    network = chain(shape, InnerProduct(weights, rng.normal(0, 50, outputs).astype(np.float32)), ReLU())
    images = rng.integers(-128, 128, (3, *shape)).astype(np.int8)
    source = np.float32(0.5)
    if len(shape) == 1:
        images = images.reshape(3, -1)
    real = images.astype(np.float32) * source
    expected = Reference(network, ["l1"]).run(real)["l1"]
    output = float(expected.max()) / 127
    table = CalibrationTable({"data": 0.5, "l1": output})
    compilation = compile_network(network, table, target, INT8, mode)
    result = emulate(compilation, target, images.reshape(3, shape[0], *shape[1:], *[1] * (3 - len(shape))))
    products = np.abs(real.reshape(3, -1)) @ np.abs(weights).T
    assert np.all(np.abs(result.reshape(3, -1) * output - expected) <= output * 0.52 + products * 2.0**-13)


@pytest.mark.parametrize(
    ("target", "shape", "kernels", "kernel", "stride", "pad", "runs"),
    # Runs by hand from the bank counts: nv_small's buffer is 128 KiB in 32 banks, nv_full's 512 KiB in 16.
    [
        ("nv_small", (64, 48, 48), 16, (3, 3), (1, 1), (1, 1), 2),
        ("nv_small", (16, 90, 120), 8, (5, 5), (2, 2), (2, 2), 2),
        ("nv_small", (3, 200, 220), 8, (7, 7), (2, 2), (3, 3), 2),
        ("nv_full", (70, 80, 90), 40, (3, 3), (2, 1), (1, 1), 2),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_convolutions_that_are_split(
    target: str,
    shape: tuple[int, int, int],
    kernels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    runs: int,
    mode: QuantizationMode,
) -> None:
    rng = np.random.default_rng(7)
    bias = rng.normal(0, 9, kernels).astype(np.float32)
    operation = Convolution(integers(rng, (kernels, shape[0], *kernel)), bias, stride, pad)
    images = rng.integers(-128, 128, (1, *shape)).astype(np.int8)
    compilation = check_layer(chain(shape, operation), images, TARGETS[target], mode)
    assert compilation.facts.convolutions[0].runs == runs


def check_pooling(shape: tuple[int, int, int], operation: Pooling, target: Target) -> Compilation:
    network = chain(shape, operation)
    rng = np.random.default_rng(4)
    images = rng.integers(-128, 128, (2, *shape)).astype(np.int8)
    compilation = compile_network(network, CalibrationTable({"data": 0.5}), target, INT8)
    result = emulate(compilation, target, images)
    expected = Reference(network, ["l0"]).run(images.astype(np.float32))["l0"]
    if operation.method == "max":
        assert np.array_equal(result, expected)
    else:
        # Two roundings: of a row's mean and of their mean; each reciprocal is truncated by 2**-14 at most.
        assert np.abs(result - expected).max() <= 1 + 128 * 2.0**-12
    return compilation


@pytest.mark.parametrize("target", targets().values(), ids=targets())
@pytest.mark.parametrize("method", ["max", "average"])
@pytest.mark.parametrize("seed", range(12))
def test_random_poolings(target: Target, method: Literal["max", "average"], seed: int) -> None:
    """Averages too, where Caffe rounds the size up and divides the last window by what lies inside."""
    rng = np.random.default_rng(200 + seed)
    kernel = (int(rng.integers(1, 9)), int(rng.integers(1, 9)))
    pad = (int(rng.integers(0, kernel[0])), int(rng.integers(0, kernel[1])))
    stride = (int(rng.integers(1, kernel[0] + 1)), int(rng.integers(1, kernel[1] + 1)))
    height, width = (int(rng.integers(max(k - 2 * p, 1), k + 14)) for k, p in zip(kernel, pad, strict=True))
    check_pooling((int(rng.integers(1, 71)), height, width), Pooling(method, kernel, stride, pad), target)


@pytest.mark.parametrize(
    ("target", "width", "kernel", "stride", "runs"),
    # Columns of output: 57344 bits over lines * kernels * 14 (nvdla/sw PDPNode.cpp): 128 and 32, 512 on nv_small.
    [("nv_full", 600, 2, 2, 3), ("nv_full", 70, 3, 1, 3), ("nv_small", 1026, 2, 2, 2)],
)
@pytest.mark.parametrize("method", ["max", "average"])
def test_poolings_that_are_split(
    target: str, width: int, kernel: int, stride: int, runs: int, method: Literal["max", "average"]
) -> None:
    operation = Pooling(method, (kernel, kernel), (stride, stride))
    assert check_pooling((9, 6, width), operation, TARGETS[target]).facts.units["PDP"] == runs


@pytest.mark.parametrize("target", targets().values(), ids=targets())
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scales", [(0.5, 0.5), (0.5, 0.03), (0.02, 3.0)])
@pytest.mark.parametrize("relu", [False, True])
def test_sums(target: Target, mode: QuantizationMode, scales: tuple[float, float], relu: bool) -> None:
    """A sum of a convolution and a pooling, and of two poolings, whatever their scales."""
    rng = np.random.default_rng(5)
    shape, (source, branch) = (12, 7, 6), scales
    layers = [
        Layer("pool", Pooling("max", (1, 1)), ("data",)),
        Layer("conv", Convolution(integers(rng, (12, 12, 3, 3)), np.ones(12, np.float32), pad=(1, 1)), ("data",)),
        Layer("other", Pooling("max", (3, 3), (1, 1), (1, 1)), ("data",)),
        Layer("sum", Eltwise("sum"), ("pool", "conv")),
        Layer("relu", ReLU() if relu else Pooling("max", (1, 1)), ("sum",)),
        Layer("again", Eltwise("sum"), ("relu", "other")),
    ]
    network = assemble("sums", [Tensor("data", shape, "data")], layers)
    images = rng.integers(-128, 128, (2, *shape)).astype(np.int8)
    real = images.astype(np.float32) * np.float32(source)
    names = ["sum", "relu", "again"]
    expected = {name: values.astype(np.float64) for name, values in Reference(network, names).run(real).items()}
    steps = {name: float(np.abs(values).max()) / 127 for name, values in expected.items()}
    table = CalibrationTable({"data": source, "conv": branch, **steps, "again": steps["again"]})
    compilation = compile_network(network, table, target, INT8, mode)
    result = emulate(compilation, target, images) * steps["again"]
    # Half a step where the first sum is written, half where the second is; some 2**-9 of the operands' steps between.
    allowed = 0.51 * steps["again"] + 0.51 * steps["relu" if relu else "sum"] + 2.0**-8 * source
    products = absolute_sums(
        chain(shape, layers[1].operation),
        real,
        layers[1].operation.weights,  # type: ignore[union-attr]
    )
    assert np.all(np.abs(result - expected["again"]) <= allowed + products * 2.0**-12)


def concatenations() -> Network:
    """Written in place: a convolution, a concatenation. Copied: a pooling, an input, a tensor that stands twice."""
    rng = np.random.default_rng(8)

    def conv(inputs: int, outputs: int) -> Convolution:
        return Convolution(integers(rng, (outputs, inputs, 3, 3), 2.0**-10), np.ones(outputs, np.float32), pad=(1, 1))

    layers = [
        Layer("a", conv(32, 32), ("data",)),
        Layer("b", conv(32, 64), ("a",)),
        Layer("inner", Concat(), ("b", "a")),
        Layer("pool", Pooling("max", (3, 3), (1, 1), (1, 1)), ("inner",)),
        Layer("c", conv(96, 20), ("pool",)),
        Layer("outer", Concat(), ("inner", "pool", "data", "data", "c")),
        Layer("last", Convolution(integers(rng, (10, 276, 1, 1), 2.0**-11), None), ("outer",)),
        Layer("end", ReLU(), ("last",)),
    ]
    return assemble("concatenations", [Tensor("data", (32, 6, 5), "data")], layers)


@pytest.mark.parametrize(
    ("target", "precision", "mode"),
    [(target, INT8, mode) for target in targets().values() for mode in MODES] + [(TARGETS["nv_full"], FP16, MODES[0])],
)
def test_concatenations(target: Target, precision: Precision, mode: QuantizationMode) -> None:
    network = concatenations()
    images = np.random.default_rng(9).integers(-128, 128, (2, 32, 6, 5)).astype(np.float32) / 128
    names = [layer.name for layer in network.layers]
    tensors = Reference(network, names).run(images)
    scales = {name: float(np.abs(tensors[name]).max()) / 127 for name in names}
    table = CalibrationTable({"data": 1 / 128, **scales, "b": 99.0})
    compilation = compile_network(network, table, target, precision, mode)
    # Copies: of the pooling, and twice of the input.
    assert compilation.facts.units == {"CONV": 4, "PDP": 1, "SDP": 7}
    given = images * 128 if precision is INT8 else images
    result = emulate(compilation, target, given.astype(np.int8 if precision is INT8 else np.float16))
    expected = tensors["end"]
    if precision is FP16:
        assert np.abs(result - expected).max() <= 2e-3 * np.abs(expected).max()
        return
    assert any("'b': it stands in 'outer'" in warning for warning in compilation.facts.warnings)
    # Steps of the concatenated tensor, half of one off, through the last convolution; a step for the layers before.
    steps = np.abs(network.by_name["last"].operation.weights).sum(axis=(1, 2, 3)).max()  # type: ignore[union-attr]
    assert np.abs(result * scales["end"] - expected).max() <= scales["end"] + 1.5 * scales["outer"] * steps / 4
    assert np.corrcoef(result.ravel(), expected.ravel())[0, 1] > 0.999


def test_several_inputs_and_outputs() -> None:
    """An image and a feature input; a softmax in between, so three tasks; outputs by their blob names."""
    rng = np.random.default_rng(10)
    layers = [
        Layer("a", Convolution(integers(rng, (8, 3, 3, 3)), None, pad=(1, 1)), ("image",)),
        Layer("s", Eltwise("sum"), ("a", "extra")),
        Layer("fc", InnerProduct(integers(rng, (8, 8 * 16), 2.0**-12), None), ("s",)),
        Layer("p", Softmax(), ("fc",)),
        Layer("last", InnerProduct(integers(rng, (5, 8)), None), ("p",)),
        Layer("pool", Pooling("average", (4, 4)), ("s",)),
    ]
    inputs = [Tensor("image", (3, 4, 4), "image"), Tensor("extra", (8, 4, 4), "extra")]
    network = assemble("several", inputs, layers, {"last": "scores"})
    scales = {"image": 1 / 64, "extra": 1 / 32, "s": 0.25, "fc": 0.05, "p": 1 / 127, "last": 1 / 127}
    compilation = compile_network(network, CalibrationTable(scales), TARGETS["nv_small"], INT8)
    program = decode(parse_loadable(compilation.data), TARGETS["nv_small"])
    image = np.zeros((2, 4, 4, 4), np.int8)
    image[:, :3] = rng.integers(-64, 64, (2, 3, 4, 4))
    extra = rng.integers(-64, 64, (2, 8, 4, 4)).astype(np.int8)
    result = run_tensors(program, {"image": image, "extra": extra})
    # By hand, in double precision.
    weights = layers[0].operation.weights.astype(np.float64)  # type: ignore[union-attr]
    padded = np.pad(image[:, :3] / 64.0, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    total = np.einsum("ncyxij,kcij->nkyx", windows, weights) + extra / 32.0
    stepped = np.clip(np.rint(total / 0.25), -128, 127) * 0.25
    logits = stepped.reshape(2, -1) @ layers[2].operation.weights.T.astype(np.float64)  # type: ignore[union-attr]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = (odds / odds.sum(axis=1, keepdims=True)) @ layers[4].operation.weights.T  # type: ignore[union-attr]
    assert sorted(result) == ["pool", "scores"]
    assert [output.name for output in compilation.facts.outputs] == ["last", "pool"]
    assert np.abs(result["pool"] * 0.25 - stepped.mean(axis=(2, 3), keepdims=True)).max() <= 1.1 * 0.25
    # The softmax truncates each probability to a step of 1/127.
    assert np.abs(result["scores"].reshape(2, 5) / 127 - np.clip(scores, -128 / 127, 1)).max() <= 0.06


def test_fp16_layers_of_every_kind() -> None:
    rng = np.random.default_rng(3)
    layers = [
        Layer("conv", Convolution(rng.normal(0, 0.3, (20, 3, 5, 5)).astype(np.float32), None, pad=(2, 2)), ("data",)),
        Layer("relu", ReLU(), ("conv",)),
        Layer("pool", Pooling("average", (2, 2), (2, 2)), ("relu",)),
        Layer("next", Convolution(rng.normal(0, 0.1, (20, 20, 1, 1)).astype(np.float32), None), ("pool",)),
        Layer("sum", Eltwise("sum"), ("next", "pool")),
        Layer("clip", ReLU(), ("sum",)),
        Layer("max", Pooling("max", (3, 3), (2, 2)), ("clip",)),
        Layer("twice", Eltwise("sum"), ("max", "max")),
        Layer(
            "fc", InnerProduct(rng.normal(0, 0.1, (10, 20 * 9)).astype(np.float32), np.ones(10, np.float32)), ("twice",)
        ),
        Layer("prob", Softmax(), ("fc",)),
    ]
    network = assemble("fp16", [Tensor("data", (3, 14, 14), "data")], layers)
    images = rng.normal(0, 1, (3, 3, 14, 14)).astype(np.float16)
    compilation = compile_network(network, None, TARGETS["nv_full"], FP16)
    result = emulate(compilation, TARGETS["nv_full"], images)
    expected = Reference(network, ["prob"]).run(images.astype(np.float32))["prob"]
    assert np.abs(result.reshape(3, 10) - expected).max() < 0.01


@settings(max_examples=examples(100))
@given(networks(), variants())
def test_random_networks_compute_what_int8_can(drawn: Drawn, variant: Variant) -> None:
    """Near the float network, or about as far as rounding its weights and tensors puts it."""
    case = drawn_case(drawn, variant)
    if case is None:
        return
    expected = float_scores(case.network, case.images)
    found = cosine(case.scores(), expected)
    if variant.mode is None or case.table is None:
        assert found >= 0.999
    elif found < 0.98 and not has_long_product(case.network):
        assert found >= cosine(simulated_scores(case.network, case.table, variant.mode, case.images), expected) - 0.05
