"""A network with two outputs, small enough for whole runs of the workflow."""

import numpy as np

from nvdla_quant.network.graph import Convolution, Layer, Network, ReLU, Tensor


def two_heads(seed: int = 0) -> Network:
    """Convolution and ReLU over 1 x 8 x 8 images, then two convolutions: `boxes` 4 x 6 x 6 and `classes` 5 x 4 x 4."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return (rng.normal(0, 1, shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    def bias(count: int) -> np.ndarray:
        return rng.normal(0, 0.1, count).astype(np.float32)

    layers = (
        Layer("stem", Convolution(weights(8, 1, 3, 3), bias(8)), ("data",)),
        Layer("relu", ReLU(), ("stem",)),
        Layer("boxes", Convolution(weights(4, 8, 1, 1), bias(4)), ("relu",)),
        Layer("classes", Convolution(weights(5, 8, 3, 3), bias(5)), ("relu",)),
    )
    shapes = {"data": (1, 8, 8), "stem": (8, 6, 6), "relu": (8, 6, 6), "boxes": (4, 6, 6), "classes": (5, 4, 4)}
    tensors = {name: Tensor(name, shape, "stem" if name == "relu" else name) for name, shape in shapes.items()}
    return Network("heads", (tensors["data"],), layers, tensors)
