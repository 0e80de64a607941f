"""Accuracy with ties and intervals, against hand-worked cases, statsmodels, scipy and simulation."""

import json
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from nvdla_quant.errors import DatasetError, DumpError, ReportError
from nvdla_quant.evaluation.accuracy import (
    Accuracy,
    Deviation,
    Subject,
    agreement,
    as_scores,
    boundary_ties,
    deviation_of,
    diagnose,
    distinct_outputs,
    figures,
    mcnemar,
    measure,
    paired_difference,
    read_accuracy,
    top_k,
    wilson,
    write_accuracy,
)

SUBJECT = Subject(
    model="lenet",
    dataset="mnist",
    target="nv_small",
    variant="int8-per-filter-entropy",
    precision="int8",
    mode="per-filter",
    calibrator="entropy",
    preparation="fold",
    feeding="quantized",
    unified_scales=True,
    correction="none",
    rounding="nearest",
    search="none",
    calibrate_backend="cpu",
    compile_backend="builtin",
    run_backend="emulator",
)
SCORES = hnp.arrays(np.int8, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=st.integers(-3, 3))


# Each line worked by hand: places of the label, tied classes, places within k.
@pytest.mark.parametrize(
    ("scores", "label", "k", "expected"),
    [
        ([1, 9, 3], 1, 1, 1),
        ([1, 9, 3], 2, 1, 0),
        ([1, 9, 3], 2, 2, 1),
        ([9, 9, 3], 0, 1, 1 / 2),  # two classes, one place
        ([9, 9, 9], 2, 1, 1 / 3),
        ([9, 9, 9], 2, 2, 2 / 3),
        ([9, 9, 9], 2, 3, 1),
        ([9, 9, 9], 2, 5, 1),
        ([9, 9, 3], 2, 1, 0),  # the tie is above the label
        ([5, 5, 9], 0, 2, 1 / 2),  # 9 takes the first place, two share the second
        ([127, 0, 0, 0, 0, 0, 0, 0, 0, 0], 4, 5, 4 / 9),  # one-hot int8 Softmax: nine zeros share four places
        ([-128, -128, -127], 0, 2, 1 / 2),
    ],
)
def test_top_k_by_hand(scores: list[int], label: int, k: int, expected: float) -> None:
    assert top_k(np.array([scores], np.int8), np.array([label]), k)[0] == pytest.approx(expected, abs=1e-15)


@given(SCORES, st.integers(1, 8), st.data())
def test_top_k_is_the_mean_over_all_tie_breaks(scores: NDArray[Any], k: int, data: st.DataObject) -> None:
    """Enumerate every order of the classes and sort stably: each is one way to break ties."""
    scores = scores[:, :4]
    classes = scores.shape[1]
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=len(scores), max_size=len(scores))))
    hits = [
        [label in sorted(order, key=lambda c: -int(row[c]))[:k] for order in permutations(range(classes))]
        for row, label in zip(scores, labels, strict=True)
    ]
    np.testing.assert_allclose(top_k(scores, labels, k), np.mean(hits, axis=1), atol=1e-12)


def test_top_k_against_random_tie_breaking() -> None:
    """1000 classes of coarse scores; random keys below the resolution break the ties, 400 times."""
    rng = np.random.default_rng(1)
    scores = rng.integers(-5, 3, (40, 1000)).astype(np.int8)
    scores[:, :6] = 2
    labels = rng.integers(0, 12, 40)
    draws = []
    for _ in range(400):
        order = np.argsort(-(scores + rng.random(scores.shape)), axis=1)[:, :5]
        draws.append((order == labels[:, None]).any(axis=1).mean())
    expected = top_k(scores, labels, 5).mean()
    assert abs(np.mean(draws) - expected) < 4 * np.std(draws) / np.sqrt(len(draws)) + 1e-9


@given(SCORES)
def test_hits_of_all_labels_sum_to_k(scores: NDArray[Any]) -> None:
    """The k places are shared out over the classes, whatever the ties."""
    classes = scores.shape[1]
    for k in (1, 2, 5):
        total = sum(top_k(scores, np.full(len(scores), label), k) for label in range(classes))
        np.testing.assert_allclose(total, min(k, classes))


@pytest.mark.parametrize(
    ("scores", "k", "expected"),
    [
        ([3, 2, 1], 1, False),
        ([3, 3, 1], 1, True),
        ([3, 3, 1], 2, False),  # the tie does not cross the boundary
        ([3, 1, 1], 1, False),
        ([3, 1, 1], 2, True),
        ([1, 1, 1], 3, False),
        ([-128, -128], 1, True),
        ([0.0, -0.0], 1, True),
    ],
)
def test_boundary_ties_by_hand(scores: list[float], k: int, expected: bool) -> None:
    assert boundary_ties(np.array([scores]), k)[0] == expected


