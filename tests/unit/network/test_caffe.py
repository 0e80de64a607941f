"""Reading and writing Caffe networks. Rules and defaults are BVLC Caffe's unless a test says otherwise."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.caffe import caffe_pb2 as pb
from nvdla_quant.network.caffe.layers import READERS
from nvdla_quant.network.caffe.reader import read_structure
from nvdla_quant.network.caffe.writer import write_prototxt
from nvdla_quant.network.graph import (
    BatchNorm,
    Convolution,
    Eltwise,
    Gather,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    Power,
    ReLU,
    Reshape,
    Tensor,
)
from nvdla_quant.network.moves import Crop
from nvdla_quant.network.shapes import assemble
from tests.caffe_networks import ALL_OPERATIONS, layer, prototxt


def structure(folder: Path, text: str) -> Network:
    path = folder / "deploy.prototxt"
    path.write_text(text)
    return read_structure(path)


def operation(folder: Path, kind: str, parameters: str = "", bottoms: str = "data", **options: object) -> Operation:
    return structure(folder, prototxt(layer("it", kind, bottoms, parameters), **options)).by_name["it"].operation


# --- the format -------------------------------------------------------------------------------------------------------


def test_generated_code_is_current(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools (extra: dev) is not installed")
    target = tmp_path / "caffe.pb"
    source = "nvdla_quant/network/caffe/caffe.proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={target}", source]
    subprocess.run(command, cwd=repository, check=True)
    (current,) = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
    committed = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)

    for message in (*current.message_type, *committed.message_type):
        for field in message.field:  # Versions of protoc differ in these two, which mean the same.
            field.ClearField("json_name")
            if field.type == field.TYPE_FLOAT and field.HasField("default_value"):
                field.default_value = str(np.float32(field.default_value))
    assert current == committed, f"regenerate; {source} says how"


def test_generated_stub_has_every_message(repository: Path) -> None:
    stub = (repository / "nvdla_quant/network/caffe/caffe_pb2.pyi").read_text()
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        assert f"class {name}(" in stub
        for field in message.fields:
            assert f"    {field.name}: " in stub


def test_every_reader_has_an_operation_of_its_kind(tmp_path: Path) -> None:
    kinds = {item.kind for item in structure(tmp_path, ALL_OPERATIONS).layers}
    onnx_only = {"Clip", "DepthToSpace", "GELU", "Gather", "HardSigmoid", "HardSwish", "SpaceToDepth", "Swish"}
    assert kinds == set(READERS) == {item.kind for item in Operation.__args__} - onnx_only


# --- crops ---


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("", [Crop((0, 5), (0, 4))]),
        ("crop_param { offset: 2 }", [Crop((2, 5), (2, 4))]),
        ("crop_param { offset: 6 offset: 5 }", [Crop((6, 5), (5, 4))]),
        ("crop_param { axis: -1 offset: 3 }", [Crop((0, 11), (3, 4))]),
        ("crop_param { axis: 1 offset: 2 offset: 0 offset: 1 }", [Gather((2, 3, 4)), Crop((0, 5), (1, 4))]),
    ],
)
def test_crops(tmp_path: Path, parameters: str, expected: list[Operation]) -> None:
    """As BVLC Caffe's `CropLayer`: the second bottom, 3 x 5 x 4 here, says how much, `offset` from where on."""
    network = structure(
        tmp_path,
        prototxt(
            layer("size", "Convolution", "data", f"{CONV} {{ num_output: 3 kernel_h: 7 kernel_w: 6 }}"),
            layer("it", "Crop", "data size", parameters),
            layer("last", "ReLU", "it"),
        ),
    )
    *cut, last = network.layers
    assert [item.operation for item in cut] == expected
    assert last.inputs == ("it",)
    assert network.outputs == (network.tensors["last"],), "what only says a size is no output"
    assert "size" not in network.tensors


def test_what_says_a_size_and_is_read_as_well_stays(tmp_path: Path) -> None:
    network = structure(
        tmp_path,
        prototxt(
            layer("size", "Pooling", "data", "pooling_param { kernel_size: 2 stride: 2 }"),
            layer("it", "Crop", "data size"),
            layer("both", "Concat", "it size"),
        ),
    )
    assert [item.name for item in network.layers] == ["size", "it", "both"]


