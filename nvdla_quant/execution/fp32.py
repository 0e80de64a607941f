"""fp32 outputs and activations of a network, with Caffe's semantics, through onnxruntime.

The same images, batch size and processor class give the same bytes; another batch size or processor may differ in the
last bits, since the order of the sums does.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import singledispatchmethod
from math import prod
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

if TYPE_CHECKING:
    import onnx

Images = NDArray[np.float32]

LARGE = 1 << 20
"""Bytes from which on a constant is handed to the session beside the model: protobuf copies it several times."""
_OPSET = 17
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
    from onnx import helper  # Here and below: a job that makes no model, or not yet, does without.

    names = [tensor.name for tensor in network.outputs] if outputs is None else list(outputs)
    if unknown := [name for name in names if name not in network.by_name]:
        raise NetworkError(f"no layer writes {', '.join(map(repr, unknown))}; expected layer names of the network")
    graph = _Graph(network, apart)
    for layer in network.layers:
        graph.add(layer.operation, layer)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            network.name or "network",
            [_value(network, tensor.name) for tensor in network.inputs],
            [_value(network, name) for name in names],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="nvdla-quant",
    )


class Reference:
    """A network ready to run in fp32.

    Parameters
    ----------
    network : Network
        With one input, and its weights.
    tensors : Sequence[str], optional
        Tensors to return, the network's input among them or not; the network's outputs where not given.
    threads : int
        Threads of onnxruntime.
    batch_size : int
        Images computed at once; it bounds the memory.
    packed : bool
        Whether weights are copied once into the order in which they are multiplied: worth it for many images.

    Raises
    ------
    NetworkError
        The network has several inputs, or no tensor of a name that was asked for.
    """

    def __init__(
        self,
        network: Network,
        tensors: Sequence[str] | None = None,
        *,
        threads: int = 1,
        batch_size: int = 64,
        packed: bool = True,
    ) -> None:
        self.network = network
        self.input = network.only_input
        self.tensors = (
            tuple(tensor.name for tensor in network.outputs) if tensors is None else tuple(dict.fromkeys(tensors))
        )
        self.batch_size = batch_size
        self._computed = [name for name in self.tensors if name != self.input.name]
        import onnxruntime  # Here: who only writes the model, for TensorRT, does not wait for it.

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        if not packed:
            options.add_session_config_entry("session.disable_prepacking", "1")
        options.log_severity_level = 3
        # A model needs an output, even where only the input is asked for. What stands apart is kept, as the session
        # reads it in place.
        model, self._apart = self._model(self._computed or None)
        if self._apart:
            held = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self._apart.values()]
            options.add_external_initializers(list(self._apart), held)
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def _model(self, outputs: Sequence[str] | None) -> tuple["onnx.ModelProto", dict[str, Weights]]:
        apart: dict[str, Weights] = {}
        return to_onnx(self.network, outputs, apart), apart

    def batches(self, images: Images) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Tensors of `batch_size` images at a time (fewer at the end), in order: for what does not fit in memory.

        Parameters
        ----------
        images : NDArray[float32], shape (n, channels, height, width)
            In the network's own domain, after preprocessing.

        Yields
        ------
        dict[str, NDArray[float32]]
            (batch, *shape of the tensor) by tensor name, in the order asked for.

        Raises
        ------
        NetworkError
            The images are not what the network's input takes.
        """
        expected = self.input.shape
        if images.shape[1:] != expected or images.dtype != np.float32:
            raise NetworkError(
                f"images have the shape {images.shape} and type {images.dtype}, expected (n, {str(expected)[1:-1]}) of "
                f"float32 for the input {self.input.name!r}"
            )
        for start in range(0, len(images), self.batch_size):
            batch = np.ascontiguousarray(images[start : start + self.batch_size])
            results = self._session.run(self._computed, {self.input.name: batch}) if self._computed else []
            values = {self.input.name: batch, **dict(zip(self._computed, results, strict=True))}
            yield {name: values[name] for name in self.tensors}

    def run(self, images: Images) -> dict[str, NDArray[np.float32]]:
        """Tensors of all images: (n, *shape of the tensor) by tensor name; parameters and errors as `batches`."""
        shapes = {name: (len(images), *self.network.tensors[name].shape) for name in self.tensors}
        results = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        for index, batch in enumerate(self.batches(images)):
            for name, values in batch.items():
                results[name][index * self.batch_size :][: len(values)] = values
        return results


def scores(network: Network, images: Images, *, threads: int = 1, batch_size: int = 64) -> NDArray[np.float32]:
    """Scores of each image, shape (n, classes): the network's only output, flattened.

    Raises
    ------
    NetworkError
        The network has several outputs, or as `Reference`.
    """
    output = network.only_output
    results = Reference(network, threads=threads, batch_size=batch_size).run(images)
    return results[output.name].reshape(len(images), prod(output.shape))


def scores_and_logits(
    network: Network, images: Images, progress: Callable[[int, int], None] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Output of each image, and the tensor before a final Softmax.

    Parameters
    ----------
    network : Network
        With one input and one output.
    images : NDArray[float32], shape (n, channels, height, width)
        In the network's own domain, after preprocessing.
    progress : callable, optional
        Called with images done and images in all.

    Returns
    -------
    dict[str, NDArray[float32]]
        ``scores`` (n, classes), and ``logits`` (n, classes) where the network ends in a Softmax.
    """
    names = {"scores": network.only_output.name}
    if network.logits is not None:
        names["logits"] = network.logits.name
    parts: dict[str, list[NDArray[np.float32]]] = {key: [] for key in names}
    done = 0
    for batch in Reference(network, list(names.values())).batches(images):
        for key, name in names.items():
            parts[key].append(batch[name].reshape(len(batch[name]), -1))
        done += len(batch[names["scores"]])
        if progress is not None:
            progress(done, len(images))
    return {key: np.concatenate(values) for key, values in parts.items()}


def _value(network: Network, name: str) -> "onnx.ValueInfoProto":
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *network.tensors[name].shape])


class _Graph:
    """Nodes and constants of an ONNX graph, added one layer at a time."""

    def __init__(self, network: Network, apart: dict[str, Weights] | None = None) -> None:
        self.network, self._apart = network, apart
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names = set(network.tensors)

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

    def _of_rank(self, layer: Layer, name: str) -> str:
        """Value of tensor `name` with as many axes as what the layer writes: a vector as channels of one pixel."""
        rank, shape = len(self.network.tensors[layer.name].shape), self.network.tensors[name].shape
        if len(shape) == rank:
            return name
        axes = self._constant(layer, "axes", np.array([-1, *shape, *[1] * (rank - len(shape))], np.int64))
        return self._node("Reshape", [name, axes], self._fresh(layer, f"{name} as pixel"))

    def _learned(self, layer: Layer, weights: Weights, bias: Weights | None) -> list[str]:
        names = [layer.inputs[0], self._constant(layer, "weights", weights)]
        return names if bias is None else [*names, self._constant(layer, "bias", bias)]

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
            self._learned(layer, operation.weights, operation.bias),
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
        source, *learned = self._learned(layer, operation.weights, operation.bias)
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
        clipped = [np.minimum(np.arange(n) * s + k, i + sum(pads)) - np.arange(n) * s for i, n, k, s, pads in axes]
        counts = np.outer(*clipped)
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
        channels = self._constant(layer, "channels", np.array(operation.channels, np.int64))
        self._node("Gather", [*layer.inputs, channels], layer.name, axis=1)

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