@given(SCORES, st.integers(1, 6))
def test_boundary_ties_are_the_images_with_a_fractional_class(scores: NDArray[Any], k: int) -> None:
    fractional = np.zeros(len(scores), bool)
    for label in range(scores.shape[1]):
        hits = top_k(scores, np.full(len(scores), label), k)
        fractional |= (hits > 0) & (hits < 1)
    np.testing.assert_array_equal(boundary_ties(scores, k), fractional)


@given(st.data())
def test_wilson_is_statsmodels(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 100_000))
    hits = data.draw(st.integers(0, n))
    low, high = proportion_confint(hits, n, alpha=0.05, method="wilson")
    interval = wilson(hits / n, n)
    np.testing.assert_allclose((interval.low, interval.high), (low, high), atol=1e-12)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_wilson_is_scipy_and_exact_at_the_ends() -> None:
    for hits, n in ((0, 10), (81, 263), (990, 1000), (10, 10)):
        expected = binomtest(hits, n).proportion_ci(method="wilson")
        np.testing.assert_allclose((wilson(hits / n, n).low, wilson(hits / n, n).high), expected, atol=1e-12)
    # By hand, n = 1 and no hit: 0 to z^2 / (1 + z^2) = 3.8415 / 4.8415
    assert (wilson(0, 1).low, wilson(0, 1).high) == (0.0, pytest.approx(0.79345, abs=1e-5))
    assert wilson(1, 1).high == 1.0


def test_wilson_of_fractional_hits_lies_between_its_neighbours() -> None:
    assert wilson(0.5, 10).low < wilson(0.55, 10).low < wilson(0.6, 10).low


@pytest.mark.parametrize(
    ("scores", "reference", "expected"),
    [
        ([1, 2], [0, 9], 1),
        ([1, 2], [9, 0], 0),
        ([2, 2, 0], [5, 1, 1], 1 / 2),  # a coin decides between 0 and 1
        ([2, 2, 0], [1, 1, 5], 0),
        ([2, 2, 0], [5, 5, 1], 1 / 2),  # two coins
        ([2, 2, 0], [1, 5, 5], 1 / 4),
    ],
)
def test_agreement_by_hand(scores: list[int], reference: list[int], expected: float) -> None:
    assert agreement(np.array([scores]), np.array([reference]))[0] == expected


@given(SCORES, st.integers(0, 2**32 - 1))
def test_agreement_with_an_untied_reference_is_top_1_of_its_choice(scores: NDArray[Any], seed: int) -> None:
    reference = np.random.default_rng(seed).permuted(np.tile(np.arange(scores.shape[1]), (len(scores), 1)), axis=1)
    np.testing.assert_allclose(agreement(scores, reference), top_k(scores, reference.argmax(axis=1), 1))


def test_paired_difference_by_hand() -> None:
    """10 images, 1 won, 4 lost: (1.5 - 4.5) / 12 = -0.25; variance ((6 - 9 / 12) / 144) = 0.0364583."""
    hits = np.array([1, 0, 0, 0, 0, 1, 1, 1, 0, 0], float)
    reference = np.array([0, 1, 1, 1, 1, 1, 1, 1, 0, 0], float)
    interval = paired_difference(hits, reference)
    assert interval.value == pytest.approx(-0.3)
    assert interval.low == pytest.approx(-0.25 - 1.959964 * 0.0364583**0.5, abs=1e-6)
    assert interval.high == pytest.approx(-0.25 + 1.959964 * 0.0364583**0.5, abs=1e-6)


def test_paired_difference_covers_95_percent() -> None:
    """Simulated: 3000 data sets of 200 images, 3 % won and 6 % lost; the true difference is -3 points."""
    rng = np.random.default_rng(2)
    cells = rng.choice(4, size=(3000, 200), p=[0.03, 0.06, 0.81, 0.10])
    covered = 0
    for row in cells:
        interval = paired_difference(np.isin(row, (0, 2)).astype(float), np.isin(row, (1, 2)).astype(float))
        covered += interval.low <= -0.03 <= interval.high
    assert 0.94 < covered / 3000 < 0.98


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 50), st.just(2))))
def test_paired_difference_bounds(hits: NDArray[np.bool_]) -> None:
    interval = paired_difference(*hits.astype(float).T)
    mirrored = paired_difference(*hits[:, ::-1].astype(float).T)
    assert -1 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.low < interval.high
    assert mirrored.low == pytest.approx(-interval.high)


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 300), st.just(2))))
def test_mcnemar_is_statsmodels(hits: NDArray[np.bool_]) -> None:
    table = [[int(((hits[:, 0] == a) & (hits[:, 1] == b)).sum()) for b in (True, False)] for a in (True, False)]
    assert mcnemar(*hits.astype(float).T) == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)


