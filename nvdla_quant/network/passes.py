"""Rewrites of a network that keep what it computes: folding, and replacing what the hardware lacks.

A layer that absorbs others takes the name of the last one, so every tensor that is left keeps its name and values,
and a calibration table of the original network serves.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import ConfigError, NetworkError
from nvdla_quant.hardware.targets import MAX_POOLING_WINDOW
from nvdla_quant.network.graph import (
    BatchNorm,
    Convolution,
    Deconvolution,
    InnerProduct,
    Layer,
    Learned,
    Network,
    Operation,
    Pair,
    Pooling,
    Power,
    Rounding,
    Scale,
    Weights,
    pooling_size,
)
from nvdla_quant.network.moves import DepthToSpace, SpaceToDepth, picked, spread
from nvdla_quant.network.quantized import output_count, rescaled
from nvdla_quant.network.shapes import assemble
from nvdla_quant.network.views import readers, sole_reader

_Linear = TypeVar("_Linear", bound=Learned)

PREPARATIONS = ("fold", "as-is")


def prepare(network: Network, preparation: str, pixels: tuple[Sequence[float], float] | None = None) -> Network:
    """Bring `network` to the form that is compiled.

    Parameters
    ----------
    network : Network
        The original network, with or without its weights' values: structure and names come out the same.
    preparation : {"fold", "as-is"}
        ``fold`` applies `fold_normalisation` and `split_pooling`; ``as-is`` changes nothing.
    pixels : (mean, scale), optional
        What preprocessing does to pixels, to fold it into the network with `fold_input`: for a runtime that feeds raw
        pixels. The mean has one value, or one for each channel.

    Raises
    ------
    ConfigError
        There is no such preparation.
    NetworkError
        As `fold_input`.
    """
    if preparation not in PREPARATIONS:
        raise ConfigError(f"preparation is {preparation!r}, expected one of {', '.join(PREPARATIONS)}")
    prepared = split_pooling(fold_normalisation(network)) if preparation == "fold" else network
    if pixels is None:
        return prepared
    mean, scale = pixels
    tensor = network.only_input
    return fold_input(prepared, tensor.name, np.broadcast_to(np.asarray(mean, np.float64), tensor.chw[:1]), scale)


def fold_normalisation(network: Network, keep: Collection[str] = ()) -> Network:
    """Fold BatchNorm, Scale and linear Power into the convolution or inner product that they follow.

    Computed in double precision. Several behind one another that follow no such layer become one Scale. What another
    layer reads as well stays, and so does what follows a tensor in `keep`.
    """
    layers: list[Layer] = []
    position: dict[str, int] = {}
    for layer in network.layers:
        affine = affine_of(layer.operation)
        index = position.get(layer.inputs[0])
        alone = layer.inputs[0] not in keep and sole_reader(network, layer.inputs[0]) is layer
        if affine is not None and index is not None and alone:
            before = layers[index]
            if isinstance(before.operation, Convolution | Deconvolution | InnerProduct):
                factor, offset = (np.broadcast_to(part, (output_count(before.operation),)) for part in affine)
                layers[index] = Layer(layer.name, _absorb(before.operation, factor, offset), before.inputs)
                position[layer.name] = index
                continue
            if first := affine_of(before.operation):
                channels = network.tensors[layer.name].chw[:1]
                joined = affine[0] * first[0], affine[0] * first[1] + affine[1]
                gamma, beta = (np.broadcast_to(part, channels).astype(np.float32) for part in joined)
                layers[index] = Layer(layer.name, Scale(gamma, beta), before.inputs)
                position[layer.name] = index
                continue
        position[layer.name] = len(layers)
        layers.append(layer)
    return _assembled(network, layers)


def _assembled(network: Network, layers: list[Layer]) -> Network:
    blobs = {name: tensor.blob for name, tensor in network.tensors.items()}
    return assemble(network.name, network.inputs, layers, blobs)


def affine_of(operation: Operation) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(factor, offset) of an operation that computes factor * x + offset for each channel, else None."""
    match operation:
        case BatchNorm():
            factor = 1 / np.sqrt(operation.variance.astype(np.float64) + operation.eps)
            return factor, -operation.mean * factor
        case Scale():
            beta = np.zeros(1) if operation.beta is None else operation.beta
            return operation.gamma.astype(np.float64), beta.astype(np.float64)
        case Power(power=1.0):
            return np.array([operation.scale]), np.array([operation.shift])
        case _:
            return None


def _absorb(operation: _Linear, factor: NDArray[np.float64], offset: NDArray[np.float64]) -> _Linear:
    """`operation`, its outputs times `factor` plus `offset`."""
    bias = offset if operation.bias is None else operation.bias * factor + offset
    return replace(rescaled(operation, factor), bias=bias.astype(np.float32))


