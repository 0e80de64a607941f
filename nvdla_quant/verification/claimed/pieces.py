"""What a claimed piece computes, in floating point: a few stages between places of tensors."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.claim.records import (
    Affine,
    Bounding,
    Gain,
    Gathering,
    Joining,
    Lookup,
    Piece,
    Place,
    Rectifying,
    Slopes,
    Stage,
    Weighting,
    Whole,
)
from nvdla_quant.errors import ClaimError
from nvdla_quant.network.graph import (
    TABULATED,
    Clip,
    Convolution,
    Deconvolution,
    InnerProduct,
    Layer,
    Network,
    Pair,
    Power,
    PReLU,
    ReLU,
    Tensor,
    Weights,
)
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.network.passes import affine_of
from nvdla_quant.network.shapes import assemble
from nvdla_quant.network.views import viewed
from nvdla_quant.verification.measures.comparison import Floats
from nvdla_quant.verification.measures.sessions import session_of
from nvdla_quant.verification.measures.tables import FunctionTable

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_COMBINED: Mapping[str, Callable[[Floats, Floats], Floats]] = MappingProxyType(
    {"sum": np.add, "max": np.maximum, "min": np.minimum, "product": np.multiply}
)
"""What the stages that join two tensors compute."""
_OPSET, _IR_VERSION = 17, 8
"""As `writer.to_onnx`."""


def taken(values: NDArray[Any], place: Place) -> NDArray[Any]:
    """Return the part of a whole tensor, (n, channels, height, width), that stands at `place`; not a copy."""
    (first, end), (row, down), (column, across) = place.channels, place.rows, place.columns
    height, width = place.size or (None, None)
    return values[:, first:end, row::down, column::across][:, :, :height, :width]


class FloatPieces:
    """Computes pieces with the weights of a network.

    Parameters
    ----------
    network : Network
        As `passes.for_hardware` leaves it, with its weights.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._sessions: dict[str, InferenceSession] = {}

    def layer(self, name: str, *kinds: type) -> Layer:
        """Return a layer, which is of one of these kinds.

        Raises
        ------
        ClaimError
            The network has no such layer, or it is something else.
        """
        layer = self._network.by_name.get(name)
        if layer is None:
            raise ClaimError(f"the network has no layer {name!r}")
        if kinds and not isinstance(layer.operation, kinds):
            raise ClaimError(
                f"layer {name!r} is a {layer.kind}, expected {' or '.join(kind.__name__ for kind in kinds)}"
            )
        return layer

    def weights(self, stage: Weighting | Gathering, channels: int) -> Weights:
        """Return the weights of a stage that reads `channels` channels, (kernels, channels, height, width).

        Raises
        ------
        ClaimError
            The layer has no such kernels, channels or taps.
        """
        if isinstance(stage, Gathering):
            return _gathering(stage, channels)
        layer = self.layer(stage.layer, Convolution, Deconvolution, InnerProduct)
        found = self._dense(layer, stage)
        if found.shape[1] != channels:
            raise ClaimError(f"it reads {channels} channels, its weights take {found.shape[1]}")
        for axis, taps in ((2, stage.rows), (3, stage.columns)):
            if taps is not None:
                if any(tap >= found.shape[axis] for tap in taps):
                    raise ClaimError(f"layer {stage.layer!r} has {found.shape[axis]} taps, the claim takes {taps}")
                # A phase of a deconvolution may have no taps: its bias alone.
                found = found.take(taps, axis=axis) if taps else np.zeros_like(found.take([0], axis=axis))
        return found if stage.factor == 1 else found * np.float32(stage.factor)

    def _dense(self, layer: Layer, stage: Weighting) -> Weights:
        """Return kernels of a layer over channels of its input, groups and dilation written out."""
        operation = layer.operation
        match operation:
            case InnerProduct():
                cube = self._network.tensors[viewed(self._network, layer.inputs[0])].chw
                weights, group, spread = operation.weights.reshape(-1, *cube), 1, (1, 1)
            case Deconvolution():
                inputs, outputs, *kernel = operation.weights.shape
                group, spread = operation.group, operation.dilation
                parts = operation.weights.reshape(group, inputs // group, outputs, *kernel)
                weights = parts.transpose(0, 2, 1, 3, 4).reshape(group * outputs, inputs // group, *kernel)
            case Convolution():
                weights, group = operation.weights, operation.group
                spread = operation.dilation if stage.dilation == (1, 1) else (1, 1)
            case _:
                raise AssertionError("`layer` returns these kinds alone")
        (first, end), (start, stop) = stage.kernels, stage.channels
        outputs, inputs = len(weights) // group, weights.shape[1]
        if not (0 <= first < end <= len(weights) and 0 <= start < stop <= inputs * group):
            raise ClaimError(
                f"layer {layer.name!r} has {len(weights)} kernels of {inputs * group} channels, the claim takes "
                f"kernels {first} to {end} and channels {start} to {stop}"
            )
        if group == 1:
            return _spread(weights[first:end, start:stop], spread)
        dense = np.zeros((end - first, stop - start, *weights.shape[2:]), np.float32)
        for number in range(first // outputs, -(-end // outputs)):
            kernels = slice(max(first, number * outputs), min(end, (number + 1) * outputs))
            channels = slice(max(start, number * inputs), min(stop, (number + 1) * inputs))
            if channels.start < channels.stop:
                part = weights[kernels, channels.start - number * inputs : channels.stop - number * inputs]
                dense[kernels.start - first : kernels.stop - first, channels.start - start : channels.stop - start] = (
                    part
                )
        return _spread(dense, spread)

    def bias(self, stage: Weighting | Gathering) -> Weights | None:
        """Return what a stage adds to each of its kernels; None for nothing.

        Raises
        ------
        ClaimError
            A bias is claimed that the layer has not.
        """
        if isinstance(stage, Gathering) or not stage.bias:
            return None
        operation = self.layer(stage.layer, Convolution, Deconvolution, InnerProduct).operation
        assert isinstance(operation, Convolution | Deconvolution | InnerProduct)
        if operation.bias is None:
            raise ClaimError(f"layer {stage.layer!r} has no bias, the claim adds one")
        return operation.bias[stage.kernels[0] : stage.kernels[1]] * np.float32(stage.factor)

    def compute(
        self,
        piece: Piece,
        source: Floats,
        others: Mapping[Place, Floats],
        size: Pair,
        weights: Weights | None = None,
        factors: NDArray[np.float64] | None = None,
        table: FunctionTable | None = None,
    ) -> Floats:
        """Return what a piece makes of its inputs, (n, channels, *size).

        Parameters
        ----------
        piece : Piece
            The piece.
        source : Floats
            What it reads, (n, channels, height, width).
        others : Mapping[Place, Floats]
            What it joins, by place.
        size : Pair
            Height and width of what it writes.
        weights, factors : NDArray, optional
            Weights in place of the network's, and the real value of a product of each kernel with the source.
        table : FunctionTable, optional
            Table that has the place of a function.

        Raises
        ------
        ClaimError
            The stages do not fit each other or the network.
        """
        values = source
        for stage in piece.stages:
            if isinstance(stage, Weighting | Gathering):
                kernels = self.weights(stage, source.shape[1]) if weights is None else weights
                gathers = isinstance(stage, Gathering)
                values = _gathered(values, kernels) if gathers else convolve(values, kernels, stage, size)
                if factors is not None:
                    values *= factors.astype(np.float32)[None, :, None, None]
                bias = self.bias(stage)
                if bias is not None:
                    values += bias[None, :, None, None]
            else:
                values = self._point(stage, values, others, table)
        return values

    def _point(
        self, stage: Stage, values: Floats, others: Mapping[Place, Floats], table: FunctionTable | None
    ) -> Floats:
        match stage:
            case Whole():
                return self._whole(stage.layer, values)
            case Affine():
                operation = self.layer(stage.layer).operation
                parts = affine_of(operation)
                if parts is None:
                    raise ClaimError(f"layer {stage.layer!r} is no factor and offset of each channel")
                factor, offset = (_of_channels(part, values, stage.layer) for part in parts)
                return values * factor + offset
            case Gain():
                return values * np.float32(stage.factor)
            case Joining():
                other = others[stage.reads] * np.float32(stage.gain)
                spread = stage.how == "product" and other.shape == (*values.shape[:2], 1, 1)
                if other.shape != values.shape and not spread:
                    raise ClaimError(f"it joins {_shape(other)} with {_shape(values)}")
                return _COMBINED[stage.how](values, other)
            case Slopes():
                operation = self.layer(stage.layer, ReLU, PReLU).operation
                slopes = operation.slope if isinstance(operation, PReLU) else np.array([operation.negative_slope])  # type: ignore[union-attr]
                slopes = slopes if len(slopes) == 1 else slopes[stage.kernels[0] : stage.kernels[1]]
                return np.where(values > 0, values, values * _of_channels(slopes, values, stage.layer))
            case Lookup():
                function = partial(self._whole, stage.layer, kinds=(*TABULATED, Power))
                return function(values) if table is None else table.of(function, values)
            case Rectifying():
                return np.maximum(values, 0)
            case Bounding():
                return self._bounded(stage, values)
        raise AssertionError(f"{stage.kind} is no stage of single points")

    def _bounded(self, stage: Bounding, values: Floats) -> Floats:
        operation = self.layer(stage.layer, Clip).operation
        assert isinstance(operation, Clip)
        bounds = {"low": operation.low, "high": operation.high}
        for side in stage.sides:
            bound = bounds[side]
            if bound is None:
                raise ClaimError(f"layer {stage.layer!r} has no {side} bound")
            values = np.maximum(values, np.float32(bound)) if side == "low" else np.minimum(values, np.float32(bound))
        return values

    def _whole(self, name: str, values: Floats, kinds: tuple[type, ...] = ()) -> Floats:
        """Return what a layer makes of values, whatever size they have where it works on points."""
        layer = self.layer(name, *kinds)
        if len(layer.inputs) != 1 or isinstance(layer.operation, Convolution | Deconvolution | InnerProduct):
            raise ClaimError(f"layer {name!r} is a {layer.kind}, which no single unit computes whole")
        shape = values.shape[1:]
        key = f"{name} {shape}"
        if key not in self._sessions:
            part = assemble(name, [Tensor(layer.inputs[0], shape, layer.inputs[0])], [layer])
            self._sessions[key] = session_of(to_onnx(part, [name]).SerializeToString())
        (result,) = self._sessions[key].run([name], {layer.inputs[0]: np.ascontiguousarray(values, np.float32)})
        return np.asarray(result, np.float32)


def convolve(values: Floats, weights: Weights, stage: Weighting | Gathering, size: Pair) -> Floats:
    """Return the convolution of values with weights, (n, kernels, *size); zeros stand around the values."""
    if isinstance(stage, Gathering):
        stride, pad, dilation = (1, 1), (0, 0), (1, 1)
    else:
        stride, pad, dilation = stage.stride, stage.pad, stage.dilation
    if weights.shape[1] != values.shape[1] or min(*stride, *dilation) < 1:
        raise ClaimError(f"weights {weights.shape} do not fit {_shape(values)}, stride {stride}, dilation {dilation}")
    pads = []
    for axis in (0, 1):
        inputs, extent = values.shape[2 + axis], (weights.shape[2 + axis] - 1) * dilation[axis] + 1
        after = (size[axis] - 1) * stride[axis] + extent - pad[axis] - inputs
        before = pad[axis]
        cut = slice(max(-before, 0), inputs - max(-after, 0))
        values = values[:, :, cut] if axis == 0 else values[:, :, :, cut]
        pads.append((max(before, 0), max(after, 0)))
    if 0 in values.shape:
        # A phase of a deconvolution that reads nothing of so small an input.
        return np.zeros((len(values), len(weights), *size), np.float32)
    session = _convolution(stride, dilation, (pads[0][0], pads[1][0], pads[0][1], pads[1][1]))
    (result,) = session.run(["y"], {"x": np.ascontiguousarray(values), "w": np.ascontiguousarray(weights)})
    return np.asarray(result, np.float32)


@lru_cache(maxsize=256)
def _convolution(stride: Pair, dilation: Pair, pads: tuple[int, int, int, int]) -> "InferenceSession":
    from onnx import TensorProto, helper

    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=stride, dilations=dilation, pads=pads)
    x, w, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in "xwy")
    graph = helper.make_graph([node], "convolution", [x, w], [y])
    opset = [helper.make_opsetid("", _OPSET)]
    return session_of(helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION).SerializeToString())


