"""Exchanges of pixels and channels: exact, as convolutions and deconvolutions whose stride is the block."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.hardware.targets import NV_SMALL, QuantizationMode, Target
from nvdla_quant.network.graph import Network, Operation, Pooling, ReLU
from nvdla_quant.network.moves import DepthToSpace, SpaceToDepth, inverted, onnx_order
from nvdla_quant.verification import verify as module
from nvdla_quant.verification.judgement.verdicts import Judgement
from tests.layered import VARIANTS, case, chain, convolution, follows, is_called_right

Values = NDArray[np.float32]
EXACT = 1e-3
"""Steps that a value may be off that is copied: none."""


def to_channels(values: Values, block: tuple[int, int], channels: tuple[int, ...]) -> Values:
    """Return what a SpaceToDepth makes of images, value by value."""
    count, _, height, width = values.shape
    rows, columns = height // block[0], width // block[1]
    result = np.zeros((count, len(channels), rows, columns), np.float32)
    for output, place in enumerate(channels):
        channel, inside = place // (block[0] * block[1]), place % (block[0] * block[1])
        for row in range(rows):
            for column in range(columns):
                y, x = row * block[0] + inside // block[1], column * block[1] + inside % block[1]
                result[:, output, row, column] = values[:, channel, y, x]
    return result


def darknet(values: Values, stride: int) -> Values:
    """Return what darknet's reorg layer makes of images, index by index.

    (pjreddie/darknet's function ``reorg_cpu``, which its reorg layer calls with the sizes of what it reads.)
    """
    count, channels, height, width = values.shape
    flat = values.reshape(count, -1)
    found = np.zeros_like(flat)
    fewer = channels // stride**2
    for channel in range(channels):
        offset, other = channel // fewer, channel % fewer
        for row in range(height):
            for column in range(width):
                x, y = column * stride + offset % stride, row * stride + offset // stride
                found[:, column + width * (row + height * channel)] = flat[
                    :, x + width * stride * (y + height * stride * other)
                ]
    return found.reshape(count, channels * stride**2, height // stride, width // stride)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[tuple[int, int, int], tuple[int, int], tuple[int, ...]]:
    """Shape of an image, block, order of its places."""
    block = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels, rows, columns = (draw(st.integers(1, 3)) for _ in range(3))
    order = draw(st.permutations(range(channels * block[0] * block[1])))
    return (channels, rows * block[0], columns * block[1]), block, tuple(order)


@settings(max_examples=25, deadline=None)
@given(blocks())
def test_the_float_network_moves_each_value(
    drawn: tuple[tuple[int, int, int], tuple[int, int], tuple[int, ...]],
) -> None:
    """And the other way round they come back."""
    shape, block, order = drawn
    values = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    network = chain(shape, SpaceToDepth(block, order), DepthToSpace(block, inverted(order)))
    found = Reference(network, ["l0", "l1"]).run(values)
    np.testing.assert_array_equal(found["l0"], to_channels(values, block, order))
    np.testing.assert_array_equal(found["l1"], values)


def test_darknets_order_is_another() -> None:
    """It is no exchange within blocks: where 26 rows become 13, rows come from the channel before or behind."""
    values = np.arange(4 * 26 * 26, dtype=np.float32).reshape(1, 4, 26, 26)
    found = darknet(values, 2)
    assert found.shape == (1, 16, 13, 13)
    channels = found.astype(int) // (26 * 26)
    assert any(len(np.unique(channels[0, number])) > 1 for number in range(16))
    places = {tuple(found[0, number].ravel()) for number in range(16)}
    for order in (tuple(range(16)), onnx_order(4, (2, 2))):
        ours = to_channels(values, (2, 2), order)
        assert places.isdisjoint(tuple(ours[0, number].ravel()) for number in range(16))


NETWORKS: dict[str, Network] = {
    "to channels, ONNX's order": chain((6, 8, 12), Pooling("max", (1, 1)), SpaceToDepth((2, 2), onnx_order(6, (2, 2)))),
    "to channels, PyTorch's order": chain((10, 6, 9), Pooling("max", (1, 1)), SpaceToDepth((3, 3), tuple(range(90)))),
    "to channels, of an image": chain((3, 8, 8), SpaceToDepth((4, 2), onnx_order(3, (4, 2)))),
    "to channels, some of them": chain((5, 4, 6), Pooling("max", (1, 1)), SpaceToDepth((2, 3), (7, 0, 29, 29))),
    "to pixels, ONNX's order": chain(
        (24, 3, 4), Pooling("max", (1, 1)), DepthToSpace((2, 2), inverted(onnx_order(6, (2, 2))))
    ),
    "to pixels, PyTorch's order": chain((36, 2, 3), Pooling("max", (1, 1)), DepthToSpace((2, 3), tuple(range(36)))),
    "and a ReLU": chain((6, 8, 12), Pooling("max", (1, 1)), SpaceToDepth((2, 2), onnx_order(6, (2, 2))), ReLU()),
}


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_values_are_copied_exactly(name: str, target: Target, mode: QuantizationMode | None) -> None:
    compilation = follows(NETWORKS[name], target, mode, EXACT, half=2.0**-12)
    if mode is not None:
        assert compilation.facts.outputs[0].scale == compilation.facts.inputs[0].scale


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_are_called_right(name: str) -> None:
    """By turns: a target for each network."""
    target, mode = VARIANTS[list(NETWORKS).index(name) % len(VARIANTS)].values
    is_called_right(NETWORKS[name], target, mode)  # type: ignore[arg-type]


def test_channels_are_found_without_a_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "own_claim", lambda *_: None)
    found = case(NETWORKS["to channels, ONNX's order"], NV_SMALL, QuantizationMode.PER_FILTER)
    verdict = replace(found, claim=None).verify().verdict
    assert verdict.verdict is Judgement.OK, verdict


def test_between_convolutions() -> None:
    rng = np.random.default_rng(6)
    layers: list[Operation] = [convolution(rng, 8, 3), SpaceToDepth((2, 2), onnx_order(8, (2, 2)))]
    layers += [convolution(rng, 12, 32), DepthToSpace((2, 2), tuple(range(12))), convolution(rng, 5, 3)]
    for target, mode in (VARIANTS[0].values, VARIANTS[-1].values):
        network = chain((3, 8, 6), *layers)
        follows(network, target, mode, 6.0, half=2.0**-7)  # type: ignore[arg-type]
        is_called_right(network, target, mode)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (SpaceToDepth((2, 2), (0,)), r"blocks of 2 x 2 pixels do not fill the input \(6, 5, 4\)"),
        (SpaceToDepth((5, 2), (60,)), r"takes the places \(60,\) of blocks that have 60"),
        (SpaceToDepth((0, 1), (0,)), r"block \(0, 1\), expected 1 or more"),
        (DepthToSpace((2, 2), tuple(range(6))), "blocks of 2 x 2 pixels cannot be made of 6 channels"),
        (DepthToSpace((3, 2), (0, 1, 2, 3, 4, 4)), "expected each of 6 once"),
    ],
)
def test_blocks_that_do_not_fit(operation: Operation, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        chain((6, 5, 4), operation)