def fold_input(network: Network, name: str, mean: NDArray[np.float64], scale: float) -> Network:
    """Fold ``x = (p - mean) * scale`` of an input into the layers that read it: the new network reads p.

    Exact where no reader pads; padding then stands for p = 0 instead of p = mean.

    Parameters
    ----------
    network : Network
        The network.
    name : str
        Name of the input.
    mean : NDArray
        One value a channel, in units of p.
    scale : float
        Factor behind the subtraction.

    Raises
    ------
    NetworkError
        Something other than a convolution or an inner product reads the input, or `mean` has another length than the
        input has channels.
    """
    channels, height, width = network.tensors[name].chw
    if mean.shape != (channels,):
        raise NetworkError(f"input {name!r}: {mean.shape} means given for {channels} channels")
    folded: dict[str, Convolution | InnerProduct] = {}
    for layer in readers(network, name):
        operation = layer.operation
        if isinstance(operation, Convolution):
            groups = operation.weights.astype(np.float64).reshape(operation.group, -1, *operation.weights.shape[1:])
            shift = np.einsum("gocyx,gc->go", groups, mean.reshape(operation.group, -1)).ravel()
        elif isinstance(operation, InnerProduct):
            shift = operation.weights.astype(np.float64) @ np.repeat(mean, height * width)
        else:
            raise NetworkError(f"layer {layer.name!r}: {layer.kind} reads input {name!r}, its mean cannot be folded")
        bias = np.zeros(len(shift)) if operation.bias is None else operation.bias
        scaled = rescaled(operation, np.full(len(shift), scale, np.float64))
        folded[layer.name] = replace(scaled, bias=(bias - shift * scale).astype(np.float32))
    layers = [replace(layer, operation=folded.get(layer.name, layer.operation)) for layer in network.layers]
    return _assembled(network, layers)


def for_hardware(network: Network) -> Network:
    """Apply every rewrite of whole layers that lets the hardware run more: what the compiler does first."""
    return convolve_blocks(split_pooling(fold_normalisation(network)))


def convolve_blocks(network: Network) -> Network:
    """Replace exchanges of pixels and channels by convolutions and deconvolutions whose stride is the block.

    Each of their results is one value times 1. So they are exact where both tensors have one scale, which
    `table.consistency` sees to.
    """
    layers = [
        replace(layer, operation=operation)
        if (operation := convolving(layer.operation, network.tensors[layer.inputs[0]].chw[0]))
        else layer
        for layer in network.layers
    ]
    return _assembled(network, layers)


def convolving(operation: Operation, channels: int) -> Convolution | Deconvolution | None:
    """Return what computes an exchange of pixels and channels that reads `channels`; None for any other operation."""
    match operation:
        case SpaceToDepth():
            return Convolution(picked(operation, channels), None, operation.block)
        case DepthToSpace():
            return Deconvolution(spread(operation), None, operation.block)
        case _:
            return None


