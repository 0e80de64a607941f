"""What ONNX can say and Caffe cannot, said otherwise: the same values, held to OpenCV's Caffe importer."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from nvdla_quant.errors import UnsupportedError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.caffe.rewrites import for_caffe, not_in_caffe
from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.network.files import read_model, write_model
from nvdla_quant.network.graph import (
    GELU,
    Clip,
    Convolution,
    Deconvolution,
    Eltwise,
    Gather,
    HardSigmoid,
    HardSwish,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    Sigmoid,
    Swish,
    Tensor,
)
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth, onnx_order
from nvdla_quant.network.shapes import assemble
from tests.caffe_networks import assert_equal
from tests.exports.packed import names
from tests.networks.random import Drawn, networks

RNG = np.random.default_rng(0)
SHAPE = (6, 11, 9)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def network_of(*operations: Operation | Layer, shape: tuple[int, ...] = SHAPE) -> Network:
    """Operations behind one another on `data`; the last layer is called `it`."""
    layers: list[Layer] = []
    for index, operation in enumerate(operations):
        name = "it" if index == len(operations) - 1 else f"l{index}"
        if isinstance(operation, Layer):
            layers.append(operation)
        else:
            layers.append(Layer(name, operation, (layers[-1].name if layers else "data",)))
    return assemble("net", [Tensor("data", shape, "data")], layers)


def joined(operation: Operation) -> tuple[Layer, ...]:
    return (
        Layer("a", Convolution(weights(6, 6, 1, 1), None), ("data",)),
        Layer("it", operation, ("data", "a")),
    )


SQUEEZED = (
    Layer("mean", Pooling("average", (11, 9)), ("data",)),
    Layer("gate", Sigmoid(), ("mean",)),
)
CASES: Mapping[str, Network] = {
    "clip from 0": network_of(Clip(0.0, 6.0)),
    "clip from -1 to 0.5": network_of(Clip(-1.0, 0.5)),
    "clip from 0.25 to 0.5": network_of(Clip(0.25, 0.5)),
    "clip above": network_of(Clip(None, 0.3)),
    "clip below": network_of(Clip(-0.3, None)),
    "hard sigmoid": network_of(HardSigmoid(0.2, 0.5)),
    "hard swish": network_of(HardSwish()),
    "swish": network_of(Swish()),
    "gelu by tanh": network_of(GELU(approximate=True)),
    "least of two": network_of(*joined(Eltwise("min"))),
    "gather channels": network_of(Gather((5, 0, 0, 3))),
    "gather features": network_of(InnerProduct(weights(7, 594), None), Gather((6, 2, 2))),
    "crop": network_of(Crop((2, 7), (0, 9))),
    "crop of both": network_of(Crop((1, 9), (3, 3))),
    "blocks": network_of(SpaceToDepth((1, 3), onnx_order(6, (1, 3)))),
    "pixels": network_of(DepthToSpace((3, 2), (5, 3, 0, 1, 2, 4))),
    "gate by pixel": network_of(*SQUEEZED, Layer("it", Eltwise("prod"), ("data", "gate"))),
    "gate by vector": network_of(
        SQUEEZED[0],
        Layer("fc", InnerProduct(weights(6, 6), None), ("mean",)),
        Layer("it", Eltwise("prod"), ("fc", "data")),
    ),
    "convolution padded after": network_of(Convolution(weights(4, 6, 3, 3), weights(4), (2, 2), far=(1, 1))),
    "convolution padded before": network_of(Convolution(weights(4, 6, 3, 2), None, (1, 2), (2, 1), far=(0, 0))),
    "convolution padded above and left": network_of(
        Convolution(weights(6, 1, 4, 4), weights(6), (1, 1), (2, 1), group=6, far=(1, 2))
    ),
    "dilated convolution": network_of(Convolution(weights(4, 3, 3, 3), None, (1, 1), (4, 2), (2, 2), 2, far=(2, 2))),
    "deconvolution with output padding": network_of(
        Deconvolution(weights(6, 2, 3, 3), weights(4), (2, 2), (1, 1), group=2, far=(0, 0))
    ),
    "deconvolution longer than its windows": network_of(
        Deconvolution(weights(6, 4, 2, 2), None, (2, 2), far=(-1, -1)),
    ),
    "deconvolution cropped": network_of(Deconvolution(weights(6, 4, 4, 4), None, (2, 2), (0, 1), far=(2, 1))),
    **{
        f"maximum {kernel} / {stride}, {pad} {far} {rounding}": network_of(
            Pooling("max", (kernel, kernel), (stride, stride), pad, rounding, far)  # type: ignore[arg-type]
        )
        for kernel, stride, pad, far, rounding in (
            (3, 2, (0, 0), (1, 1), "down"),
            (3, 2, (1, 1), (0, 0), "down"),
            (2, 1, (0, 0), (1, 1), "down"),
            (3, 1, (0, 1), (2, 0), "down"),
            (4, 2, (0, 2), (3, 1), "up"),
        )
    },
    **{
        f"average of {area} {kernel} / {stride}, {pad} {far} {rounding}": network_of(
            Pooling("average", (kernel, kernel), (stride, stride), pad, rounding, far, area)  # type: ignore[arg-type]
        )
        for kernel, stride, pad, far, rounding, area in (
            (3, 1, (1, 1), None, "down", "image"),
            (3, 2, (1, 1), None, "up", "image"),
            (2, 2, (0, 0), None, "up", "image"),
            (3, 2, (0, 1), (1, 0), "down", "image"),
            (4, 3, (0, 1), (1, 2), "up", "image"),
            (3, 2, (0, 1), (1, 0), "down", "padded"),
        )
    },
    **{
        f"{method} of {area} rounding down, padding {pad}": network_of(
            Pooling(method, (3, 3), (2, 2), pad, "down", area=area),  # type: ignore[arg-type]
            shape=(6, 12, 10),
        )
        for method, pad, area in (
            ("max", (1, 1), "padded"),
            ("max", (0, 1), "padded"),
            ("average", (0, 0), "padded"),
            ("average", (1, 1), "padded"),
            ("average", (0, 0), "image"),
            ("average", (1, 1), "image"),
        )
    },
    "average of one window": network_of(
        Pooling("average", (13, 11), (1, 1), (1, 1), "down", area="image"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_values_by_caffe_s_layers(case: str, tmp_path: Path) -> None:
    """Tensors keep their names; the files read back as the rewritten network, and OpenCV computes the same of them."""
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless (extra: dev) is not installed")
    network = CASES[case]
    rewritten = for_caffe(network)
    assert set(network.tensors) <= set(rewritten.tensors)
    assert not not_in_caffe(network)
    assert for_caffe(rewritten) is rewritten
    x = RNG.normal(0, 2, (3, *network.only_input.shape)).astype(np.float32)
    names = [layer.name for layer in network.layers]
    expected = Reference(network, names).run(x)
    got = Reference(rewritten, names).run(x)
    for name in names:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=2e-6, err_msg=name)
    paths = tmp_path / "deploy.prototxt", tmp_path / "model.caffemodel"
    write_prototxt(rewritten, paths[0])
    write_caffemodel(rewritten, paths[1])
    assert_equal(read_network(*paths), rewritten)
    theirs = cv2.dnn.readNetFromCaffe(*map(str, paths))
    theirs.setInput(x)
    np.testing.assert_allclose(theirs.forward("it").reshape(expected["it"].shape), expected["it"], rtol=1e-4, atol=1e-5)


def test_what_caffe_has_stays_as_it_is() -> None:
    network = network_of(Convolution(weights(4, 6, 3, 3), None), Pooling("average", (3, 3), (2, 2), (1, 1)))
    assert for_caffe(network) is network


def test_names_do_not_collide() -> None:
    network = network_of(Layer("it_gate", Sigmoid(), ("data",)), Layer("it", Swish(), ("it_gate",)))
    assert [layer.name for layer in for_caffe(network).layers] == ["it_gate", "it_gate_", "it"]


def test_all_that_caffe_lacks_is_refused_at_once() -> None:
    network = network_of(
        Convolution(weights(4, 6, 3, 3), None, (1, 1), (2, 2), (2, 2), far=(1, 1)),
        GELU(),
        Pooling("max", (1, 1), (2, 2), rounding="down"),
        Deconvolution(weights(4, 4, 3, 3), None, (1, 1), (2, 2), (2, 2), far=(1, 1)),
    )
    assert [finding.layer for finding in not_in_caffe(network)] == ["l0", "l1", "l2", "it"]
    with pytest.raises(UnsupportedError, match=r"'l0': Convolution.*'l1': GELU.*'l2': Pooling.*'it': Deconvolution"):
        for_caffe(network)


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_written_that_caffe_does_not_mean(case: str, tmp_path: Path) -> None:
    """But for poolings of Caffe's that round down, which newer versions of Caffe can."""
    network = CASES[case]
    if for_caffe(network) is not network and "padded rounding down" not in case:
        with pytest.raises(UnsupportedError, match="Caffe has no such layer"):
            write_prototxt(network, tmp_path / "deploy.prototxt")


