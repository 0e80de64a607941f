"""How far outputs lie from fp32's: by hand, both sides of each diagnosis, intervals, pairs, files."""

import itertools
from dataclasses import replace
from math import log10
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.errors import DatasetError, DumpError, ReportError
from nvdla_quant.evaluation.accuracy import Interval, Subject
from nvdla_quant.evaluation.fidelity.bootstrap import decibels, interval, mean
from nvdla_quant.evaluation.fidelity.figures import (
    Output,
    Task,
    compare_numbers,
    diagnose,
    figures,
    measure,
    read_fidelity,
    relative_noise,
    write_fidelity,
    write_image_errors,
)
from nvdla_quant.evaluation.fidelity.images import ImageErrors, errors_of, joined
from nvdla_quant.evaluation.fidelity.pairs import Quality, compare, compare_case, read_pairs, write_pairs
from nvdla_quant.jobs.files import read_npz

SUBJECT = Subject(**dict.fromkeys(Subject.__dataclass_fields__) | {"model": "m", "dataset": "d", "variant": "v"})
NAMES = dict(zip(("model", "dataset", "target", "variant", "baseline", "kind"), "mdtvbk", strict=True))
RANDOM = np.random.default_rng(0)
EXACT = RANDOM.normal(0, 1, (40, 3, 4, 4)).astype(np.float32)
VALUES = np.clip(np.round(EXACT / 0.05), -128, 127).astype(np.int8)


def errors(values: np.ndarray = VALUES, exact: np.ndarray = EXACT, step: float | None = 0.05) -> ImageErrors:
    return errors_of(values, step, exact, argmax=False)


def output(of: ImageErrors, name: str = "out") -> Output:
    return Output(name, (3, 4, 4), 0.05, of)


def test_errors_by_hand() -> None:
    """3 and 4 become 2 and 5 at a step of 1: squares 25, noise 2, product 26 over 5 times the root of 29."""
    found = errors_of(np.array([[[[2]], [[5]]]], np.int8), 1.0, np.array([[3, 4]], np.float32), argmax=False)
    assert (found.signal[0], found.noise[0], found.mean_error[0], found.max_error[0]) == (25, 2, 1, 1)
    assert found.cosine[0] == pytest.approx(26 / (5 * 29**0.5))
    assert np.isnan(found.agreement[0])


def test_what_is_at_an_end_is_saturated() -> None:
    """-127 is not: the range of int8 ends at -128."""
    values = np.array([[127, -128, -127, 0]], np.int8)
    assert errors_of(values, 1.0, np.ones((1, 4), np.float32), argmax=False).saturated[0] == 0.5
    halves = np.array([[65504, -65504, 65472, 0]], np.float16)
    assert errors_of(halves, None, np.ones((1, 4), np.float32), argmax=False).saturated[0] == 0.5


def test_highest_channels() -> None:
    """Of two pixels one agrees, and one ties two channels of which fp32's is one: 1 and 1/2."""
    exact = np.array([[[[3, 3]], [[1, 1]], [[0, 0]]]], np.float32)
    values = np.array([[[[9, 7]], [[1, 7]], [[0, 0]]]], np.int8)
    assert errors_of(values, 1.0, exact, argmax=True).agreement[0] == 0.75
    with pytest.raises(DumpError, match="one channel"):
        errors_of(values[:, :1], 1.0, exact[:, :1], argmax=True)


def test_vectors_without_length_have_a_cosine() -> None:
    exact = np.array([[0, 0], [0, 0], [1, 0]], np.float32)
    values = np.array([[0, 0], [1, 0], [0, 0]], np.int8)
    assert errors_of(values, 1.0, exact, argmax=False).cosine.tolist() == [1, 0, 0]


def test_outputs_of_another_network_are_refused() -> None:
    with pytest.raises(DumpError, match=r"shape \(40, 3, 4, 4\), but fp32's is \(40, 9\)"):
        errors(exact=np.zeros((40, 9), np.float32))
    with pytest.raises(DumpError, match="of one network and data set"):
        errors(exact=EXACT[:39])


@given(st.lists(st.integers(0, 40), min_size=1, max_size=3))
def test_parts_are_the_whole(cuts: list[int]) -> None:
    """Results do not depend on the number of shards."""
    ends = [0, *sorted(cuts), 40]
    parts = [errors(VALUES[a:b], EXACT[a:b]) for a, b in itertools.pairwise(ends) if b > a]
    whole, again = errors(), joined(parts)
    for name in ImageErrors.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


