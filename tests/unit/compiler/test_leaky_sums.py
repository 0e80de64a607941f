"""Slopes of negative values behind element-wise sums: no unit of an SDP is left for them, so they take a pass."""

import numpy as np
import pytest

from nvdla_quant.hardware.targets import QuantizationMode, Target
from nvdla_quant.network.graph import Eltwise, Layer, Network, Operation, Pooling, PReLU, ReLU, Tensor
from nvdla_quant.network.shapes import assemble
from tests.layered import VARIANTS, convolution, follows, is_called_right

CHANNELS = 20
"""No whole atoms of any target."""


def behind_a_sum(
    last: Operation, coefficients: tuple[float, ...] = (), count: int = 2, is_pooled: bool = False
) -> Network:
    """`count` convolutions, or poolings, their sum, and `last`."""
    rng = np.random.default_rng(3)
    layers = [Layer("c", convolution(rng, CHANNELS, 3), ("data",))]
    for number in range(count):
        if is_pooled:
            layers.append(Layer(f"b{number}", Pooling("max", (1 + 2 * number,) * 2, (1, 1), (number,) * 2), ("c",)))
        else:
            layers.append(Layer(f"b{number}", convolution(rng, CHANNELS, CHANNELS), ("c",)))
    layers.append(Layer("sum", Eltwise("sum", coefficients), tuple(f"b{number}" for number in range(count))))
    layers.append(Layer("last", last, ("sum",)))
    return assemble("sums", [Tensor("data", (3, 6, 5), "data")], layers)


SLOPES = PReLU(np.linspace(-0.5, 1.5, CHANNELS).astype(np.float32))
NETWORKS = {
    "of convolutions": behind_a_sum(ReLU(0.1)),
    "of convolutions, a slope a channel": behind_a_sum(SLOPES, (1.0, -0.5)),
    "of poolings": behind_a_sum(PReLU(np.array([0.25], np.float32)), (0.5, 2.0), is_pooled=True),
    "of three": behind_a_sum(ReLU(0.2), count=3),
}


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_sums_follow_the_float_network(name: str, target: Target, mode: QuantizationMode | None) -> None:
    """Rounded are weights and tensors of two convolutions, the sum, and what the slopes make of it."""
    compilation = follows(NETWORKS[name], target, mode, 6.0, half=2.0**-7)
    assert [operation.layers for operation in compilation.facts.operations][-1] == ("last",)


@pytest.mark.parametrize("name", NETWORKS)
def test_sums_are_called_right(name: str) -> None:
    """By turns: a target for each network."""
    target, mode = VARIANTS[list(NETWORKS).index(name) % len(VARIANTS)].values
    is_called_right(NETWORKS[name], target, mode)  # type: ignore[arg-type]