@pytest.mark.parametrize("name", names())
def test_exported_networks_in_caffe(name: str, exports: Path, tmp_path: Path) -> None:
    """All but the one with GELU by the error function; OpenCV computes the same of their files."""
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless (extra: dev) is not installed")
    network = read_model([exports / f"{name}.onnx"])
    if lacking := not_in_caffe(network):
        assert {network.by_name[finding.layer].kind for finding in lacking} == {"GELU"}
        return
    files = tmp_path / "deploy.prototxt", tmp_path / "model.caffemodel"
    write_model(for_caffe(network), files)
    x = RNG.normal(0, 1, (2, *network.only_input.shape)).astype(np.float32)
    theirs = cv2.dnn.readNetFromCaffe(*map(str, files))
    theirs.setInput(x)
    for name, expected in Reference(network).run(x).items():
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(theirs.forward(name).reshape(expected.shape), expected, atol=tolerance)
        np.testing.assert_allclose(Reference(read_model(files)).run(x)[name], expected, atol=tolerance)


@given(networks())
@settings(max_examples=60)
def test_any_network_in_caffe(drawn: Drawn) -> None:
    """Each tensor has the same values, and the files read back; what is refused is refused by name."""
    network = drawn.network
    if lacking := not_in_caffe(network):
        assert {finding.layer for finding in lacking} <= set(network.by_name)
        return
    rewritten = for_caffe(network)
    names = [layer.name for layer in network.layers]
    x = RNG.normal(0, 1, (2, *network.only_input.shape)).astype(np.float32)
    with np.errstate(all="ignore"):
        expected, got = Reference(network, names).run(x), Reference(rewritten, names).run(x)
    for name in names:
        largest = max(float(np.abs(expected[name]).max()), 1.0)
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-3, atol=1e-5 * largest, err_msg=name)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "deploy.prototxt", Path(folder) / "model.caffemodel"]
        write_model(rewritten, files)
        assert [layer.kind for layer in read_model(files).layers] == [layer.kind for layer in rewritten.layers]