def test_a_network_may_end_at_what_says_a_size(tmp_path: Path) -> None:
    """`stem` and `size` are read by nothing else behind the cut, and stay where they are asked for."""
    path = tmp_path / "deploy.prototxt"
    path.write_text(
        prototxt(
            layer("stem", "ReLU", "data"),
            layer("size", "Pooling", "stem", "pooling_param { kernel_size: 2 stride: 2 }"),
            layer("it", "Crop", "data size"),
            layer("last", "ReLU", "it"),
        )
    )
    for ends in (["size", "it"], ["stem", "it"], ["it"]):
        network = read_structure(path, cut_at=ends)
        assert [output.name for output in network.outputs] == ends


@pytest.mark.parametrize(
    ("bottoms", "parameters", "message"),
    [
        ("data", "", "reads 1 tensors, expected 2"),
        ("data small", "crop_param { axis: 0 }", "axis 0, expected 1 (channels)"),
        ("data small", "crop_param { offset: 1 offset: 1 offset: 1 }", "3 offsets from axis 2 on"),
        ("data small", "crop_param { offset: 7 offset: 0 }", "takes 6 rows from number 7 on"),
        ("small data", "", "takes 11 rows from number 0 on"),
    ],
)
def test_crops_that_are_refused(tmp_path: Path, bottoms: str, parameters: str, message: str) -> None:
    small = layer("small", "Pooling", "data", "pooling_param { kernel_size: 2 stride: 2 }")
    with pytest.raises(NetworkError, match=re.escape(message)):
        structure(tmp_path, prototxt(small, layer("it", "Crop", bottoms, parameters)))


def test_a_crop_is_written_beside_a_tensor_of_its_size(tmp_path: Path) -> None:
    """Not beside an output, which would no longer be one."""
    tensor = Tensor("data", (6, 11, 9), "data")
    output, other = (Layer(name, Pooling("max", (7, 6)), ("data",)) for name in ("output", "other"))
    crop, last = Layer("it", Crop((1, 5), (2, 4)), ("data",)), Layer("last", Eltwise("sum"), ("it", "other"))
    network = assemble("net", [tensor], [output, other, crop, last])
    write_prototxt(network, tmp_path / "net.prototxt")
    assert read_structure(tmp_path / "net.prototxt") == network
    with pytest.raises(UnsupportedError, match="without another tensor of its size before it, 5 x 4"):
        write_prototxt(assemble("net", [tensor], [output, crop]), tmp_path / "net.prototxt")


# --- structure --------------------------------------------------------------------------------------------------------


def test_in_place_layers_write_tensors_of_their_own(tmp_path: Path) -> None:
    network = structure(
        tmp_path,
        prototxt(
            layer("conv", "Convolution", "data", "convolution_param { num_output: 4 kernel_size: 3 }", top="blob"),
            layer("relu", "ReLU", "blob", top="blob"),
            layer("pool", "Pooling", "blob", "pooling_param { kernel_size: 2 stride: 2 }"),
        ),
    )
    assert [(x.name, x.inputs) for x in network.layers] == [
        ("conv", ("data",)),
        ("relu", ("conv",)),
        ("pool", ("relu",)),
    ]
    # 11 x 9 less a 3 x 3 kernel: 9 x 7; halved and rounded up: 5 x 4.
    assert list(network.tensors.values()) == [
        Tensor("data", (6, 11, 9), "data"),
        Tensor("conv", (4, 9, 7), "blob"),
        Tensor("relu", (4, 9, 7), "blob"),
        Tensor("pool", (4, 5, 4), "pool"),
    ]


@pytest.mark.parametrize(
    "head",
    [
        'input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8',
        'input: "data" input_shape { dim: 10 dim: 3 dim: 8 dim: 8 }',
        'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }',
    ],
)
def test_forms_of_input(tmp_path: Path, head: str) -> None:
    network = structure(tmp_path, head + "\n" + layer("relu", "ReLU", "data"))
    assert network.inputs == (Tensor("data", (3, 8, 8), "data"),)


def test_an_input_layer_with_two_tops(tmp_path: Path) -> None:
    text = 'layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }'
    network = structure(tmp_path, text + layer("sum", "Eltwise", "a b"))
    assert [tensor.name for tensor in network.inputs] == ["a", "b"]
    assert network.by_name["sum"].inputs == ("a", "b")