def test_mcnemar_by_hand() -> None:
    """1 won and 4 lost of 5: 2 (1 + 5) / 32; no change: 1."""
    assert mcnemar(np.array([1.0, 0, 0, 0, 0]), np.array([0.5, 1, 1, 1, 0.1])) == pytest.approx(12 / 32)
    assert mcnemar(np.ones(3), np.ones(3)) == 1


def test_distinct_outputs() -> None:
    assert distinct_outputs(np.array([[0.0, 1], [-0.0, 1], [1, 0]])) == 2
    assert distinct_outputs(np.array([[1, 2], [2, 1], [1, 2]], np.int8)) == 2


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((5, 3), np.int8), "all zero: every score of all 5 images"),
        (np.zeros((1, 3), np.int8), "all zero: every score of the only image"),
        (np.tile(np.array([1, 2, 3], np.int8), (5, 1)), "constant: all 5 images"),
        (np.array([[1, 1, 1], [2, 2, 2]], np.int8), "flat: in all 2 images"),
        (np.array([[1, np.nan], [2, 3]], np.float16), "NaN: 1 of 2 images"),
    ],
)
def test_meaningless_outputs_are_errors_and_no_numbers(scores: NDArray[Any], message: str) -> None:
    result = figures(scores, np.zeros(len(scores), int), reference=np.arange(scores.size).reshape(scores.shape))
    assert result.error is not None
    assert result.error.startswith(message)
    numbers = asdict(result)
    assert numbers.pop("distinct_outputs") == distinct_outputs(scores)
    del numbers["error"]
    assert set(numbers.values()) == {None}


def test_sound_outputs_are_no_errors() -> None:
    for scores in ([[0, 0, 1], [0, 0, 0]], [[1, 2, 3]], [[1, 1, 1], [1, 1, 2]], [[7], [8]]):
        assert diagnose(np.array(scores, np.int8)) is None


def _accuracy(**changes: Any) -> Accuracy:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 10, 50)
    reference = rng.normal(size=(50, 10)) + 3 * np.eye(10)[labels]
    logits = np.round(reference * 20).clip(-128, 127).astype(np.int8)
    arguments: dict[str, Any] = {"logits": logits, "reference": reference, "exactness": "bit-exact", **changes}
    return measure(SUBJECT, labels, np.maximum(logits, 20).reshape(50, 10, 1, 1), **arguments)


def test_measure_against_plain_counting() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 10, 50)
    reference = rng.normal(size=(50, 10)) + 3 * np.eye(10)[labels]
    record = measure(SUBJECT, labels, reference, exactness="bit-exact", reference=reference)
    assert record.output.top1 is not None
    assert record.output.top5 is not None
    assert record.output.delta is not None
    assert record.output.top1.value == np.mean(reference.argmax(axis=1) == labels)
    assert record.output.top5.value == np.mean(
        [label in row.argsort()[-5:] for row, label in zip(reference, labels, strict=True)]
    )
    assert (record.n, record.classes) == (50, 10)
    assert record.output.delta.value == 0
    assert (record.output.agreement, record.output.mcnemar_p, record.output.ties) == (1, 1, 0)
    assert record.output.distinct_outputs == 50
    assert record.logits is None


def test_deviation_is_the_largest_of_all_shards(tmp_path: Path) -> None:
    dumps = {"checked": np.array([3, 40]), "checked_output": np.array([0.25, 0.5])}
    dumps["checked_logits"] = np.array([2.0, 1])
    deviation = deviation_of(dumps)
    assert deviation == Deviation((3, 40), 0.5, 2.0)
    assert deviation_of({name: dumps[name] for name in ("checked", "checked_output")}) == Deviation((3, 40), 0.5, None)
    assert deviation_of({"output": np.zeros(1)}) is None
    record = _accuracy(exactness="fast: ...", deviation=deviation)
    write_accuracy(tmp_path / "accuracy.json", record)
    assert read_accuracy(tmp_path / "accuracy.json") == record


def test_logits_are_judged_apart() -> None:
    """An all-zero Softmax output is an error; the logits under it still count."""
    record = replace(_accuracy(), output=figures(np.zeros((50, 10), np.int8), np.zeros(50, int)))
    assert record.output.error is not None
    assert record.logits is not None
    assert record.logits.error is None
    assert record.logits.top1 is not None


