"""Thresholds of least squared error and largest cosine: against the values themselves, one by one."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.calibration.histogram import BINS, Histogram
from nvdla_quant.calibration.rounded import (
    STEPS,
    Rounded,
    cosine_threshold,
    mse_threshold,
    resolved,
    rounded,
    upper_edges,
)

Array = NDArray[np.float64]
Search = Callable[[Histogram], float]
Draw = Callable[[np.random.Generator], Array]
FINE = 200
"""Points of a bin that the slow version takes."""


def histogram_of(*batches: Array) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch.astype(np.float32))
        histogram.end_batch()
    return histogram


def filled(counts: dict[int, int]) -> Histogram:
    histogram = Histogram()
    histogram.range = float(BINS)
    for index, count in counts.items():
        histogram.counts[index] = count
    return histogram


def int8(values: Array, threshold: float) -> Array:
    """The definition: rounded to the nearest of 127 steps on either side of 0, and clipped."""
    scale = threshold / STEPS
    return np.clip(np.round(values / scale), -STEPS, STEPS) * scale


def squared_error(values: Array, threshold: float) -> float:
    return float(((values - int8(values, threshold)) ** 2).sum())


def cosine(values: Array, threshold: float) -> float:
    made = int8(values, threshold)
    lengths = np.linalg.norm(values) * np.linalg.norm(made)
    return float(values @ made / lengths) if lengths else 0.0


def spread(counts: Array) -> tuple[Array, Array]:
    """Points that lie evenly in their bins, and how many values each stands for."""
    points = [(index + (np.arange(FINE) + 0.5) / FINE, count / FINE) for index, count in enumerate(counts) if count]
    return np.concatenate([places for places, _ in points]), np.repeat([weight for _, weight in points], FINE)


def slowly(histogram: Histogram, thresholds: Array) -> Rounded:
    """Sums over many points of each bin."""
    places, weights = spread(resolved(histogram))
    made = [int8(places, threshold) for threshold in thresholds]
    return Rounded(
        float(weights @ places**2),
        np.array([float(weights @ (places * one)) for one in made]),
        np.array([float(weights @ one**2) for one in made]),
    )


COUNTS = st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 1000), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.lists(st.floats(0.5, 3 * BINS), min_size=1, max_size=5))
def test_sums_agree_with_the_definition(counts: dict[int, int], thresholds: list[float]) -> None:
    """Within what 200 points of a bin leave open."""
    histogram = filled({**counts, BINS - 1: 1})
    tried = np.array(thresholds)
    fast, slow = rounded(histogram, tried), slowly(histogram, tried)
    assert fast.energy == pytest.approx(slow.energy, rel=1e-4)
    np.testing.assert_allclose(fast.left, slow.left, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fast.product, slow.product, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("threshold", [1.0, 60.5, 127.0, 128.5, 700.0, 2048.0, 2048.5])
def test_noise_and_cosine_agree_with_the_definition(threshold: float) -> None:
    values = np.abs(np.random.default_rng(0).standard_t(3, 100_000))
    histogram = histogram_of(values)
    places, weights = spread(resolved(histogram))
    made = int8(places, threshold)
    found = rounded(histogram, np.array([threshold]))
    noise = weights @ (places - made) ** 2 / (weights @ places**2)
    product = weights @ (places * made) / np.sqrt((weights @ places**2) * (weights @ made**2))
    assert found.noise[0] == pytest.approx(noise, rel=1e-3)
    assert found.sqnr[0] == pytest.approx(-10 * np.log10(noise), abs=0.01)
    assert found.cosine[0] == pytest.approx(product, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40).filter(
        lambda numbers: max(map(abs, numbers)) > 1e-6
    )
)
def test_the_threshold_is_as_good_as_the_best_of_all_on_the_values(numbers: list[float]) -> None:
    """A value is anywhere in its bin, which moves its error e by at most w, and ``e**2`` by at most ``w * (2 e + w)``.

    Summed up (Cauchy and Schwarz), for both thresholds, with ``w**2`` more for a value of bin 0 that is left out.
    """
    values = np.array(numbers, np.float32).astype(np.float64)
    histogram = histogram_of(values)
    tried = upper_edges(histogram) * histogram.bin_width
    errors = [squared_error(values, threshold) for threshold in tried]
    chosen, best = mse_threshold(histogram), min(errors)
    width, count = histogram.bin_width, values.size
    slack = 2 * (width * 2 * np.sqrt(count * max(best, squared_error(values, chosen))) + 2 * count * width**2)
    assert squared_error(values, chosen) <= best + slack
    assert any(chosen == pytest.approx(one) for one in tried)


def gaussian(rng: np.random.Generator) -> Array:
    return rng.normal(0, 1, 50_000)


def laplace(rng: np.random.Generator) -> Array:
    return rng.laplace(0, 1, 50_000)


def heavy(rng: np.random.Generator) -> Array:
    return rng.standard_t(2.2, 50_000)


def rectified(rng: np.random.Generator) -> Array:
    return np.maximum(rng.laplace(-0.5, 1, 50_000), 0)


def outlier(rng: np.random.Generator) -> Array:
    return np.append(rng.normal(0, 1, 50_000), 90.0)


DISTRIBUTIONS = [gaussian, laplace, heavy, rectified, outlier]


@pytest.mark.parametrize("draw", DISTRIBUTIONS)
def test_of_many_values_nothing_is_lost_by_the_histogram(draw: Draw) -> None:
    """Beside every eighth threshold, each tried on the values: 0.05 dB of error, and as much of the angle."""
    values = np.asarray(draw(np.random.default_rng(7)), np.float32).astype(np.float64)
    histogram = histogram_of(values)
    tried = upper_edges(histogram)[::8] * histogram.bin_width
    best = min(squared_error(values, threshold) for threshold in tried)
    assert squared_error(values, mse_threshold(histogram)) <= 1.012 * best
    angle = min(1 - cosine(values, threshold) for threshold in tried)
    assert 1 - cosine(values, cosine_threshold(histogram)) <= 1.012 * angle


def test_heavier_tails_are_clipped_further() -> None:
    """Beside the largest magnitude; a Gaussian's is clipped near 4 deviations (Banner et al., arXiv:1810.05723)."""
    rng = np.random.default_rng(0)
    samples = [rng.uniform(-1, 1, 50_000), gaussian(rng), laplace(rng), outlier(rng)]
    shares = [mse_threshold(histogram_of(one)) / np.abs(one).max() for one in samples]
    assert all(one > other for one, other in pairwise(shares))
    assert shares[0] == pytest.approx(1, abs=0.01)
    assert 3.5 < mse_threshold(histogram_of(samples[1])) < 4.5