def test_old_format(tmp_path: Path) -> None:
    network = structure(
        tmp_path,
        """
        input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
        layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1
                 convolution_param { num_output: 4 kernel_size: 3 } }
        layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
        layers { name: "fc" type: INNER_PRODUCT bottom: "conv" top: "fc" inner_product_param { num_output: 2 } }
        layers { name: "prob" type: SOFTMAX bottom: "fc" top: "prob" }
        """,
    )
    assert [item.kind for item in network.layers] == ["Convolution", "ReLU", "InnerProduct", "Softmax"]
    assert network.logits == network.tensors["fc"]


@pytest.mark.parametrize("kind", pb.V1LayerParameter.LayerType.keys())
def test_old_type_names(tmp_path: Path, kind: str) -> None:
    """Every type that we read was in the old format, or came after it; each maps to the modern spelling."""
    modern = {name.lower(): name for name in READERS}
    text = f'input: "data" input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 1 layers {{ name: "x" type: {kind} }}'
    with pytest.raises(NetworkError) as error:
        structure(tmp_path, text)
    expected = modern.get(kind.replace("_", "").lower())
    if kind == "SPLIT":
        expected = "Split"
    if expected:
        assert f"({expected})" in str(error.value)
    else:
        assert "is not supported" in str(error.value)


@pytest.mark.parametrize(
    "rule",
    [
        "phase: TRAIN",
        "phase: TEST",
        "include { phase: TRAIN }",
        "include { phase: TEST }",
        "exclude { phase: TEST }",
        'include { stage: "deploy" }',
        "include { min_level: 1 }",
        "include { max_level: -1 }",
        "exclude { min_level: 0 }",
    ],
)
def test_layers_of_one_phase_are_dropped(tmp_path: Path, rule: str) -> None:
    network = structure(tmp_path, prototxt(layer("gone", "Accuracy", "nothing", rule), layer("relu", "ReLU", "data")))
    assert [item.name for item in network.layers] == ["relu"]


@pytest.mark.parametrize(
    "rule", ['exclude { stage: "deploy" }', "include { min_level: 0 }", 'include { not_stage: "x" }']
)
def test_other_rules_keep_a_layer(tmp_path: Path, rule: str) -> None:
    assert structure(tmp_path, prototxt(layer("relu", "ReLU", "data", rule))).by_name["relu"]


def test_unknown_fields_are_ignored(tmp_path: Path) -> None:
    text = prototxt(
        layer(
            "conv",
            "Convolution",
            "data",
            'convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } engine: MKL2017 } '
            'param { lr_mult: 1 } strange { x: [1, 2] y: "z" w < a: 1 > }',
        )
    )
    assert structure(tmp_path, "force_backward: true " + text).tensors["conv"].shape == (4, 11, 9)


def test_structure_takes_no_memory_for_weights(tmp_path: Path) -> None:
    """A VGG-like layer of 4096 x 25088 floats would be 411 MB."""
    item = operation(tmp_path, "InnerProduct", "inner_product_param { num_output: 4096 }", shape=(1, 512, 7, 7))
    assert isinstance(item, InnerProduct)
    assert item.weights.shape == (4096, 25088)
    assert item.weights.strides == (0, 0)


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "kernel", "stride", "pad", "dilation"),
    [
        ("kernel_size: 3", (3, 3), (1, 1), (0, 0), (1, 1)),
        ("kernel_size: 3 kernel_size: 5 stride: 2 stride: 1", (3, 5), (2, 1), (0, 0), (1, 1)),
        ("kernel_h: 3 kernel_w: 1 stride_h: 1 stride_w: 2 pad_h: 1", (3, 1), (1, 2), (1, 0), (1, 1)),
        ("kernel_size: 3 pad: 2 dilation: 2", (3, 3), (1, 1), (2, 2), (2, 2)),
        ("kernel_size: 3 dilation: 1 dilation: 2", (3, 3), (1, 1), (0, 0), (1, 2)),
    ],
)
def test_convolution_windows(
    tmp_path: Path, parameters: str, kernel: object, stride: object, pad: object, dilation: object
) -> None:
    item = operation(tmp_path, "Convolution", f"convolution_param {{ num_output: 4 {parameters} }}")
    assert isinstance(item, Convolution)
    assert (item.weights.shape[2:], item.stride, item.pad, item.dilation) == (kernel, stride, pad, dilation)


