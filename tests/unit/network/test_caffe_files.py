"""Reading and writing Caffe's weights, whole networks there and back, and damaged files."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvdla_quant.errors import NetworkError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.network.caffe import caffe_pb2 as pb
from nvdla_quant.network.caffe.reader import read_network, read_structure
from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.network.graph import (
    BatchNorm,
    Convolution,
    Eltwise,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    Power,
    PReLU,
    ReLU,
    Tensor,
)
from nvdla_quant.network.shapes import assemble
from tests.caffe_networks import ALL_OPERATIONS, assert_equal, layer, prototxt, randomized, values, write_random

FILES = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(network: Network, folder: Path) -> tuple[Path, Path]:
    paths = folder / "written.prototxt", folder / "written.caffemodel"
    write_prototxt(network, paths[0])
    write_caffemodel(network, paths[1])
    return paths


def edit(path: Path, change: object) -> None:
    """Apply `change` to the message of a caffemodel."""
    message = pb.NetParameter.FromString(path.read_bytes())
    change(message)
    path.write_bytes(message.SerializeToString())


def blob_of(message: pb.NetParameter, name: str, index: int) -> pb.BlobProto:
    return next(item for item in message.layer if item.name == name).blobs[index]


# --- weights ----------------------------------------------------------------------------------------------------------

SMALL = prototxt(
    layer("conv", "Convolution", "data", "convolution_param { num_output: 4 kernel_size: 3 }"),
    layer("bn", "BatchNorm", "conv"),
    layer("fc", "InnerProduct", "bn", "inner_product_param { num_output: 5 }"),
)


def test_old_blobs_have_four_axes(tmp_path: Path) -> None:
    paths = write_random(tmp_path, SMALL)
    expected = read_network(*paths)

    def change(message: pb.NetParameter) -> None:
        for item in message.layer:
            for blob in item.blobs:
                axes = [1, 1, 1, 1, *blob.shape.dim][-4:]
                blob.ClearField("shape")
                blob.num, blob.channels, blob.height, blob.width = axes

    edit(paths[1], change)
    assert_equal(read_network(*paths), expected)


def test_doubles_become_floats(tmp_path: Path) -> None:
    paths = write_random(tmp_path, SMALL)
    expected = read_network(*paths)

    def change(message: pb.NetParameter) -> None:
        for item in message.layer:
            for blob in item.blobs:
                blob.double_data.extend(blob.data)
                blob.ClearField("data")

    edit(paths[1], change)
    assert_equal(read_network(*paths), expected)


def test_a_caffemodel_of_the_old_format(tmp_path: Path) -> None:
    paths = write_random(tmp_path, SMALL)
    expected = read_network(*paths)

    def change(message: pb.NetParameter) -> None:
        for item in message.layer:
            message.layers.add(name=item.name, blobs=item.blobs)
        message.ClearField("layer")

    edit(paths[1], change)
    assert_equal(read_network(*paths), expected)


def test_transposed_inner_product(tmp_path: Path) -> None:
    paths = write_random(tmp_path, SMALL)
    expected = read_network(*paths).by_name["fc"].operation
    assert isinstance(expected, InnerProduct)
    paths[0].write_text(SMALL.replace("num_output: 5", "num_output: 5 transpose: true"))

    def change(message: pb.NetParameter) -> None:
        blob = blob_of(message, "fc", 0)
        blob.shape.dim[:] = reversed(blob.shape.dim)
        blob.data[:] = expected.weights.T.ravel().tolist()

    edit(paths[1], change)
    assert values(read_network(*paths).by_name["fc"].operation) == values(expected)


def test_batch_norm_divides_by_the_moving_average_factor(tmp_path: Path) -> None:
    paths = write_random(tmp_path, SMALL)
    before = read_network(*paths).by_name["bn"].operation
    edit(paths[1], lambda message: blob_of(message, "bn", 2).data.__setitem__(0, 4.0))
    after = read_network(*paths).by_name["bn"].operation
    assert isinstance(before, BatchNorm)
    assert isinstance(after, BatchNorm)
    assert (after.mean == before.mean / 4).all()
    assert (after.variance == before.variance / 4).all()


def _drop_layer(message: pb.NetParameter) -> None:
    del message.layer[1]


def _cut_values(message: pb.NetParameter) -> None:
    del blob_of(message, "conv", 0).data[-1:]


def _cut_shape(message: pb.NetParameter) -> None:
    blob_of(message, "conv", 0).shape.dim[0] = 3


def _drop_blob(message: pb.NetParameter) -> None:
    del next(item for item in message.layer if item.name == "conv").blobs[1]


def _zero_factor(message: pb.NetParameter) -> None:
    blob_of(message, "bn", 2).data[0] = 0


def _negative_variance(message: pb.NetParameter) -> None:
    blob_of(message, "bn", 1).data[0] = -1


def _nan(message: pb.NetParameter) -> None:
    blob_of(message, "fc", 0).data[0] = float("nan")


def _twice(message: pb.NetParameter) -> None:
    message.layer.add().CopyFrom(message.layer[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop_layer, "layer 'conv' (Convolution): the caffemodel has no weights for a layer of this name"),
        (_cut_values, "'conv' (Convolution): blob 0 of the caffemodel holds 215 float or double values, expected 216"),
        (_cut_shape, "blob 0 of the caffemodel has the shape (3, 6, 3, 3), expected (4, 6, 3, 3)"),
        (_drop_blob, "'conv' (Convolution): the caffemodel holds 1 blobs for it, expected 2"),
        (_zero_factor, "'bn' (BatchNorm): the moving-average factor (blob 2) is 0.0"),
        (_negative_variance, "variance + eps (1e-05) is not positive"),
        (_nan, "'fc' (InnerProduct): blob 0 of the caffemodel holds NaN or infinity"),
        (_twice, "two layers named 'conv' hold weights"),
    ],
)
def test_weights_that_do_not_belong(tmp_path: Path, change: object, message: str) -> None:
    """The convolution has 4 x 6 x 3 x 3 = 216 weights."""
    paths = write_random(tmp_path, SMALL)
    edit(paths[1], change)
    with pytest.raises(NetworkError, match=re.escape(message)) as error:
        read_network(*paths)
    assert "model.caffemodel" in str(error.value)


def test_no_caffemodel_at_all(tmp_path: Path) -> None:
    paths = write_random(tmp_path, SMALL)
    paths[1].write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(NetworkError, match=r"model\.caffemodel: (not a caffemodel|holds no layers)"):
        read_network(*paths)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """protobuf's compiled implementation returns such a name as bytes, which match no layer; its Python one raises."""
    paths = write_random(tmp_path, SMALL)
    paths[1].write_bytes(paths[1].read_bytes().replace(b"\x0a\x04conv", b"\x0a\x04c\xffnv"))
    with pytest.raises(NetworkError, match=r"model\.caffemodel: (not a caffemodel|layer 'conv' .* has no weights)"):
        read_network(*paths)


