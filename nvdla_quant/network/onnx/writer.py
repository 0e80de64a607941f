"""Write a `Network` as ONNX: a model whose values have our tensors' names."""

import math
from collections.abc import Sequence
from functools import singledispatchmethod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError
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
    InnerProduct,
    Layer,
    Learned,
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
    Weights,
)
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth, inverted, onnx_order
from nvdla_quant.network.quantized import steps_of
from nvdla_quant.network.shapes import divisors

if TYPE_CHECKING:
    import onnx

PRODUCER = "nvdla-quant"
LARGE = 1 << 20
"""Bytes from which on a constant is handed to the session beside the model: protobuf copies it several times."""
OPSET = 17
_IR_VERSION = 8
"""Old enough for every onnxruntime from 1.18 on, and the first pair that has all operators used here."""


def to_onnx(
    network: Network, outputs: Sequence[str] | None = None, apart: dict[str, Weights] | None = None
) -> "onnx.ModelProto":
    """ONNX model of the network, each value named as our tensor, with a free batch size.

    Parameters
    ----------
    network : Network
        With its weights.
    outputs : Sequence[str], optional
        Names of the tensors to return, network inputs not among them; the network's outputs where not given.
    apart : dict, optional
        Takes the large constants, by name, which then are not in the model: a session gets them without a copy.

    Raises
    ------
    NetworkError
        No layer writes an output that was asked for.
    """
    return Graph(network, apart).model(outputs)


def _value(network: Network, name: str) -> "onnx.ValueInfoProto":
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *network.tensors[name].shape])