def test_defaults(tmp_path: Path) -> None:
    assert operation(tmp_path, "Pooling", "pooling_param { kernel_size: 2 }") == Pooling("max", (2, 2))
    assert operation(tmp_path, "ReLU") == ReLU(0.0)
    assert operation(tmp_path, "Power") == Power(1.0, 1.0, 0.0)
    assert operation(tmp_path, "Eltwise", bottoms="data data") == Eltwise("sum")
    norm = operation(tmp_path, "LRN")
    assert (norm.local_size, norm.alpha, norm.beta, norm.k) == (5, 1.0, 0.75, 1.0)
    batch_norm = operation(tmp_path, "BatchNorm")
    assert isinstance(batch_norm, BatchNorm)
    assert batch_norm.eps == np.float32(1e-5)


def test_global_pooling_becomes_a_kernel(tmp_path: Path) -> None:
    assert operation(tmp_path, "Pooling", "pooling_param { pool: AVE global_pooling: true }") == Pooling(
        "average", (11, 9)
    )


def test_coefficients_of_one_are_no_coefficients(tmp_path: Path) -> None:
    assert operation(tmp_path, "Eltwise", "eltwise_param { coeff: 1 coeff: 1 }", "data data") == Eltwise("sum")
    subtraction = Eltwise("sum", (1.0, -1.0))
    assert operation(tmp_path, "Eltwise", "eltwise_param { coeff: 1 coeff: -1 }", "data data") == subtraction


@pytest.mark.parametrize(
    ("parameters", "shape"),
    [
        ("shape { dim: 0 dim: -1 }", (594,)),
        ("shape { dim: -1 dim: 594 }", (594,)),
        ("shape { dim: 0 dim: 0 dim: 99 dim: 1 }", (6, 99, 1)),
        ("shape { dim: 1 dim: 2 dim: -1 dim: 9 }", (2, 33, 9)),
        ("shape { dim: 594 } axis: 1", (594,)),
        ("shape { dim: -1 dim: 1 } axis: 2 num_axes: 2", (6, 99, 1)),
        ("shape { dim: 99 dim: 1 } axis: -3", (6, 99, 1)),
        ("shape { dim: 3 dim: 2 dim: 99 } axis: 1 num_axes: 3", (3, 2, 99)),
    ],
)
def test_reshape(tmp_path: Path, parameters: str, shape: tuple[int, ...]) -> None:
    """6 x 11 x 9 = 594 values; a negative `axis` counts the places between axes: -1 is the end, -3 before height."""
    assert operation(tmp_path, "Reshape", f"reshape_param {{ {parameters} }}") == Reshape(shape)


@pytest.mark.parametrize("axis", ["axis: 1", "axis: -3", "concat_dim: 1"])
def test_concat_axes(tmp_path: Path, axis: str) -> None:
    network = structure(tmp_path, prototxt(layer("cat", "Concat", "data data", f"concat_param {{ {axis} }}")))
    assert network.tensors["cat"].shape == (12, 11, 9)


# --- refusals ---------------------------------------------------------------------------------------------------------