# --- round trips ------------------------------------------------------------------------------------------------------


def test_round_trip_of_every_operation(tmp_path: Path) -> None:
    paths = write_random(tmp_path, ALL_OPERATIONS)
    network = read_network(*paths)
    written = write(network, tmp_path)
    assert_equal(read_network(*written), network)
    first = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write(read_network(*written), tmp_path)] == first


def test_round_trip_of_golden_networks(shared: Path, tmp_path: Path) -> None:
    files = sorted(shared.glob("golden/*/*/deploy.prototxt"))
    assert files
    for path in files:
        network = read_network(path, path.with_name("model.caffemodel"))
        assert_equal(read_network(*write(network, tmp_path)), network)


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
pads = st.tuples(st.integers(0, 2), st.integers(0, 2))
floats = st.floats(-4, 4, width=32)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A chain of layers that keep at least one pixel, some of them in place."""
    channels = 4
    layers, blobs, source = [], {}, "data"
    for index in range(draw(st.integers(1, 5))):
        name = f"layer {index}"
        choice = draw(st.sampled_from(["Convolution", "Pooling", "PReLU", "ReLU", "Power", "BatchNorm", "Eltwise"]))
        kernel, stride, pad = draw(pairs), draw(pairs), draw(pads)
        slopes = np.zeros(draw(st.sampled_from([1, channels])), np.float32)
        bias = np.zeros(channels, np.float32)
        operations: dict[str, Operation] = {
            "Convolution": Convolution(
                np.zeros((channels, 2, *kernel), np.float32),
                draw(st.sampled_from([None, bias])),
                stride,
                (pad[0] + kernel[0], pad[1] + kernel[1]),
                draw(pairs),
                2,
            ),
            "Pooling": Pooling(draw(st.sampled_from(["max", "average"])), kernel, (1, 1), (0, kernel[1] - 1)),
            "PReLU": PReLU(slopes),
            "ReLU": ReLU(draw(floats)),
            "Power": Power(draw(floats), draw(floats), draw(floats)),
            "BatchNorm": BatchNorm(bias, bias, np.float32(1e-3).item()),
            "Eltwise": Eltwise("sum", draw(st.sampled_from([(), (2.0, 0.1640625)]))),
        }
        inputs = (source, source) if choice == "Eltwise" else (source,)
        layers.append(Layer(name, operations[choice], inputs))
        if draw(st.booleans()):
            blobs[name] = blobs.get(source, source)
        source = name
    return randomized(assemble("net", [Tensor("data", (channels, 24, 24), "data")], layers, blobs))


@given(network=networks())
@FILES
def test_round_trip_of_generated_networks(network: Network, tmp_path: Path) -> None:
    assert_equal(read_network(*write(network, tmp_path)), network)


def test_blobs_that_cannot_be_written(tmp_path: Path) -> None:
    data = Tensor("data", (1, 2, 2), "data")
    relu, other = Layer("relu", ReLU(), ("data",)), Layer("other", ReLU(), ("data",))
    with pytest.raises(NetworkError, match="'other': reads 'data', but 'relu' has overwritten its Caffe blob 'data'"):
        write_prototxt(assemble("n", [data], [relu, other], {"relu": "data"}), tmp_path / "x")
    with pytest.raises(NetworkError, match="'other': writes the Caffe blob 'relu' of 'relu', which it does not read"):
        write_prototxt(assemble("n", [data], [relu, other], {"other": "relu"}), tmp_path / "x")


# --- damage -----------------------------------------------------------------------------------------------------------


def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """The bytes cut off, or with a few of them replaced."""
    content = bytearray(original[: draw(st.integers(0, len(original)))] if draw(st.booleans()) else original)
    for _ in range(draw(st.integers(0, 3)) if content else 0):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


@given(data=st.data())
@FILES
def test_a_damaged_caffemodel_is_refused_or_read(data: st.DataObject, tmp_path: Path) -> None:
    paths = write_random(tmp_path, ALL_OPERATIONS)
    paths[1].write_bytes(data.draw(st.composite(damaged)(paths[1].read_bytes())))
    try:
        network = read_network(*paths)
    except NetworkError:
        return
    assert dict(network.tensors) == dict(read_structure(paths[0]).tensors)


@given(data=st.data())
@FILES
def test_a_damaged_prototxt_is_refused_or_read(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "deploy.prototxt"
    path.write_bytes(data.draw(st.composite(damaged)(ALL_OPERATIONS.encode())))
    try:
        network = read_structure(path)
    except NetworkError:
        return
    assert network.layers


@given(
    old=st.sampled_from(re.findall(r"-?\b[0-9][0-9.]*\b|\b[A-Z]{3,}\b|\"\w+\"", ALL_OPERATIONS)),
    new=st.sampled_from(
        ["0", "-1", "1", "2", "7", "4294967295", "1e38", "nan", "inf", '""', '"data"', "MAX", "{", "}"]
    ),
)
@FILES
def test_a_prototxt_with_other_values_is_refused_or_read(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "deploy.prototxt"
    path.write_text(ALL_OPERATIONS.replace(old, new))
    try:
        network = read_structure(path)
    except NetworkError:
        return
    assert network.layers


# --- what forks of Caffe write ----------------------------------------------------------------------------------------


def with_blobs(folder: Path, text: str, *blobs: list[float]) -> tuple[Path, Path]:
    """Files of a network whose layer `it` has these blobs."""
    message = pb.NetParameter()
    item = message.layer.add(name="it")
    for numbers in blobs:
        blob = item.blobs.add()
        blob.shape.dim.append(len(numbers))
        blob.data.extend(numbers)
    paths = folder / "fork.prototxt", folder / "fork.caffemodel"
    paths[0].write_text(text)
    paths[1].write_bytes(message.SerializeToString())
    return paths


FIVE = ([2.0, 4.0], [8.0, 18.0], [2.0], [3.0, 5.0], [7.0, 11.0])
"""Mean, variance, factor, scale, bias: of channel 0, (x - 1) / sqrt(4) * 3 + 7; of channel 1, (x - 2) / 3 * 5 + 11."""


@pytest.mark.parametrize("top", ["it", "data"])
@pytest.mark.parametrize("line", ["scale_bias: true", ""])
def test_batch_norm_with_scale_and_bias(tmp_path: Path, top: str, line: str) -> None:
    """NVIDIA's Caffe; the number of blobs alone says so, too. Written, it is two layers that compute the same."""
    text = prototxt(layer("it", "BatchNorm", "data", f"batch_norm_param {{ eps: 0 {line} }}", top), shape=(1, 2, 1, 1))
    network = read_network(*with_blobs(tmp_path, text, *FIVE))
    assert [(item.name, item.kind, item.inner) for item in network.layers] == [
        ("it_normalized", "BatchNorm", True), ("it", "Scale", False),
    ]  # fmt: skip
    image = np.array([5.0, 8.0], np.float32).reshape(1, 2, 1, 1)
    for read in (network, read_network(*write(network, tmp_path))):
        assert Reference(read).run(image)["it"].ravel().tolist() == [13.0, 21.0]
    if line:
        structure = read_structure(tmp_path / "fork.prototxt")
        assert [item.name for item in structure.layers] == ["it_normalized", "it"]


