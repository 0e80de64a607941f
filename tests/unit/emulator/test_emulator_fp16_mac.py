"""The MAC array and its accumulator in fp16 against the scalar model of `tests.fp16_model`, and by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.emulator.fp16.accumulator import accumulate, to_single
from nvdla_quant.emulator.fp16.booth import KERNELS, ROW, align, recode
from nvdla_quant.emulator.fp16.mac import DIRECT, convolve, weight_blocks
from tests import fp16_model as model
from tests.fp16_model import HALF, SINGLE
from tests.fp16_numbers import numbers

halves = numbers(HALF)


def convolved(weights: NDArray[np.uint16], data: NDArray[np.uint16], edges: list[int]) -> list[int]:
    """Run ``(lanes,)`` weights over ``(pixels, lanes)`` data; the weights stand in the third of 16 kernels."""
    padded = np.zeros((1, len(weights), KERNELS), np.uint16)
    padded[0, :, 2] = weights
    pixels, lanes = data.shape
    sums = np.empty((pixels, 1, KERNELS), np.uint32)
    convolve(data.reshape(-1), np.arange(pixels) * lanes, np.arange(lanes), np.array(edges), padded, DIRECT, sums)
    return [int(bits) for bits in sums[:, 0, 2]]


@given(st.data(), st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_mac_array(data: st.DataObject, sizes: list[int]) -> None:
    """Steps of any halves, or of finite ones of one magnitude, which sum without being dropped."""
    count = sum(sizes)
    usual = st.integers(0, (1 << 16) - 1).map(lambda bits: bits & 0x83FF | 13 + (bits >> 12 & 3) << 10)
    kind = data.draw(st.sampled_from([halves, usual, usual]))
    weights, values = (data.draw(st.lists(kind, min_size=count, max_size=count)) for _ in range(2))
    edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    parts = [slice(a, b) for a, b in pairwise(edges)]
    expected = model.accumulate((weights[part], values[part]) for part in parts)
    assert convolved(np.array(weights, np.uint16), np.array([values], np.uint16), edges) == [expected]


@given(halves, halves)
def test_single_products(weight: int, value: int) -> None:
    """One product alone is exact (11 bits by 11), so it is what Python's own numbers say."""
    ours = convolved(np.array([weight], np.uint16), np.array([[value]], np.uint16), [0, 1])
    if HALF.is_nan(weight) or HALF.is_nan(value):
        assert SINGLE.is_nan(ours[0])
        return
    negative = (weight ^ value) >> 15 == 1
    expected = HALF.magnitude(weight) * HALF.magnitude(value)
    assert SINGLE.magnitude(ours[0]) == expected
    assert expected == 0 or SINGLE.split(ours[0])[0] == negative


def test_aligned_product_by_hand() -> None:
    """1 * 1 beside 2**-4 * (1 + 2**-10): the second is 4 bits further down, 0x401 << 10 >> 4 without a remainder."""
    weights, values = np.array([0x3C00, 0x3C00], np.uint16), np.array([[0x3C00, 0x2C01]], np.uint16)
    # 1.0625610... = 1 + 2**-4 + 2**-14: all of it fits.
    expected = int(np.float32(1 + 2**-4 + 2**-14).view(np.uint32))
    assert convolved(weights, values, [0, 2]) == [expected]


@given(st.data(), st.sampled_from([1, 17]), st.lists(st.integers(1, 5), min_size=1, max_size=2))
def test_every_kernel_and_pixel(data: st.DataObject, kernels: int, sizes: list[int]) -> None:
    """Weights and data of all kinds, many of them zeros: each accumulator has its own largest product, and its NaN."""
    lanes, pixels = sum(sizes), 2
    kind = data.draw(st.sampled_from([halves, halves.filter(lambda bits: not HALF.is_nan(bits))]))
    value = st.one_of(kind, kind, st.sampled_from([0, 0x8000]))
    weights, values = (
        np.array(data.draw(st.lists(value, min_size=count * lanes, max_size=count * lanes)), np.uint16)
        for count in (kernels, pixels)
    )
    edges = np.cumsum([0, *sizes])
    blocks = weight_blocks(weights.reshape(kernels, lanes))
    sums = np.empty((pixels, 1, blocks.shape[0] * KERNELS), np.uint32)
    convolve(values, np.arange(pixels) * lanes, np.arange(lanes), edges, blocks, DIRECT, sums)
    for k, w in enumerate(weights.reshape(kernels, lanes).tolist()):
        for pixel, d in enumerate(values.reshape(pixels, lanes).tolist()):
            assert sums[pixel, 0, k] == model.accumulate((w[a:b], d[a:b]) for a, b in pairwise(edges))