def _gathered(values: Floats, weights: Weights) -> Floats:
    """Return sums of channels; most gather one channel each, which is no work for a convolution."""
    matrix = weights[:, :, 0, 0]
    if (np.count_nonzero(matrix, axis=1) == 1).all() and matrix.shape[1] == values.shape[1]:
        channels = np.abs(matrix).argmax(axis=1)
        picked: Floats = values[:, channels] * matrix[np.arange(len(matrix)), channels][None, :, None, None]
        return picked
    return convolve(values, weights, Gathering(len(weights), ()), (values.shape[2], values.shape[3]))


def _gathering(stage: Gathering, channels: int) -> Weights:
    weights = np.zeros((stage.outputs, channels, 1, 1), np.float32)
    for output, channel, count, factor in stage.places:
        if min(output, channel) < 0 or count < 1 or output + count > stage.outputs or channel + count > channels:
            raise ClaimError(
                f"it gathers {count} channels from {channel} to {output}, of {channels} to {stage.outputs}"
            )
        weights[np.arange(output, output + count), np.arange(channel, channel + count), 0, 0] = factor
    return weights


def _spread(weights: Weights, dilation: Pair) -> Weights:
    """Return kernels with the zeros of `dilation` written out."""
    if dilation == (1, 1):
        return weights
    (down, across), (kernels, channels, height, width) = dilation, weights.shape
    result = np.zeros((kernels, channels, (height - 1) * down + 1, (width - 1) * across + 1), np.float32)
    result[:, :, ::down, ::across] = weights
    return result


def _of_channels(values: NDArray[Any], beside: Floats, layer: str) -> Floats:
    if len(values) not in (1, beside.shape[1]):
        raise ClaimError(f"layer {layer!r} has {len(values)} channels, it is claimed for {beside.shape[1]}")
    return values.astype(np.float32).reshape(1, -1, 1, 1)


def _shape(values: NDArray[Any] | Sequence[int]) -> str:
    sizes = values.shape[1:] if isinstance(values, np.ndarray) else values
    return "x".join(map(str, sizes))
