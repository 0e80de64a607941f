"""Adaptive rounding against the sums and the choices written out one by one."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.network.graph import Convolution, InnerProduct
from nvdla_quant.quantization import rounding
from nvdla_quant.quantization.rounding import DAMPING, Moments, moments, round_weights
from tests.networks.builder import Builder

Array = NDArray[np.float32]


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Convolution, Array, Array]:
    """A convolution, its inputs, and what it computes of them."""
    group, per_group = draw(st.sampled_from([(1, 3), (2, 2), (4, 1)]))
    inputs = group * per_group
    builder = Builder("one", (inputs, 5, 6), seed=draw(st.integers(0, 99)))
    operation = Convolution(
        builder.normal((group * draw(st.integers(1, 3)), per_group, 3, 2), 1),
        None,
        stride=draw(st.sampled_from([(1, 1), (2, 1), (2, 3)])),
        pad=draw(st.sampled_from([(0, 0), (1, 1)])),
        far=draw(st.sampled_from([None, (0, 1)])),
        dilation=draw(st.sampled_from([(1, 1), (2, 1)])),
        group=group,
    )
    builder.add("conv", operation, "data")
    images = np.random.default_rng(draw(st.integers(0, 99))).standard_normal((3, inputs, 5, 6)).astype(np.float32)
    (outputs,) = Reference(builder.build()).run(images).values()
    return operation, images, outputs


def flat(operation: Convolution | InnerProduct, group: int) -> NDArray[np.float64]:
    return operation.weights.astype(np.float64).reshape(group, -1, operation.weights[0].size)


@settings(max_examples=40)
@given(convolutions())
def test_sums_give_the_error_of_any_weights(case: tuple[Convolution, Array, Array]) -> None:
    """y = W x: the outputs themselves say what H and c must be, W H = c, with no need to know the windows."""
    operation, images, outputs = case
    sums = moments(operation, images, outputs, centred=False)
    assert sums.count == outputs[:, 0].size
    assert flat(operation, operation.group) @ sums.squares == pytest.approx(sums.products, rel=1e-3, abs=1e-3)
    # And the energy of the outputs is W H W'.
    energy = np.square(outputs, dtype=np.float64).sum(axis=(0, 2, 3)).reshape(operation.group, -1)
    weights = flat(operation, operation.group)
    assert np.einsum("goi,gij,goj->go", weights, sums.squares, weights) == pytest.approx(energy, rel=1e-3, abs=1e-3)


@settings(max_examples=20)
@given(convolutions())
def test_centred_sums_are_covariances(case: tuple[Convolution, Array, Array]) -> None:
    operation, images, outputs = case
    sums = moments(operation, images, outputs, centred=True)
    variance = outputs.var(axis=(0, 2, 3), dtype=np.float64).reshape(operation.group, -1) * sums.count
    weights = flat(operation, operation.group)
    found = np.einsum("goi,gij,goj->go", weights, sums.squares, weights)
    assert found == pytest.approx(variance, rel=1e-3, abs=1e-3 * max(1.0, float(np.square(outputs).sum())))


def test_the_bias_is_taken_out() -> None:
    rng = np.random.default_rng(0)
    operation = InnerProduct(rng.standard_normal((3, 4)).astype(np.float32), np.array([1, -2, 3], np.float32))
    inputs = rng.standard_normal((50, 4)).astype(np.float32)
    assert operation.bias is not None
    sums = moments(operation, inputs, inputs @ operation.weights.T + operation.bias, centred=False)
    assert flat(operation, 1) @ sums.squares == pytest.approx(sums.products, rel=1e-4, abs=1e-4)


def test_many_samples_are_a_choice_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "SAMPLES", 64)
    rng = np.random.default_rng(0)
    operation = InnerProduct(rng.standard_normal((3, 4)).astype(np.float32), None)
    inputs = rng.standard_normal((500, 4)).astype(np.float32)
    found = [moments(operation, inputs, inputs @ operation.weights.T, centred=False, seed=seed) for seed in (0, 0, 1)]
    assert [one.count for one in found] == [64, 64, 64]
    assert (found[0].squares == found[1].squares).all()
    assert (found[0].squares != found[2].squares).any()


def error(steps: NDArray[np.float64], exact: NDArray[np.float64], squares: NDArray[np.float64]) -> float:
    """Sum of squared errors of one output in squared steps, damping included."""
    difference = steps - exact
    damping = DAMPING * float(np.diagonal(squares).mean())
    return float(difference @ (squares + damping * np.eye(len(squares))) @ difference)


@settings(max_examples=60)
@given(st.integers(1, 8), st.integers(0, 999), st.integers(1, 30))
def test_no_flip_is_left_that_would_help(size: int, seed: int, samples: int) -> None:
    """Against all 2**n choices: never worse than the nearest, and no neighbour is better; often the best of all."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, size)) * np.exp(rng.standard_normal(size))
    x[:, 1:] += x[:, :1]  # So that inputs go together.
    weights = rng.uniform(-1, 1, (2, size)).astype(np.float32)
    scales = np.array([0.1, 0.03], np.float32)
    squares = x.T @ x
    sums = Moments(squares[np.newaxis], (weights.astype(np.float64) @ squares)[np.newaxis], samples)
    steps, flipped = round_weights(weights, scales, sums)
    total = 0
    for row in range(2):
        exact = weights[row].astype(np.float64) / scales[row].astype(np.float64)
        chosen = steps[row].astype(np.float64)
        assert (np.abs(chosen - exact) <= 1).all()
        nearest = np.floor(exact + 0.5)
        total += int((chosen != nearest).sum())
        found = error(chosen, exact, squares)
        below = np.floor(exact)
        every = {up: error(below + np.array(up), exact, squares) for up in product((0, 1), repeat=size)}
        assert found <= error(nearest, exact, squares) * (1 + 1e-9)
        own = tuple(int(one) for one in chosen - below)
        neighbours = [every[(*own[:i], 1 - own[i], *own[i + 1 :])] for i in range(size)]
        assert found <= min(neighbours) * (1 + 1e-6) + 1e-9
    assert flipped == total


def test_steps_stay_in_range_where_scales_clip() -> None:
    weights = np.array([[10, -10, 0.26]], np.float32)
    steps, _ = round_weights(weights, np.array([0.05], np.float32), Moments(np.eye(3)[None], weights[None] * 1.0, 1))
    assert steps.tolist() == [[127, -127, 5]]
