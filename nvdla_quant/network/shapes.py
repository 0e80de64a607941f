"""Shape of what each operation writes, and the assembly of a `Network` from layers without shapes."""

from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch
from math import prod

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError
from nvdla_quant.network.graph import (
    LRN,
    BatchNorm,
    Clip,
    Concat,
    Convolution,
    Deconvolution,
    Eltwise,
    Flatten,
    Gather,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pair,
    Pooling,
    PReLU,
    Reshape,
    Scale,
    Tensor,
    convolution_size,
    deconvolution_size,
    pooling_size,
)
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth

Shape = tuple[int, ...]
"""Shape of one image's tensor, without the batch."""


def assemble(
    name: str, inputs: Iterable[Tensor], layers: Iterable[Layer], blobs: Mapping[str, str] | None = None
) -> Network:
    """Network of these layers, with every shape inferred and checked.

    Parameters
    ----------
    name : str
        Name of the network.
    inputs : Iterable[Tensor]
        Network inputs.
    layers : Iterable[Layer]
        Layers in an order of execution.
    blobs : Mapping[str, str], optional
        Caffe blob of the tensor that each layer writes; the layer's own name where it has no entry.

    Raises
    ------
    NetworkError
        A layer reads what no earlier layer wrote, or cannot take the shapes that it is given.
    """
    inputs, layers, blobs = tuple(inputs), tuple(layers), blobs or {}
    tensors = {tensor.name: tensor for tensor in inputs}
    for layer in layers:
        if missing := [source for source in layer.inputs if source not in tensors]:
            raise NetworkError(f"layer {layer.name!r}: reads {missing[0]!r}, which no earlier layer writes")
        shape = output_shape(layer, [tensors[source].shape for source in layer.inputs])
        if layer.name in tensors:
            raise NetworkError(f"layer {layer.name!r}: the name is used twice; rename one of the layers")
        tensors[layer.name] = Tensor(layer.name, shape, blobs.get(layer.name, layer.name))
    return Network(name, inputs, layers, tensors)


def output_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    """Shape of what `layer` writes when it reads tensors of these shapes.

    Raises
    ------
    NetworkError
        The operation cannot take these shapes; the message names the layer.
    """
    try:
        return shape_of(layer.operation, shapes)
    except NetworkError as error:
        raise NetworkError(f"layer {layer.name!r} ({layer.kind}): {error}") from error


def shape_of(operation: Operation, shapes: Sequence[Shape]) -> Shape:
    """Shape of what `operation` writes; as `output_shape`, but that messages name no layer."""
    check_arity(isinstance(operation, Eltwise | Concat), len(shapes))
    return _shape(operation, shapes)


@singledispatch
def _shape(operation: Operation, shapes: Sequence[Shape]) -> Shape:
    """Shape of an operation that works on each element, or on each channel, by itself."""
    return shapes[0]


@_shape.register
def _(operation: Convolution, shapes: Sequence[Shape]) -> Shape:
    channels, *size = image(shapes[0])
    outputs, group_channels, *kernel = operation.weights.shape
    _check_groups(operation.group, channels, outputs)
    if group_channels * operation.group != channels:
        raise NetworkError(
            f"weights {operation.weights.shape} in {operation.group} groups take {group_channels * operation.group} "
            f"channels, the input {shapes[0]} has {channels}"
        )
    spans = [d * (k - 1) + 1 for d, k in zip(operation.dilation, kernel, strict=True)]
    check_window(size, spans, operation.stride, operation.sides)
    axes = zip(size, kernel, operation.stride, operation.sides, operation.dilation, strict=True)
    return (outputs, *(convolution_size(n, k, s, near, d, far) for n, k, s, (near, far), d in axes))


@_shape.register
def _(operation: Deconvolution, shapes: Sequence[Shape]) -> Shape:
    channels, *size = image(shapes[0])
    inputs, group_outputs, *kernel = operation.weights.shape
    _check_groups(operation.group, channels, group_outputs * operation.group)
    if inputs != channels:
        raise NetworkError(
            f"weights {operation.weights.shape} take {inputs} channels, the input {shapes[0]} has {channels}"
        )
    if min(operation.stride) < 1:
        raise NetworkError(f"stride {operation.stride}, expected 1 or more")
    axes = zip(size, kernel, operation.stride, operation.sides, operation.dilation, strict=True)
    result = tuple(deconvolution_size(n, k, s, near, d, far) for n, k, s, (near, far), d in axes)
    if min(result) < 1:
        raise NetworkError(
            f"padding {_padding(operation.sides)} leaves nothing of the output of input {shapes[0]}; lower the padding"
        )
    return (group_outputs * operation.group, *result)


