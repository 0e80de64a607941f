"""A network with heavy tails: rare values, far from all others, tell the classes apart."""

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.network.graph import Convolution, InnerProduct, Network
from tests.networks.builder import Builder

Array = NDArray[np.float32]
CLASSES, SIDE = 8, 8


def peak_network(softmax: bool = False) -> Network:
    """Scores are the largest value of each channel, mixed a little: the class is the channel with the highest peak."""
    builder = Builder("peaks", (CLASSES, SIDE, SIDE))
    weights = np.eye(CLASSES, dtype=np.float32) + builder.normal((CLASSES, CLASSES), 0.02)
    convolution = Convolution(weights[..., None, None], None, (1, 1), (0, 0), (1, 1), 1, None)
    last = builder.relu("relu", builder.add("conv", convolution, "data"))
    scores = np.eye(CLASSES, dtype=np.float32) + builder.normal((CLASSES, CLASSES), 0.02)
    builder.add("fc", InnerProduct(scores, None), builder.pool("pool", last, "max", SIDE))
    if softmax:
        builder.softmax("fc")
    return builder.build()


def peaks(count: int, seed: int) -> Array:
    """Small values, and one peak of 20 to 60 in each of two channels: one in 256 has nearly all of the energy."""
    rng = np.random.default_rng(seed)
    images = np.abs(rng.laplace(0, 0.3, (count, CLASSES, SIDE**2))).astype(np.float32)
    every, high = np.arange(count), rng.uniform(20, 60, count)
    place, pair = rng.integers(0, SIDE**2, count), rng.permuted(np.tile(np.arange(CLASSES), (count, 1)), axis=1)
    images[every, pair[:, 0], place] = high
    images[every, pair[:, 1], place] = high * rng.uniform(0.5, 0.85, count)
    return images.reshape(count, CLASSES, SIDE, SIDE)
