"""What changes between two classifiers of the same images: flips, agreement, scores, classes, confusions.

The same images are seen by both, so pairs say far more than two accuracies: see `accuracy.mcnemar` and
`accuracy.paired_difference`. Ties count with their expected value, as there.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import DumpError, ReportError
from nvdla_quant.evaluation.accuracy import (
    Interval,
    agreement,
    as_scores,
    diagnose,
    mcnemar,
    paired_difference,
    top_k,
)
from nvdla_quant.jobs.files import read_npz, write_json
from nvdla_quant.network.graph import Network
from nvdla_quant.table.table import CalibrationTable

T = TypeVar("T")
CONFUSIONS = 20
"""Cells of the confusion matrix that a comparison lists at most: those that change most."""
_SAME = 9
"""Decimals of mean hits that count: sums of the same hits in another order differ beyond."""


@dataclass(frozen=True)
class ScoreDifference:
    """How far scores lie from the baseline's, in real units (1 is certainty where a Softmax ends the network).

    Attributes
    ----------
    mean, worst : float
        Mean and largest absolute difference over all images and classes.
    image, label : int
        Where the largest one is: number of the test image, class.
    """

    mean: float
    worst: float
    image: int
    label: int


@dataclass(frozen=True)
class ClassChange:
    """A class whose hits changed: how many of its `n` images were right before and are now (expected, with ties)."""

    label: int
    n: int
    before: float
    after: float


@dataclass(frozen=True)
class ConfusionChange:
    """A cell of the confusion matrix that changed: images of `label` that were classified as `predicted`."""

    label: int
    predicted: int
    before: float
    after: float


@dataclass(frozen=True)
class Comparison:
    """A variant beside a baseline on the same images.

    Attributes
    ----------
    model, dataset, variant, baseline : str
        Names; the baseline is ``fp32`` or another variant of the same target.
    target : str
        Hardware of the variant.
    kind : str
        Why these two: ``fp32``, ``mode`` (per-filter beside per-kernel), ``best`` (beside the most accurate).
    seeds : int
        Runs with other seeds of the calibrator whose hits are averaged; 1 where there is one run.
    n : int
        Images that both classified.
    top1, baseline_top1 : float
        Shares of images.
    delta : Interval
        Top-1 minus the baseline's, see `accuracy.paired_difference`.
    won, lost : int
        Images whose expected hit is above (below) the baseline's.
    p : float
        Exact two-sided McNemar test of `won` against `lost`, see `accuracy.mcnemar`.
    step : float or None
        Real value of one step of the variant's scores; None for averages over seeds, as all that follows.
    agreement : float or None
        Share of images with the same top-1, see `accuracy.agreement`.
    scores : ScoreDifference or None
        How far the scores moved.
    classes : tuple[ClassChange, ...]
        Classes that changed, by class.
    confusions : tuple[ConfusionChange, ...]
        Cells that changed most, largest first.
    changed_cells : int
        Cells that changed in all.
    """

    model: str
    dataset: str
    target: str
    variant: str
    baseline: str
    kind: str
    seeds: int
    n: int
    top1: float
    baseline_top1: float
    delta: Interval
    won: int
    lost: int
    p: float
    step: float | None = None
    agreement: float | None = None
    scores: ScoreDifference | None = None
    classes: tuple[ClassChange, ...] = ()
    confusions: tuple[ConfusionChange, ...] = ()
    changed_cells: int = 0


@dataclass(frozen=True, eq=False)
class Scored:
    """What one run gave for the test images.

    Attributes
    ----------
    scores : NDArray
        ``[N, C]``, in the device's domain.
    step : float
        Real value of one step of the scores; 1 where they are real.
    ran : NDArray[bool]
        ``[N]``: images that gave an output.
    """

    scores: NDArray[Any]
    step: float
    ran: NDArray[np.bool_]

    @classmethod
    def of(cls, output: NDArray[Any], step: float, ran: NDArray[np.bool_] | None = None) -> "Scored":
        """Return the run that gave `output`, ``[N, C]`` or ``[N, C, 1, 1]``; all images ran where nothing is said."""
        scores = as_scores(output, len(output))
        return cls(scores, step, np.ones(len(scores), np.bool_) if ran is None else ran.astype(np.bool_))

    def hits(self, labels: NDArray[Any]) -> NDArray[np.float64]:
        """Return the expected top-1 hit of each image, NaN where it gave no output."""
        return np.where(self.ran, top_k(self.scores, labels, 1), np.nan)


def compare_hits(
    names: Mapping[str, str], hits: Sequence[NDArray[np.float64]], baseline: Sequence[NDArray[np.float64]]
) -> Comparison:
    """Return the comparison of two sets of runs by their hits ``[N]``; several runs stand for seeds and are averaged.

    An average over seeds is what a seed drawn at random is expected to hit, as an average over ties is.

    Parameters
    ----------
    names : Mapping
        The names and the kind of `Comparison`.
    hits, baseline : sequence of ndarray
        Expected hits of each run, NaN where an image gave no output.

    Raises
    ------
    DumpError
        No image gave an output in all runs.
    """
    ours, theirs = (np.mean(part, axis=0).round(_SAME) for part in (hits, baseline))
    both = np.isfinite(ours) & np.isfinite(theirs)
    if not both.any():
        raise DumpError(f"{names['variant']} and {names['baseline']}: no image gave an output in both")
    ours, theirs = ours[both], theirs[both]
    return Comparison(
        **_names(names),
        seeds=len(hits),
        n=len(ours),
        top1=float(ours.mean()),
        baseline_top1=float(theirs.mean()),
        delta=paired_difference(ours, theirs),
        won=int((ours > theirs).sum()),
        lost=int((ours < theirs).sum()),
        p=mcnemar(ours, theirs),
    )


def _names(names: Mapping[str, str]) -> dict[str, Any]:
    """Return the names alone, whatever else stands beside them."""
    return {key: names[key] for key in ("model", "dataset", "target", "variant", "baseline", "kind")}


def output_step(network: Network, table: CalibrationTable | None) -> float:
    """Return the real value of one step of the network's output: its entry in the fixed table, 1 in fp16."""
    return 1.0 if table is None else table[network.only_output.name]


