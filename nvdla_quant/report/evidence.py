"""What a report rests on, read into data frames: accuracies, comparisons, seeds, scales, layers, verdicts."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from nvdla_quant.errors import ReportError
from nvdla_quant.evaluation.accuracy import Accuracy, Deviation, Figures, Interval, read_accuracy
from nvdla_quant.evaluation.comparison import Comparison, holm, read_comparisons
from nvdla_quant.report.costs import read_costs
from nvdla_quant.report.frames import (
    ACCURACIES,
    CASE,
    CLASSES,
    CONFUSIONS,
    COSTS,
    GROUP,
    GROUPS,
    LAYER_FILE,
    LAYERS,
    PAIRS,
    PLACE,
    RATIOS,
    RUN,
    SCALES,
    SEEDS,
    SUMMARY,
    TIME,
    VERDICTS,
    Row,
    Schema,
    cast,
    read_tsv,
    records,
    typed,
    where,
)
from nvdla_quant.table.table import read_table

UNKNOWN = "unknown"
"""Verdict on a loadable that could not be verified: its accuracy stands, with that remark."""
_MADE_BY = ["calibrate_backend", "compile_backend", "run_backend", "exactness"]
_DETAILS = ["model", "dataset", "target", "kind", "variant", "baseline"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a report is made from, but run times and digests; `frames` has the schemas.

    Attributes
    ----------
    accuracies : DataFrame
        By `ACCURACIES`: cases in the order of the configuration, fp32 first in each.
    comparisons : DataFrame
        By `PAIRS`, unrounded; those with fp32 of averages over seeds too, also of one seed.
    groups : DataFrame
        By `GROUPS`.
    classes, confusions : DataFrame
        By `CLASSES` and `CONFUSIONS`.
    scales : DataFrame
        By `RATIOS`.
    layers, verdicts : DataFrame
        By `LAYERS` and `VERDICTS`.
    costs, operations : DataFrame
        By `COSTS` and `OPERATIONS`.
    """

    accuracies: pd.DataFrame
    comparisons: pd.DataFrame
    groups: pd.DataFrame
    classes: pd.DataFrame
    confusions: pd.DataFrame
    scales: pd.DataFrame
    layers: pd.DataFrame
    verdicts: pd.DataFrame
    costs: pd.DataFrame
    operations: pd.DataFrame

    @property
    def cases(self) -> list[tuple[str, str]]:
        """Return models and data sets, in the order of the configuration."""
        return list(self.groups[list(CASE)].drop_duplicates().itertuples(index=False, name=None))

    def reference(self, case: tuple[str, str]) -> Row | None:
        """Return the row of fp32."""
        return next(iter(records(where(self.accuracies, (*CASE, "variant"), (*case, "fp32")))), None)

    def of(self, case: tuple[str, str]) -> "Evidence":
        """Return what there is of one case."""
        frames = {name: where(frame, CASE, case) for name, frame in vars(self).items()}
        return replace(self, **frames)


def read_evidence(
    accuracies: Iterable[Path | str],
    comparisons: Iterable[Path | str],
    groups: Sequence[Row],
    *,
    tables: Sequence[Path | str] = (),
    calibrators: Sequence[Row] = (),
    verdicts: Sequence[Path | str] = (),
    layers: Sequence[Path | str] = (),
    costs: Sequence[Path | str] = (),
) -> Evidence:
    """Read the files of a sweep.

    Parameters
    ----------
    accuracies, comparisons : iterable of path
        Of fp32 and every variant; of every variant with fp32, and within the cases.
    groups : sequence of Mapping
        ``model``, ``dataset``, ``target``, ``name``, ``series``, ``images``, ``variants``.
    tables : sequence of path
        Raw calibration tables, of the `calibrators` in their order.
    calibrators : sequence of Mapping
        ``model``, ``dataset``, ``name``: without its seed, the same for those that differ in it alone.
    verdicts : sequence of path
        Of every variant.
    layers : sequence of path
        Of the same variants, in the order of their verdicts.
    costs : sequence of path
        Of every variant.
    """
    judged = read_verdicts(verdicts)
    estimated, operations = read_costs(costs)
    measured = [read_layers(path, run) for path, run in zip(layers, records(judged), strict=False)]
    scales = [read_scales(path, record) for path, record in zip(tables, calibrators, strict=True)]
    return evidence_of(
        summarize(map(read_accuracy, accuracies), judged, estimated),
        [comparison for path in comparisons for comparison in read_comparisons(path)],
        groups,
        scales=scale_ratios(scales),
        layers=together(measured, LAYERS),
        verdicts=judged,
        costs=estimated,
        operations=operations,
    )


