"""Gemm and MatMul: inner products, and convolutions by 1 x 1 of what has pixels.

Semantics are those of the ONNX operator specification (Gemm-7, 9, 11, 13; MatMul-1, 9, 13).
"""

from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import Convolution, InnerProduct, Weights
from nvdla_quant.network.onnx.values.layouts import is_batch, joined, offsets
from nvdla_quant.network.onnx.values.nodes import Node, finite, shape_of
from nvdla_quant.network.onnx.values.quantized import scales_along
from nvdla_quant.network.onnx.values.reading import MOVED, Reading
from nvdla_quant.network.quantized import rescaled

VIEWS = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that an inner product does without, since it reads all values of an image in their order."""


@dataclass(frozen=True)
class Product:
    """A product with weights (inputs, outputs), to which the next node may add a bias."""

    value: ir.Value
    source: ir.Value
    weights: NDArray[np.float32]
    scales: Weights | None = None

    def emit(self, reading: Reading) -> None:
        """Add it without a bias."""
        self.write(reading, self.value, None)

    def write(self, reading: Reading, value: ir.Value, bias: Weights | None) -> None:
        """Add the layer that writes `value`."""
        shape = shape_of(self.source)
        weights = np.ascontiguousarray(self.weights.T)
        if prod(shape[1:-1]) == 1:
            _inner_product(reading, value, self.source, InnerProduct(weights, bias, self.scales))
            return
        tensor = reading.image(self.source, len(shape) - 1)
        operation = Convolution(weights[:, :, None, None], bias, scales=self.scales)
        reading.emit(value, operation, tensor, axis=len(shape) - 1)


def gemm(node: Node, reading: Reading) -> None:
    """Read Gemm with constant weights: alpha and beta go into them."""
    if node.integer("transA", 0):
        raise UnsupportedError("transA: 1 exchanges the images of a batch with their features")
    weights, axis = node.weights(1, 2), 0
    if not node.integer("transB", 0):
        weights, axis = weights.T, 1
    operation = InnerProduct(np.ascontiguousarray(weights), None, scales_along(node.input(1), axis))
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    if alpha != 1:
        operation = rescaled(operation, np.full(len(weights), alpha, np.float64))
        finite(operation.weights, "input 1 times alpha")
    added = node.constant(2)
    bias = None
    if added is not None:
        bias = bias_of(added, len(weights))
        if bias is None:
            raise NetworkError(f"input 2 has the shape {added.shape}, expected one value for each of {len(weights)}")
        if beta != 1:
            bias = finite(bias * np.float64(beta), "input 2 times beta")
    _inner_product(reading, node.output, node.input(), replace(operation, bias=bias))


def bias_of(added: NDArray[np.generic], outputs: int) -> Weights | None:
    """Return a constant as one value for each output; None where it is another in each row."""
    if added.size not in (1, outputs) or (added.ndim and added.shape[-1] != added.size):
        return None
    return finite(np.broadcast_to(np.asarray(added, np.float64).ravel(), (outputs,)), "the bias")


def matmul(node: Node, reading: Reading) -> None:
    """Read MatMul by a constant; what follows may add a bias."""
    if node.input(0).const_value is not None:
        raise UnsupportedError("its first input is the constant, expected the second: the features are the last axis")
    if node.input(1).const_value is None:
        raise UnsupportedError(
            "multiplies two tensors that the network computes (as attention does); NVDLA's weights are fixed"
        )
    weights, shape = node.weights(1, 2), shape_of(node.input())
    if shape[-1] != weights.shape[0] or len(shape) < 2:
        raise NetworkError(
            f"weights {weights.shape} take {weights.shape[0]} values, the input {shape} has {shape[-1:]}"
        )
    reading.put_off(node.output, Product(node.output, node.input(), weights, scales_along(node.input(1), 1)))


def _inner_product(reading: Reading, value: ir.Value, source: ir.Value, operation: InnerProduct) -> None:
    weights = operation.weights
    tensor, order = flattened(reading, source)
    if weights.shape[1] != prod(reading.shape(tensor)):
        raise NetworkError(
            f"weights {weights.shape} take {weights.shape[1]} values, the input {shape_of(source)} has "
            f"{prod(reading.shape(tensor))}"
        )
    if order is not None:
        permuted = np.empty_like(weights)
        permuted[:, order] = weights
        weights = permuted
    weights.flags.writeable = False
    reading.emit(value, replace(operation, weights=weights), tensor, axis=len(shape_of(value)) - 1)


def flattened(reading: Reading, value: ir.Value) -> tuple[str, NDArray[np.int64] | None]:
    """Return a tensor with the values of each image, and where the first, second, ... of `value` lie in it.

    The last flattening before the product is left out where nothing else reads it, as in Caffe, where an inner product
    flattens. None stands for the tensor's own order.

    Raises
    ------
    UnsupportedError
        The batch is not the first axis.
    """
    producer = value.producer()
    absorbed = producer is not None and producer.op_type in VIEWS and len(value.uses()) == 1
    before = producer.inputs[0] if absorbed and producer is not None else value
    if before is not None and reading.is_known(before):
        reading.settle(before)
    view = reading.view(value)
    if before is not None and reading.is_known(before):
        base = reading.view(before)
        # What stands before may by now be a tensor of its own, in its own order, as is what is read.
        if base.is_contiguous and view.is_contiguous:
            return base.source, None
    elements = prod(reading.shape(view.source))
    if not is_batch(view.axes[0], reading.batch, elements):
        raise UnsupportedError(f"reads {value.name!r} of shape {view.shape}, {MOVED}")
    order = offsets(joined(view.axes[1:]))
    return view.source, None if (order == np.arange(len(order))).all() else order