CONV = "convolution_param"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no layers"),
        ("<html>", "line:column 1:1"),
        ("layer {", "not a Caffe prototxt"),
        ("layer { a " + "{ a " * 5000, "nested too deeply"),
        (prototxt(), "0 layers that run at test time"),
        (layer("relu", "ReLU", "data"), "'relu': reads 'data', which no earlier layer writes"),
        (prototxt(layer("a", "ReLU", "b"), layer("b", "ReLU", "a")), "'a': reads 'b', which no earlier layer writes"),
        (prototxt(layer("", "ReLU", "data")), "layer 1 (type 'ReLU') has no name"),
        (prototxt(layer("a", "ReLU", "data"), layer("a", "ReLU", "data", top="b")), "'a' is used twice"),
        (prototxt(layer("data", "ReLU", "data")), "'data' is used twice"),
        (
            prototxt(layer("a", "ReLU", "data", top="x"), layer("b", "ReLU", "data", top="x")),
            "already writes its top 'x'",
        ),
        (prototxt(layer("p", "Permute", "data")), "type 'Permute' is not supported; nothing in NVDLA"),
        (prototxt(layer("p", "Foo", "data")), "type 'Foo' is not supported (supported: Input, BatchNorm,"),
        (prototxt(layer("r", "ReLU", "data"), layer("s", "Split", "r", top="data")), "already writes its top 'data'"),
        (prototxt(layer("loss", "SoftmaxWithLoss", "data label")), "use a Softmax without the label"),
        (prototxt(layer("r", "ReLU", "data data")), "'r' (ReLU): reads 2 tensors, expected 1"),
        (prototxt(layer("e", "Eltwise", "data")), "'e' (Eltwise): reads 1 tensor, expected 2 or more"),
        (prototxt(layer("p", "Pooling", "data", 'top: "mask" pooling_param { kernel_size: 2 }')), "2 tops, expected 1"),
        (prototxt(layer("r", "ReLU", "data"), shape=(1, 3, 8)), "expected (batch, channels, height, width)"),
        (prototxt(layer("r", "ReLU", "data"), shape=(1, 3, 0, 8)), "(1, 3, 0, 8)"),
        ('input: "data" input_dim: 1 input_dim: 3 ' + layer("r", "ReLU", "data"), "2 input_dim"),
        ('input: "data" ' + layer("r", "ReLU", "data"), "0 input_shape for 1 input"),
    ],
)
def test_malformed_structures(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(NetworkError, match=re.escape(message)) as error:
        structure(tmp_path, text)
    assert "deploy.prototxt" in str(error.value)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("Convolution", f"{CONV} {{ num_output: 4 }}", "is kernel_size missing?"),
        ("Convolution", f"{CONV} {{ kernel_size: 3 }}", "num_output 0"),
        (
            "Convolution",
            f"{CONV} {{ num_output: 4 kernel_size: 3 group: 4 }}",
            "does not divide both 6 input and 4 output",
        ),
        ("Convolution", f"{CONV} {{ num_output: 4 kernel_size: 3 group: 0 }}", "group 0"),
        ("Convolution", f"{CONV} {{ num_output: 4 kernel_size: 10 }}", "larger than the padded input (11, 9)"),
        ("Convolution", f"{CONV} {{ num_output: 4 kernel_size: 5 dilation: 3 }}", "spans (13, 13) pixels"),
        ("Convolution", f"{CONV} {{ num_output: 4 kernel_size: 3 stride: 0 }}", "stride (0, 0)"),
        ("Convolution", f"{CONV} {{ num_output: 4 kernel_size: 3 kernel_h: 3 kernel_w: 3 }}", "keep one"),
        ("Convolution", f"{CONV} {{ num_output: 4 kernel_h: 3 }}", "kernel_h without its partner"),
        ("Convolution", f"{CONV} {{ num_output: 4 kernel_size: [3, 3, 3] }}", "2-D only"),
        ("Convolution", f"{CONV} {{ num_output: 4 kernel_size: 3 axis: 2 }}", "axis 2"),
        ("Convolution", f"{CONV} {{ num_output: 4000000000 kernel_size: 9 }}", "no caffemodel can hold that"),
        ("Deconvolution", f"{CONV} {{ num_output: 4 kernel_size: 3 pad: 9 }}", "lower the padding"),
        ("InnerProduct", "", "no caffemodel can hold that"),
        ("InnerProduct", "inner_product_param { num_output: 2 axis: 2 }", "axis 2, expected 1"),
        ("Pooling", "", "kernel (0, 0)"),
        ("Pooling", "pooling_param { kernel_size: 12 }", "larger than the padded input"),
        ("Pooling", "pooling_param { kernel_size: 2 pad: 2 }", "padding (2, 2), expected less than the kernel"),
        ("Pooling", "pooling_param { kernel_size: 1 stride: 6 }", "lies outside of the input"),
        ("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }", "STOCHASTIC is for training"),
        ("Pooling", "pooling_param { pool: MEDIAN kernel_size: 2 }", "no value named MEDIAN"),
        ("Pooling", "pooling_param { global_pooling: true stride: 2 }", "global_pooling with stride (2, 2)"),
        ("BN", "", "SegNet's is read with bn_param { bn_mode: INFERENCE }"),
        ("DepthwiseConvolution", f"{CONV} {{ num_output: 6 kernel_size: 3 }}", "group 1 with num_output 6"),
        ("ConvolutionDepthwise", f"{CONV} {{ num_output: 12 kernel_size: 3 }}", "for 6 channels, expected the same"),
        ("Split", 'bottom: "data"', "reads 2 tensors, expected 1"),
        ("Softmax", "softmax_param { axis: 2 }", "axis 2, expected 1"),
        ("Flatten", "flatten_param { end_axis: 2 }", "end_axis 2, expected 3"),
        ("BatchNorm", "batch_norm_param { use_global_stats: false }", "statistics of each batch"),
        ("Scale", "scale_param { axis: 2 }", "axis 2"),
        ("Scale", "scale_param { num_axes: -1 }", "num_axes -1"),
        ("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }", "WITHIN_CHANNEL is not supported"),
        ("LRN", "lrn_param { local_size: 4 }", "local_size 4"),
        ("Concat", "concat_param { axis: 2 }", "axis 2, expected 1"),
        ("Concat", "concat_param { concat_dim: 0 }", "concat_dim 0"),
        ("Reshape", "reshape_param { shape { dim: 0 dim: 5 dim: -1 } }", "are no multiple of 5"),
        ("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: -1 } }", "more than one dim is -1"),
        ("Reshape", "reshape_param { shape { dim: 0 dim: 54 dim: 11 } }", "expected (channels, height, width)"),
        ("Reshape", "reshape_param { shape { dim: 2 dim: -1 } }", "the first axis becomes"),
        ("Reshape", "reshape_param { shape { dim: 0 dim: 5 } }", "does not hold as many values"),
        ("Reshape", "reshape_param { shape { dim: 0 dim: -7 } }", "dim -7"),
        ("Reshape", "reshape_param { axis: 9 }", "outside of the 4 axes"),
    ],
)
def test_refused_parameters(tmp_path: Path, kind: str, parameters: str, message: str) -> None:
    with pytest.raises(NetworkError, match=re.escape(message)) as error:
        operation(tmp_path, kind, parameters)
    assert "'it'" in str(error.value) or "line:column" in str(error.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("operation: PROD coeff: 1 coeff: 2", "coeff with operation PROD"),
        ("coeff: 2", "1 coeff for 2 bottoms"),
    ],
)
def test_refused_coefficients(tmp_path: Path, parameters: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        operation(tmp_path, "Eltwise", f"eltwise_param {{ {parameters} }}", "data data")


def test_shapes_that_do_not_fit_together(tmp_path: Path) -> None:
    pool = layer("pool", "Pooling", "data", "pooling_param { kernel_size: 2 }")
    for kind in "Eltwise", "Concat":
        with pytest.raises(NetworkError, match=r"'it' \(\w+\): inputs have the shapes \(6, 11, 9\), \(6, 10, 8\)"):
            structure(tmp_path, prototxt(pool, layer("it", kind, "data pool")))


def test_rounding_down_is_read_where_it_changes_nothing(tmp_path: Path) -> None:
    item = operation(tmp_path, "Pooling", "pooling_param { kernel_size: 3 stride: 2 round_mode: FLOOR }")
    assert item == Pooling("max", (3, 3), (2, 2))


@pytest.mark.parametrize("line", ["round_mode: FLOOR", "ceil_mode: false", "torch_pooling: true"])
def test_rounding_down_is_a_property_of_the_pooling(tmp_path: Path, line: str) -> None:
    """11 x 9 pixels, windows of 2 at stride 2: 5 x 4 of them lie inside, where Caffe makes 6 x 5 unless told."""
    text = prototxt(layer("it", "Pooling", "data", f"pooling_param {{ kernel_size: 2 stride: 2 {line} }}"))
    network = structure(tmp_path, text)
    assert network.by_name["it"].operation == Pooling("max", (2, 2), (2, 2), rounding="down")
    assert network.tensors["it"].shape == (6, 5, 4)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"absent\.prototxt: cannot be read"):
        read_structure(tmp_path / "absent.prototxt")
    path = tmp_path / "latin1.prototxt"
    path.write_bytes(b"# caf\xe9")
    with pytest.raises(NetworkError, match="not UTF-8 text at byte 5"):
        read_structure(path)