def test_scale_bias_without_its_blobs_is_refused(tmp_path: Path) -> None:
    text = prototxt(layer("it", "BatchNorm", "data", "batch_norm_param { scale_bias: true }"), shape=(1, 2, 1, 1))
    with pytest.raises(NetworkError, match=r"'it' \(BatchNorm\): the caffemodel holds 3 blobs for it, expected 5"):
        read_network(*with_blobs(tmp_path, text, *FIVE[:3]))


def test_spellings_of_forks(tmp_path: Path) -> None:
    """SegNet's BN for inference, depthwise convolutions, and Split, which only renames."""
    norm = layer("it", "BN", "data", "bn_param { bn_mode: INFERENCE }")
    split = 'layer { name: "s" type: "Split" bottom: "it" top: "x" top: "y" }\n'
    text = prototxt(norm, split, layer("sum", "Eltwise", "x y"), shape=(1, 2, 1, 1))
    network = read_network(*with_blobs(tmp_path, text, *FIVE[3:]))
    image = np.array([5.0, 8.0], np.float32).reshape(1, 2, 1, 1)
    assert network.by_name["sum"].inputs == ("it", "it")
    assert Reference(network).run(image)["sum"].ravel().tolist() == [44.0, 102.0]
    for kind, group in (("DepthwiseConvolution", "group: 6"), ("ConvolutionDepthwise", "")):
        item = layer("it", kind, "data", f"convolution_param {{ num_output: 6 kernel_size: 3 {group} }}")
        (tmp_path / "deep.prototxt").write_text(prototxt(item))
        operation = read_structure(tmp_path / "deep.prototxt").by_name["it"].operation
        assert isinstance(operation, Convolution)
        assert (operation.group, operation.weights.shape) == (6, (6, 1, 3, 3))


def test_rounding_down_is_written(tmp_path: Path) -> None:
    text = prototxt(layer("p", "Pooling", "data", "pooling_param { kernel_size: 2 stride: 2 round_mode: FLOOR }"))
    paths = write_random(tmp_path, text)
    network = read_network(*paths)
    assert_equal(read_network(*write(network, tmp_path)), network)
    assert "round_mode: FLOOR" in (tmp_path / "written.prototxt").read_text()