def test_figures_of_an_output() -> None:
    found = figures(output(errors()), Task(peak=2.0))
    noise, signal = np.square(VALUES * 0.05 - EXACT).sum(), np.square(EXACT.astype(np.float64)).sum()
    assert found.error is None
    assert found.sqnr is not None
    assert found.psnr is not None
    assert found.sqnr.value == pytest.approx(10 * log10(signal / noise), abs=1e-5)
    assert found.sqnr.low < found.sqnr.value < found.sqnr.high
    assert found.psnr.value == pytest.approx(10 * log10(4 / (noise / EXACT.size)), abs=1e-5)
    assert found.max_error == pytest.approx(0.025, rel=0.1)
    assert (found.agreement, found.distinct_outputs) == (None, 40)


def test_no_noise_is_300_decibels() -> None:
    """A number that a file can hold."""
    found = figures(output(errors_of(VALUES, None, VALUES.astype(np.float32), argmax=False)), Task())
    assert found.sqnr == Interval(300, 300, 300)


FLAT = np.ones_like(VALUES)
SAME = np.repeat(VALUES[:1], 40, axis=0)


@pytest.mark.parametrize(
    ("values", "exact", "said"),
    [
        (np.zeros_like(VALUES), EXACT, "all zero: every value of all 40 images is 0"),
        (FLAT, EXACT, "flat: in all 40 images, all values are equal"),
        (SAME, EXACT, "constant: all 40 images have the same values"),
        (VALUES, np.zeros_like(EXACT), "fp32: its output is 0"),
        (np.where(VALUES.max() == VALUES, np.nan, VALUES).astype(np.float16), EXACT, "NaN: 1 of 40 images"),
        (np.where(VALUES.max() == VALUES, np.inf, VALUES).astype(np.float16), EXACT, "NaN: 1 of 40 images"),
        (VALUES, EXACT, None),
        (FLAT, FLAT.astype(np.float32), None),
        (SAME, SAME.astype(np.float32), None),
    ],
    ids=["zero", "flat", "constant", "no signal", "NaN", "infinite", "sound", "as flat", "as constant"],
)
def test_an_output_that_means_nothing(values: np.ndarray, exact: np.ndarray, said: str | None) -> None:
    """What fp32's output is as well is no fault of the loadable."""
    found = diagnose(errors(values, exact))
    assert found == said if said is None else str(found).startswith(said)
    if said is not None:
        assert figures(output(errors(values, exact)), Task()).sqnr is None


def test_of_several_outputs_each_counts_by_its_own_signal() -> None:
    """One of a hundred times the values has the same SQNR, so both together have it too."""
    large = errors_of(VALUES, 5.0, EXACT * np.float32(100), argmax=False)
    both = [output(errors(), "small"), output(large, "large")]
    found = measure(SUBJECT, both, Task(), exactness="exact")
    values = [one.sqnr.value for one in found.outputs if one.sqnr]
    assert found.sqnr is not None
    assert values[0] == pytest.approx(values[1], abs=1e-4)
    assert found.sqnr.value == pytest.approx(values[0], abs=1e-4)
    assert decibels(mean(relative_noise(both))) == pytest.approx(found.sqnr.value)


def test_one_wrong_output_leaves_no_figure_of_all() -> None:
    wrong = output(errors(np.zeros_like(VALUES)), "wrong")
    numbers = np.arange(40.0), np.arange(40.0)
    found = measure(SUBJECT, [output(errors()), wrong], Task(), exactness="exact", numbers=numbers)
    assert (found.sqnr, found.numbers) == (None, None)
    assert [one.error is None for one in found.outputs] == [True, False]


def test_an_interval_covers_the_mean() -> None:
    """95 % of them do, of 200 samples of 50: between 88 and 99 % with a probability of 0.9999."""
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = interval(mean, random.normal(3, 2, 50))
        hits += found.low <= 3 <= found.high
    assert 176 <= hits <= 198


def test_one_image_has_no_interval() -> None:
    with pytest.raises(DatasetError, match="1 test image: an interval over images needs at least two"):
        figures(output(errors(VALUES[:1], EXACT[:1])), Task())


