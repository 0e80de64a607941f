"""Preparation leaves what a network computes as it is."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from nvdla_quant.errors import ConfigError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.network.graph import (
    BatchNorm,
    Convolution,
    Eltwise,
    InnerProduct,
    Layer,
    Network,
    Pooling,
    Power,
    ReLU,
    Scale,
    Tensor,
)
from nvdla_quant.network.passes import dense_groups, for_hardware, prepare, split_pooling
from nvdla_quant.network.shapes import assemble
from tests.caffe_networks import assert_equal


def residual_network() -> Network:
    """A convolution with BatchNorm, Scale and ReLU in place, read twice; another with both; their sum; a head."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 1, shape).astype(np.float32)

    layers = (
        Layer("conv1", Convolution(normal(4, 3, 3, 3), None, pad=(1, 1)), ("data",)),
        Layer("bn1", BatchNorm(normal(4), np.abs(normal(4)) + 0.5, 1e-5), ("conv1",)),
        Layer("scale1", Scale(normal(4), normal(4)), ("bn1",)),
        Layer("relu1", ReLU(), ("scale1",)),
        Layer("conv2", Convolution(normal(4, 4, 3, 3), normal(4), pad=(1, 1)), ("relu1",)),
        Layer("scale2", Scale(normal(4), None), ("conv2",)),
        Layer("sum", Eltwise("sum"), ("relu1", "scale2")),
        Layer("scale3", Scale(normal(4), normal(4)), ("sum",)),
        Layer("ip", InnerProduct(normal(5, 100), None), ("scale3",)),
        Layer("power", Power(1.0, 0.5, 2.0), ("ip",)),
    )
    shapes = {layer.name: (4, 5, 5) for layer in layers} | {"data": (3, 5, 5), "ip": (5,), "power": (5,)}
    blobs = {"bn1": "conv1", "scale1": "conv1", "relu1": "conv1", "scale2": "conv2"}
    tensors = {name: Tensor(name, shapes[name], blobs.get(name, name)) for name in ("data", *shapes)}
    return Network("residual", (tensors["data"],), layers, tensors)


def test_folding_merges_what_follows_a_layer_with_weights() -> None:
    """The merged layer has the last one's name; `scale3` follows a sum, which has no weights: it stays."""
    prepared = prepare(residual_network(), "fold")
    assert [layer.name for layer in prepared.layers] == ["scale1", "relu1", "scale2", "sum", "scale3", "power"]
    assert prepared.by_name["sum"].inputs == ("relu1", "scale2")


def test_folding_leaves_the_result() -> None:
    network = residual_network()
    images = np.random.default_rng(1).normal(0, 1, (8, 3, 5, 5)).astype(np.float32)
    before = Reference(network).run(images)["power"]
    after = Reference(prepare(network, "fold")).run(images)["power"]
    assert np.abs(after - before).max() <= 2e-6 * np.abs(before).max()


def test_a_tensor_that_is_read_twice_is_not_merged() -> None:
    network = residual_network()
    layers = tuple(
        Layer("sum", layer.operation, ("conv2", "scale2")) if layer.name == "sum" else layer for layer in network.layers
    )
    prepared = prepare(Network("twice", network.inputs, layers, network.tensors), "fold")
    assert {"conv2", "scale2"} <= prepared.by_name.keys()


def test_as_is_changes_nothing() -> None:
    network = residual_network()
    assert prepare(network, "as-is") is network


def test_pixels_are_folded_in() -> None:
    """Without padding, feeding p to the folded network is feeding (p - mean) * scale to the original."""
    network = residual_network()
    first = replace(network.layers[0].operation, pad=(0, 0))
    shapes = dict.fromkeys(network.tensors, (4, 3, 3)) | {"data": (3, 5, 5), "ip": (5,), "power": (5,)}
    layers = [replace(network.layers[0], operation=first), *network.layers[1:]]
    layers[-2] = replace(layers[-2], operation=InnerProduct(layers[-2].operation.weights[:, :36], None))
    tensors = {name: replace(tensor, shape=shapes[name]) for name, tensor in network.tensors.items()}
    network = Network("unpadded", (tensors["data"],), tuple(layers), tensors)
    pixels = np.random.default_rng(2).integers(0, 256, (4, 3, 5, 5)).astype(np.float32)
    mean, scale = np.array([104.0, 117.0, 123.0], np.float32), 0.017
    before = Reference(network).run((pixels - mean.reshape(3, 1, 1)) * np.float32(scale))["power"]
    after = Reference(prepare(network, "fold", (mean, scale))).run(pixels)["power"]
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()


