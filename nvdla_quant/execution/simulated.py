"""What int8 costs, in floating point: the fp32 graph with weights and tensors rounded to int8 steps.

It has the scales and the fusion of an NVDLA loadable but not its arithmetic: accumulators do not saturate, rescaling is
exact, and halves round to even. A loadable that is right comes close to it, whatever compiled it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.network.graph import Convolution, Deconvolution, InnerProduct, Layer, Network, Weights
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.network.views import viewed
from nvdla_quant.table.consistency import check_complete
from nvdla_quant.table.fusion import fused_end
from nvdla_quant.table.table import CalibrationTable

if TYPE_CHECKING:
    import onnx

INT8_MIN, INT8_MAX = -128, 127
"""What the SDP saturates to (nvdla/hw)."""


class Simulation(Reference):
    """A network with int8 steps, ready to run; tensors that the hardware writes come out as multiples of their scale.

    Parameters
    ----------
    network : Network
        The network that is compiled; with one input, and its weights.
    table : CalibrationTable
        Its scales, by layer.
    mode : QuantizationMode or None
        One weight scale a filter, or one for a layer's whole kernel; None leaves the weights as they are.
    tensors : Sequence[str], optional
        Tensors of layers to return; the network's outputs where not given.
    threads : int
        Threads of onnxruntime.
    batch_size : int
        Images computed at once; it bounds the memory.
    rounded : Sequence[str], optional
        Tensors that are rounded to int8; what `quantized_tensors` returns where not given.
    packed : bool
        As of `fp32.Reference`.

    Raises
    ------
    TableError
        The table lacks an entry.
    NetworkError
        The network has several inputs, or no layer of a name that was asked for.
    """

    def __init__(
        self,
        network: Network,
        table: CalibrationTable,
        mode: QuantizationMode | None,
        tensors: Sequence[str] | None = None,
        *,
        threads: int = 1,
        batch_size: int = 64,
        rounded: Sequence[str] | None = None,
        packed: bool = True,
    ) -> None:
        check_complete(network, table)
        self._table, self._mode = table, mode
        self._rounded = quantized_tensors(network) if rounded is None else tuple(rounded)
        super().__init__(network, tensors, threads=threads, batch_size=batch_size, packed=packed)

    def _model(self, outputs: Sequence[str] | None) -> tuple["onnx.ModelProto", dict[str, Weights]]:
        apart: dict[str, Weights] = {}
        network = self.network if self._mode is None else quantize_weights(self.network, self._mode)
        model = to_onnx(network, outputs, apart)
        _insert_steps(model.graph, {name: self._table[name] for name in self._rounded})
        return model, apart


def quantized_tensors(network: Network) -> tuple[str, ...]:
    """Return the tensors that the hardware writes as int8: the last of each fused operation, and the inputs."""
    return tuple(name for name in network.tensors if fused_end(network, name) == name and viewed(network, name) == name)


def quantize_weights(network: Network, mode: QuantizationMode) -> Network:
    """Return `network` with the weights of convolutions and inner products rounded to int8 steps; biases stay."""
    return replace(network, layers=tuple(_quantize_layer(layer, mode) for layer in network.layers))


def weight_steps(weights: Weights, mode: QuantizationMode, filter_axis: int = 0) -> NDArray[np.float32]:
    """Return the real value of one int8 step of `weights`, in a shape that broadcasts: the largest magnitude / 127.

    `nvdla_compiler` scales so: by the largest weight of a filter, or of all. A filter of zeros has step 1.
    """
    axes = tuple(axis for axis in range(weights.ndim) if mode == QuantizationMode.PER_KERNEL or axis != filter_axis)
    steps = np.abs(weights).max(axis=axes, keepdims=True) / np.float32(INT8_MAX)
    return np.where(steps > 0, steps, np.float32(1)).astype(np.float32)


def _quantize_layer(layer: Layer, mode: QuantizationMode) -> Layer:
    operation = layer.operation
    if not isinstance(operation, Convolution | Deconvolution | InnerProduct):
        return layer
    if operation.scales is not None and mode == QuantizationMode.PER_FILTER:
        return layer  # They are whole steps.
    axis = 1 if isinstance(operation, Deconvolution) else 0
    steps = weight_steps(operation.weights, mode, axis)
    rounded = (np.clip(np.round(operation.weights / steps), -INT8_MAX, INT8_MAX) * steps).astype(np.float32)
    return replace(layer, operation=replace(operation, weights=rounded))


def _insert_steps(graph: "onnx.GraphProto", scales: dict[str, float]) -> None:
    """Round and saturate each value in `scales` to int8 steps, where it is computed and before anything reads it.

    Plain arithmetic, not QuantizeLinear: onnxruntime turns pairs of that into integer kernels of its own.
    """
    from onnx import numpy_helper

    inputs = {value.name for value in graph.input}
    bounds = {"low": np.float32(INT8_MIN), "high": np.float32(INT8_MAX)}
    for what, bound in bounds.items():
        graph.initializer.append(numpy_helper.from_array(np.array(bound), f"int8:{what}"))
    nodes = []
    for name in scales.keys() & inputs:
        nodes += _steps(graph, name, f"{name}:int8", scales[name])
    for node in graph.node:
        node.input[:] = [f"{name}:int8" if name in inputs and name in scales else name for name in node.input]
        nodes.append(node)
        (name,) = node.output
        if name in scales:
            node.output[0] = f"{name}:fp32"
            nodes += _steps(graph, f"{name}:fp32", name, scales[name])
    del graph.node[:]
    graph.node.extend(nodes)


def _steps(graph: "onnx.GraphProto", source: str, target: str, scale: float) -> "list[onnx.NodeProto]":
    """Return the nodes of ``clip(round(source / scale)) * scale``, and add their constant."""
    from onnx import helper, numpy_helper

    constant = f"{target}:scale"
    graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), constant))
    return [
        helper.make_node("Div", [source, constant], [f"{target}:steps"]),
        helper.make_node("Round", [f"{target}:steps"], [f"{target}:rounded"]),
        helper.make_node("Clip", [f"{target}:rounded", "int8:low", "int8:high"], [f"{target}:saturated"]),
        helper.make_node("Mul", [f"{target}:saturated", constant], [target]),
    ]
