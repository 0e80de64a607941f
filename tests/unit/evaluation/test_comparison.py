"""Paired comparisons: hand-worked cases, scipy and statsmodels on random tables, seeds, files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.stats import sem, tmean
from statsmodels.stats.contingency_tables import SquareTable
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from nvdla_quant.errors import DumpError, ReportError
from nvdla_quant.evaluation.comparison import (
    ClassChange,
    ConfusionChange,
    DumpedRuns,
    Scored,
    ScoreDifference,
    compare,
    compare_case,
    compare_hits,
    holm,
    read_comparisons,
    spread,
    write_comparisons,
)
from nvdla_quant.jobs.files import write_npz

NAMES = {
    "model": "m",
    "dataset": "d",
    "target": "nv_small",
    "variant": "int8",
    "baseline": "fp32",
    "kind": "fp32",
}
CASE = {"model": "m", "dataset": "d"}


def one_hot(*classes: int, count: int = 3) -> NDArray[np.float32]:
    return np.eye(count, dtype=np.float32)[list(classes)]


def test_by_hand() -> None:
    """Six images of three classes. fp32 is wrong on image 1 (0 for 1); int8 on 2 (0 for 1) and 5 (1 for 2)."""
    labels = np.array([0, 1, 1, 0, 2, 2])
    fp32 = Scored.of(one_hot(0, 0, 1, 0, 2, 2), 1.0)
    int8 = Scored.of((100 * one_hot(0, 1, 0, 0, 2, 1)).astype(np.int8), 0.01)
    found = compare(NAMES, labels, int8, fp32)
    assert found is not None
    assert (found.n, found.seeds, found.won, found.lost, found.step) == (6, 1, 1, 2, 0.01)
    assert (found.top1, found.baseline_top1) == (pytest.approx(4 / 6), pytest.approx(5 / 6))
    assert found.delta.value == pytest.approx(-1 / 6)
    # Two-sided exact: of three flips at most one, or at least two: 2 * (1 + 3) / 8 = 1.
    assert found.p == 1.0
    assert found.agreement == pytest.approx(3 / 6)
    # Three images moved, in two classes each, by 1: 6 of 18 scores. The first of them is image 1, class 0.
    assert found.scores == ScoreDifference(mean=pytest.approx(6 / 18), worst=pytest.approx(1.0), image=1, label=0)
    # Class 1 won image 1 and lost image 2: its hits are the same.
    assert found.classes == (ClassChange(2, 2, 2.0, 1.0),)
    # (1, 0) and (1, 1) gained and lost one image each: unchanged.
    assert found.confusions == (ConfusionChange(2, 1, 0.0, 1.0), ConfusionChange(2, 2, 2.0, 1.0))
    assert found.changed_cells == 2


def test_ties_count_by_parts() -> None:
    """A tie of two classes is half a hit and half an image in each cell of the confusion matrix."""
    labels = np.array([0, 1])
    fp32 = Scored.of(one_hot(0, 1), 1.0)
    tied = Scored.of(np.array([[5, 5, 0], [0, 9, 0]], np.int8), 1.0)
    found = compare(NAMES, labels, tied, fp32)
    assert found is not None
    assert (found.won, found.lost, found.agreement) == (0, 1, 0.75)
    assert found.classes == (ClassChange(0, 1, 1.0, 0.5),)
    assert set(found.confusions) == {ConfusionChange(0, 0, 1.0, 0.5), ConfusionChange(0, 1, 0.0, 0.5)}


@given(hnp.arrays(np.int64, (2, 40), elements=st.integers(0, 3)), st.data())
def test_agrees_with_statsmodels(predicted: NDArray[np.int64], data: st.DataObject) -> None:
    """Without ties: the 2 x 2 table of hits, and the confusion matrix of both, are plain counts."""
    labels = data.draw(hnp.arrays(np.int64, 40, elements=st.integers(0, 3)))
    runs = [Scored.of(one_hot(*row, count=4), 1.0) for row in predicted]
    found = compare(NAMES, labels, *runs)
    if found is None:  # A constant output means nothing.
        assert any((row == row[0]).all() for row in predicted)
        return
    ours, theirs = (row == labels for row in predicted)
    table = [[(ours & theirs).sum(), (ours & ~theirs).sum()], [(~ours & theirs).sum(), (~ours & ~theirs).sum()]]
    assert (found.won, found.lost) == (table[0][1], table[1][0])
    assert found.p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    assert found.delta.value == pytest.approx((found.won - found.lost) / 40)
    marginal = SquareTable(np.asarray(table), shift_zeros=False).marginal_probabilities[0]
    assert found.top1 == pytest.approx(marginal[0])
    assert found.agreement == pytest.approx((predicted[0] == predicted[1]).mean())
    change = np.zeros((4, 4))
    np.add.at(change, (labels, predicted[0]), 1)
    np.subtract.at(change, (labels, predicted[1]), 1)
    assert found.changed_cells == np.count_nonzero(change)
    assert {(c.label, c.predicted): c.after - c.before for c in found.confusions} == {
        (int(i), int(j)): change[i, j] for i, j in zip(*np.nonzero(change), strict=True)
    }
    sizes = [abs(c.after - c.before) for c in found.confusions]
    assert sizes == sorted(sizes, reverse=True)
    per_class = {c.label: c.after - c.before for c in found.classes}
    assert per_class == {int(k): change[k, k] for k in np.flatnonzero(np.diag(change))}


@settings(max_examples=15, deadline=None)  # statsmodels takes a third of a second for each.
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_holm_by_hand() -> None:
    """0.01 * 3; 0.02 * 2; 0.5 * 1."""
    assert holm([0.02, 0.5, 0.01]) == pytest.approx([0.04, 0.5, 0.03])
    assert holm([]) == []


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9))
def test_spread_agrees_with_scipy(values: list[float]) -> None:
    found = spread(values)
    assert (found.low, found.high) == (min(values), max(values))
    assert found.mean == pytest.approx(tmean(values), abs=1e-9)
    assert found.sd == pytest.approx(sem(values) * len(values) ** 0.5, abs=1e-9)


def test_one_seed_has_no_spread() -> None:
    assert spread([0.5]) == replace(spread([0.5]), mean=0.5, sd=None, low=0.5, high=0.5)


def test_seeds_are_averaged_image_by_image() -> None:
    """Hits of three seeds: image 0 always, image 1 by two of three, image 2 never; the baseline hits 0 and 2."""
    seeds = [np.array([1.0, 1, 0]), np.array([1.0, 0, 0]), np.array([1.0, 1, 0])]
    found = compare_hits(NAMES, seeds, [np.array([1.0, 0, 1])])
    assert (found.seeds, found.n, found.won, found.lost) == (3, 3, 1, 1)
    assert found.top1 == pytest.approx((1 + 2 / 3) / 3)
    assert (found.agreement, found.step, found.scores, found.classes) == (None, None, None, ())


def test_images_without_output_are_left_out() -> None:
    """Else the zeros of an image on which a device died would count as an answer."""
    labels = np.array([0, 1, 2, 0])
    ran = np.array([True, True, False, True])
    dead = Scored.of(np.array([[9, 0, 0], [0, 9, 0], [0, 0, 0], [0, 9, 0]], np.int8), 0.1, ran)
    found = compare(NAMES, labels, dead, Scored.of(one_hot(0, 1, 2, 0), 1.0))
    assert found is not None
    assert (found.n, found.won, found.lost, found.agreement) == (3, 0, 1, pytest.approx(2 / 3))
    assert found.scores is not None
    assert found.scores.image == 3
    with pytest.raises(DumpError, match="no image gave an output in both"):
        compare_hits(NAMES, [np.array([np.nan, 1])], [np.array([1, np.nan])])


def test_what_means_nothing_is_not_compared() -> None:
    labels = np.array([0, 1, 2])
    constant = Scored.of(np.ones((3, 3), np.int8), 1.0)
    fine = Scored.of(one_hot(0, 1, 2), 1.0)
    assert compare(NAMES, labels, constant, fine) is None
    assert compare(NAMES, labels, fine, constant) is None
    with pytest.raises(DumpError, match="shape"):
        compare(NAMES, labels, fine, Scored.of(one_hot(0, 1, 2, count=4), 1.0))


LABELS = np.arange(60) % 3
PREDICTIONS = {
    # By how many images each run is wrong, from the first on: seeds a and b, the best, a constant.
    ("nv_small", "filter-seed-0"): 4,
    ("nv_small", "filter-seed-1"): 6,
    ("nv_small", "kernel"): 30,
    ("nv_small", "best"): 0,
    ("nv_full", "best"): 0,
}
GROUPS = [
    {"target": "nv_small", "name": "filter", "variants": ["filter-seed-0", "filter-seed-1"]},
    {"target": "nv_small", "name": "kernel", "variants": ["kernel"]},
    {"target": "nv_small", "name": "best", "variants": ["best"]},
    {"target": "nv_small", "name": "broken", "variants": ["broken"]},
    {"target": "nv_full", "name": "best", "variants": ["best"]},
]
PAIRS = [
    {"target": "nv_small", "variant": "filter-seed-0", "baseline": "kernel", "kind": "mode"},
    {"target": "nv_small", "variant": "broken", "baseline": "kernel", "kind": "mode"},
    {"target": "nv_small", "variant": "best", "baseline": "kernel", "kind": "method"},
]


def load(target: str, variant: str) -> Scored | None:
    wrong = PREDICTIONS.get((target, variant))
    return None if wrong is None else Scored.of(one_hot(*np.where(np.arange(60) < wrong, LABELS + 1, LABELS) % 3), 1.0)


def test_comparisons_of_a_case() -> None:
    found = list(compare_case(CASE, LABELS, one_hot(*LABELS), GROUPS, PAIRS, load))
    assert [(c.kind, c.target, c.variant, c.baseline) for c in found] == [
        ("fp32", "nv_small", "filter", "fp32"),
        ("fp32", "nv_small", "kernel", "fp32"),
        ("fp32", "nv_small", "best", "fp32"),
        ("fp32", "nv_full", "best", "fp32"),
        ("best", "nv_small", "filter", "best"),
        ("best", "nv_small", "kernel", "best"),
        ("mode", "nv_small", "filter-seed-0", "kernel"),
        ("method", "nv_small", "best", "kernel"),
    ]
    averaged, mode = found[4], found[6]
    assert (averaged.seeds, averaged.lost, averaged.top1) == (2, 6, pytest.approx(55 / 60))
    assert (mode.won, mode.lost, mode.n) == (26, 0, 60)
    assert mode.p == pytest.approx(2 * 0.5**26)


def test_runs_are_read_from_their_own_files(tmp_path: Path) -> None:
    """Two runs of two shards each, and one that no comparison with fp32 exists of."""
    runs = [("nv_small", "a"), ("nv_full", "b"), ("nv_full", "broken")]
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.npz")
        write_npz(paths[-1], {"output": np.full((2, 3, 1, 1), i, np.int8)})
    with_fp32 = [
        replace(compare_hits({**NAMES, "target": target, "variant": name}, [np.ones(2)], [np.ones(2)]), step=step)
        for (target, name), step in zip(runs[:2], (0.5, 0.25), strict=True)
    ]
    loaded = DumpedRuns.of(runs, paths, with_fp32)
    found = loaded("nv_full", "b")
    assert found is not None
    assert found.scores[:, 0].tolist() == [2, 2, 3, 3]
    assert found.step == 0.25
    assert found.ran.all()
    assert loaded("nv_full", "broken") is None


def test_files(tmp_path: Path) -> None:
    found = compare(NAMES, np.array([0, 1]), Scored.of(one_hot(0, 2), 0.5), Scored.of(one_hot(0, 1), 1.0))
    assert found is not None
    path = tmp_path / "comparison.json"
    write_comparisons(path, [found, replace(found, scores=None, classes=())])
    assert read_comparisons(path) == [found, replace(found, scores=None, classes=())]
    content: list[Any] = json.loads(path.read_text())
    for wrong in ("", "[", "3", json.dumps([{**content[0], "new": 1}]), json.dumps([{"delta": 1}])):
        path.write_text(wrong)
        with pytest.raises(ReportError, match=r"comparison\.json: not a list of comparisons"):
            read_comparisons(path)
