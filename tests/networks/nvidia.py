"""Networks that NVIDIA's compiler made the loadables of ``tests/data/nvidia`` from; see its README.md.

Weights are the numbers of Python's `random.Random`, which its documentation promises to stay the same, so that the
loadables need no file of weights beside them.
"""

import random
from dataclasses import replace

import numpy as np

from nvdla_quant.network.graph import Convolution, InnerProduct, Layer, Network
from tests.networks.builder import Builder


def two_heads() -> Network:
    """Two heads of one shape, ``near`` and ``far``, that share a stem."""
    builder = Builder("heads", (3, 16, 16), seed=None)
    stem = builder.conv_relu("stem", "data", 8, 3, 2)
    builder.conv("near", stem, 8, 1)
    builder.conv("far", builder.conv_relu("neck", stem, 8, 3), 8, 1)
    return _drawn(builder.build())


def product() -> Network:
    """The product of two branches, which the compiler gets wrong in int8."""
    builder = Builder("product", (3, 16, 16), seed=None)
    first = builder.conv("c0", "data", 8, 3)
    builder.eltwise("e1", "prod", builder.conv("a", first, 8, 3), builder.conv("b", first, 8, 1))
    builder.fc("fc", "e1", 2)
    return _drawn(builder.build())


def _drawn(network: Network) -> Network:
    """Return the network with uniform weights that keep the size of what they multiply (He et al. 2015)."""
    numbers = random.Random(0)

    def draw(shape: tuple[int, ...], limit: float) -> np.ndarray:
        values = [numbers.uniform(-limit, limit) for _ in range(int(np.prod(shape)))]
        return np.array(values, np.float32).reshape(shape)

    def fill(layer: Layer) -> Layer:
        operation = layer.operation
        if not isinstance(operation, Convolution | InnerProduct):
            return layer
        shape = operation.weights.shape
        weights, bias = draw(shape, float(np.sqrt(6 / np.prod(shape[1:])))), draw(shape[:1], 0.1)
        return replace(layer, operation=replace(operation, weights=weights, bias=bias))

    return replace(network, layers=tuple(map(fill, network.layers)))