def test_a_reference_that_means_nothing_gives_no_comparison() -> None:
    record = _accuracy(reference=np.zeros((50, 10)))
    assert record.output.error is None
    assert record.output.top1 is not None
    assert (record.output.agreement, record.output.delta, record.output.mcnemar_p) == (None, None, None)


@pytest.mark.parametrize("classes", [1, 2, 4, 5])
def test_top_5_needs_five_classes(classes: int) -> None:
    scores = np.arange(3 * classes).reshape(3, classes)
    result = figures(scores, np.zeros(3, int))
    assert (result.top5 is None) == (classes < 5)
    assert (result.ties5 is None) == (classes < 5)
    assert result.top5 is None or result.top5.value == 1


@pytest.mark.parametrize(
    ("labels", "output", "reference", "error", "message"),
    [
        (np.array([], int), np.zeros((0, 3)), None, DatasetError, "no test images"),
        (np.array([0, 3]), np.zeros((2, 3)), None, DatasetError, "from 0 to 3.*3 classes"),
        (np.array([-1, 1]), np.zeros((2, 3)), None, DatasetError, "from -1"),
        (np.array([0, 1]), np.zeros((3, 3)), None, DumpError, r"\(3, 3\), expected \(2, classes\)"),
        (np.array([0, 1]), np.zeros((2, 3, 2, 2)), None, DumpError, r"\(2, 3, 2, 2\)"),
        (np.array([0, 1]), np.eye(2), np.zeros((2, 3)), DumpError, "reference has 3"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(
    labels: NDArray[Any], output: NDArray[Any], reference: NDArray[Any] | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        measure(SUBJECT, labels, output, exactness="bit-exact", reference=reference)


def test_as_scores_takes_the_dump_of_a_classifier() -> None:
    assert as_scores(np.zeros((4, 10, 1, 1)), 4).shape == (4, 10)


@pytest.mark.parametrize("logits", [None, np.zeros((50, 10), np.int8)])
def test_json_round_trip(tmp_path: Path, logits: NDArray[Any] | None) -> None:
    record = _accuracy(logits=logits)
    write_accuracy(tmp_path / "a.json", record)
    write_accuracy(tmp_path / "b.json", record)
    assert read_accuracy(tmp_path / "a.json") == record
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("n"), "'n' is missing"),
        (lambda content: content.update(more=1), "'more' is unknown"),
        (lambda content: content["subject"].pop("target"), "'target' in 'subject' is missing"),
        (lambda content: content["output"].pop("ties"), "'ties' in 'output' is missing"),
        (lambda content: content["output"]["top1"].pop("low"), r"'low' in 'output\.top1' is missing"),
        (lambda content: content.update(subject=3), "expected an object in 'subject', got int"),
    ],
)
def test_malformed_records_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    write_accuracy(tmp_path / "a.json", _accuracy())
    content = json.loads((tmp_path / "a.json").read_text())
    change(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ReportError, match=message):
        read_accuracy(tmp_path / "a.json")


def test_unreadable_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    for name in ("a.json", "none.json"):
        with pytest.raises(ReportError, match=name):
            read_accuracy(tmp_path / name)


def test_a_thousand_classes_take_seconds_at_most() -> None:
    """5000 images of 1000 classes; ImageNet's validation set is ten times that."""
    scores = np.random.default_rng(4).integers(-128, 128, (5000, 1000)).astype(np.int8)
    result = figures(scores, np.zeros(5000, int), scores.astype(np.float32))
    assert result.error is None
    assert result.delta is not None
    assert result.delta.value == 0


def test_images_without_an_output_count_neither_here_nor_in_the_reference() -> None:
    """Of four images the second has none; of the other three the variant has 2 right, fp32 3."""
    labels = np.array([0, 1, 2, 0])
    output = np.array([[9, 1, 0], [0, 0, 0], [1, 0, 5], [1, 7, 0]])
    reference = np.array([[9, 1, 0], [0, 0, 3], [1, 0, 5], [7, 1, 0]])
    ran = np.array([True, False, True, True])
    found = measure(SUBJECT, labels, output, exactness="device: local", reference=reference, ran=ran)
    assert found.n == 3
    assert found.output.top1 is not None
    assert found.output.delta is not None
    assert found.output.top1.value == pytest.approx(2 / 3)
    assert found.output.delta.value == pytest.approx(-1 / 3)
    assert found.exactness == "device: local; 1 of 4 images gave no output and are left out"
