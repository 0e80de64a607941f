"""Runs of a case beside each other on the same images, by their noise or by the numbers of a command."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nvdla_quant.errors import DumpError
from nvdla_quant.evaluation.accuracy import Interval
from nvdla_quant.evaluation.comparison import read_each
from nvdla_quant.evaluation.fidelity.bootstrap import Numbers, decibels, difference, interval, lower_by, mean
from nvdla_quant.evaluation.fidelity.figures import flips
from nvdla_quant.jobs.files import write_json


@dataclass(frozen=True, eq=False)
class Quality:
    """What each image of a run is worth, ``(n,)``; NaN where it gave no output, or has no number.

    Attributes
    ----------
    noise : NDArray[float64]
        See `figures.relative_noise`.
    numbers : NDArray[float64] or None
        Of the case's command.
    """

    noise: Numbers
    numbers: Numbers | None


@dataclass(frozen=True)
class Pair:
    """A run beside a baseline on the same images.

    Attributes
    ----------
    model, dataset, target, variant, baseline, kind : str
        As of `comparison.Comparison`.
    measure : str
        ``sqnr`` in dB, or ``number``, of a command.
    seeds : int
        Runs with other seeds of the calibrator that are averaged image by image.
    n : int
        Images that both have.
    value, baseline_value : float
        Of all these images.
    delta : Interval
        The value minus the baseline's.
    won, lost : int
        Images that are better (worse) than the baseline's.
    p : float
        Exact two-sided sign test of `won` against `lost`.
    """

    model: str
    dataset: str
    target: str
    variant: str
    baseline: str
    kind: str
    measure: str
    seeds: int
    n: int
    value: float
    baseline_value: float
    delta: Interval
    won: int
    lost: int
    p: float


Names = Mapping[str, str]
_NAMES = ("model", "dataset", "target", "variant", "baseline", "kind")


def compare(names: Names, ours: Sequence[Quality], baseline: Sequence[Quality], lower_is_better: bool) -> Pair:
    """Return two sets of runs beside each other; several runs of one set stand for seeds and are averaged.

    By the numbers of a command where there are any, else by noise.

    Raises
    ------
    DumpError
        No image has a value in both.
    """
    by_number = all(run.numbers is not None for run in (*ours, *baseline))
    measure = "number" if by_number else "sqnr"
    left, right = (np.mean([_values(run, by_number) for run in runs], axis=0) for runs in (ours, baseline))
    both = np.isfinite(left) & np.isfinite(right)
    if not both.any():
        raise DumpError(f"{names['variant']} and {names['baseline']}: no image has a value in both")
    left, right = left[both], right[both]
    won, lost, p = flips(left, right, lower_is_better if by_number else True)
    values = (float(mean(part) if by_number else decibels(mean(part))) for part in (left, right))
    return Pair(
        **{name: names[name] for name in _NAMES},
        measure=measure,
        seeds=len(ours),
        n=len(left),
        value=next(values),
        baseline_value=next(values),
        delta=interval(difference if by_number else lower_by, left, right),
        won=won,
        lost=lost,
        p=p,
    )


def _values(run: Quality, by_number: bool) -> Numbers:
    return run.noise if not by_number or run.numbers is None else run.numbers


def compare_case(
    case: Names,
    groups: Sequence[Mapping[str, Any]],
    pairs: Sequence[Names],
    load: Callable[[str, str], Quality | None],
    *,
    reference: Quality | None,
    lower_is_better: bool,
) -> Iterator[Pair]:
    """Yield the comparisons within a case: groups with fp32 and with the best of their target, then the pairs.

    Parameters
    ----------
    case : Mapping
        ``model`` and ``dataset``.
    groups, pairs : sequence of Mapping
        As of `comparison.compare_case`.
    load : callable
        Gives the run of a target and a variant; None where its output means nothing, which leaves out its group.
    reference : Quality or None
        fp32's numbers, where the case has a command; else fp32 is what noise is measured from.
    lower_is_better : bool
        Of the numbers of a command.
    """
    sound: dict[tuple[str, str], list[Quality]] = {}
    for group in groups:
        found = [run for variant in group["variants"] if (run := load(group["target"], variant)) is not None]
        if found and len(found) == len(group["variants"]):
            sound[group["target"], group["name"]] = found
    if reference is not None:
        for (target, name), runs in sound.items():
            named = {**case, "target": target, "variant": name, "baseline": "fp32", "kind": "fp32"}
            yield compare(named, runs, [reference], lower_is_better)
    for target in dict.fromkeys(target for target, _ in sound):
        here = {name: found for (place, name), found in sound.items() if place == target}
        best = max(here, key=lambda name: _goodness(here[name], lower_is_better))
        for name, runs in here.items():
            if name != best:
                named = {**case, "target": target, "variant": name, "baseline": best, "kind": "best"}
                yield compare(named, runs, here[best], lower_is_better)
    for pair in pairs:
        ours, baseline = (load(pair["target"], pair[key]) for key in ("variant", "baseline"))
        if ours is not None and baseline is not None:
            yield compare({**case, **pair}, [ours], [baseline], lower_is_better)


def _goodness(runs: Sequence[Quality], lower_is_better: bool) -> float:
    """Return what the best of several has most of."""
    if any(run.numbers is None for run in runs):
        return -float(np.nanmean([run.noise for run in runs]))
    value = float(np.nanmean([run.numbers for run in runs if run.numbers is not None]))
    return -value if lower_is_better else value


def write_pairs(path: Path | str, pairs: Iterable[Pair]) -> None:
    """Write pairs as a JSON list."""
    write_json(path, [asdict(pair) for pair in pairs])


def read_pairs(path: Path | str) -> list[Pair]:
    """Read what `write_pairs` wrote.

    Raises
    ------
    ReportError
        The file is missing, not JSON, or was written by another version.
    """
    return read_each(path, lambda item: Pair(**{**item, "delta": Interval(**item["delta"])}))
