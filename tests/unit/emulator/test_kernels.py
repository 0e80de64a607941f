"""How int8 convolutions are computed: what is possible, what is chosen, and that a wrong one never is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvdla_quant.emulator.integer import kernels
from nvdla_quant.emulator.integer.dots import multiplier
from nvdla_quant.emulator.integer.kernels import DOTS, OVERRIDE, Kernel, chosen_kernel, possible_kernels
from nvdla_quant.errors import EmulationError
from tests.kernels import using

POSSIBLE = [kernel for kernel in possible_kernels() if kernel in DOTS]
needs_dots = pytest.mark.skipif(not POSSIBLE, reason="this processor has no dot products (AVX2, VNNI)")


@needs_dots
@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 140), st.integers(0, 1 << 30))
def test_products_are_exact(pixels: int, depth: int, count: int, seed: int) -> None:
    """Every number of pixels, depths that end within four bytes, every number of vectors: as int64 has it."""
    random = np.random.default_rng(seed)
    inputs, weights = (
        random.choice([-128, -127, -1, 0, 1, 127, *random.integers(-128, 128, 3)], (rows, depth)).astype(np.int8)
        for rows in (pixels, count)
    )
    right = inputs.astype(np.int64) @ weights.astype(np.int64).T
    for kernel in POSSIBLE:
        np.testing.assert_array_equal(multiplier(inputs, weights, DOTS[kernel])(), right, kernel)


@needs_dots
def test_the_largest_sums_are_exact() -> None:
    """131,071 products of -128 * -128 are the largest sum below 2**31; on the way there each register wraps."""
    extreme = np.full((1, 131071), -128, np.int8)
    for kernel in POSSIBLE:
        assert multiplier(extreme, extreme, DOTS[kernel])().tolist() == [[131071 << 14]]


def test_float32_is_always_possible() -> None:
    assert possible_kernels()[-1] is Kernel.FLOAT32


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"sse4.2"}, [Kernel.FLOAT32]),
        ({"avx2"}, [Kernel.AVX2, Kernel.FLOAT32]),
        ({"avx512f", "avx512vl"}, [Kernel.FLOAT32]),
        ({"avx2", "avxvnni"}, [Kernel.VNNI256, Kernel.AVX2, Kernel.FLOAT32]),
        ({"avx512f", "avx512vnni", "avx512vl"}, [Kernel.VNNI512, Kernel.VNNI256, Kernel.FLOAT32]),
        ({"neon", "dotprod"}, [Kernel.FLOAT32]),
    ],
)
def test_what_processors_have(monkeypatch: pytest.MonkeyPatch, features: set[str], expected: list[Kernel]) -> None:
    monkeypatch.setattr(kernels, "processor_features", lambda: frozenset(features))
    assert list(possible_kernels()) == expected


@pytest.mark.parametrize(
    ("exact", "seconds", "expected"), [(True, 1.0, "vnni"), (True, 3.0, "float32"), (False, 1.0, "float32")]
)
def test_the_fastest_exact_one_is_chosen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, exact: bool, seconds: float, expected: str
) -> None:
    monkeypatch.setattr(kernels, "processor_features", lambda: frozenset({"avx2", "avxvnni"}))
    monkeypatch.setattr(kernels, "_check", lambda dots: (exact, seconds))
    monkeypatch.setattr(kernels, "_seconds_of_float32", lambda: 2.0)
    with using("auto"), caplog.at_level("INFO"):
        assert chosen_kernel().startswith(expected)
    assert ("vnni256 is wrong on this processor" in caplog.text) is not exact


@needs_dots
def test_a_wrong_product_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as processors without VNNI give, whose sums of two products saturate at 16 bits."""

    def saturating(inputs: np.ndarray, weights: np.ndarray, dots: object) -> object:
        pairs = (inputs.astype(np.int64) + 128).reshape(len(inputs), 1, -1, 2) * weights.reshape(len(weights), -1, 2)
        sums = np.clip(pairs.sum(axis=-1), -(1 << 15), (1 << 15) - 1).sum(axis=-1)
        return lambda: sums - 128 * weights.astype(np.int64).sum(axis=1)

    assert kernels._check(DOTS[POSSIBLE[0]])[0]
    monkeypatch.setattr(kernels, "multiplier", saturating)
    assert not kernels._check(DOTS[POSSIBLE[0]])[0]


def test_an_impossible_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "processor_features", lambda: frozenset({"avx2"}))
    message = f"environment variable {OVERRIDE}: 'vnni512', expected auto or one of those .*: avx2, float32"
    with using("vnni512"), pytest.raises(EmulationError, match=message):
        chosen_kernel()