class Graph:
    """Nodes and constants of an ONNX graph, one layer after another.

    Parameters
    ----------
    network, apart
        See `to_onnx`.
    quantized : bool
        Whether weights that came quantized are written as integers with their scales; else as the floats that they
        are, which onnxruntime runs faster.

    Attributes
    ----------
    held : dict[str, dict[str, str]]
        Names of the constants of each layer, by what they are: of a learned array, the field of its operation.
    """

    def __init__(self, network: Network, apart: dict[str, Weights] | None = None, *, quantized: bool = False) -> None:
        self.network, self._apart, self._quantized = network, apart, quantized
        self.held: dict[str, dict[str, str]] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names = set(network.tensors)
        for layer in network.layers:
            self.add(layer.operation, layer)

    def model(self, outputs: Sequence[str] | None = None) -> "onnx.ModelProto":
        """Return the model; `outputs` and errors as of `to_onnx`."""
        from onnx import helper  # Here and below: a job that makes no model, or not yet, does without.

        network = self.network
        names = [tensor.name for tensor in network.outputs] if outputs is None else list(outputs)
        if unknown := [name for name in names if name not in network.by_name]:
            raise NetworkError(f"no layer writes {', '.join(map(repr, unknown))}; expected layer names of the network")
        return helper.make_model(
            helper.make_graph(
                self.nodes,
                network.name or "network",
                [_value(network, tensor.name) for tensor in network.inputs],
                [_value(network, name) for name in names],
                self.constants,
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name=PRODUCER,
        )

    def _fresh(self, layer: Layer, what: str) -> str:
        """Value name that is no tensor's."""
        name = f"{layer.name}:{what}"
        while name in self._names:
            name += ":"
        self._names.add(name)
        return name

    def _constant(self, layer: Layer, what: str, array: NDArray[np.generic]) -> str:
        from onnx import TensorProto, numpy_helper

        name = self._fresh(layer, what)
        self.held.setdefault(layer.name, {})[what] = name
        if self._apart is not None and array.dtype == np.float32 and array.nbytes >= LARGE:
            self._apart[name] = np.ascontiguousarray(array, np.float32)
            held = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
            held.data_location = TensorProto.EXTERNAL
            held.external_data.add(key="location", value="memory")
            self.constants.append(held)
        else:
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def _per_channel(self, layer: Layer, what: str, array: Weights) -> str:
        """Constant that broadcasts along the channels of what the layer reads."""
        rank = len(self.network.tensors[layer.inputs[0]].shape)
        return self._constant(layer, what, array.reshape(-1, *[1] * (rank - 1)))

    def _numbers(self, layer: Layer, what: str, numbers: Sequence[int]) -> str:
        return self._constant(layer, what, np.array(numbers, np.int64))

    def _reordered(
        self, layer: Layer, source: str, cut: Sequence[int], order: Sequence[int], shape: Sequence[int], name: str
    ) -> str:
        """Return `name`, which is `source` cut into axes, these in another `order`, and joined to another `shape`."""
        axes = self._node("Reshape", [source, self._numbers(layer, "cut", cut)], self._fresh(layer, "apart"))
        moved = self._node("Transpose", [axes], self._fresh(layer, "moved"), perm=list(order))
        return self._node("Reshape", [moved, self._numbers(layer, "shape", shape)], name)

    def _of_rank(self, layer: Layer, name: str) -> str:
        """Value of tensor `name` with as many axes as what the layer writes: a vector as channels of one pixel."""
        rank, shape = len(self.network.tensors[layer.name].shape), self.network.tensors[name].shape
        if len(shape) == rank:
            return name
        axes = self._constant(layer, "axes", np.array([-1, *shape, *[1] * (rank - len(shape))], np.int64))
        return self._node("Reshape", [name, axes], self._fresh(layer, f"{name} as pixel"))

    def _learned(self, layer: Layer, operation: Learned) -> list[str]:
        if operation.scales is None or not self._quantized:
            weights = self._constant(layer, "weights", operation.weights)
        else:
            weights = self._dequantized(layer, operation, operation.scales)
        names = [layer.inputs[0], weights]
        return names if operation.bias is None else [*names, self._constant(layer, "bias", operation.bias)]

    def _dequantized(self, layer: Layer, operation: Learned, scales: Weights) -> str:
        """Integers times the scales of an axis; the floats, and the scales beside them, where those are of no axis."""
        axis, along = 0, scales
        if isinstance(operation, Deconvolution):
            axis, along = 1, scales[: operation.weights.shape[1]]
            if (scales.reshape(operation.group, -1) != along).any():
                self._constant(layer, "scales", scales)
                return self._constant(layer, "weights", operation.weights)
        steps = steps_of(operation)
        # 128 is no int8; it is there where a negative factor was folded into -128.
        held = self._constant(layer, "weights", steps.astype(np.int8 if steps.max() <= 127 else np.int32))
        names = [held, self._constant(layer, "scales", scales)]
        if along is not scales and len(along) != len(scales):
            names[1] = self._constant(layer, "scales of a group", along)
        return self._node("DequantizeLinear", names, self._fresh(layer, "dequantized"), axis=axis)

    @singledispatchmethod
    def add(self, operation: Operation, layer: Layer) -> None:
        """Append the nodes of one layer; the last writes the layer's tensor."""
        raise TypeError(f"{type(operation).__name__} has no fp32 reference")  # Not reached: every operation is below.

    @add.register
    def _(self, operation: Convolution | Deconvolution, layer: Layer) -> None:
        (top, bottom), (left, right) = operation.sides
        appended = {}
        if min(bottom, right) < 0:
            appended = {"output_padding": [max(-bottom, 0), max(-right, 0)]}
        self._node(
            "Conv" if isinstance(operation, Convolution) else "ConvTranspose",
            self._learned(layer, operation),
            layer.name,
            kernel_shape=operation.weights.shape[2:],
            strides=operation.stride,
            pads=[top, left, max(bottom, 0), max(right, 0)],
            dilations=operation.dilation,
            group=operation.group,
            **appended,
        )

    @add.register
    def _(self, operation: InnerProduct, layer: Layer) -> None:
        source, *learned = self._learned(layer, operation)
        flat = self._node("Flatten", [source], self._fresh(layer, "flat"), axis=1)
        self._node("Gemm", [flat, *learned], layer.name, transB=1)

    @add.register
    def _(self, operation: Pooling, layer: Layer) -> None:
        """Pad the far sides explicitly, so that no rounding is left to ONNX, then correct clipped averages."""
        size = self.network.tensors[layer.inputs[0]].chw[1:]
        result = self.network.tensors[layer.name].chw[1:]
        axes = list(zip(size, result, operation.kernel, operation.stride, operation.sides, strict=True))
        # What the last window covers beyond the image; nothing where the windows leave a rest, which ONNX skips too.
        far = [max(0, (n - 1) * s + k - p - i) for i, n, k, s, (p, _) in axes]
        window = {"kernel_shape": operation.kernel, "strides": operation.stride, "pads": [*operation.pad, *far]}
        if operation.method == "max":
            self._node("MaxPool", layer.inputs, layer.name, **window)
            return
        if operation.area == "image":
            self._node("AveragePool", layer.inputs, layer.name, count_include_pad=0, **window)
            return
        # ONNX divides by the whole kernel here, Caffe by the window clipped to the padded image.
        counts = divisors(operation, size, result)
        kernel = operation.kernel[0] * operation.kernel[1]
        if (counts == kernel).all():
            self._node("AveragePool", layer.inputs, layer.name, count_include_pad=1, **window)
            return
        whole = self._node("AveragePool", layer.inputs, self._fresh(layer, "whole"), count_include_pad=1, **window)
        factor = self._constant(layer, "factor", (kernel / counts).astype(np.float32))
        self._node("Mul", [whole, factor], layer.name)

    @add.register
    def _(self, operation: ReLU, layer: Layer) -> None:
        if operation.negative_slope:
            self._node("LeakyRelu", layer.inputs, layer.name, alpha=operation.negative_slope)
        else:
            self._node("Relu", layer.inputs, layer.name)

    @add.register
    def _(self, operation: PReLU, layer: Layer) -> None:
        self._node("PRelu", [*layer.inputs, self._per_channel(layer, "slope", operation.slope)], layer.name)

    @add.register
    def _(self, operation: Sigmoid, layer: Layer) -> None:
        self._node("Sigmoid", layer.inputs, layer.name)

    @add.register
    def _(self, operation: TanH, layer: Layer) -> None:
        self._node("Tanh", layer.inputs, layer.name)

    @add.register
    def _(self, operation: Clip, layer: Layer) -> None:
        bounds = [("low", operation.low), ("high", operation.high)]
        names = [
            "" if bound is None else self._constant(layer, what, np.array(bound, np.float32)) for what, bound in bounds
        ]
        self._node("Clip", [*layer.inputs, *names], layer.name)

    @add.register
    def _(self, operation: HardSigmoid, layer: Layer) -> None:
        self._node("HardSigmoid", layer.inputs, layer.name, alpha=operation.alpha, beta=operation.beta)

    @add.register
    def _(self, operation: HardSwish, layer: Layer) -> None:
        self._node("HardSwish", layer.inputs, layer.name)

    @add.register
    def _(self, operation: Swish, layer: Layer) -> None:
        gate = self._node("Sigmoid", layer.inputs, self._fresh(layer, "gate"))
        self._node("Mul", [*layer.inputs, gate], layer.name)

    @add.register
    def _(self, operation: GELU, layer: Layer) -> None:
        """Write what opset 20's ``Gelu`` stands for, for older readers."""
        x = layer.inputs[0]

        def after(kind: str, value: str, number: float) -> str:
            constant = self._constant(layer, kind, np.array(number, np.float32))
            return self._node(kind, [value, constant], self._fresh(layer, f"{kind} result"))

        if operation.approximate:
            cubic = after("Mul", after("Pow", x, 3), 0.044715)
            inner = after("Mul", self._node("Add", [x, cubic], self._fresh(layer, "inner")), math.sqrt(2 / math.pi))
        else:
            inner = after("Mul", x, math.sqrt(0.5))
        share = self._node("Tanh" if operation.approximate else "Erf", [inner], self._fresh(layer, "share"))
        # Not x / 2 first: where two of these read one tensor, onnxruntime shares that, and its fusion then loses it.
        self._node("Mul", [x, after("Mul", after("Add", share, 1), 0.5)], layer.name)

    @add.register
    def _(self, operation: Gather, layer: Layer) -> None:
        channels = self._numbers(layer, "channels", operation.channels)
        self._node("Gather", [*layer.inputs, channels], layer.name, axis=1)

    @add.register
    def _(self, operation: Crop, layer: Layer) -> None:
        (top, height), (left, width) = operation.rows, operation.columns
        bounds = {"starts": [top, left], "ends": [top + height, left + width], "axes": [2, 3]}
        names = [self._constant(layer, what, np.array(values, np.int64)) for what, values in bounds.items()]
        self._node("Slice", [*layer.inputs, *names], layer.name)

    @add.register
    def _(self, operation: SpaceToDepth, layer: Layer) -> None:
        """Cut rows and columns, bring the parts before them, join them with the channels, by Gather in any third order.

        So exporters write it; ONNX's operator of the name has one of the orders alone.
        """
        channels = self.network.tensors[layer.inputs[0]].chw[0]
        (down, across), (_, rows, columns) = operation.block, self.network.tensors[layer.name].chw
        innermost = operation.channels == onnx_order(channels, operation.block)
        cut = [-1, channels, rows, down, columns, across]
        shape = [-1, channels * down * across, rows, columns]
        axes = [0, 3, 5, 1, 2, 4] if innermost else [0, 1, 3, 5, 2, 4]
        if innermost or operation.channels == tuple(range(shape[1])):
            self._reordered(layer, layer.inputs[0], cut, axes, shape, layer.name)
        else:
            blocks = self._reordered(layer, layer.inputs[0], cut, axes, shape, self._fresh(layer, "blocks"))
            self._node("Gather", [blocks, self._numbers(layer, "channels", operation.channels)], layer.name, axis=1)

    @add.register
    def _(self, operation: DepthToSpace, layer: Layer) -> None:
        """Cut the channels, and join the parts with rows and columns; before, Gather brings them into order."""
        channels, height, width = self.network.tensors[layer.inputs[0]].chw
        (down, across), (outputs, rows, columns) = operation.block, self.network.tensors[layer.name].chw
        source, shape = layer.inputs[0], [-1, outputs, rows, columns]
        if operation.channels == inverted(onnx_order(outputs, operation.block)):
            cut = [-1, down, across, outputs, height, width]
            self._reordered(layer, source, cut, [0, 3, 4, 1, 5, 2], shape, layer.name)
            return
        if operation.channels != tuple(range(channels)):
            order = self._numbers(layer, "channels", operation.channels)
            source = self._node("Gather", [source, order], self._fresh(layer, "in order"), axis=1)
        cut = [-1, outputs, down, across, height, width]
        self._reordered(layer, source, cut, [0, 1, 4, 2, 5, 3], shape, layer.name)

    @add.register
    def _(self, operation: Softmax, layer: Layer) -> None:
        self._node("Softmax", layer.inputs, layer.name, axis=1)

    @add.register
    def _(self, operation: Dropout, layer: Layer) -> None:
        self._node("Identity", layer.inputs, layer.name)

    @add.register
    def _(self, operation: Flatten, layer: Layer) -> None:
        self._node("Flatten", layer.inputs, layer.name, axis=1)

    @add.register
    def _(self, operation: Reshape, layer: Layer) -> None:
        shape = self._constant(layer, "shape", np.array([-1, *operation.shape], np.int64))
        self._node("Reshape", [*layer.inputs, shape], layer.name)

    @add.register
    def _(self, operation: BatchNorm, layer: Layer) -> None:
        ones = self._constant(layer, "one", np.ones_like(operation.mean))
        zeros = self._constant(layer, "zero", np.zeros_like(operation.mean))
        mean = self._constant(layer, "mean", operation.mean)
        variance = self._constant(layer, "variance", operation.variance)
        self._node(
            "BatchNormalization", [*layer.inputs, ones, zeros, mean, variance], layer.name, epsilon=operation.eps
        )

    @add.register
    def _(self, operation: Scale, layer: Layer) -> None:
        gamma = self._per_channel(layer, "gamma", operation.gamma)
        if operation.beta is None:
            self._node("Mul", [*layer.inputs, gamma], layer.name)
            return
        scaled = self._node("Mul", [*layer.inputs, gamma], self._fresh(layer, "scaled"))
        self._node("Add", [scaled, self._per_channel(layer, "beta", operation.beta)], layer.name)

    @add.register
    def _(self, operation: Power, layer: Layer) -> None:
        value = layer.inputs[0]
        steps = (("Mul", operation.scale, 1.0), ("Add", operation.shift, 0.0), ("Pow", operation.power, 1.0))
        for kind, number, neutral in steps:
            if number != neutral:
                constant = self._constant(layer, kind, np.array(number, np.float32))
                value = self._node(kind, [value, constant], self._fresh(layer, f"{kind} result"))
        self._node("Identity", [value], layer.name)

    @add.register
    def _(self, operation: Eltwise, layer: Layer) -> None:
        if operation.operation == "prod":
            value, *others = [self._of_rank(layer, name) for name in layer.inputs]
            for name in others[:-1]:
                value = self._node("Mul", [value, name], self._fresh(layer, "product"))
            self._node("Mul", [value, others[-1]], layer.name)
            return
        values = list(layer.inputs)
        for index, coefficient in enumerate(operation.coefficients):
            constant = self._constant(layer, "coefficient", np.array(coefficient, np.float32))
            values[index] = self._node("Mul", [values[index], constant], self._fresh(layer, "weighted"))
        self._node({"max": "Max", "min": "Min", "sum": "Sum"}[operation.operation], values, layer.name)

    @add.register
    def _(self, operation: Concat, layer: Layer) -> None:
        self._node("Concat", layer.inputs, layer.name, axis=1)

    @add.register
    def _(self, operation: LRN, layer: Layer) -> None:
        self._node(
            "LRN",
            layer.inputs,
            layer.name,
            size=operation.local_size,
            alpha=operation.alpha,
            beta=operation.beta,
            bias=operation.k,
        )