finite = halves.filter(lambda bits: HALF.split(bits)[1] < HALF.top)


@given(
    st.lists(finite, min_size=KERNELS, max_size=KERNELS),
    st.lists(finite.filter(lambda bits: bits % 0x8000 != 0), min_size=1, max_size=4),
    st.lists(st.integers(0, 14), min_size=KERNELS, max_size=KERNELS),
)
def test_aligned_products(weights: list[int], data: list[int], units: list[int]) -> None:
    """Every shift that two scales can differ by, another one for each kernel, beside zeros."""
    table = np.empty((2, ROW), np.uint16)
    recode(np.array([weights], np.uint16), table)
    carries, aligned = np.empty(KERNELS, np.uint16), np.empty((1, KERNELS), np.int32)
    for bits in data:
        magnitude, scale = model.shifted(bits)
        top = np.array([4 * (model.shifted(w)[1] + scale + down) for w, down in zip(weights, units, strict=True)])
        entry = np.array([[bits >> 15, magnitude, 4 * scale]], np.uint32)
        align(table, entry, 1, top.astype(np.int16), carries, aligned)
        for k, (weight, down) in enumerate(zip(weights, units, strict=True)):
            signed = -model.shifted(weight)[0] if (weight ^ bits) >> 15 else model.shifted(weight)[0]
            assert aligned[0, k] == (model.product(signed, magnitude, 4 * down) if weight % 0x8000 else 0)


@given(st.lists(st.tuples(st.integers(-(1 << 37), (1 << 37) - 1), st.integers(0, 36), st.integers(0, 14)), max_size=8))
def test_accumulator(steps: list[tuple[int, int, int]]) -> None:
    """Steps of 38 bits (shifted down, so that small ones occur) at any exponent."""
    mantissa, exponent, expected = 0, 0, model.Accumulator()
    for value, down, scale in steps:
        mantissa, exponent = accumulate(mantissa, exponent, value >> down, 4 * scale)
        expected = expected.plus((value >> down, 4 * scale))
        assert (mantissa, exponent) == (expected.mantissa, expected.exponent)
    assert to_single(mantissa, exponent) == expected.single()


@given(st.integers(-(1 << 37), (1 << 37) - 1), st.integers(0, 14), st.integers(0, 9), st.integers(-3, 3))
def test_steps_that_cancel(value: int, scale: int, above: int, off: int) -> None:
    """The second step takes away all of the first but its last bits: what is left is normalised far up."""
    steps = (value, 4 * scale), (-(value >> 4 * above) + off, 4 * (scale + above)), (value, 4 * scale)
    mantissa, exponent, expected = 0, 0, model.Accumulator()
    for step in steps:
        mantissa, exponent = accumulate(mantissa, exponent, *step)
        expected = expected.plus(step)
        assert (mantissa, exponent) == (expected.mantissa, expected.exponent)
    assert to_single(mantissa, exponent) == expected.single()


@given(
    st.integers(1 << 36, (1 << 37) - 1), st.integers(37, 42), st.integers(7, 9), st.integers(-1, 1), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_steps_far_apart(
    value: int, down: int, scales: int, off: int, first_negative: bool, second_negative: bool
) -> None:
    """The second step is about half a unit of the first, where all of its bits decide, or is dropped."""
    half = (1 << 36 + 4 * scales - down) + off
    steps = (-value if first_negative else value, 4 * scales), (-half if second_negative else half, 0)
    mantissa, exponent, expected = 0, 0, model.Accumulator()
    for step in steps:
        mantissa, exponent = accumulate(mantissa, exponent, *step)
        expected = expected.plus(step)
    assert (mantissa, exponent) == (expected.mantissa, expected.exponent)


@pytest.mark.parametrize(
    ("sign", "low", "total"),
    [
        (1, 1, 2**40),
        (1, 2, 2**40 + 4),
        (1, 3, 2**40 + 4),
        (-1, 1, -(2**40)),
        (-1, 2, -(2**40) - 4),
        (-1, 3, -(2**40) - 4),
    ],
)
def test_accumulator_rounds_ties_away_from_zero(sign: int, low: int, total: int) -> None:
    """2**36 * 2**4 + low in units of 2**-50, held in 39 bits: multiples of 4; 2**40 + 2 lies half way."""
    mantissa, exponent = accumulate(*accumulate(0, 0, sign << 36, 4), sign * low, 0)
    assert mantissa * 2 ** (exponent - 51) == total
