"""Write a `Network` as Caffe files: a prototxt (text) and a caffemodel (binary).

The modern format (``layer``, float data, ``Input`` layers), restricted to fields that nvdla_compiler reads the way
Caffe does: no ``bias_term`` on a Scale without bias, since nvdla_compiler takes the field's presence for its value;
global poolings with their kernel; no phases. The same network gives the same bytes. What ONNX can say and Caffe cannot
is refused: `rewrites.for_caffe` says it otherwise first.
"""

from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.caffe import caffe_pb2 as pb
from nvdla_quant.network.graph import (
    GELU,
    LRN,
    BatchNorm,
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
    Pair,
    Pooling,
    Power,
    PReLU,
    ReLU,
    Reshape,
    Scale,
    Swish,
    Weights,
)
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth


def write_prototxt(network: Network, path: Path) -> None:
    """Write the structure, with batch size 1.

    Raises
    ------
    NetworkError
        The blobs of the tensors cannot be written as Caffe's: one is overwritten by a layer that does not read it,
        or before its last reader.
    UnsupportedError
        Caffe has no layer that computes one of the network's.
    """
    path.write_text(text_format.MessageToString(_message(network, weights=False)), encoding="utf-8", newline="\n")


def write_caffemodel(network: Network, path: Path) -> None:
    """Write structure and weights.

    Raises
    ------
    NetworkError
        As `write_prototxt`.
    UnsupportedError
        As `write_prototxt`.
    """
    path.write_bytes(_message(network, weights=True).SerializeToString(deterministic=True))


def _message(network: Network, weights: bool) -> pb.NetParameter:
    message = pb.NetParameter(name=network.name)
    latest: dict[str, str] = {}  # Name of the tensor that each Caffe blob holds at this point.
    for tensor in network.inputs:
        item = message.layer.add(name=tensor.name, type="Input", top=[tensor.blob])
        item.input_param.shape.add(dim=[1, *tensor.shape])
        latest[tensor.blob] = tensor.name
    for layer in network.layers:
        tensor = network.tensors[layer.name]
        bottoms = [network.tensors[name].blob for name in layer.inputs]
        for name, blob in zip(layer.inputs, bottoms, strict=True):
            if latest[blob] != name:
                raise NetworkError(
                    f"layer {layer.name!r}: reads {name!r}, but {latest[blob]!r} has overwritten its Caffe blob "
                    f"{blob!r}; give one of them a blob of its own"
                )
        if tensor.blob in latest and tensor.blob not in bottoms:
            raise NetworkError(
                f"layer {layer.name!r}: writes the Caffe blob {tensor.blob!r} of {latest[tensor.blob]!r}, which it "
                "does not read; give it a blob of its own"
            )
        item = message.layer.add(name=layer.name, type=layer.kind, bottom=bottoms, top=[tensor.blob])
        shapes = {network.tensors[name].shape for name in layer.inputs}
        if not _is_caffe(layer.operation) or (layer.kind == "Eltwise" and len(shapes) > 1):
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.kind}): Caffe has no such layer; rewrites.for_caffe says it otherwise, "
                "where it can"
            )
        if isinstance(layer.operation, Crop):
            item.bottom.append(_measure(network, layer, latest))
        arrays = _write(layer.operation, item)
        latest[tensor.blob] = layer.name
        if weights:
            for array in arrays:
                _add_blob(item, array)
    return message


def _measure(network: Network, layer: Layer, latest: Mapping[str, str]) -> str:
    """Return the first blob of as many rows and columns as a Crop has, which says in Caffe how many it takes.

    It is no output of the network, which it would no longer be where a layer reads it.

    Raises
    ------
    UnsupportedError
        There is none.
    """
    _, *size = network.tensors[layer.name].shape
    for blob, name in latest.items():
        tensor = network.tensors[name]
        if tensor.shape[1:] == tuple(size) and tensor not in network.outputs:
            return blob
    raise UnsupportedError(
        f"layer {layer.name!r} (Crop): Caffe has no such layer without another tensor of its size before it, {size[0]} "
        f"x {size[1]}, and none is there; rewrites.for_caffe says it otherwise"
    )


def _add_blob(item: pb.LayerParameter, array: Weights) -> None:
    blob = item.blobs.add()
    blob.shape.dim.extend(array.shape)
    # Merged from its wire form: `extend` would make a Python float of every weight, 32 bytes and 0.1 us each.
    values = np.ascontiguousarray(array, "<f4").tobytes()
    key = pb.BlobProto.DATA_FIELD_NUMBER << 3 | 2  # 2: length-delimited, as packed fields are.
    blob.MergeFromString(bytes([key]) + _varint(len(values)) + values)


def _varint(number: int) -> bytes:
    """Protocol buffers' form of a length: 7 bits a byte, lowest first; the top bit says that more follow."""
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def _is_caffe(operation: Operation) -> bool:
    """Whether Caffe has a layer that computes this, of inputs of one shape."""
    match operation:
        case Convolution() | Deconvolution():
            return operation.far in (None, operation.pad)
        case Pooling():
            padded = operation.area == "padded" or operation.method == "max"
            return padded and operation.far in (None, operation.pad)
        case Eltwise():
            return operation.operation != "min"
        case _:
            return not isinstance(
                operation, Clip | HardSigmoid | HardSwish | Swish | GELU | Gather | SpaceToDepth | DepthToSpace
            )


