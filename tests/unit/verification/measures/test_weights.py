"""Kernels in a loadable are right whatever their scale is, and a weight that is off by steps is found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.verification.measures.weights import fit, wrong_weights


def fitted(real: np.ndarray, found: np.ndarray, half: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factors, their leeway, and which weights are wrong."""
    result = fit(real.astype(np.float32), found.astype(np.float32), half)
    return result.factors, result.leeway, wrong_weights(result, real, found, half)


def quantized(real: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """As `nvdla_compiler` rounds: half up, saturated."""
    return np.clip(np.floor(real / factors[:, None] + 0.5), -128, 127)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(1, 30), st.booleans())
def test_any_factor_of_a_kernel_is_right(seed: int, depth: int, coarser: float, folded: bool) -> None:
    """A scale may be larger than |w|/127 (one for the layer) and negative (a folded gamma)."""
    rng = np.random.default_rng(seed)
    real = rng.normal(0, 1, (6, depth))
    factors = np.abs(real).max(axis=1) / 127 * rng.uniform(1, coarser, 6)
    sign = np.where(rng.random(6) < 0.5, -1, 1) if folded else np.ones(6)
    found, leeway, wrong = fitted(real, quantized(real * sign[:, None], factors))
    assert not wrong.any()
    assert np.all(np.abs(factors / (found * sign) - 1) <= leeway + 1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(16, 60), st.integers(3, 100))
def test_a_weight_that_is_off_is_the_one_that_is_found(seed: int, depth: int, steps: int) -> None:
    """Of few weights, one that is off by two steps may move the factor that fits them: 45 of 20,000 kernels of 9."""
    rng = np.random.default_rng(seed)
    real = rng.normal(0, 1, (6, depth))
    factors = np.abs(real).max(axis=1) / 127
    kernels = quantized(real, factors)
    kernel, place = int(rng.integers(6)), int(rng.integers(depth))
    kernels[kernel, place] += steps if kernels[kernel, place] < 0 else -steps
    wrong = fitted(real, kernels)[2]
    assert wrong[kernel, place]
    assert not np.delete(wrong, kernel, axis=0).any()


def test_halves() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(0, 0.1, (4, 27))
    factors = np.array([1.0, 0.3, 2.5, 1.0])
    halves = (real / factors[:, None]).astype(np.float16).astype(np.float64)
    found, _, wrong = fitted(real, halves, True)
    assert not wrong.any()
    assert found == pytest.approx(factors, rel=2**-9)
    halves[2, 5] = np.nan
    halves[1, 3] *= 1.02
    wrong = fitted(real, halves, True)[2]
    assert np.argwhere(wrong).tolist() == [[1, 3], [2, 5]]


def test_a_kernel_of_zeros_may_hold_anything() -> None:
    """NVIDIA's compiler writes -128 there, with a multiplier of 0 (docs/hardware/calibration-table.md, "Weights")."""
    found, _, wrong = fitted(np.zeros((1, 4)), np.full((1, 4), -128.0))
    assert not wrong.any()
    assert found.tolist() == [0.0]