def compare(names: Mapping[str, str], labels: NDArray[Any], ours: Scored, baseline: Scored) -> Comparison | None:
    """Return the comparison of two runs; None where one of them means nothing (see `accuracy.diagnose`).

    Raises
    ------
    DumpError
        Scores of other shapes, or no image that ran in both.
    """
    if ours.scores.shape != baseline.scores.shape:
        raise DumpError(
            f"{names['variant']}: scores of shape {ours.scores.shape}, but those of {names['baseline']} have "
            f"{baseline.scores.shape}"
        )
    if any(diagnose(run.scores[run.ran]) for run in (ours, baseline)):
        return None
    result = compare_hits(names, [ours.hits(labels)], [baseline.hits(labels)])
    both = np.flatnonzero(ours.ran & baseline.ran)
    labels, left, right = labels[both], ours.scores[both], baseline.scores[both]
    changes = _confusion_changes(labels, right, left)
    details: dict[str, Any] = {
        "step": ours.step,
        "agreement": float(agreement(left, right).mean()),
        "scores": _score_difference(left * np.float64(ours.step), right * np.float64(baseline.step), both),
        "classes": tuple(_class_changes(labels, top_k(right, labels, 1), top_k(left, labels, 1))),
        "confusions": tuple(changes[:CONFUSIONS]),
        "changed_cells": len(changes),
    }
    return replace(result, **details)


@dataclass(frozen=True)
class DumpedRuns:
    """The runs of a case, read when they are asked for.

    Attributes
    ----------
    dumps : Mapping[tuple[str, str], Sequence[Path]]
        Raw dumps of each target and variant, all shards.
    steps : Mapping[tuple[str, str], float]
        Real value of one step of the scores, of the runs whose output means something.
    """

    dumps: Mapping[tuple[str, str], Sequence[Path]]
    steps: Mapping[tuple[str, str], float]

    @classmethod
    def of(cls, runs: Sequence[Sequence[str]], dumps: Sequence[Path], with_fp32: Iterable[Comparison]) -> "DumpedRuns":
        """Return the runs, targets and variants, whose `dumps` stand in their order, the same number for each."""
        shards = len(dumps) // len(runs)
        files = {(target, name): dumps[i * shards : (i + 1) * shards] for i, (target, name) in enumerate(runs)}
        steps = {(found.target, found.variant): found.step for found in with_fp32 if found.step is not None}
        return cls(files, steps)

    def __call__(self, target: str, variant: str) -> Scored | None:
        """Return a run; None where its output means nothing."""
        if (target, variant) not in self.steps:
            return None
        arrays = read_npz(*self.dumps[target, variant])
        return Scored.of(arrays["output"], self.steps[target, variant], arrays.get("ran"))


