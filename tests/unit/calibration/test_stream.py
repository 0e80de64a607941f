"""Calibration a few images at a time: the same as whole batches, whatever the parts and the threads."""

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.calibration import stream
from nvdla_quant.calibration.cpu import Calibrator, MeasuringMethod, measure
from nvdla_quant.calibration.histogram import BINS, SMALLEST_RANGE, Histogram
from nvdla_quant.calibration.stream import cut
from nvdla_quant.errors import NetworkError
from nvdla_quant.images.preprocess import Normalised, Preprocessing, normalise
from nvdla_quant.network.graph import Network
from tests.networks.builder import Builder
from tests.profiles import has_turn

Array = NDArray[np.float32]


def of_whole_batches(batches: Sequence[Array]) -> tuple[float, list[int]]:
    """The rule as it is told: a batch sets or doubles the range, then all of it is counted, the end in the last bin."""
    end, counts = 0.0, np.zeros(BINS, np.int64)
    for batch in batches:
        largest = float(np.abs(batch).max())
        if largest >= SMALLEST_RANGE and not end:
            end = largest
        if not end:
            counts[0] += batch.size
            continue
        while largest > end:
            counts = np.concatenate([counts[::2] + counts[1::2], np.zeros(BINS // 2, np.int64)])
            end *= 2
        bins = np.minimum((np.abs(batch) * np.float32(BINS / end)).astype(np.int64), BINS - 1)
        counts += np.bincount(bins, minlength=BINS)
    return end, counts.tolist()


def in_parts(batches: Sequence[Array], cuts: Sequence[Sequence[int]]) -> tuple[float, list[int]]:
    histogram = Histogram()
    for batch, places in zip(batches, cuts, strict=True):
        if not histogram.range:
            histogram.widen(float(np.abs(batch).max()))
        for start, stop in pairwise([0, *sorted(place % (batch.size + 1) for place in places), batch.size]):
            histogram.add(batch[start:stop])
        histogram.end_batch()
    return histogram.range, histogram.counts.tolist()


def numbers() -> st.SearchStrategy[float]:
    """Such that ranges and their doubles are met exactly, also in the last bits of a float."""
    exact = st.builds(lambda base, power: base * 2.0**power, st.sampled_from([0.0, 1.0, 3.0, 1.1]), st.integers(-3, 5))
    near = exact.map(lambda one: float(np.nextafter(np.float32(one), np.float32(0))))
    magnitudes = st.one_of(exact, near, st.floats(0, 40, width=32))
    return st.one_of(magnitudes, magnitudes.map(lambda one: -one), st.sampled_from([1e-44, 1e-37, -3e38]))


BATCHES = st.lists(
    st.lists(numbers(), min_size=1, max_size=12).map(lambda one: np.array(one, np.float32)), min_size=1, max_size=5
)


@settings(max_examples=100, deadline=None)
@given(BATCHES, st.data())
def test_parts_of_a_batch_count_as_the_whole(batches: list[Array], data: st.DataObject) -> None:
    places = st.lists(st.integers(0, 12), max_size=6)
    assert in_parts(batches, [data.draw(places) for _ in batches]) == of_whole_batches(batches)


@pytest.mark.parametrize("seed", range(20))
def test_many_values_in_parts(seed: int) -> None:
    """More than the blocks in which bins are computed, and ranges of any float."""
    rng = np.random.default_rng(seed)
    batches = [rng.standard_normal(5000, np.float32) * np.float32(np.exp(rng.normal(0, 2))) for _ in range(6)]
    assert in_parts(batches, [rng.integers(0, 5000, 5).tolist() for _ in batches]) == of_whole_batches(batches)


def test_the_end_of_a_range_that_the_batch_goes_beyond() -> None:
    """2 ends the first batch's range, and lies in the middle of the second's, whichever of its values is first."""
    whole = of_whole_batches([np.float32([2]), np.float32([2, 4])])
    assert whole[1][1023:1025] == [1, 1]
    for second in ([2, 4], [4, 2]):
        assert in_parts([np.float32([2]), np.float32(second)], [[], [1]]) == whole


@given(st.integers(0, 50), st.integers(1, 200), st.integers(1, 70))
def test_parts_are_few_and_even(start: int, count: int, most: int) -> None:
    batch = range(start, start + count)
    parts = cut(batch, most)
    assert [index for part in parts for index in part] == list(batch)
    assert len(parts) == -(-count // most)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def small_network() -> Network:
    builder = Builder("small", (2, 9, 9), seed=5)
    last = builder.conv_norm("c1", builder.conv_relu("c0", "data", 5, 3), 4, 3, 2)
    builder.softmax(builder.fc("fc", builder.global_average("pool", last), 3))
    return builder.build()


def growing(shape: tuple[int, ...], count: int) -> Array:
    sizes = np.geomspace(0.1, 20, count).astype(np.float32).reshape(-1, 1, 1, 1)
    images: Array = np.random.default_rng(2).standard_normal((count, *shape), np.float32) * sizes
    images[:3] = 0  # The first batches of some sizes set no range for the input.
    return images


@pytest.mark.parametrize("method", ["entropy", "minmax", "percentile", "mse", "cosine"])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 23, 64])
def test_neither_parts_nor_threads_change_thresholds(
    monkeypatch: pytest.MonkeyPatch, method: MeasuringMethod, batch_size: int
) -> None:
    """In the short form each size of a batch has a third of the parts and threads, and all have all."""
    network = small_network()
    images = growing(network.only_input.shape, 23)
    calibrator = Calibrator(method, batch_size, 99.0 if method == "percentile" else None)
    whole = measure(network, images, calibrator, tuple(network.tensors))
    for turn, (of_images, threads) in enumerate(product((1, 2, 5), (1, 2, 3))):
        if has_turn(turn + batch_size, 3):
            monkeypatch.setattr(stream, "ROOM", of_images * stream.activation_bytes(network))
            assert measure(network, images, calibrator, tuple(network.tensors), threads=threads) == whole


@pytest.mark.parametrize("method", ["minmax", "entropy"])
@pytest.mark.parametrize(("room", "which"), [(2, "images 6 to 7"), (1, "image 6")])
def test_values_that_are_not_finite_are_named(
    monkeypatch: pytest.MonkeyPatch, method: MeasuringMethod, room: int, which: str
) -> None:
    network = small_network()
    images = growing(network.only_input.shape, 9)
    images[6, 1, 2, 3] = np.nan
    monkeypatch.setattr(stream, "ROOM", room * stream.activation_bytes(network))
    with pytest.raises(NetworkError, match=f"tensor 'data': values are not finite for {which} of the calibration"):
        measure(network, images, Calibrator(method, 4), ("data", "c0"), threads=2)


def test_pixels_are_normalised_a_few_at_a_time() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 2, 9, 9)).astype(np.uint8)
    preprocessing = Preprocessing("rgb", mean=(3.5, 7.0, 1.0), scale=0.017)
    pixels = np.concatenate([pixels, pixels[:, :1]], axis=1)
    images = Normalised(pixels, preprocessing)
    assert (len(images), images.shape, images.dtype) == (7, (7, 3, 9, 9), np.float32)
    np.testing.assert_array_equal(images[2:5], normalise(pixels, preprocessing)[2:5])
