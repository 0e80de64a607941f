"""One layer at a time, in fp32 and as int8 makes it, over all images: what corrects weights one after another needs.

Tensors are held until their last reader has run, in float32. Int8's are rounded to their steps where the hardware
writes them (`execution.simulated`).
"""

from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.execution.simulated import INT8_MAX, INT8_MIN, quantized_tensors
from nvdla_quant.execution.sqnr import parts
from nvdla_quant.network.graph import Layer, Network
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.network.shapes import assemble
from nvdla_quant.network.views import VIEWS
from nvdla_quant.table.table import CalibrationTable

Values = NDArray[np.float32]


def largest_held(network: Network) -> int:
    """Return the bytes of the tensors of one image that are held at the same time, at most, on one of both paths."""
    left = _readers(network)
    live = {tensor.name: 4 * prod(tensor.shape) for tensor in network.inputs}
    most = 0
    for layer in network.layers:
        live[layer.name] = 4 * prod(network.tensors[layer.name].shape)
        most = max(most, sum(live.values()))
        for name in _done(layer, left):
            del live[name]
    return most


class Paths:
    """Tensors of a network over some images, in fp32 and in int8 steps, as far as it has been computed.

    Parameters
    ----------
    network : Network
        With its weights and one input.
    table : CalibrationTable
        Its fixed table.
    images : NDArray[float32]
        In the network's own domain.
    threads : int
        Threads of onnxruntime.
    """

    def __init__(self, network: Network, table: CalibrationTable, images: Values, threads: int = 1) -> None:
        self.network, self._table, self._threads = network, table, threads
        self._rounded = frozenset(quantized_tensors(network))
        self._left = _readers(network)
        name = network.only_input.name
        self.exact: dict[str, Values] = {name: images}
        self.quantized: dict[str, Values] = {name: self._stored(name, images)}

    def compute(self, layer: Layer, inputs: Mapping[str, Values]) -> Values:
        """Return what `layer` computes of `inputs`, not rounded; the layer may have other weights than the network's.

        Parameters
        ----------
        layer : Layer
            A layer of the network.
        inputs : Mapping[str, NDArray]
            Tensors by name: `exact` or `quantized`.
        """
        return run_layer(self.network, layer, inputs, self._threads)

    def advance(self, layer: Layer, exact: Values, quantized: Values) -> None:
        """Take what `layer` computed on both paths, and let go of what no later layer reads."""
        self.exact[layer.name] = exact
        self.quantized[layer.name] = self._stored(layer.name, quantized)
        for name in _done(layer, self._left):
            del self.exact[name], self.quantized[name]

    def _stored(self, name: str, values: Values) -> Values:
        """Return `values` as the hardware stores them: whole steps, where it stores them at all."""
        if name not in self._rounded:
            return values
        scale = np.float32(self._table[name])
        steps = values / scale
        np.clip(np.rint(steps, out=steps), INT8_MIN, INT8_MAX, out=steps)
        steps *= scale
        return steps


def run_layer(network: Network, layer: Layer, inputs: Mapping[str, Values], threads: int = 1) -> Values:
    """Return what one layer of a network computes of `inputs`, by tensor, through onnxruntime."""
    if isinstance(layer.operation, VIEWS):
        (source,) = layer.inputs
        return inputs[source].reshape(-1, *network.tensors[layer.name].shape)
    import onnxruntime

    names = tuple(dict.fromkeys(layer.inputs))
    single = assemble(layer.name, [network.tensors[name] for name in names], [layer])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        to_onnx(single).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result = np.empty((len(inputs[names[0]]), *network.tensors[layer.name].shape), np.float32)
    for part in parts(result):
        (result[part],) = session.run(None, {name: inputs[name][part] for name in names})
    return result


def _readers(network: Network) -> dict[str, int]:
    """Return how many layers still have to read each tensor."""
    return {name: len(readers) for name, readers in network.consumers.items()}


def _done(layer: Layer, left: dict[str, int]) -> list[str]:
    """Count `layer` as run, and return the tensors that nothing will read any more."""
    done = []
    for name in dict.fromkeys(layer.inputs):
        left[name] -= 1
        if not left[name]:
            done.append(name)
    return done