def evidence_of(
    accuracies: pd.DataFrame,
    comparisons: Sequence[Comparison],
    groups: Sequence[Row],
    *,
    scales: pd.DataFrame,
    layers: pd.DataFrame,
    verdicts: pd.DataFrame,
    costs: pd.DataFrame,
    operations: pd.DataFrame,
) -> Evidence:
    """Put together what was read; see `read_evidence` and `Evidence`."""
    accuracies, grouped = group_seeds(accuracies, groups)
    pairs = compared(comparisons, accuracies, grouped)
    return Evidence(accuracies, pairs, grouped, *changes(comparisons), scales, layers, verdicts, costs, operations)


def together(frames: Sequence[pd.DataFrame], schema: Schema) -> pd.DataFrame:
    """Return data frames of one schema below each other."""
    return cast(pd.concat(frames, ignore_index=True), schema) if frames else typed([], schema)


# ---- accuracies and verdicts


def read_verdicts(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Return what each ``verdict.json`` says, by `VERDICTS`.

    Raises
    ------
    ReportError
        A file is missing, not JSON, or lacks a key.
    """
    return typed(map(_read_verdict, paths), VERDICTS)


def _read_verdict(path: Path | str) -> Row:
    """Return one line; what a failed verification did not find out is null."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {
            **{name: content["subject"][name] for name in RUN},
            "verdict": content["verdict"],
            "cause": content["cause"],
            "layer": content["first_bad_layer"],
            "evidence": None if content["cause"] is None else content["findings"][0]["evidence"],
            "images": content["images"],
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ReportError(f"{path}: not a verdict: {type(error).__name__} {error}") from error


def reasons(verdicts: pd.DataFrame) -> pd.Series:
    """Return cause and evidence of each verdict in one line, nothing where there is neither."""
    joined = verdicts["cause"].fillna("") + " " + verdicts["evidence"].fillna("")
    return joined.str.strip().replace("", pd.NA)


def summarize(
    measured: Iterable[Accuracy], verdicts: pd.DataFrame | None = None, costs: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return accuracies beside verdicts and times: cases in the order given, within a case fp32 first, then as given.

    Raises
    ------
    ReportError
        Two records for one model, data set, target and variant, or a verdict on none of them.
    """
    unjudged = [name for name in SUMMARY if name not in ("verdict", "cause", *TIME)]
    rows = typed(map(_accuracy_row, measured), {name: SUMMARY[name] for name in unjudged})
    keys = list(RUN)
    for twice in records(rows[rows.duplicated(keys)]):
        raise ReportError(f"summary: two accuracy records for {' / '.join(twice[key] or '-' for key in keys)}")
    judged = typed([], VERDICTS) if verdicts is None else verdicts
    beside = judged.merge(rows[keys], how="left", on=keys, indicator=True)
    for stranger in records(beside[beside["_merge"] == "left_only"].sort_values(keys)):
        place = " / ".join(stranger[key] for key in keys)
        raise ReportError(f"summary: a verdict on {place}, which has no accuracy")
    judged = judged.assign(why=reasons(judged))[[*keys, "verdict", "cause", "why"]]
    timed = (typed([], COSTS) if costs is None else costs)[[*keys, *TIME]]
    found = rows.merge(judged, how="left", on=keys).merge(timed, how="left", on=keys)
    order = pd.DataFrame(
        {"case": found.groupby(list(CASE), sort=False).ngroup(), "run": found["target"].notna()}, index=found.index
    ).sort_values(["case", "run"], kind="stable")
    found = found.loc[order.index].reset_index(drop=True)
    return cast(found.assign(group=None), ACCURACIES)


def _accuracy_row(record: Accuracy) -> Row:
    """Return one record as cells."""
    return {
        **asdict(record.subject),
        "exactness": record.exactness,
        **_deviation_cells(record.deviation),
        "n": record.n,
        "classes": record.classes,
        **_figure_cells(record.output),
        **{f"logits_{name}": cell for name, cell in _figure_cells(record.logits).items()},
    }


def _deviation_cells(deviation: Deviation | None) -> Row:
    """Return how many images were also run bit for bit, and the largest difference."""
    if deviation is None:
        return {}
    images, output, logits = len(deviation.images), deviation.output, deviation.logits
    return {"checked": images, "deviation": output, "logits_deviation": logits}


def _figure_cells(figures: Figures | None) -> Row:
    """Return the cells of one tensor's figures, in percent and points."""
    if figures is None:
        return {}
    return {
        **_interval_cells("top1", figures.top1),
        **_interval_cells("delta", figures.delta),
        "mcnemar_p": figures.mcnemar_p,
        **_interval_cells("top5", figures.top5),
        "ties": _percent(figures.ties),
        "ties5": _percent(figures.ties5),
        "agreement": _percent(figures.agreement),
        "distinct_outputs": figures.distinct_outputs,
        # One line, so that each format can hold it.
        "error": None if figures.error is None else " ".join(figures.error.split()),
    }


def _interval_cells(name: str, interval: Interval | None) -> Row:
    """Return an interval as three cells in percent."""
    if interval is None:
        return {}
    value, low, high = map(_percent, (interval.value, interval.low, interval.high))
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _percent(share: float | None) -> float | None:
    """Return `share` in percent, rounded where one image of a million would show."""
    return None if share is None else round(100 * share, 4) + 0.0


# ---- seeds


def group_seeds(accuracies: pd.DataFrame, groups: Sequence[Row]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the accuracies, which know their group then, and the groups with the spread of their figures.

    Raises
    ------
    ReportError
        A variant of a group has no accuracy.
    """
    keys, names = list(GROUP), [*PLACE, "name", "series", "images", "variants"]
    members = pd.DataFrame([{name: group[name] for name in names} for group in groups], columns=names)
    members = members.explode("variants").rename(columns={"name": "group", "variants": "variant"})
    members = members.astype(dict.fromkeys([*RUN, "group", "series"], "string") | {"images": "Int64"})
    there = members.merge(accuracies[list(RUN)], how="left", on=list(RUN), indicator=True)
    for lost in records(there[there["_merge"] == "left_only"]):
        raise ReportError(f"seeds: {' / '.join(lost[key] for key in RUN)} has no accuracy")
    accuracies = accuracies.drop(columns="group").merge(members, how="left", on=list(RUN))
    together = accuracies.assign(miscompiled=accuracies["verdict"].eq("miscompiled").fillna(False))
    together = together.groupby(keys, sort=False)
    spreads: dict[str, pd.Series] = {}
    for name in ("top1", "delta", "agreement"):
        figures = together[name]
        # A figure that one of them lacks means nothing of the others either.
        whole = figures.count() == figures.size()
        parts = {"mean": figures.mean(), "sd": figures.std(), "min": figures.min(), "max": figures.max()}
        spreads |= {f"{name}_{part}": values.where(whole) for part, values in parts.items()}
    doubted = accuracies[accuracies["verdict"] == UNKNOWN].drop_duplicates([*keys, "why"])
    spread = pd.DataFrame(
        {
            **spreads,
            "seeds": together.size(),
            "error": together["error"].first(),
            "miscompiled": together["miscompiled"].any(),
            "unverified": doubted.groupby(keys, sort=False)["why"].agg("; ".join),
        }
    )
    first = accuracies.dropna(subset=["group"]).drop_duplicates(keys).drop(columns="error")
    grouped = first.merge(spread.reset_index(), how="left", on=keys)
    return cast(accuracies, ACCURACIES), cast(grouped, GROUPS)


def seed_rows(evidence: Evidence) -> pd.DataFrame:
    """Return what ``seeds.tsv`` holds: a row for each variant whose calibrator has several seeds, rounded."""
    found = evidence.groups[evidence.groups["seeds"] > 1]
    rounded = [f"{name}_{part}" for name in ("top1", "delta", "agreement") for part in ("mean", "sd")]
    return cast(_rounded(found.assign(variant=found["group"]), rounded), SEEDS)


def _rounded(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Return `frame` with columns in percent rounded where one image of a million would show.

    By Python, which rounds the number that is meant; numpy scales it first.
    """
    return frame.assign(
        **{name: frame[name].map(lambda cell: round(cell, 4) + 0.0, na_action="ignore") for name in columns}
    )


# ---- comparisons


def compared(comparisons: Iterable[Comparison], accuracies: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons by `PAIRS`, with p-values corrected for their number (see `comparison.holm`).

    An average over one seed beside fp32 counts for none of them: the variant's own comparison says more.
    """
    made = [*RUN, *_MADE_BY]
    makers = pd.concat([accuracies[made], groups.assign(variant=groups["group"])[made]])
    rows = typed(map(_pair_row, comparisons), {name: c for name, c in PAIRS.items() if name not in _MADE_BY})
    family = rows[_counted(rows)].groupby([*PLACE, "kind"], sort=False)["p"]
    rows["p_holm"] = family.transform(lambda p: pd.Series(holm(p.tolist()), p.index, float))
    return cast(rows.merge(makers.drop_duplicates(list(RUN), keep="last"), how="left", on=list(RUN)), PAIRS)


def _counted(pairs: pd.DataFrame) -> pd.Series:
    """Return which pairs are no average over one seed beside fp32."""
    return (pairs["kind"] != "fp32") | pairs["score_step"].notna() | (pairs["seeds"] > 1)


def _pair_row(pair: Comparison) -> Row:
    """Return one comparison as cells."""
    scores = pair.scores
    detailed = pair.agreement is not None
    return {
        **{name: getattr(pair, name) for name in (*_DETAILS, "seeds", "n", "won", "lost", "p")},
        "top1": 100 * pair.top1,
        "baseline_top1": 100 * pair.baseline_top1,
        "delta": 100 * pair.delta.value,
        "delta_low": 100 * pair.delta.low,
        "delta_high": 100 * pair.delta.high,
        "agreement": None if pair.agreement is None else 100 * pair.agreement,
        "score_step": pair.step,
        "mean_score_difference": None if scores is None else scores.mean,
        "worst_score_difference": None if scores is None else scores.worst,
        "worst_image": None if scores is None else scores.image,
        "worst_class": None if scores is None else scores.label,
        "changed_classes": len(pair.classes) if detailed else None,
        "changed_confusions": pair.changed_cells if detailed else None,
    }


def pair_rows(evidence: Evidence) -> pd.DataFrame:
    """Return what ``pairs.tsv`` holds: a row for each comparison that counts, rounded."""
    found = evidence.comparisons[_counted(evidence.comparisons)]
    return _rounded(found, ("top1", "baseline_top1", "delta", "delta_low", "delta_high", "agreement"))


def changes(comparisons: Iterable[Comparison]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the classes and the cells of the confusion matrix that changed, by `CLASSES` and `CONFUSIONS`."""
    named = [({name: getattr(pair, name) for name in _DETAILS}, pair) for pair in comparisons]
    classes = ({**names, **asdict(change)} for names, pair in named for change in pair.classes)
    confusions = ({**names, **asdict(change)} for names, pair in named for change in pair.confusions)
    return typed(classes, CLASSES), typed(confusions, CONFUSIONS)


# ---- scales and layers


def read_scales(path: Path | str, calibrator: Row) -> pd.DataFrame:
    """Return the scales of a raw calibration table, by `SCALES`; `calibrator` names model, data set and calibrator."""
    names = {"model": calibrator["model"], "dataset": calibrator["dataset"], "calibrator": calibrator["name"]}
    return typed(
        ({**names, "tensor": tensor, "scale": scale} for tensor, scale in read_table(Path(path)).scales.items()), SCALES
    )


def scale_ratios(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return each calibrator's scales beside those of the first of its case, which are left out, by `RATIOS`.

    Tables of one calibrator are seeds and averaged geometrically, of both. Tensors that one table lacks are left out.
    """
    if not tables:
        return typed([], RATIOS)
    names = [*CASE, "calibrator"]
    every = pd.concat(tables, keys=range(len(tables)), names=["file", None]).reset_index("file")
    seeds = every.groupby(names, sort=False)["file"].nunique().rename("files").reset_index()
    seeds["order"] = range(len(seeds))
    spread = {"count": "count", "middle": statistics.geometric_mean, "low": "min", "high": "max"}
    found = every.groupby([*names, "tensor"], sort=False)["scale"].agg(**spread).reset_index().merge(seeds, on=names)
    found = found[found["count"] == found["files"]]
    first = seeds.drop_duplicates(list(CASE))
    base = found[found["order"].isin(first["order"])].rename(columns={"calibrator": "baseline"})
    others = found[~found["order"].isin(first["order"])]
    beside = base[[*CASE, "baseline", "tensor", "middle"]].merge(
        others, on=[*CASE, "tensor"], suffixes=("_of_baseline", "")
    )
    beside = beside.sort_values("order", kind="stable")
    ratios = {"ratio": "middle", "low": "low", "high": "high"}
    return cast(
        beside.assign(**{name: beside[cell] / beside["middle_of_baseline"] for name, cell in ratios.items()}), RATIOS
    )


def read_layers(path: Path | str, run: Row) -> pd.DataFrame:
    """Read a ``layers.tsv`` of a run, by `LAYERS`; it has a header alone where the loadable could not be verified."""
    return cast(read_tsv(path, LAYER_FILE, "layers").assign(**{name: run[name] for name in RUN}), LAYERS)


def layer_costs(layers: pd.DataFrame) -> pd.Series:
    """Return what each layer adds to the noise of its run, as a share of the signal; lines in the order of execution.

    Noise over signal is ``10 ** (-SQNR / 10)``; a layer's cost is its own minus that of the step before. It is below 0
    where a layer removes noise, as a ReLU or a pooling may, and not a number where it has no finite SQNR.
    """
    noise = 10 ** (-layers["sqnr_fp32"] / 10)
    before = noise.groupby([layers[name] for name in RUN], sort=False).shift(fill_value=0.0)
    return noise - before