def test_an_unknown_preparation_is_named() -> None:
    with pytest.raises(ConfigError, match="preparation is 'squash', expected one of fold, as-is"):
        prepare(residual_network(), "squash")


def one_layer(shape: tuple[int, ...], operation: Convolution | Pooling) -> Network:
    return assemble("one", [Tensor("data", shape, "data")], [Layer("l", operation, ("data",))])


def same_result(before: Network, after: Network) -> None:
    images = np.random.default_rng(5).normal(0, 1, (2, *before.inputs[0].shape)).astype(np.float32)
    expected, found = (Reference(network, ["l"]).run(images)["l"] for network in (before, after))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5


@pytest.mark.parametrize("method", ["max", "average"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "parts"),
    [
        # The whole image, whatever the stride says; by rows and columns of their own.
        ((14, 14), (14, 14), (1, 1), [(7, 7), (2, 2)]),
        ((9, 4), (9, 4), (1, 1), [(3, 4), (3, 1)]),
        ((56, 112), (56, 112), (1, 1), [(8, 8), (7, 7), (1, 2)]),
        # Windows side by side.
        ((24, 30), (12, 10), (12, 10), [(6, 5), (2, 2)]),
        # Overlapping ones, at a stride that the parts divide.
        ((34, 8), (10, 1), (4, 1), [(2, 1), (5, 1)]),
    ],
)
def test_wide_poolings_are_taken_apart(
    method: str, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], parts: list[tuple[int, int]]
) -> None:
    before = one_layer((3, *size), Pooling(method, kernel, stride))  # type: ignore[arg-type]
    after = split_pooling(before)
    assert [layer.operation.kernel for layer in after.layers] == parts  # type: ignore[union-attr]
    assert [layer.name for layer in after.layers] == [*(f"l_part{i}" for i in range(1, len(parts))), "l"]
    same_result(before, after)


@pytest.mark.parametrize("method", ["max", "average"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "count"),
    [
        ((27, 25), (12, 10), (12, 10), 2),  # 3 and 5 pixels are left over.
        ((25, 25), (10, 10), (30, 30), 2),  # One window of 10, beside which another would fit.
        ((25, 13), (10, 1), (4, 2), 2),
        ((29, 29), (11, 11), (3, 3), None),  # A chain of maxima, or a convolution for an average.
    ],
)
def test_wide_poolings_that_round_down_are_taken_apart(
    method: Literal["max", "average"],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    count: int | None,
) -> None:
    before = one_layer((3, *size), Pooling(method, kernel, stride, rounding="down"))
    after = split_pooling(before)
    parts = [layer.operation for layer in after.layers]
    assert count in (len(parts), None)
    assert all(isinstance(part, Convolution) or max(part.kernel) <= 8 for part in parts)  # type: ignore[union-attr]
    same_result(before, after)


@pytest.mark.parametrize(
    "pooling",
    [
        Pooling("max", (8, 8), (8, 8)),
        Pooling("max", (11, 11), (2, 2), (8, 8)),
        Pooling("average", (11, 11), (3, 3)),
        Pooling("average", (10, 10), (3, 3), (2, 2)),
    ],
)
def test_other_poolings_stay(pooling: Pooling) -> None:
    """Small ones, padding above 7, averages whose last window the border cuts."""
    network = one_layer((2, 40, 40), pooling)
    assert split_pooling(network).layers == network.layers


