"""What a layer of a Caffe file means: one function a layer type, from its message to an `Operation`.

Defaults and checks are those of BVLC Caffe's ``caffe.proto`` and of each layer's ``LayerSetUp``. What Caffe can
express and `graph` cannot is refused by name; nothing is read as something else.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Literal

import numpy as np

from nvdla_quant.errors import NetworkError, UnsupportedError, WeightsError
from nvdla_quant.network.caffe import caffe_pb2 as pb
from nvdla_quant.network.graph import (
    LRN,
    BatchNorm,
    Concat,
    Convolution,
    Deconvolution,
    Dropout,
    Eltwise,
    Flatten,
    Gather,
    InnerProduct,
    Operation,
    Pair,
    Pooling,
    Power,
    PReLU,
    ReLU,
    Reshape,
    Scale,
    Sigmoid,
    Softmax,
    TanH,
    Weights,
    convolution_size,
    pooling_size,
)
from nvdla_quant.network.moves import Crop
from nvdla_quant.network.shapes import Shape, check_window, image

LARGEST_BLOB = 2**29
"""float32 values in 2 GiB, the most that one protobuf file can hold."""


class Blobs:
    """The learned arrays of one layer, asked for by index and expected shape.

    Parameters
    ----------
    blobs : Sequence[BlobProto] or None
        As in the caffemodel; None where only the structure is wanted, and every array is zeros that take no memory.
    """

    def __init__(self, blobs: Sequence[pb.BlobProto] | None) -> None:
        self._blobs = blobs

    @property
    def absent(self) -> bool:
        """Whether the arrays are placeholders."""
        return self._blobs is None

    @property
    def count(self) -> int | None:
        """Number of arrays; None where they are placeholders."""
        return None if self._blobs is None else len(self._blobs)

    def expect(self, count: int) -> None:
        """Check the number of arrays."""
        if self._blobs is not None and len(self._blobs) != count:
            raise WeightsError(
                f"the caffemodel holds {len(self._blobs)} blobs for it, expected {count}; "
                "prototxt and caffemodel must be of one network (look at bias_term)"
            )

    def array(self, index: int, expected: Shape) -> Weights:
        """Array `index`, as float32 of the shape `expected`.

        Axes of size 1 may be missing or extra in the file: old files store every array with four axes.
        """
        if prod(expected) > LARGEST_BLOB or min(expected, default=1) < 1:
            raise NetworkError(f"blob {index} would have the shape {expected}; no caffemodel can hold that")
        if self._blobs is None:
            return np.broadcast_to(np.float32(0), expected)
        blob = self._blobs[index]
        got = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
        if [size for size in got if size != 1] != [size for size in expected if size != 1]:
            raise WeightsError(f"blob {index} of the caffemodel has the shape {got}, expected {expected}")
        values = blob.data or blob.double_data
        if len(values) != prod(expected):
            raise WeightsError(
                f"blob {index} of the caffemodel holds {len(values)} float or double values, expected {prod(expected)} "
                f"for the shape {expected}; the file is cut off or stores another number format (fp16)"
            )
        with np.errstate(over="ignore"):  # Reported just below.
            array = np.array(values, np.float32).reshape(expected)
        if not np.isfinite(array).all():
            raise WeightsError(f"blob {index} of the caffemodel holds NaN or infinity; the training diverged")
        array.flags.writeable = False
        return array


Reader = Callable[[pb.LayerParameter, Sequence[Shape], Blobs], Operation | tuple[Operation, Operation]]
"""Two operations where the layer is one behind the other in one."""


def _pair(parameter: pb.ConvolutionParameter | pb.PoolingParameter, square: str, prefix: str, default: int) -> Pair:
    """(vertical, horizontal) of ``kernel``, ``stride`` or ``pad``, written once, per axis, or as ``_h`` and ``_w``."""
    values = getattr(parameter, square)
    if isinstance(values, int):
        values = [values] if parameter.HasField(square) else []
    sides = [f"{prefix}_h", f"{prefix}_w"]
    given = [side for side in sides if parameter.HasField(side)]
    if given and len(values):
        raise NetworkError(f"both {square} and {given[0]} are given; keep one")
    if given:
        if len(given) == 1 and prefix != "pad":
            raise NetworkError(f"{given[0]} without its partner; give both {sides[0]} and {sides[1]}")
        return getattr(parameter, sides[0]), getattr(parameter, sides[1])
    if len(values) > 2:
        raise NetworkError(f"{square} has {len(values)} values, expected 1 or 2 (2-D only)")
    return (values[0], values[-1]) if len(values) else (default, default)


def _window(parameter: pb.ConvolutionParameter) -> tuple[Pair, Pair, Pair, Pair]:
    """Kernel, stride, padding and dilation of a convolution, checked."""
    dilations = list(parameter.dilation) or [1]
    if len(dilations) > 2:
        raise NetworkError(f"dilation has {len(dilations)} values, expected 1 or 2 (2-D only)")
    if parameter.axis not in (1, -3):
        raise UnsupportedError(f"axis {parameter.axis}, expected 1 (the channels)")
    kernel = _pair(parameter, "kernel_size", "kernel", 0)
    stride = _pair(parameter, "stride", "stride", 1)
    dilation = dilations[0], dilations[-1]
    if min(*kernel, *stride, *dilation) < 1:
        raise NetworkError(
            f"kernel {kernel}, stride {stride}, dilation {dilation}; expected 1 or more (is kernel_size missing?)"
        )
    if parameter.num_output < 1 or parameter.group < 1:
        raise NetworkError(f"num_output {parameter.num_output}, group {parameter.group}; expected 1 or more")
    return kernel, stride, _pair(parameter, "pad", "pad", 0), dilation


def _learned(blobs: Blobs, weights: Shape, bias: int, bias_term: bool) -> tuple[Weights, Weights | None]:
    blobs.expect(2 if bias_term else 1)
    return blobs.array(0, weights), blobs.array(1, (bias,)) if bias_term else None


def _convolution(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Convolution:
    parameter = layer.convolution_param
    kernel, stride, pad, dilation = _window(parameter)
    channels, group, outputs = image(shapes[0])[0], parameter.group, parameter.num_output
    if channels % group or outputs % group:
        raise NetworkError(f"group {group} does not divide both {channels} input and {outputs} output channels")
    weights, bias = _learned(blobs, (outputs, channels // group, *kernel), outputs, parameter.bias_term)
    return Convolution(weights, bias, stride, pad, dilation, group)


def _deconvolution(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Deconvolution:
    parameter = layer.convolution_param
    kernel, stride, pad, dilation = _window(parameter)
    channels, group, outputs = image(shapes[0])[0], parameter.group, parameter.num_output
    if channels % group or outputs % group:
        raise NetworkError(f"group {group} does not divide both {channels} input and {outputs} output channels")
    weights, bias = _learned(blobs, (channels, outputs // group, *kernel), outputs, parameter.bias_term)
    return Deconvolution(weights, bias, stride, pad, dilation, group)


def _inner_product(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> InnerProduct:
    parameter = layer.inner_product_param
    _check_axis("axis", parameter.axis, 1, shapes[0])
    inputs, outputs = prod(shapes[0]), parameter.num_output
    stored = (inputs, outputs) if parameter.transpose else (outputs, inputs)
    weights, bias = _learned(blobs, stored, outputs, parameter.bias_term)
    return InnerProduct(weights.T if parameter.transpose else weights, bias)


def _pooling(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Pooling:
    parameter = layer.pooling_param
    methods: dict[int, Literal["max", "average"]] = {pb.PoolingParameter.MAX: "max", pb.PoolingParameter.AVE: "average"}
    if parameter.pool not in methods:
        raise UnsupportedError("pool: STOCHASTIC is for training; expected MAX or AVE")
    size = image(shapes[0])[1:]
    stride, pad = _pair(parameter, "stride", "stride", 1), _pair(parameter, "pad", "pad", 0)
    if parameter.global_pooling:
        if stride != (1, 1) or pad != (0, 0):
            raise NetworkError(
                f"global_pooling with stride {stride} and padding {pad}; expected 1 and 0, as Caffe does"
            )
        return Pooling(methods[parameter.pool], size)
    kernel = _pair(parameter, "kernel_size", "kernel", 0)
    check_window(size, kernel, stride, [(length, length) for length in pad])
    down = parameter.round_mode == pb.PoolingParameter.FLOOR or not parameter.ceil_mode or parameter.torch_pooling
    axes = list(zip(size, kernel, stride, pad, strict=True))
    # Where both ways of rounding agree there is nothing to say, and nvdla_compiler can compile it.
    differs = any(convolution_size(*axis) != pooling_size(*axis) for axis in axes)
    return Pooling(methods[parameter.pool], kernel, stride, pad, "down" if down and differs else "up")


def _relu(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> ReLU:
    return ReLU(layer.relu_param.negative_slope)


def _prelu(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> PReLU:
    blobs.expect(1)
    return PReLU(blobs.array(0, (1,) if layer.prelu_param.channel_shared else shapes[0][:1]))


def _softmax(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Softmax:
    _check_axis("axis", layer.softmax_param.axis, 1, shapes[0])
    return Softmax()


def _flatten(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Flatten:
    _check_axis("axis", layer.flatten_param.axis, 1, shapes[0])
    _check_axis("end_axis", layer.flatten_param.end_axis, len(shapes[0]), shapes[0])
    return Flatten()


def _reshape(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Reshape:
    """Resolve Caffe's 0 (as in the input) and -1 (whatever remains); the batch counts as 1."""
    parameter = layer.reshape_param
    whole = (1, *shapes[0])
    rank = len(whole)
    start = parameter.axis if parameter.axis >= 0 else parameter.axis + rank + 1
    end = rank if parameter.num_axes == -1 else start + parameter.num_axes
    if not 0 <= start <= end <= rank:
        raise NetworkError(
            f"axis {parameter.axis}, num_axes {parameter.num_axes}: outside of the {rank} axes of its input"
        )
    wanted = list(parameter.shape.dim)
    for index, size in enumerate(wanted):
        if size == 0 and start + index < rank:
            wanted[index] = whole[start + index]
        elif size < -1 or size == 0:
            raise NetworkError(f"dim {size} at place {index}; expected -1, 0 (where the input has that axis) or more")
    if wanted.count(-1) > 1:
        raise NetworkError("more than one dim is -1; only one can be inferred")
    result = [*whole[:start], *wanted, *whole[end:]]
    if -1 in result:
        known = -prod(result)
        if prod(whole) % known:
            raise NetworkError(f"dim -1: the {prod(whole)} values of the input {shapes[0]} are no multiple of {known}")
        result[result.index(-1)] = prod(whole) // known
    if not result or result[0] != 1:
        raise NetworkError(
            f"the first axis becomes {result[:1]}, expected the batch; write dim: 0 first, for any batch"
        )
    return Reshape(tuple(result[1:]))