@singledispatch
def _write(operation: Operation, item: pb.LayerParameter) -> list[Weights]:
    """Set the parameters of `item`, of which this operation has none; return the learned arrays in Caffe's order."""
    return []


@_write.register
def _(operation: Convolution | Deconvolution, item: pb.LayerParameter) -> list[Weights]:
    weights = operation.weights
    outputs = weights.shape[0] if isinstance(operation, Convolution) else weights.shape[1] * operation.group
    parameter = item.convolution_param
    parameter.num_output = outputs
    if operation.bias is None:
        parameter.bias_term = False
    if operation.group != 1:
        parameter.group = operation.group
    _window(parameter, (weights.shape[2], weights.shape[3]), operation.stride, operation.pad)
    if operation.dilation != (1, 1):
        vertical, horizontal = operation.dilation
        parameter.dilation.extend([vertical] if vertical == horizontal else [vertical, horizontal])
    return _learned(operation.weights, operation.bias)


@_write.register
def _(operation: InnerProduct, item: pb.LayerParameter) -> list[Weights]:
    item.inner_product_param.num_output = operation.weights.shape[0]
    if operation.bias is None:
        item.inner_product_param.bias_term = False
    return _learned(operation.weights, operation.bias)


@_write.register
def _(operation: Pooling, item: pb.LayerParameter) -> list[Weights]:
    parameter = item.pooling_param
    parameter.pool = pb.PoolingParameter.MAX if operation.method == "max" else pb.PoolingParameter.AVE
    _window(parameter, operation.kernel, operation.stride, operation.pad)
    if operation.rounding == "down":
        parameter.round_mode = pb.PoolingParameter.FLOOR
    return []


@_write.register
def _(operation: ReLU, item: pb.LayerParameter) -> list[Weights]:
    if operation.negative_slope:
        item.relu_param.negative_slope = operation.negative_slope
    return []


@_write.register
def _(operation: PReLU, item: pb.LayerParameter) -> list[Weights]:
    if operation.slope.shape == (1,):
        item.prelu_param.channel_shared = True
    return [operation.slope]


@_write.register
def _(operation: Reshape, item: pb.LayerParameter) -> list[Weights]:
    item.reshape_param.shape.dim.extend([0, *operation.shape])
    return []


@_write.register
def _(operation: BatchNorm, item: pb.LayerParameter) -> list[Weights]:
    item.batch_norm_param.use_global_stats = True
    item.batch_norm_param.eps = operation.eps
    return [operation.mean, operation.variance, np.ones(1, np.float32)]


@_write.register
def _(operation: Scale, item: pb.LayerParameter) -> list[Weights]:
    if operation.beta is not None:
        item.scale_param.bias_term = True
    return _learned(operation.gamma, operation.beta)


@_write.register
def _(operation: Power, item: pb.LayerParameter) -> list[Weights]:
    parameter = item.power_param
    parameter.power, parameter.scale, parameter.shift = operation.power, operation.scale, operation.shift
    return []


@_write.register
def _(operation: Eltwise, item: pb.LayerParameter) -> list[Weights]:
    kinds = {"sum": pb.EltwiseParameter.SUM, "max": pb.EltwiseParameter.MAX, "prod": pb.EltwiseParameter.PROD}
    item.eltwise_param.operation = kinds[operation.operation]
    item.eltwise_param.coeff.extend(operation.coefficients)
    return []


@_write.register
def _(operation: LRN, item: pb.LayerParameter) -> list[Weights]:
    parameter = item.lrn_param
    parameter.local_size, parameter.k = operation.local_size, operation.k
    parameter.alpha, parameter.beta = operation.alpha, operation.beta
    return []


def _learned(weights: Weights, bias: Weights | None) -> list[Weights]:
    return [weights] if bias is None else [weights, bias]


def _window(parameter: pb.ConvolutionParameter | pb.PoolingParameter, kernel: Pair, stride: Pair, pad: Pair) -> None:
    """Set kernel, stride and padding: one value where the window is square, else ``_h`` and ``_w``."""
    for square, prefix, (vertical, horizontal) in (
        ("kernel_size", "kernel", kernel),
        ("stride", "stride", stride),
        ("pad", "pad", pad),
    ):
        if vertical != horizontal:
            setattr(parameter, f"{prefix}_h", vertical)
            setattr(parameter, f"{prefix}_w", horizontal)
        elif isinstance(parameter, pb.PoolingParameter):
            setattr(parameter, square, vertical)
        else:
            getattr(parameter, square).append(vertical)


@_write.register
def _(operation: Crop, item: pb.LayerParameter) -> list[Weights]:
    item.crop_param.axis = 2
    item.crop_param.offset.extend([operation.rows[0], operation.columns[0]])
    return []