def test_an_outlier_costs_what_it_is_worth() -> None:
    """50,000 values of noise s**2 / 12 each against (90 - T)**2: T minimises (90 - T)**2 + 50000 (T / 127)**2 / 12."""
    values = outlier(np.random.default_rng(1))
    assert mse_threshold(histogram_of(values)) == pytest.approx(90 / (1 + 50_000 / 12 / 127**2), rel=0.02)


@pytest.mark.parametrize("search", [mse_threshold, cosine_threshold])
@pytest.mark.parametrize("value", [5.0, -0.25, 3e-30])
def test_a_constant_tensor_is_kept_whole(search: Search, value: float) -> None:
    """Every threshold of a constant tensor has cosine 1: the largest wins, and clips nothing."""
    assert search(histogram_of(np.full(1000, value))) == pytest.approx(abs(value), rel=1e-6)
    # Zeros beside it change nothing, nor does a range that a larger batch doubled.
    assert search(histogram_of(np.append(np.zeros(10_000), value))) == pytest.approx(abs(value), rel=1e-6)


@pytest.mark.parametrize("search", [mse_threshold, cosine_threshold])
def test_one_bin_and_empty_bins(search: Search) -> None:
    for bin_ in (1, 700, 2047):
        assert search(filled({bin_: 9})) == pytest.approx(bin_ + 1, abs=1)
        assert search(filled({0: 1_000_000, bin_: 9})) == pytest.approx(bin_ + 1, abs=1)
    # All values so small that the histogram does not tell them from zeros.
    assert search(filled({0: 9})) == 1.0


def test_zeros_do_not_count() -> None:
    """A ReLU's zeros are exact under every threshold; of bin 0 only as many as bin 1 has are taken for small values."""
    few = {0: 50, 1: 40, 2: 30, 900: 5, 2047: 1}
    many = {**few, 0: 10**9}
    assert mse_threshold(filled(few)) == mse_threshold(filled(many))
    assert resolved(filled(many))[0] == 40
    assert filled(many).counts[0] == 10**9


@pytest.mark.parametrize("search", [mse_threshold, cosine_threshold])
def test_the_range_may_double(search: Search) -> None:
    """What comes first sets the range, and the bins; thresholds of the same values differ by less than a wide bin."""
    rng = np.random.default_rng(4)
    small, large = rng.laplace(0, 1, 20_000), rng.laplace(0, 4, 20_000)
    together, doubled = histogram_of(np.append(small, large)), histogram_of(small, large)
    assert doubled.range > together.range
    values = np.append(small, large)
    assert squared_error(values, search(doubled)) == pytest.approx(squared_error(values, search(together)), rel=0.02)


def test_no_value_no_noise() -> None:
    nothing = rounded(filled({0: 5}), np.array([1.0, 2.0]))
    assert nothing.energy == 0
    assert nothing.noise.tolist() == [0, 0]
    assert nothing.cosine.tolist() == [0, 0]
    assert np.isposinf(nothing.sqnr).all()
