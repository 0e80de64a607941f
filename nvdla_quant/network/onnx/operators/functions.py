"""Functions of one value, and normalisations.

Semantics are those of the ONNX operator specification (Relu-6, 13, 14; LeakyRelu-6, 16; PRelu-7, 9, 16; Clip-6, 11,
12, 13; HardSigmoid-6, 22; HardSwish-14, 22; Gelu-20; Swish-24; Softmax-1, 11, 13; BatchNormalization-7, 9, 14, 15;
LRN-1, 13).
"""

from collections.abc import Callable

import numpy as np

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import (
    GELU,
    LRN,
    BatchNorm,
    HardSigmoid,
    HardSwish,
    Operation,
    PReLU,
    ReLU,
    Scale,
    Sigmoid,
    Softmax,
    Swish,
    TanH,
)
from nvdla_quant.network.onnx.operators.arithmetic import clip_between
from nvdla_quant.network.onnx.operators.constants import check_broadcast, per_channel
from nvdla_quant.network.onnx.values.nodes import Array, Node, finite, shape_of
from nvdla_quant.network.onnx.values.reading import Reading


def function(operation: Operation) -> Callable[[Node, Reading], None]:
    """Reader of an operator that does this to each value."""

    def read(node: Node, reading: Reading) -> None:
        _apply(node, reading, operation)

    return read


def _apply(node: Node, reading: Reading, operation: Operation) -> None:
    view = reading.elements(node.input())
    reading.emit(node.output, operation, view.source, view=view)


relu = function(ReLU())
sigmoid = function(Sigmoid())
tanh = function(TanH())
hard_swish = function(HardSwish())


def leaky_relu(node: Node, reading: Reading) -> None:
    """Read LeakyRelu."""
    _apply(node, reading, ReLU(node.number("alpha", 0.01)))


def hard_sigmoid(node: Node, reading: Reading) -> None:
    """Read HardSigmoid."""
    _apply(node, reading, HardSigmoid(node.number("alpha", 0.2), node.number("beta", 0.5)))


def gelu(node: Node, reading: Reading) -> None:
    """Read Gelu."""
    kind = node.text("approximate", "none")
    if kind not in ("none", "tanh"):
        raise NetworkError(f"approximate {kind!r}, expected 'none' or 'tanh'")
    _apply(node, reading, GELU(kind == "tanh"))


def swish(node: Node, reading: Reading) -> None:
    """Read Swish."""
    if (alpha := node.number("alpha", 1.0)) != 1:
        raise UnsupportedError(f"alpha {alpha:g}, expected 1")
    _apply(node, reading, Swish())


def prelu(node: Node, reading: Reading) -> None:
    """Read PRelu with one slope, or one a channel."""
    shape = check_broadcast(node.input(), node.output)
    slope = node.constant(1)
    if slope is None:
        raise NetworkError("slope is missing")
    if slope.size == 1:
        _apply(node, reading, PReLU(finite(slope.reshape(1), "slope")))
        return
    axis, values = per_channel(slope, shape, "slope")
    reading.emit(node.output, PReLU(values), reading.image(node.input(), axis), axis=axis)


def clip(node: Node, reading: Reading) -> None:
    """Read Clip, whose bounds are attributes before opset 11."""
    if node.opset < 11:
        bounds = [node.number(name, default) for name, default in (("min", -np.inf), ("max", np.inf))]
        clip_between(reading, node.output, node.input(), *bounds)
        return
    low, high = (_bound(node.constant(index)) for index in (1, 2))
    clip_between(reading, node.output, node.input(), low, high)


def _bound(array: Array | None) -> float | None:
    if array is None:
        return None
    if array.size != 1 or np.isnan(array).any():
        raise NetworkError(f"a bound has the shape {array.shape}, expected one number")
    return float(array.ravel()[0])


def softmax(node: Node, reading: Reading) -> None:
    """Read Softmax; before opset 13 it was over all axes from `axis` on."""
    shape = shape_of(node.input())
    rank = len(shape)
    axis = node.integer("axis", -1 if node.opset >= 13 else 1)
    if not -rank <= axis < rank:
        raise NetworkError(f"axis {axis} of {rank} axes")
    axis %= rank
    if node.opset < 13:
        together = [index for index in range(axis, rank) if shape[index] > 1]
        if len(together) > 1:
            raise UnsupportedError(f"over {len(together)} axes of {shape} together, expected the channels alone")
        axis = (together or [axis])[0]
    if axis == 0:
        raise UnsupportedError("over the batch, expected the channels")
    others = [other for other in range(1, rank) if other != axis]
    if not reading.has_image(node.input(), axis) and any(reading.has_image(node.input(), other) for other in others):
        raise UnsupportedError(
            f"over axis {axis} of {shape}, expected the channels, which NVDLA's runtime takes; end the network before "
            "it, and compute it from the network's output"
        )
    reading.emit(node.output, Softmax(), reading.image(node.input(), axis), axis=axis)


def log_softmax(node: Node, reading: Reading) -> None:
    """Read LogSoftmax at the end as Softmax, which orders classes alike."""
    if not node.output.is_graph_output():
        raise UnsupportedError("stands within the network, expected its end: NVDLA has no logarithm")
    softmax(node, reading)
    reading.remarks.append(
        f"node {node.name!r}: LogSoftmax at the end is read as Softmax: the same order of classes, probabilities in "
        "place of their logarithms"
    )


def log(node: Node, reading: Reading) -> None:
    """Read the logarithm of a Softmax at the end as nothing."""
    before = node.input().producer()
    if before is None or before.op_type != "Softmax" or not node.output.is_graph_output():
        raise UnsupportedError("is no logarithm of a Softmax at the end; NVDLA has none")
    reading.show(node.output, reading.view(node.input()))
    reading.remarks.append(
        f"node {node.name!r}: Log at the end is left out: the same order of classes, probabilities in place of their "
        "logarithms"
    )


def batch_normalization(node: Node, reading: Reading) -> None:
    """Read BatchNormalization: BatchNorm, and a Scale behind it where that does something."""
    if node.integer("training_mode", 0):
        raise UnsupportedError(
            "training_mode: 1 normalizes by the statistics of each batch; export the model for inference (model.eval())"
        )
    if not node.integer("spatial", 1):
        raise UnsupportedError("spatial: 0 has statistics for each pixel, expected one a channel")
    if any(output.uses() for output in node.node.outputs[1:]):
        raise UnsupportedError("its statistics are read, which is for training; export the model for inference")
    gamma, beta, mean, variance = (node.weights(index, 1) for index in range(1, 5))
    eps = node.number("epsilon", 1e-5)
    if not (variance + np.float32(eps) > 0).all():
        raise NetworkError(f"variance + epsilon ({eps:g}) is not positive")
    tensor, normal = reading.image(node.input()), BatchNorm(mean, variance, eps)
    if (gamma == 1).all() and (beta == 0).all():
        reading.emit(node.output, normal, tensor)
        return
    normalized = reading.inner(node.output, "normalized", normal, tensor)
    reading.emit(node.output, Scale(gamma, beta), normalized)


def lrn(node: Node, reading: Reading) -> None:
    """Read LRN."""
    size = node.integer("size", 0)
    if size < 1 or size % 2 == 0:
        raise UnsupportedError(f"size {size}, expected an odd number")
    operation = LRN(size, node.number("alpha", 1e-4), node.number("beta", 0.75), node.number("bias", 1.0))
    reading.emit(node.output, operation, reading.image(node.input()))