def _batch_norm(
    layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs
) -> BatchNorm | tuple[Operation, Operation]:
    """Read a BatchNorm; NVIDIA's Caffe keeps the Scale behind it in two further blobs of the same layer.

    That ``scale_bias: true`` says, or the number of blobs alone, as it does for TensorRT and nvdla_compiler.
    """
    parameter = layer.batch_norm_param
    if parameter.HasField("use_global_stats") and not parameter.use_global_stats:
        raise UnsupportedError(
            "use_global_stats: false normalizes by the statistics of each batch, which is for training; remove the line"
        )
    channels = shapes[0][:1]
    with_scale = parameter.scale_bias or blobs.count == 5
    if with_scale and blobs.count not in (5, None):
        raise WeightsError(
            f"the caffemodel holds {blobs.count} blobs for it, expected 5 (scale_bias: true, of NVIDIA's Caffe): mean, "
            "variance, factor, scale, bias; give the caffemodel of this network, or remove the line scale_bias"
        )
    if not with_scale:
        blobs.expect(3)
    mean, variance, factor = (blobs.array(index, shape) for index, shape in enumerate([channels] * 2 + [(1,)]))
    if not blobs.absent:
        mean, variance = _statistics(mean, variance, factor, parameter.eps)
    normalisation = BatchNorm(mean, variance, parameter.eps)
    if not with_scale:
        return normalisation
    return normalisation, Scale(blobs.array(3, channels), blobs.array(4, channels))