@pytest.mark.parametrize(("group", "inputs", "outputs"), [(2, 6, 4), (6, 6, 6), (3, 6, 12)])
def test_groups_are_written_out(group: int, inputs: int, outputs: int) -> None:
    rng = np.random.default_rng(6)
    weights = rng.normal(0, 1, (outputs, inputs // group, 3, 3)).astype(np.float32)
    before = one_layer((inputs, 7, 7), Convolution(weights, rng.normal(0, 1, outputs).astype(np.float32), group=group))
    operation = before.layers[0].operation
    assert isinstance(operation, Convolution)
    dense = replace(operation, weights=dense_groups(operation.weights, group), group=1)
    assert dense.weights.shape == (outputs, inputs, 3, 3)
    same_result(before, one_layer((inputs, 7, 7), dense))


@pytest.mark.parametrize(
    ("method", "size", "kernel", "stride", "pad", "kinds"),
    [
        # 11 = 8 + 4 - 1, overlapping; 17 = 8 + 8 + 3 - 2.
        ("max", (33, 34), (11, 17), (3, 2), (0, 3), ["Pooling", "Pooling", "Pooling"]),
        ("max", (40, 40), (9, 9), (2, 2), (4, 4), ["Pooling", "Pooling"]),
        # Rounding up: the last window begins behind what a first one of 8 would leave, one of 7 leaves enough.
        ("max", (6, 9), (6, 9), (3, 3), (2, 2), ["Pooling", "Pooling"]),
        ("max", (6, 7), (9, 9), (1, 6), (3, 3), ["Pooling", "Pooling"]),
        ("average", (13, 11), (13, 11), (1, 1), (0, 0), ["Convolution"]),
        ("average", (27, 25), (9, 9), (2, 2), (0, 0), ["Convolution"]),
        ("average", (27, 27), (9, 9), (3, 3), (3, 3), ["Convolution"]),
    ],
)
def test_windows_that_do_not_nest(
    method: str,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    kinds: list[str],
) -> None:
    before = one_layer((3, *size), Pooling(method, kernel, stride, pad))  # type: ignore[arg-type]
    after = split_pooling(before)
    assert [layer.kind for layer in after.layers] == kinds
    same_result(before, after)


def test_normalisations_in_a_row_become_one() -> None:
    rng = np.random.default_rng(8)
    mean, variance, gamma = (rng.uniform(0.5, 2, 3).astype(np.float32) for _ in range(3))
    operations = [BatchNorm(mean, variance, 1e-5), Scale(gamma, None), Power(1.0, 3.0, -1.0)]
    names = ["data", "bn", "scale", "l"]
    layers = [Layer(names[i + 1], op, (names[i],)) for i, op in enumerate(operations)]
    before = assemble("n", [Tensor("data", (3, 5, 4), "data")], layers)
    (after,) = (folded := prepare(before, "fold")).layers
    assert (after.name, after.kind) == ("l", "Scale")
    same_result(before, folded)


def test_the_compilers_rewrites_keep_names_and_blobs() -> None:
    network = residual_network()
    rewritten = for_hardware(network)
    assert {name: tensor.blob for name, tensor in rewritten.tensors.items()}.items() <= {
        name: tensor.blob for name, tensor in network.tensors.items()
    }.items()


def test_the_prepared_network_can_be_written_as_caffe_files(tmp_path: Path) -> None:
    """Rewritten layers too: joined normalisations, averages as convolutions, chains of maxima."""
    rng = np.random.default_rng(9)
    gamma = rng.uniform(0.5, 2, 6).astype(np.float32)
    layers = [
        Layer("first", Scale(gamma, None), ("data",)),
        Layer("second", Power(1.0, 2.0, -0.5), ("first",)),
        Layer("largest", Pooling("max", (11, 9), (2, 2)), ("second",)),
        Layer("l", Pooling("average", (11, 13)), ("largest",)),
    ]
    prepared = prepare(assemble("n", [Tensor("data", (6, 31, 33), "data")], layers), "fold")
    assert [layer.kind for layer in prepared.layers] == ["Scale", "Pooling", "Pooling", "Convolution"]
    write_prototxt(prepared, tmp_path / "deploy.prototxt")
    write_caffemodel(prepared, tmp_path / "weights.caffemodel")
    assert_equal(read_network(tmp_path / "deploy.prototxt", tmp_path / "weights.caffemodel"), prepared)