def test_numbers_of_a_command() -> None:
    """One image without a number is left out of both; lower is better turns better and worse around."""
    ours, theirs = np.array([1.0, 2, 3, np.nan]), np.array([1.0, 1, 1, 1])
    higher, lower = (compare_numbers(ours, theirs, turned) for turned in (False, True))
    assert (higher.value.value, higher.reference.value, higher.delta.value) == (2, 1, 1)
    assert ((higher.won, higher.lost), (lower.won, lower.lost)) == ((2, 0), (0, 2))
    assert higher.p == lower.p == 0.5
    with pytest.raises(DatasetError, match="no image a number"):
        compare_numbers(np.full(3, np.nan), np.ones(3), False)


def test_records_are_read_back(tmp_path: Path) -> None:
    numbers = np.arange(40.0), np.arange(40.0)[::-1].copy()
    found = measure(SUBJECT, [output(errors())], Task(peak=1.0), exactness="exact", numbers=numbers)
    write_fidelity(tmp_path / "fidelity.json", found)
    assert read_fidelity(tmp_path / "fidelity.json") == found
    (tmp_path / "fidelity.json").write_text('{"n": 3}')
    with pytest.raises(ReportError, match="is missing"):
        read_fidelity(tmp_path / "fidelity.json")


def test_errors_of_images_stand_in_their_places(tmp_path: Path) -> None:
    ran = np.arange(41) != 7
    write_image_errors(tmp_path / "x.npz", [output(errors())], ran, np.arange(41.0))
    found = read_npz(tmp_path / "x.npz")
    assert np.isnan(found["noise"][7])
    assert np.isfinite(found["noise"][ran]).all()
    np.testing.assert_array_equal(found["out/noise"][ran], errors().noise)
    assert "out/agreement" not in found
    assert len(found["numbers"]) == 41


def test_pairs_by_noise() -> None:
    """Half the noise on each image is 3.01 dB; seeds are averaged image by image."""
    noise = np.linspace(0.01, 0.02, 30)
    found = compare(NAMES, [Quality(noise / 2, None)], [Quality(noise, None)], False)
    assert (found.measure, found.n, found.won, found.lost, found.seeds) == ("sqnr", 30, 30, 0, 1)
    assert found.delta.value == pytest.approx(10 * log10(2))
    assert found.delta.low == pytest.approx(10 * log10(2)) == found.delta.high
    seeds = compare(NAMES, [Quality(noise / 2, None), Quality(noise * 1.5, None)], [Quality(noise, None)], False)
    assert (seeds.won, seeds.lost, seeds.seeds) == (0, 0, 2)
    with pytest.raises(DumpError, match="no image has a value in both"):
        compare(NAMES, [Quality(noise * np.nan, None)], [Quality(noise, None)], False)


def test_a_case_is_compared_within_targets() -> None:
    """With fp32 only by numbers; what means nothing leaves out its group."""
    noise = np.linspace(0.01, 0.02, 30)
    runs = {"a": Quality(noise, noise), "b": Quality(noise * 2, noise * 2), "broken": None}
    groups = [{"target": "t", "name": name, "variants": [name]} for name in runs]
    pairs = [{"target": "t", "variant": "b", "baseline": "a", "kind": "mode"}]
    pairs += [{"target": "t", "variant": "broken", "baseline": "a", "kind": "mode"}]
    case = {"model": "m", "dataset": "d"}
    options = {"reference": Quality(noise * 0, noise / 2), "lower_is_better": True}
    found = list(compare_case(case, groups, pairs, lambda _, name: runs[name], **options))
    shown = [(one.kind, one.variant, one.baseline, one.measure, one.won, one.lost) for one in found]
    assert shown == [
        ("fp32", "a", "fp32", "number", 0, 30),
        ("fp32", "b", "fp32", "number", 0, 30),
        ("best", "b", "a", "number", 0, 30),
        ("mode", "b", "a", "number", 0, 30),
    ]
    turned = compare_case(case, groups, [], lambda _, name: runs[name], reference=None, lower_is_better=False)
    assert [(one.variant, one.baseline) for one in turned] == [("a", "b")]


def test_pairs_are_read_back(tmp_path: Path) -> None:
    noise = np.linspace(0.01, 0.02, 30)
    pair = compare(NAMES, [Quality(noise / 2, None)], [Quality(noise, None)], False)
    write_pairs(tmp_path / "pairs.json", [pair, replace(pair, variant="other")])
    assert read_pairs(tmp_path / "pairs.json") == [pair, replace(pair, variant="other")]
    (tmp_path / "pairs.json").write_text("[{}]")
    with pytest.raises(ReportError, match="not a list of comparisons"):
        read_pairs(tmp_path / "pairs.json")