@_shape.register
def _(operation: InnerProduct, shapes: Sequence[Shape]) -> Shape:
    outputs, inputs = operation.weights.shape
    if inputs != prod(shapes[0]):
        raise NetworkError(
            f"weights {operation.weights.shape} take {inputs} values, the input {shapes[0]} has {prod(shapes[0])}"
        )
    return (outputs,)


@_shape.register
def _(operation: Pooling, shapes: Sequence[Shape]) -> Shape:
    channels, *size = image(shapes[0])
    check_window(size, operation.kernel, operation.stride, operation.sides)
    padding = _padding(operation.sides)
    if any(max(sides) >= kernel for sides, kernel in zip(operation.sides, operation.kernel, strict=True)):
        raise NetworkError(f"padding {padding}, expected less than the kernel {operation.kernel}")
    axes = list(zip(size, operation.kernel, operation.stride, operation.sides, strict=True))
    result = tuple(pooling_size(n, k, s, near, operation.rounding, far) for n, k, s, (near, far) in axes)
    # Without padding Caffe keeps a last window that rounding up has put wholly outside of the image (stride > kernel).
    if any((count - 1) * stride - pad >= size for count, (size, _, stride, (pad, _)) in zip(result, axes, strict=True)):
        raise NetworkError(
            f"the last window (kernel {operation.kernel}, stride {operation.stride}, padding {padding}) lies "
            f"outside of the input {shapes[0]}, where Caffe's result is undefined; change the stride or the kernel"
        )
    return (channels, *result)


@_shape.register
def _(operation: LRN, shapes: Sequence[Shape]) -> Shape:
    return image(shapes[0])


@_shape.register
def _(operation: Flatten, shapes: Sequence[Shape]) -> Shape:
    return (prod(shapes[0]),)


@_shape.register
def _(operation: Reshape, shapes: Sequence[Shape]) -> Shape:
    if len(operation.shape) not in (1, 3):
        raise NetworkError(
            f"shape {operation.shape} without the batch, expected (channels, height, width) or (features,)"
        )
    if prod(operation.shape) != prod(shapes[0]):
        raise NetworkError(f"shape {operation.shape} does not hold as many values as the input {shapes[0]}")
    return operation.shape


@_shape.register
def _(operation: BatchNorm, shapes: Sequence[Shape]) -> Shape:
    _check_channels("mean", operation.mean.shape, shapes[0])
    _check_channels("variance", operation.variance.shape, shapes[0])
    return shapes[0]


@_shape.register
def _(operation: Scale, shapes: Sequence[Shape]) -> Shape:
    _check_channels("gamma", operation.gamma.shape, shapes[0])
    if operation.beta is not None:
        _check_channels("beta", operation.beta.shape, shapes[0])
    return shapes[0]


@_shape.register
def _(operation: PReLU, shapes: Sequence[Shape]) -> Shape:
    if operation.slope.shape != (1,):
        _check_channels("slope", operation.slope.shape, shapes[0])
    return shapes[0]


@_shape.register
def _(operation: Clip, shapes: Sequence[Shape]) -> Shape:
    low, high = operation.low, operation.high
    if (low is None and high is None) or (low is not None and high is not None and low >= high):
        raise NetworkError(f"clips to at least {low} and at most {high}, expected one bound, or a lower and a higher")
    return shapes[0]


@_shape.register
def _(operation: Gather, shapes: Sequence[Shape]) -> Shape:
    if wrong := [channel for channel in operation.channels if not 0 <= channel < shapes[0][0]]:
        raise NetworkError(f"takes channel {wrong[0]}, the input {shapes[0]} has {shapes[0][0]}")
    if not operation.channels:
        raise NetworkError("takes no channels")
    return (len(operation.channels), *shapes[0][1:])


@_shape.register
def _(operation: Crop, shapes: Sequence[Shape]) -> Shape:
    channels, *size = image(shapes[0])
    axes = ("rows", operation.rows), ("columns", operation.columns)
    for (what, (first, count)), length in zip(axes, size, strict=True):
        if first < 0 or count < 1 or first + count > length:
            raise NetworkError(f"takes {count} {what} from number {first} on, the input {shapes[0]} has {length}")
    return (channels, operation.rows[1], operation.columns[1])