def compare_case(
    case: Mapping[str, str],
    labels: NDArray[Any],
    reference: NDArray[Any],
    groups: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, str]],
    load: Callable[[str, str], Scored | None],
) -> Iterator[Comparison]:
    """Yield the comparisons within a case: groups with fp32 and with the best of their target, then the pairs.

    Parameters
    ----------
    case : Mapping
        ``model`` and ``dataset``.
    labels, reference : ndarray
        ``[N]``, and the scores of fp32 ``[N, C]``.
    groups : sequence of Mapping
        ``target``, ``name`` and ``variants``, which differ in the calibrator's seed alone.
    pairs : sequence of Mapping
        ``target``, ``variant`` and ``baseline``, the names of two variants, and ``kind``: ``mode`` of a per-filter and
        the same per-kernel variant, ``method`` of one with methods and the same without.
    load : callable
        Gives the run of a target and a variant; None where its output means nothing, which leaves out its group.
    """
    fp32 = [Scored.of(reference, 1.0).hits(labels)]
    sound: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for group in groups:
        runs = [load(group["target"], variant) for variant in group["variants"]]
        hits = [run.hits(labels) for run in runs if run is not None]
        if len(hits) == len(runs):
            sound[group["target"], group["name"]] = hits
    for (target, name), hits in sound.items():
        named = {**case, "target": target, "variant": name, "baseline": "fp32", "kind": "fp32"}
        yield compare_hits(named, hits, fp32)
    for target in dict.fromkeys(target for target, _ in sound):
        here = {name: hits for (place, name), hits in sound.items() if place == target}
        best = max(here, key=lambda name: float(np.nanmean(here[name])))
        for name, hits in here.items():
            if name != best:
                named = {**case, "target": target, "variant": name, "baseline": best, "kind": "best"}
                yield compare_hits(named, hits, here[best])
    for pair in pairs:
        ours, baseline = (load(pair["target"], pair[key]) for key in ("variant", "baseline"))
        if ours is not None and baseline is not None:
            found = compare({**case, **pair}, labels, ours, baseline)
            yield from [] if found is None else [found]


def _score_difference(ours: NDArray[Any], theirs: NDArray[Any], images: NDArray[np.intp]) -> ScoreDifference:
    """Return how far `ours` ``[N, C]`` lie from `theirs`; `images` numbers the rows."""
    distance = np.abs(ours - theirs)
    row, label = np.unravel_index(int(distance.argmax()), distance.shape)
    return ScoreDifference(float(distance.mean()), float(distance[row, label]), int(images[row]), int(label))


def _class_changes(labels: NDArray[Any], before: NDArray[Any], after: NDArray[Any]) -> list[ClassChange]:
    """Return the classes whose expected hits differ."""
    counts = np.bincount(labels)
    sums = [np.bincount(labels, part).round(_SAME) for part in (before, after)]
    return [
        ClassChange(int(label), int(counts[label]), float(sums[0][label]), float(sums[1][label]))
        for label in np.flatnonzero(sums[0] != sums[1])
    ]


def _confusion_changes(labels: NDArray[Any], before: NDArray[Any], after: NDArray[Any]) -> list[ConfusionChange]:
    """Return the cells of the confusion matrix that differ, largest change first, then by label and class."""
    classes = before.shape[1]
    cells = [_confusions(labels, scores).round(_SAME) for scores in (before, after)]
    changed = np.flatnonzero(cells[0] != cells[1])
    order = changed[np.argsort(-np.abs(cells[1] - cells[0])[changed], kind="stable")]
    return [
        ConfusionChange(cell // classes, cell % classes, float(cells[0][cell]), float(cells[1][cell]))
        for cell in order.tolist()
    ]


def _confusions(labels: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.float64]:
    """Return the expected confusion matrix, flat ``[C * C]``: an image counts by equal parts for its tied classes."""
    classes = scores.shape[1]
    best = scores == scores.max(axis=1, keepdims=True)
    rows, predicted = np.nonzero(best)
    shares = 1 / best.sum(axis=1)[rows]
    cells = labels.astype(np.int64)[rows] * classes + predicted
    return np.bincount(cells, shares, classes * classes).astype(np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return `p_values` corrected for their number by Holm's method (Scand. J. Statist. 6, 1979), in the same order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


@dataclass(frozen=True)
class Spread:
    """A figure over repeated seeds: mean, sample standard deviation (None for one seed), least and largest."""

    mean: float
    sd: float | None
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    numbers = np.asarray(values, np.float64)
    sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else None
    return Spread(float(numbers.mean()), sd, float(numbers.min()), float(numbers.max()))


def write_comparisons(path: Path | str, comparisons: Iterable[Comparison]) -> None:
    """Write comparisons as a JSON list."""
    write_json(path, [asdict(comparison) for comparison in comparisons])


def read_comparisons(path: Path | str) -> list[Comparison]:
    """Read what `write_comparisons` wrote.

    Raises
    ------
    ReportError
        The file is missing, not JSON, or was written by another version.
    """
    return read_each(path, _comparison)


def read_each(path: Path | str, of: Callable[[dict[str, Any]], T]) -> list[T]:
    """Return the comparisons of a JSON list, each made by `of`; errors as of `read_comparisons`."""
    try:
        return [of(item) for item in json.loads(Path(path).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ReportError(f"{path}: not a list of comparisons ({error}); remove it and run again") from error


def _comparison(item: dict[str, Any]) -> Comparison:
    """Rebuild one record."""
    parts = {
        "delta": Interval(**item["delta"]),
        "scores": None if item["scores"] is None else ScoreDifference(**item["scores"]),
        "classes": tuple(ClassChange(**change) for change in item["classes"]),
        "confusions": tuple(ConfusionChange(**change) for change in item["confusions"]),
    }
    return Comparison(**{**item, **parts})