def _statistics(mean: Weights, variance: Weights, factor: Weights, eps: float) -> tuple[Weights, Weights]:
    """Return mean and variance, divided by the moving-average factor, checked."""
    if not factor[0] > 0:
        raise WeightsError(
            f"the moving-average factor (blob 2) is {factor[0]}, expected more than 0; it was never trained"
        )
    with np.errstate(over="ignore"):  # Reported just below.
        mean, variance = mean / factor, variance / factor
    if not (np.isfinite(mean).all() and np.isfinite(variance).all() and (variance + np.float32(eps) > 0).all()):
        raise WeightsError(f"mean or variance are not finite, or variance + eps ({eps:g}) is not positive")
    return mean, variance


def _segnet_norm(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Scale:
    """Read SegNet's BN, whose statistics are in scale and shift once it is made for inference."""
    if layer.bn_param.bn_mode != pb.BNParameter.INFERENCE:
        raise UnsupportedError(
            "forks of Caffe mean different things by BN; SegNet's is read with bn_param { bn_mode: INFERENCE }. One "
            "with blobs of scale, shift, mean and variance is a BatchNorm (blobs mean, variance and a factor of 1; the "
            "fork's eps) and a Scale with bias_term: true (blobs scale and shift): write these two"
        )
    blobs.expect(2)
    return Scale(blobs.array(0, shapes[0][:1]), blobs.array(1, shapes[0][:1]))


def _depthwise(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Convolution:
    """Read a convolution of each channel by itself, of forks that have a layer for it."""
    parameter, channels = layer.convolution_param, image(shapes[0])[0]
    # ConvolutionDepthwise takes as many outputs as inputs and looks at no group.
    ignored = layer.type == "ConvolutionDepthwise" and parameter.group == 1 and parameter.num_output == channels
    if not ignored and parameter.group != parameter.num_output:
        raise UnsupportedError(
            f"group {parameter.group} with num_output {parameter.num_output} for {channels} channels, expected the "
            "same number, one filter a group; any other is a Convolution: write that type"
        )
    plain = pb.LayerParameter()
    plain.CopyFrom(layer)
    plain.convolution_param.group = parameter.num_output
    return _convolution(plain, shapes, blobs)


def _scale(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Scale:
    parameter = layer.scale_param
    _check_axis("axis", parameter.axis, 1, shapes[0])
    if parameter.num_axes != 1:
        raise UnsupportedError(f"num_axes {parameter.num_axes}, expected 1 (one factor a channel)")
    blobs.expect(2 if parameter.bias_term else 1)
    channels = shapes[0][:1]
    return Scale(blobs.array(0, channels), blobs.array(1, channels) if parameter.bias_term else None)


def _power(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Power:
    parameter = layer.power_param
    return Power(parameter.power, parameter.scale, parameter.shift)


def _eltwise(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Eltwise:
    parameter = layer.eltwise_param
    operations: dict[int, Literal["sum", "max", "prod"]] = {
        pb.EltwiseParameter.SUM: "sum",
        pb.EltwiseParameter.MAX: "max",
        pb.EltwiseParameter.PROD: "prod",
    }
    operation, coefficients = operations[parameter.operation], tuple(parameter.coeff)
    if len(set(shapes)) > 1:
        raise NetworkError(f"inputs have the shapes {', '.join(map(str, shapes))}, expected equal ones")
    if coefficients and operation != "sum":
        raise NetworkError(f"coeff with operation {operation.upper()}; Caffe takes coefficients with SUM only")
    if coefficients and len(coefficients) != len(shapes):
        raise NetworkError(f"{len(coefficients)} coeff for {len(shapes)} bottoms, expected one each or none")
    return Eltwise(operation, () if set(coefficients) == {1.0} else coefficients)


def _concat(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Concat:
    parameter = layer.concat_param
    if parameter.HasField("concat_dim"):
        _check_axis("concat_dim", parameter.concat_dim, 1, shapes[0])
    else:
        _check_axis("axis", parameter.axis, 1, shapes[0])
    return Concat()


def _crop(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> Operation | tuple[Operation, Operation]:
    """Read a Crop: from `offset` on it takes as much of the first bottom as the second has, of each axis from `axis`.

    As BVLC Caffe's `CropLayer`.
    """
    parameter = layer.crop_param
    (channels, *size), (others, *wanted) = map(image, shapes)
    axis = parameter.axis + 4 if parameter.axis < 0 else parameter.axis
    if not 1 <= axis <= 3:
        raise UnsupportedError(f"axis {parameter.axis}, expected 1 (channels), 2 (rows) or 3 (columns)")
    offsets = list(parameter.offset) or [0]
    if len(offsets) not in (1, 4 - axis):
        raise NetworkError(f"{len(offsets)} offsets from axis {axis} on, expected one, or one for each of {4 - axis}")
    offsets = offsets * (4 - axis) if len(offsets) == 1 else offsets
    first, *pixels = [0] * (axis - 1) + offsets
    rows, columns = (
        (offset, count) if number >= axis else (0, length)
        for number, (offset, count, length) in enumerate(zip(pixels, wanted, size, strict=True), start=2)
    )
    crop = Crop(rows, columns)
    if axis > 1 or (first, others) == (0, channels):
        return crop
    return Gather(tuple(range(first, first + others))), crop


def _lrn(layer: pb.LayerParameter, shapes: Sequence[Shape], blobs: Blobs) -> LRN:
    parameter = layer.lrn_param
    if parameter.norm_region == pb.LRNParameter.WITHIN_CHANNEL:
        raise UnsupportedError("norm_region: WITHIN_CHANNEL is not supported; NVDLA normalizes across channels only")
    if parameter.local_size % 2 == 0:
        raise UnsupportedError(f"local_size {parameter.local_size}, expected an odd number")
    return LRN(parameter.local_size, parameter.alpha, parameter.beta, parameter.k)


def _plain(operation: type[Sigmoid] | type[TanH] | type[Dropout]) -> Reader:
    return lambda layer, shapes, blobs: operation()


def _check_axis(what: str, got: int, expected: int, shape: Shape) -> None:
    """Check an axis that counts the batch as 0, and from the end where it is negative."""
    rank = len(shape) + 1
    if got not in (expected, expected - rank):
        raise UnsupportedError(f"{what} {got}, expected {expected}, for the input {shape}")


READERS: dict[str, Reader] = {
    "BatchNorm": _batch_norm,
    "Concat": _concat,
    "Convolution": _convolution,
    "Crop": _crop,
    "Deconvolution": _deconvolution,
    "Dropout": _plain(Dropout),
    "Eltwise": _eltwise,
    "Flatten": _flatten,
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "PReLU": _prelu,
    "Pooling": _pooling,
    "Power": _power,
    "ReLU": _relu,
    "Reshape": _reshape,
    "Scale": _scale,
    "Sigmoid": _plain(Sigmoid),
    "Softmax": _softmax,
    "TanH": _plain(TanH),
}
"""How each layer type is read: (message, shapes of the bottoms, learned arrays) -> operation."""

SPELLINGS: dict[str, Reader] = {
    "BN": _segnet_norm,
    "ConvolutionDepthwise": _depthwise,
    "DepthwiseConvolution": _depthwise,
}
"""Types of forks of Caffe that are another type's layer, spelled otherwise."""

CROP = "Crop"
"""Type whose second bottom says how large its top is, and no more."""

SPLIT = "Split"
"""Type whose tops are its bottom, which Caffe itself inserts into the networks that it writes."""

WITH_WEIGHTS = frozenset(
    {"BatchNorm", "Convolution", "Deconvolution", "InnerProduct", "PReLU", "Scale", *SPELLINGS},
)
"""Layer types that have learned arrays."""

DATA_TYPES = frozenset(
    {"AnnotatedData", "Data", "DummyData", "HDF5Data", "ImageData", "LMDB", "MemoryData", "Python", "WindowData"}
)
"""Types of layers that read images from somewhere, where they have no bottom."""

KEEPS_SHAPE = frozenset(
    {"AbsVal", "BNLL", "Bias", "Clip", "ELU", "Exp", "HardSigmoid", "HardSwish", "Log", "MVN", "Mish", "Normalize"}
    | {"ReLU6", "SELU", "ShuffleChannel", "Swish", "Threshold", "BN"}
)
"""Types that are not read, but whose top is known to have the shape of their bottom."""