@_shape.register
def _(operation: SpaceToDepth, shapes: Sequence[Shape]) -> Shape:
    channels, height, width = image(shapes[0])
    down, across = _check_block(operation.block)
    if height % down or width % across:
        raise NetworkError(f"blocks of {down} x {across} pixels do not fill the input {shapes[0]}")
    places = channels * down * across
    if not operation.channels or not all(0 <= place < places for place in operation.channels):
        raise NetworkError(f"takes the places {operation.channels} of blocks that have {places}")
    return (len(operation.channels), height // down, width // across)


@_shape.register
def _(operation: DepthToSpace, shapes: Sequence[Shape]) -> Shape:
    channels, height, width = image(shapes[0])
    down, across = _check_block(operation.block)
    if channels % (down * across):
        raise NetworkError(f"blocks of {down} x {across} pixels cannot be made of {channels} channels")
    if sorted(operation.channels) != list(range(channels)):
        raise NetworkError(f"makes blocks of the channels {operation.channels}, expected each of {channels} once")
    return (channels // (down * across), height * down, width * across)


@_shape.register
def _(operation: Eltwise, shapes: Sequence[Shape]) -> Shape:
    if len(shapes) < 2:
        raise NetworkError("reads 1 tensor, expected 2 or more")
    if operation.operation == "prod":
        largest = max(shapes, key=prod)
        shapes = [largest if prod(shape) == shape[0] == largest[0] else shape for shape in shapes]
    if len(set(shapes)) > 1:
        raise NetworkError(f"inputs have the shapes {', '.join(map(str, shapes))}, expected equal ones")
    if operation.coefficients and len(operation.coefficients) != len(shapes):
        raise NetworkError(f"{len(operation.coefficients)} coefficients for {len(shapes)} inputs, expected one each")
    return shapes[0]


@_shape.register
def _(operation: Concat, shapes: Sequence[Shape]) -> Shape:
    if len({shape[1:] for shape in shapes}) > 1:
        raise NetworkError(
            f"inputs have the shapes {', '.join(map(str, shapes))}, expected equal ones but for the channels"
        )
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def divisors(pooling: Pooling, size: Pair, result: Pair) -> NDArray[np.int64]:
    """Return what each average of a pooling is divided by: how much of its window lies on the area.

    Parameters
    ----------
    pooling : Pooling
        The pooling.
    size, result : Pair
        Height and width of what it reads and of what it writes.

    Returns
    -------
    NDArray[int64], shape `result`
        Pixels.
    """
    counts = []
    for n, k, s, (near, far), length in zip(result, pooling.kernel, pooling.stride, pooling.sides, size, strict=True):
        start = np.arange(n, dtype=np.int64) * s - near
        end = start + k
        if pooling.area == "image":
            start, end = np.maximum(start, 0), np.minimum(end, length)
        else:
            end = np.minimum(end, length + far)
        counts.append(end - start)
    return np.outer(*counts)


def check_arity(several: bool, count: int) -> None:
    """Check the number of tensors that a layer reads: one, or one and more where it takes `several`.

    Raises
    ------
    NetworkError
        It is another number.
    """
    if (several and not count) or (not several and count != 1):
        expected = "1 or more" if several else "1"
        raise NetworkError(f"reads {count} tensors, expected {expected}")


def image(shape: Shape) -> tuple[int, int, int]:
    """Shape as (channels, height, width).

    Raises
    ------
    NetworkError
        It is a vector.
    """
    if len(shape) != 3:
        raise NetworkError(f"reads a tensor of shape {shape}, expected (channels, height, width)")
    return shape


def check_window(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], sides: Sequence[Pair]) -> None:
    """Check that a window of `kernel` pixels fits into the padded image at least once, and that it moves.

    `sides` is the padding (before, after) along each axis.

    Raises
    ------
    NetworkError
        It does not fit, or the kernel or stride is zero.
    """
    if min(kernel) < 1 or min(stride) < 1:
        raise NetworkError(f"kernel {tuple(kernel)}, stride {tuple(stride)}, expected 1 or more")
    padded = tuple(length + sum(pads) for length, pads in zip(size, sides, strict=True))
    if any(k > p for k, p in zip(kernel, padded, strict=True)):
        raise NetworkError(
            f"a kernel that spans {tuple(kernel)} pixels is larger than the padded input {padded} "
            f"(input {tuple(size)}, padding {_padding(sides)})"
        )


def _padding(sides: Sequence[Pair]) -> str:
    """Return padding as text: (vertical, horizontal), or where the sides differ as ONNX has it: before, then after."""
    before, after = zip(*sides, strict=True)
    return str(before) if before == after else str((*before, *after))


def _check_groups(group: int, channels: int, outputs: int) -> None:
    if group < 1 or channels % group or outputs % group:
        raise NetworkError(f"group {group} does not divide both {channels} input and {outputs} output channels")


def _check_block(block: Pair) -> Pair:
    if min(block) < 1:
        raise NetworkError(f"block {block}, expected 1 or more rows and columns")
    return block


def _check_channels(what: str, got: Shape, shape: Shape) -> None:
    if got != shape[:1]:
        raise NetworkError(f"{what} has the shape {got}, expected {shape[:1]} for the input {shape}")
