"""Networks written as ONNX and read back are the same networks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings

from nvdla_quant.execution.fp32 import scores
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import (
    GELU,
    LRN,
    BatchNorm,
    Clip,
    Concat,
    Convolution,
    Deconvolution,
    Dropout,
    Eltwise,
    Flatten,
    Gather,
    HardSigmoid,
    HardSwish,
    Layer,
    Network,
    Operation,
    Pooling,
    Power,
    PReLU,
    ReLU,
    Reshape,
    Scale,
    Sigmoid,
    Softmax,
    Swish,
    TanH,
)
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth, inverted, onnx_order
from nvdla_quant.network.onnx.reader import read_onnx
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.network.shapes import assemble, divisors
from nvdla_quant.network.views import viewed
from tests.caffe_networks import values
from tests.networks import classic, kinds, residual
from tests.networks.builder import Builder
from tests.networks.random import Drawn, networks


def does_nothing(network: Network, layer: Layer) -> bool:
    """Whether nothing is left of a layer: it is written as an Identity, or its view is that of its input."""
    if isinstance(layer.operation, Flatten | Reshape):
        return network.tensors[layer.name].shape == network.tensors[layer.inputs[0]].shape
    if isinstance(layer.operation, Crop):
        return network.tensors[layer.name].shape == network.tensors[layer.inputs[0]].shape
    if isinstance(layer.operation, Gather):
        return layer.operation.channels == tuple(range(network.tensors[layer.inputs[0]].shape[0]))
    return isinstance(layer.operation, Dropout) or layer.operation == Power()


def without_identities(network: Network) -> Network:
    """The network without layers that do nothing; one at the end gives its name to what it passes on."""
    network_of = {tensor.name: tensor.name for tensor in network.inputs}
    outputs = {tensor.name for tensor in network.outputs}
    layers: list[Layer] = []
    for layer in network.layers:
        inputs = tuple(network_of[name] for name in layer.inputs)
        if not does_nothing(network, layer):
            layers.append(replace(layer, inputs=inputs))
            network_of[layer.name] = layer.name
        elif layer.name in outputs and layers and layers[-1].name == inputs[0]:
            layers[-1] = replace(layers[-1], name=layer.name)
            network_of[layer.name] = layer.name
        else:
            network_of[layer.name] = inputs[0]
    return assemble(network.name, network.inputs, layers)


def written_and_read(network: Network, folder: Path) -> Network:
    path = folder / "network.onnx"
    onnx.save(to_onnx(network), path)
    imported = read_onnx(path)
    assert imported.files == (path,)
    assert all(name == imported.names[name] for name in imported.names)
    return imported.network


def meaning(layer: Layer, network: Network) -> Any:
    """What a layer says; of a pooling, what there are several ways to say: its windows, and what averages divide by."""
    operation = layer.operation
    if not isinstance(operation, Pooling):
        said = values(operation)
        # A file holds float32.
        return {name: np.float32(value) if isinstance(value, float) else value for name, value in said.items()}
    size, result = (network.tensors[name].chw[1:] for name in (layer.inputs[0], layer.name))
    divided = divisors(operation, size, result).tolist() if operation.method == "average" else None
    return operation.method, operation.kernel, operation.stride, operation.pad, divided


def assert_same(got: Network, network: Network) -> None:
    expected = without_identities(network)
    assert [(x.name, x.kind, x.inputs) for x in got.layers] == [(x.name, x.kind, x.inputs) for x in expected.layers]
    for ours, theirs in zip(got.layers, expected.layers, strict=True):
        assert meaning(ours, got) == meaning(theirs, expected), ours.name
    assert [tensor.shape for tensor in got.tensors.values()] == [tensor.shape for tensor in expected.tensors.values()]
    assert got.inputs == expected.inputs


RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


SINGLE: dict[str, Operation] = {
    "convolution": Convolution(normal(4, 6, 3, 3), normal(4)),
    "grouped": Convolution(normal(4, 3, 3, 3), None, (2, 1), (1, 0), (1, 2), group=2),
    "asymmetric": Convolution(normal(4, 6, 3, 3), None, (2, 2), (0, 1), far=(1, 2)),
    "deconvolution": Deconvolution(normal(6, 4, 3, 3), normal(4), (2, 2), (1, 1)),
    "grouped deconvolution": Deconvolution(normal(6, 2, 2, 2), None, (2, 2), group=2),
    "appended": Deconvolution(normal(6, 4, 3, 3), None, (2, 2), (1, 1), far=(0, 0)),
    "appended more": Deconvolution(normal(6, 4, 2, 2), None, (2, 2), (0, 0), far=(-1, -1)),
    "max": Pooling("max", (3, 3), (2, 2), (1, 1)),
    "max down": Pooling("max", (3, 3), (2, 2), rounding="down"),
    "max far": Pooling("max", (3, 3), (1, 1), (0, 0), "down", far=(1, 2)),
    "average": Pooling("average", (3, 3), (2, 2)),
    "average leaves": Pooling("average", (3, 3), (2, 2), (1, 1)),
    "average down": Pooling("average", (4, 4), (3, 3), (1, 1), rounding="down"),
    "average of the image": Pooling("average", (3, 3), (1, 1), (1, 1), area="image"),
    "global": Pooling("average", (11, 10)),
    "relu": ReLU(),
    "leaky": ReLU(0.1),
    "prelu": PReLU(normal(6)),
    "one slope": PReLU(normal(1)),
    "sigmoid": Sigmoid(),
    "tanh": TanH(),
    "clip": Clip(-1.5, 6.0),
    "clip above": Clip(None, 6.0),
    "clip below": Clip(0.25, None),
    "hard sigmoid": HardSigmoid(),
    "hard sigmoid of torch": HardSigmoid(0.16666667, 0.5),
    "hard swish": HardSwish(),
    "swish": Swish(),
    "gelu": GELU(),
    "gelu by tanh": GELU(True),
    "softmax": Softmax(),
    "flatten": Flatten(),
    "reshape": Reshape((6, 110, 1)),
    "reshape to a vector": Reshape((660, 1, 1)),
    "batch norm": BatchNorm(normal(6), np.abs(normal(6)) + 1, 1e-3),
    "scale": Scale(normal(6), normal(6)),
    "scale alone": Scale(normal(6), None),
    "power": Power(2.0, 0.5, 0.25),
    "factor": Power(1.0, 0.3, 0.0),
    "addend": Power(1.0, 1.0, -0.7),
    "square": Power(2.0),
    "gather": Gather((4, 2, 0, 1)),
    "crop": Crop((2, 8), (0, 3)),
    "blocks": SpaceToDepth((1, 2), tuple(range(12))),
    "blocks in ONNX's order": SpaceToDepth((11, 5), onnx_order(6, (11, 5))),
    "pixels": DepthToSpace((3, 2), tuple(range(6))),
    "pixels in ONNX's order": DepthToSpace((1, 3), inverted(onnx_order(2, (1, 3)))),
    "lrn": LRN(5, 1e-4, 0.75, 2.0),
}


@pytest.mark.parametrize("name", SINGLE)
def test_each_operation(name: str, tmp_path: Path) -> None:
    """Behind a layer and before one, so that neighbours could be mistaken for parts."""
    builder = Builder("single", (6, 11, 10))
    last = builder.add(name, SINGLE[name], builder.add("before", Power(1.0, 0.5, 0.0), "data"))
    builder.add("after", Power(1.0, 1.0, 0.25), last)
    network = builder.build()
    assert_same(written_and_read(network, tmp_path), network)


@pytest.mark.parametrize("name", ["scale", "scale alone", "power", "batch norm"])
def test_twice(name: str, tmp_path: Path) -> None:
    builder = Builder("twice", (6, 11, 10))
    last = builder.add("first", SINGLE[name], "data")
    builder.fc("fc", builder.add("second", SINGLE[name], last), 3)
    network = builder.build()
    assert_same(written_and_read(network, tmp_path), network)


def test_vectors(tmp_path: Path) -> None:
    builder = Builder("vectors", (6, 3, 2))
    last = builder.prelu("slopes", builder.norm("norm", builder.fc("fc1", "data", 5)))
    other = builder.fc("fc2", last, 5)
    last = builder.eltwise("sum", "sum", last, other, coefficients=(1.0, -0.5))
    builder.softmax(builder.concat("both", last, other))
    network = builder.build()
    assert_same(written_and_read(network, tmp_path), network)


@pytest.mark.parametrize("shape", [(6, 1, 1), (6,)])
def test_products_with_one_pixel(shape: tuple[int, ...], tmp_path: Path) -> None:
    builder = Builder("gate", (6, 5, 4))
    pooled = builder.global_average("pool", "data")
    gate = pooled if len(shape) == 3 else builder.fc("fc", pooled, 6)
    builder.eltwise("product", "prod", "data", gate)
    network = builder.build()
    assert_same(written_and_read(network, tmp_path), network)


def test_combinations(tmp_path: Path) -> None:
    builder = Builder("several", (4, 5, 5))
    a, b, c = (builder.conv(name, "data", 4, 1) for name in "abc")
    results = [
        builder.eltwise("sum", "sum", a, b, c),
        builder.eltwise("weighted", "sum", a, b, c, coefficients=(0.5, -2.0, 0.1)),
        builder.eltwise("difference", "sum", a, b, coefficients=(1.0, -1.0)),
        builder.eltwise("product", "prod", a, b, c),
        builder.eltwise("max", "max", a, b, c),
        builder.add("min", Eltwise("min"), a, b),
    ]
    builder.add("all", Concat(), *results)
    network = builder.build()
    assert_same(written_and_read(network, tmp_path), network)


@pytest.mark.parametrize(
    "network",
    [
        classic.cifar10_full(32, 0.5),
        classic.googlenet(64, 0.125),
        classic.squeezenet11(64, 0.25),
        kinds.average_at_border(),
        kinds.dilated(16, 0.5),
        kinds.deconvolution_tail(16, 0.25),
        residual.mobilenet2(32, 0.25),
        kinds.slopes(16, 0.25),
        kinds.eltwise(8, 0.25),
        kinds.functions(28, 0.25),
        kinds.between(8, 0.5),
        residual.resnet18(32, 0.125),
    ],
    ids=lambda network: network.name,
)
def test_small_networks(network: Network, tmp_path: Path) -> None:
    assert_same(written_and_read(network, tmp_path), network)


@pytest.mark.parametrize("name", ["lenet-mnist", "resnet20-cifar10", "resnet20-fashion-mnist"])
def test_shipped_models(name: str, repository: Path, tmp_path: Path) -> None:
    folder = repository / "resources" / name
    network = read_network(next(folder.glob("*.prototxt")), next(folder.glob("*.caffemodel")))
    got = written_and_read(network, tmp_path)
    assert [layer.name for layer in got.layers] == [layer.name for layer in network.layers]
    images = normal(4, *network.only_input.shape)
    np.testing.assert_allclose(scores(got, images), scores(network, images), rtol=1e-5, atol=1e-7)


def is_gated(layer: Layer, network: Network) -> bool:
    """Whether a layer multiplies by a sigmoid: that of its other input makes it one function."""
    if layer.operation != Eltwise("prod"):
        return False
    sources = [network.by_name.get(viewed(network, name)) for name in layer.inputs]
    return any(source and isinstance(source.operation, Sigmoid | HardSigmoid) for source in sources)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks())
def test_random_networks(tmp_path: Path, drawn: Drawn) -> None:
    # Where nothing but elements is looked at before an image is flattened, its last axis may be the channels.
    channels, _, width = drawn.network.only_input.chw
    assume(width not in (1, 3) or channels in (1, 3))
    assume(not any(is_gated(layer, drawn.network) for layer in drawn.network.layers))
    # In other orders than the usual ones they are two nodes, and of single rows, columns or channels a reshape.
    assume(not any(isinstance(layer.operation, SpaceToDepth | DepthToSpace) for layer in drawn.network.layers))
    assert_same(written_and_read(drawn.network, tmp_path), drawn.network)
