"""The fp32 reference against numbers worked out by hand, a transcription of Caffe's loops, and OpenCV's importer.

OpenCV (4.x) reads the same files with code of its own; no departure from Caffe was found in the cases below.
"""

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError
from nvdla_quant.execution.fp32 import Reference, scores
from nvdla_quant.network.caffe.reader import read_network, read_structure
from nvdla_quant.network.graph import (
    GELU,
    Convolution,
    Deconvolution,
    Eltwise,
    Layer,
    Network,
    Operation,
    Pair,
    Pooling,
    Rounding,
    Tensor,
    pooling_size,
)
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.network.shapes import assemble
from tests.caffe_networks import ALL_OPERATIONS, layer, prototxt, randomized, write_random

Array = NDArray[np.float32]


def images(network: Network, count: int = 3, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(0, 1, (count, *network.inputs[0].shape)).astype(np.float32)


def single(operation: Operation, shape: tuple[int, ...]) -> Network:
    return assemble("one", [Tensor("data", shape, "data")], [Layer("it", operation, ("data",))])


def pooled(operation: Pooling, image: Array) -> Array:
    return Reference(single(operation, image.shape)).run(image[None])["it"][0]


# --- pooling, by hand -------------------------------------------------------------------------------------------------


def test_pooling_rounds_up_and_clips() -> None:
    """1..25 in 5 x 5; 2 x 2 windows 2 apart start at 0, 2 and 4, and the last covers one row or column only."""
    image = np.arange(1, 26, dtype=np.float32).reshape(1, 5, 5)
    largest = pooled(Pooling("max", (2, 2), (2, 2)), image)
    assert largest.tolist() == [[[7, 9, 10], [17, 19, 20], [22, 24, 25]]]
    # (1+2+6+7)/4 = 4; the right column averages 2 pixels, (5+10)/2 = 7.5; the corner is 25 alone.
    mean = pooled(Pooling("average", (2, 2), (2, 2)), image)
    np.testing.assert_allclose(mean, [[[4, 6, 7.5], [14, 16, 17.5], [21.5, 23.5, 25]]], rtol=1e-6)


def test_average_counts_padding_but_not_beyond() -> None:
    """Ones in 4 x 4, kernel 3, stride 2, padding 1: windows start at -1, 1 and 3; Caffe makes 3 x 3 of them.

    The first covers 2 x 2 ones of 9 counted pixels; the last covers 1 x 1 one and ends at 6, clipped to the padded
    edge at 5, so 2 x 2 pixels count.
    """
    mean = pooled(Pooling("average", (3, 3), (2, 2), (1, 1)), np.ones((1, 4, 4), np.float32))
    edge = [[2 * 2 / 9, 2 * 3 / 9, 2 * 1 / 6], [3 * 2 / 9, 1, 3 / 6], [2 / 6, 3 / 6, 1 / 4]]
    np.testing.assert_allclose(mean[0], edge, rtol=1e-6)


def test_padding_never_is_a_maximum() -> None:
    image = np.full((1, 3, 3), -5, np.float32)
    assert (pooled(Pooling("max", (3, 3), (2, 2), (1, 1)), image) == -5).all()


def caffe_pooling(operation: Pooling, image: Array) -> Array:
    """Pooling as Caffe's loops define it: each window clipped, averages over the window clipped to the padded image."""
    (height, width), (kh, kw), (sh, sw), (ph, pw) = image.shape[1:], operation.kernel, operation.stride, operation.pad
    rounding = operation.rounding
    rows, columns = (pooling_size(*axis, rounding) for axis in ((height, kh, sh, ph), (width, kw, sw, pw)))
    result = np.empty((len(image), rows, columns), np.float64)
    for row in range(rows):
        for column in range(columns):
            top, left = row * sh - ph, column * sw - pw
            count = (min(top + kh, height + ph) - top) * (min(left + kw, width + pw) - left)
            window = image[:, max(top, 0) : min(top + kh, height), max(left, 0) : min(left + kw, width)]
            whole = window.astype(np.float64)
            result[:, row, column] = whole.max((1, 2)) if operation.method == "max" else whole.sum((1, 2)) / count
    return result.astype(np.float32)


sizes = st.integers(1, 12)


@given(
    size=st.tuples(sizes, sizes),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    pad=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    method=st.sampled_from(["max", "average"]),
    rounding=st.sampled_from(["up", "down"]),
)
@settings(max_examples=100, deadline=None)
def test_pooling_is_caffes(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    method: Literal["max", "average"],
    rounding: Rounding,
) -> None:
    operation = Pooling(method, kernel, stride, pad, rounding)
    try:
        network = single(operation, (2, *size))
    except NetworkError:
        assume(False)
    image = images(network, 1)
    got = Reference(network).run(image)["it"][0]
    np.testing.assert_allclose(got, caffe_pooling(operation, image[0]), rtol=1e-5, atol=1e-6)


# --- other operations, directly ---------------------------------------------------------------------------------------


def test_every_operation_directly(tmp_path: Path) -> None:
    """Each element-wise layer of one network from the reference's own input to it, by the formula in `graph`."""
    network = read_network(*write_random(tmp_path, ALL_OPERATIONS))
    reference = Reference(network, list(network.tensors))
    x = images(network)
    value = {name: array.astype(np.float64) for name, array in reference.run(x).items()}
    assert list(value) == list(network.tensors)

    def at(name: str) -> Operation:
        return network.by_name[name].operation

    def channels(array: Array) -> Array:
        return array.astype(np.float64)[:, None, None]

    batch_norm, scale, norm = at("bn"), at("scale"), at("norm")
    squares = np.pad(value["power"] ** 2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    sums = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
    exponentials = np.exp(value["logits"] - value["logits"].max(1, keepdims=True))
    fc = at("logits")
    up, deconvolution = np.zeros_like(value["up"]), at("up").weights
    for row in range(2):
        for column in range(2):  # Kernel 2, stride 2: the windows do not overlap.
            part = np.einsum("nchw,cd->ndhw", value["relu"], deconvolution[:, :, row, column].astype(np.float64))
            up[:, :, row::2, column::2] = part
    expected = {
        "data": x,
        "bn": (value["conv"] - channels(batch_norm.mean))
        / np.sqrt(channels(batch_norm.variance) + np.float64(batch_norm.eps)),
        "scale": value["bn"] * channels(scale.gamma) + channels(scale.beta),
        "relu": np.where(value["scale"] > 0, value["scale"], value["scale"] * np.float32(0.1)),
        "up": up,
        "slope": np.where(value["up"] > 0, value["up"], value["up"] * channels(at("slope").slope)),
        "one_slope": np.where(value["up"] > 0, value["up"], value["up"] * at("one_slope").slope[0]),
        "sum": value["slope"] - 0.5 * value["one_slope"],
        "sigmoid": 1 / (1 + np.exp(-value["up"])),
        "tanh": np.tanh(value["up"]),
        "product": value["sigmoid"] * value["tanh"] * value["sum"],
        "largest": np.maximum(value["product"], value["tanh"]),
        "power": (1.5 + 0.5 * value["largest"]) ** 2,
        "norm": value["power"] / (norm.k + norm.alpha / 3 * sums) ** norm.beta,
        "cut": value["norm"][:, :, 1 : 1 + value["mean"].shape[2], 2 : 2 + value["mean"].shape[3]],
        "mixed": np.concatenate([value["mean"], value["cut"]], axis=1),
        "dropped": value["mixed"],
        "flat": value["mixed"].reshape(len(x), -1),
        "view": value["mixed"].reshape(len(x), *network.tensors["view"].shape),
        "logits": value["flat"] @ fc.weights.astype(np.float64).T + fc.bias,
        "prob": exponentials / exponentials.sum(1, keepdims=True),
    }
    poolings = {"max": "norm", "mean": "max"}
    for name, source in poolings.items():
        batch = value[source].astype(np.float32)
        expected[name] = np.stack([caffe_pooling(at(name), image) for image in batch])
    assert set(expected) == set(network.tensors) - {"conv"}  # Convolutions are compared with OpenCV's.
    for name, array in expected.items():
        np.testing.assert_allclose(value[name], array, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize(("power", "scale", "shift"), [(1, 1, 0), (1, 2, 0), (1, 1, 3), (3, 1, 0), (0, 1, 0)])
def test_power_leaves_out_what_does_nothing(tmp_path: Path, power: int, scale: int, shift: int) -> None:
    text = prototxt(layer("it", "Power", "data", f"power_param {{ power: {power} scale: {scale} shift: {shift} }}"))
    network = read_network(*write_random(tmp_path, text))
    x = images(network)
    np.testing.assert_allclose(Reference(network).run(x)["it"], (shift + scale * x) ** power, rtol=1e-5, atol=1e-6)


@given(
    group=st.integers(1, 3),
    outputs=st.integers(1, 2),
    inputs=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
@settings(max_examples=100, deadline=None)
def test_deconvolution_is_the_transpose_of_convolution(
    group: int, outputs: int, inputs: int, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair
) -> None:
    """<convolution(x), y> = <x, deconvolution(y)>, with the same weights, which Caffe stores alike for both."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, (outputs * group, inputs, *kernel)).astype(np.float32)
    window = (None, stride, pad, dilation, group)
    try:
        up = single(Deconvolution(weights, *window), (outputs * group, 4, 3))
    except NetworkError:
        assume(False)  # The padding leaves nothing.
    down = single(Convolution(weights, *window), up.tensors["it"].shape)
    assert down.tensors["it"].shape == (outputs * group, 4, 3)
    x, y = images(down, 1), images(up, 1, seed=2)
    left = np.vdot(Reference(down).run(x)["it"].astype(np.float64), y)
    right = np.vdot(x, Reference(up).run(y)["it"].astype(np.float64))
    assert left == pytest.approx(right, rel=1e-4, abs=1e-3)


# --- OpenCV -----------------------------------------------------------------------------------------------------------

CONV = "convolution_param"
POOL = "pooling_param"
FLOOR = "ceil_mode: false"
FC = layer("fc", "InnerProduct", "it", "inner_product_param { num_output: 7 }")

OPENCV_CASES = {
    "convolution": [layer("it", "Convolution", "data", f"{CONV} {{ num_output: 5 kernel_size: 3 }}")],
    "convolution, strided": [
        layer(
            "it",
            "Convolution",
            "data",
            f"{CONV} {{ num_output: 5 kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 3 pad_h: 1 pad_w: 0 }}",
        )
    ],
    "convolution, grouped": [
        layer("it", "Convolution", "data", f"{CONV} {{ num_output: 4 kernel_size: 3 pad: 1 group: 2 }}")
    ],
    "convolution, depthwise": [
        layer("it", "Convolution", "data", f"{CONV} {{ num_output: 6 kernel_size: 3 group: 6 }}")
    ],
    "convolution, dilated": [
        layer(
            "it",
            "Convolution",
            "data",
            f"{CONV} {{ num_output: 4 kernel_size: 3 dilation: 2 pad: 2 bias_term: false }}",
        )
    ],
    "deconvolution": [
        layer("it", "Deconvolution", "data", f"{CONV} {{ num_output: 4 kernel_size: 4 stride: 2 pad: 1 }}")
    ],
    "deconvolution, grouped": [
        layer(
            "it",
            "Deconvolution",
            "data",
            f"{CONV} {{ num_output: 6 kernel_size: 3 stride: 2 group: 3 bias_term: false }}",
        )
    ],
    "inner product": [layer("it", "InnerProduct", "data", "inner_product_param { num_output: 3 }")],
    "max pooling": [layer("it", "Pooling", "data", f"{POOL} {{ kernel_size: 2 stride: 2 }}")],
    "max pooling, padded": [layer("it", "Pooling", "data", f"{POOL} {{ kernel_size: 3 stride: 2 pad: 1 }}")],
    "average pooling": [layer("it", "Pooling", "data", f"{POOL} {{ pool: AVE kernel_size: 3 stride: 1 }}")],
    "average pooling, padded": [
        layer("it", "Pooling", "data", f"{POOL} {{ pool: AVE kernel_size: 3 stride: 2 pad: 1 }}")
    ],
    "average pooling, clipped": [layer("it", "Pooling", "data", f"{POOL} {{ pool: AVE kernel_size: 2 stride: 2 }}")],
    "average pooling, clipped at the padding's edge": [
        layer("it", "Pooling", "data", f"{POOL} {{ pool: AVE kernel_size: 4 stride: 3 pad: 1 }}")
    ],
    "max pooling, last window dropped": [
        layer("it", "Pooling", "data", f"{POOL} {{ kernel_size: 2 stride: 4 pad: 1 }}")
    ],
    "global pooling": [layer("it", "Pooling", "data", f"{POOL} {{ pool: AVE global_pooling: true }}")],
    "relu": [layer("it", "ReLU", "data")],
    "leaky relu": [layer("it", "ReLU", "data", "relu_param { negative_slope: 0.25 }")],
    "prelu": [layer("it", "PReLU", "data")],
    "prelu, one slope": [layer("it", "PReLU", "data", "prelu_param { channel_shared: true }")],
    "sigmoid": [layer("it", "Sigmoid", "data")],
    "tanh": [layer("it", "TanH", "data")],
    "softmax": [layer("it", "Softmax", "data")],
    "power": [layer("it", "Power", "data", "power_param { power: 2 scale: 0.5 shift: 1.5 }")],
    "lrn": [layer("it", "LRN", "data", "lrn_param { local_size: 5 alpha: 0.5 beta: 0.6 }")],
    "batch norm": [layer("it", "BatchNorm", "data", "batch_norm_param { eps: 0.01 }")],
    "scale": [layer("it", "Scale", "data", "scale_param { bias_term: true }")],
    "scale without bias": [layer("it", "Scale", "data")],
    "batch norm, scale, relu in place": [
        layer("conv", "Convolution", "data", f"{CONV} {{ num_output: 5 kernel_size: 3 bias_term: false }}"),
        layer("bn", "BatchNorm", "conv", top="conv"),
        layer("scale", "Scale", "conv", "scale_param { bias_term: true }", top="conv"),
        layer("relu", "ReLU", "conv", top="conv"),
        layer("it", "Convolution", "conv", f"{CONV} {{ num_output: 5 kernel_size: 1 }}"),
    ],
    "eltwise": [
        layer("a", "Sigmoid", "data"),
        layer("b", "TanH", "data"),
        layer("c", "Eltwise", "a b", "eltwise_param { coeff: 1 coeff: -0.5 }"),
        layer("d", "Eltwise", "c b", "eltwise_param { operation: MAX }"),
        layer("it", "Eltwise", "d a", "eltwise_param { operation: PROD }"),
    ],
    "concat": [layer("a", "Sigmoid", "data"), layer("it", "Concat", "a data")],
    "flatten": [layer("it", "Flatten", "data")],
    "reshape": [layer("it", "Reshape", "data", "reshape_param { shape { dim: 0 dim: 3 dim: -1 dim: 9 } }")],
    **{
        f"pooling {method}, rounding down": [
            layer(
                "it",
                "Pooling",
                "data",
                f"{POOL} {{ pool: {method} kernel_size: 3 stride: 2 pad: {pad} {FLOOR} }}",
            )
        ]
        for method, pad in (("MAX", 0), ("MAX", 1), ("AVE", 0))
    },
    "dropout": [layer("it", "Dropout", "data")],
    "crop": [
        layer("small", "Pooling", "data", f"{POOL} {{ kernel_size: 3 stride: 3 }}"),
        layer("cut", "Crop", "data small", "crop_param { offset: 2 offset: 1 }"),
        layer("it", "Eltwise", "cut small"),
    ],
}


@pytest.mark.parametrize("case", OPENCV_CASES)
def test_agrees_with_opencv(case: str, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless (extra: dev) is not installed")
    paths = write_random(tmp_path, prototxt(*OPENCV_CASES[case], FC))
    network = read_network(*paths)
    x = images(network, 2)
    theirs = cv2.dnn.readNetFromCaffe(*map(str, paths))
    theirs.setInput(x)
    ours = Reference(network, ["it", "fc"]).run(x)
    for name, values in ours.items():
        expected = theirs.forward(name)
        np.testing.assert_allclose(values, expected.reshape(values.shape), rtol=1e-4, atol=1e-5, err_msg=name)


def test_golden_networks_agree_with_opencv(shared: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless (extra: dev) is not installed")
    files = sorted(shared.glob("golden/*/*/deploy.prototxt"))
    assert files
    for path in files:
        weights = path.with_name("model.caffemodel")
        network = read_network(path, weights)
        with np.load(path.with_name("images.npz")) as archive:
            x = archive["test"][:4].astype(np.float32)
        tensor = network.logits or network.outputs[0]
        theirs = cv2.dnn.readNetFromCaffe(str(path), str(weights))
        theirs.setInput(x)
        expected = theirs.forward(tensor.name)
        got = Reference(network, [tensor.name]).run(x)[tensor.name]
        np.testing.assert_allclose(
            got, expected.reshape(got.shape), rtol=1e-4, atol=1e-5 * np.abs(expected).max(), err_msg=str(path)
        )


@pytest.mark.parametrize("name", ["lenet-digits", "lenet-mnist", "resnet-digits"])
def test_tensorrt_accuracy_is_reproduced(shared: Path, name: str) -> None:
    """TensorRT 8.5 recorded its own fp32 accuracy on these images; lenet-mnist takes pixel / 256."""
    folder = shared / "golden/tensorrt" / name
    network = read_network(folder / "deploy.prototxt", folder / "model.caffemodel")
    with np.load(folder / "images.npz") as archive:
        x, labels = archive["test"].astype(np.float32), archive["labels"]
    if name == "lenet-mnist":
        x /= 256
    recorded = json.loads((folder / "tensorrt-results.json").read_text())["fp32"]["accuracy"]
    assert (scores(network, x).argmax(1) == labels).mean() == pytest.approx(recorded)


# --- running ----------------------------------------------------------------------------------------------------------


def test_batches_are_joined_in_order(tmp_path: Path) -> None:
    network = read_network(*write_random(tmp_path, ALL_OPERATIONS))
    x = images(network, 7)
    whole = Reference(network, ["data", "conv", "prob"]).run(x)
    parts = Reference(network, ["data", "conv", "prob"], batch_size=3).run(x)
    assert [len(batch["prob"]) for batch in Reference(network, batch_size=3).batches(x)] == [3, 3, 1]
    assert whole.keys() == parts.keys()
    for name in whole:
        assert whole[name].shape == (7, *network.tensors[name].shape)
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-5, atol=1e-6)
    assert (whole["data"] == x).all()


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    network = read_network(*write_random(tmp_path, ALL_OPERATIONS))
    x = images(network, 5)
    assert scores(network, x).tobytes() == scores(network, x).tobytes()
    assert to_onnx(network).SerializeToString() == to_onnx(network).SerializeToString()


def test_no_images_give_empty_results(tmp_path: Path) -> None:
    network = read_network(*write_random(tmp_path, ALL_OPERATIONS))
    assert scores(network, images(network, 0)).shape == (0, 10)


def test_only_the_input_may_be_asked_for(tmp_path: Path) -> None:
    network = read_network(*write_random(tmp_path, ALL_OPERATIONS))
    x = images(network)
    assert list(Reference(network, ["data"]).run(x)) == ["data"]


def test_names_of_helper_values_never_clash(tmp_path: Path) -> None:
    """A layer may be called as a helper value of another one would be."""
    text = prototxt(
        layer("it:weights", "ReLU", "data"),
        layer("it", "InnerProduct", "it:weights", "inner_product_param { num_output: 2 }"),
    )
    network = randomized(read_network(*write_random(tmp_path, text)))
    assert scores(network, images(network)).shape == (3, 2)


def test_what_is_refused(tmp_path: Path) -> None:
    network = read_network(*write_random(tmp_path, ALL_OPERATIONS))
    with pytest.raises(NetworkError, match=r"no layer writes 'absent'"):
        Reference(network, ["absent"])
    with pytest.raises(
        NetworkError, match=r"shape \(1, 6, 11, 10\) and type float32, expected \(n, 6, 11, 9\) of float32"
    ):
        Reference(network).run(np.zeros((1, 6, 11, 10), np.float32))
    with pytest.raises(NetworkError, match="type float64"):
        Reference(network).run(np.zeros((1, 6, 11, 9)))
    path = tmp_path / "two.prototxt"
    path.write_text(prototxt(layer("a", "ReLU", "data"), layer("b", "ReLU", "data")))
    with pytest.raises(NetworkError, match="outputs are a, b, expected exactly one"):
        scores(read_structure(path), np.zeros((1, 6, 11, 9), np.float32))
    path.write_text(
        'input: "other" input_shape { dim: 1 dim: 6 dim: 11 dim: 9 }' + prototxt(layer("a", "Concat", "data other"))
    )
    with pytest.raises(NetworkError, match="inputs are other, data, expected exactly one"):
        Reference(read_structure(path))


def test_functions_of_one_tensor_share_nothing_that_a_fusion_loses() -> None:
    """Both GELUs of one tensor: onnxruntime merged what they have in common, and one was left without it."""
    layers = [Layer("exact", GELU(), ("data",)), Layer("tanh", GELU(approximate=True), ("data",))]
    layers.append(Layer("sum", Eltwise("sum"), ("exact", "tanh")))
    network = assemble("both", [Tensor("data", (2, 3, 3), "data")], layers)
    images = np.linspace(-4, 4, 18, dtype=np.float32).reshape(1, 2, 3, 3)
    found = Reference(network).run(images)["sum"]
    x = images.astype(np.float64)
    exact = x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    tanh = x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert np.abs(found - (exact + tanh)).max() < 1e-6