def dense_groups(weights: Weights, group: int) -> Weights:
    """Weights of a grouped convolution as those of one over all channels, with zeros where groups do not meet.

    Parameters
    ----------
    weights : Weights
        (outputs, inputs / group, height, width).
    group : int
        Number of groups.
    """
    outputs, inputs, height, width = weights.shape
    dense = np.zeros((group, outputs // group, group, inputs, height, width), dtype=weights.dtype)
    index = np.arange(group)
    dense[index, :, index] = weights.reshape(group, -1, inputs, height, width)
    return dense.reshape(outputs, group * inputs, height, width)


def write_out_groups(network: Network) -> Network:
    """Replace grouped convolutions by ones over all channels, with zeros where groups do not meet."""
    layers = [
        replace(
            layer,
            operation=replace(operation, weights=dense_groups(operation.weights, operation.group), group=1),
        )
        if isinstance(operation := layer.operation, Convolution) and operation.group > 1
        else layer
        for layer in network.layers
    ]
    return _assembled(network, layers)


def split_pooling(network: Network) -> Network:
    """Replace poolings with windows above the hardware's limit.

    A window of a * b without padding is a window of a, then one of b over the results. A maximum of any size is a
    chain of overlapping maxima. Both kinds of chain compute the same; the new layers are called ``<name>_part1`` and so
    on, and have the scale of the pooling's input. Any other average becomes a convolution of each channel by itself
    with equal weights, where all windows are divided by the same number. What cannot be replaced so stays;
    `support.check` reports it.
    """
    layers: list[Layer] = []
    for layer in network.layers:
        operation = layer.operation
        if not isinstance(operation, Pooling) or max(operation.kernel) <= MAX_POOLING_WINDOW:
            layers.append(layer)
            continue
        tensor, output = network.tensors[layer.inputs[0]], network.tensors[layer.name]
        parts: Sequence[Pooling | Convolution] | None = _parts(operation, tensor.chw[1:], output.chw[1:])
        if parts is None and (averaging := _averaging(operation, tensor.chw, output.chw[1:])):
            parts = [averaging]
        source = layer.inputs[0]
        for number, part in enumerate(parts or [operation], start=1):
            name = layer.name if number == len(parts or [operation]) else f"{layer.name}_part{number}"
            layers.append(Layer(name, part, (source,)))
            source = name
    return _assembled(network, layers)


_Axis = tuple[int, int, Pair]
"""(kernel, stride, padding before and after) along one axis."""
_UNPADDED = (0, 0)


def _parts(pooling: Pooling, size: Pair, output: Pair) -> list[Pooling] | None:
    """Poolings that one after another compute `pooling`, or None."""
    axes = [
        _nested(*axis, pooling.rounding) or (_overlapping(*axis, pooling.rounding) if pooling.method == "max" else None)
        for axis in zip(pooling.kernel, pooling.stride, pooling.sides, size, output, strict=True)
    ]
    if any(axis is None for axis in axes):
        return None
    rows, columns = (axis or [] for axis in axes)
    length = max(len(rows), len(columns))
    rows, columns = (axis + [(1, 1, _UNPADDED)] * (length - len(axis)) for axis in (rows, columns))
    return [_part(pooling, row, column) for row, column in zip(rows, columns, strict=True)]


def _part(pooling: Pooling, row: _Axis, column: _Axis) -> Pooling:
    """Pooling of these windows that is otherwise as `pooling`."""
    near, far = zip(row[2], column[2], strict=True)
    window = replace(pooling, kernel=(row[0], column[0]), stride=(row[1], column[1]))
    return replace(window, pad=near, far=None if far == near else far)


def _nested(kernel: int, stride: int, pad: Pair, size: int, output: int, rounding: Rounding) -> list[_Axis] | None:
    """Poolings along one axis whose windows stand side by side, each within the limit, or None."""
    if pad != _UNPADDED or (output - 1) * stride + kernel > size:
        return None
    if output == 1 and kernel > size - kernel:
        stride = kernel  # Of the only window; any that keeps a second one out will do.
    if kernel <= MAX_POOLING_WINDOW:
        return [(kernel, stride, _UNPADDED)]
    for first in range(MAX_POOLING_WINDOW, 1, -1):
        if kernel % first or stride % first:
            continue
        # Windows beyond the ones that count may come out of rounding up; they must not make a further output.
        between = pooling_size(size, first, first, 0, rounding)
        rest_kernel, rest_stride = kernel // first, stride // first
        if pooling_size(between, rest_kernel, rest_stride, 0, rounding) != output:
            continue
        rest = _nested(rest_kernel, rest_stride, _UNPADDED, between, output, rounding)
        if rest is not None:
            return [(first, first, _UNPADDED), *rest]
    return None


def _overlapping(kernel: int, stride: int, pad: Pair, size: int, output: int, rounding: Rounding) -> list[_Axis] | None:
    """Maxima along one axis whose windows overlap, each within the limit, or None."""
    if kernel <= MAX_POOLING_WINDOW:
        return [(kernel, stride, pad)]
    for first in range(MAX_POOLING_WINDOW, max(*pad, 1), -1):
        between, left = size + sum(pad) - (first - 1), kernel - (first - 1)
        # Rounding up may let the last window begin behind what so large a first one leaves.
        if pooling_size(between, left, stride, 0, rounding) != output or (output - 1) * stride >= between:
            continue
        rest = _overlapping(left, stride, _UNPADDED, between, output, rounding)
        if rest is not None:
            return [(first, 1, pad), *rest]
    return None


def _averaging(pooling: Pooling, shape: tuple[int, int, int], output: Pair) -> Convolution | None:
    """Convolution that computes an average, where each window lies inside of what it divides by."""
    axes = list(zip(pooling.kernel, pooling.stride, pooling.sides, shape[1:], output, strict=True))
    if pooling.method == "max" or any((n - 1) * s + k > size + sum(pad) for k, s, pad, size, n in axes):
        return None
    if pooling.area == "image" and any(pad != _UNPADDED for _, _, pad, _, _ in axes):
        return None
    height, width = pooling.kernel
    weights = np.full((shape[0], 1, height, width), 1 / (height * width), np.float32)
    strides = [1 if size + sum(pad) == k else s for k, s, pad, size, _ in axes]  # One window has no stride.
    sizes = [(size + sum(pad) - k) // s + 1 for (k, _, pad, size, _), s in zip(axes, strides, strict=True)]
    if sizes != list(output):
        return None
    return Convolution(weights, None, (strides[0], strides[1]), pooling.pad, group=shape[0], far=pooling.far)
