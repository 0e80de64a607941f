"""What a report rests on, read into data frames: accuracies, comparisons, seeds, scales, layers, verdicts."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from nvdla_quant.errors import ReportError
from nvdla_quant.evaluation.accuracy import Accuracy, Figures, read_accuracy
from nvdla_quant.evaluation.comparison import Comparison, read_comparisons
from nvdla_quant.evaluation.fidelity.figures import Fidelity, read_fidelity
from nvdla_quant.evaluation.fidelity.pairs import Pair, read_pairs
from nvdla_quant.report.costs import read_costs
from nvdla_quant.report.fidelity.frames import FIDELITY, FIDELITY_GROUPS, fidelity_rows, output_rows
from nvdla_quant.report.fidelity.frames import SPREAD as FIDELITY_SPREAD
from nvdla_quant.report.fidelity.frames import pair_rows as pairs_of
from nvdla_quant.report.frames import (
    ACCURACIES,
    CASE,
    CLASSES,
    CONFUSIONS,
    DESCRIBED,
    GROUPS,
    LAYER_FILE,
    LAYERS,
    PAIRS,
    RATIOS,
    RUN,
    SCALES,
    SEEDS,
    VERDICTS,
    Row,
    Schema,
    cast,
    read_tsv,
    records,
    typed,
    where,
)
from nvdla_quant.report.rows import (
    MADE_BY,
    credited,
    deviation_cells,
    group_seeds,
    one_line,
    percent,
    rounded,
    share_cells,
    summarized,
)
from nvdla_quant.table.table import read_table

SPREAD = ("top1", "delta", "agreement")
"""Figures whose spread over seeds is told."""
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
    fidelity, fidelity_groups : DataFrame
        By `FIDELITY` and `FIDELITY_GROUPS`: cases that are measured without labels, which no frame before holds but
        those of layers, verdicts, scales and costs.
    outputs, fidelity_pairs : DataFrame
        By `OUTPUTS` and `FIDELITY_PAIRS`: of these cases.
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
    fidelity: pd.DataFrame
    fidelity_groups: pd.DataFrame
    outputs: pd.DataFrame
    fidelity_pairs: pd.DataFrame

    @property
    def cases(self) -> list[tuple[str, str]]:
        """Return models and data sets that are measured by labels, in the order of the configuration."""
        return _cases(self.groups)

    @property
    def measured(self) -> list[tuple[str, str]]:
        """Return those that are measured without labels."""
        return _cases(self.fidelity_groups)

    @property
    def every_case(self) -> list[tuple[str, str]]:
        """Return both kinds."""
        return [*self.cases, *self.measured]

    @property
    def runs(self) -> pd.DataFrame:
        """Return the runs of both kinds, by the columns that both have."""
        names = [*DESCRIBED, "error"]
        parts = [frame[names] for frame in (self.accuracies, self.fidelity) if len(frame)]
        return pd.concat(parts, ignore_index=True) if parts else self.accuracies[names]

    def reference(self, case: tuple[str, str]) -> Row | None:
        """Return the row of fp32."""
        return next(iter(records(where(self.accuracies, (*CASE, "variant"), (*case, "fp32")))), None)

    def of(self, case: tuple[str, str]) -> "Evidence":
        """Return what there is of one case."""
        frames = {name: where(frame, CASE, case) for name, frame in vars(self).items()}
        return replace(self, **frames)


def _cases(groups: pd.DataFrame) -> list[tuple[str, str]]:
    return list(groups[list(CASE)].drop_duplicates().itertuples(index=False, name=None))


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
    fidelities: Sequence[Path | str] = (),
    fidelity_pairs: Sequence[Path | str] = (),
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
    fidelities, fidelity_pairs : sequence of path
        Of every variant of a case that is measured without labels, and within these cases.
    """
    judged = read_verdicts(verdicts)
    estimated, operations = read_costs(costs)
    measured = [read_layers(path, run) for path, run in zip(layers, records(judged), strict=False)]
    scales = [read_scales(path, record) for path, record in zip(tables, calibrators, strict=True)]
    return evidence_of(
        list(map(read_accuracy, accuracies)),
        [comparison for path in comparisons for comparison in read_comparisons(path)],
        groups,
        scales=scale_ratios(scales),
        layers=together(measured, LAYERS),
        verdicts=judged,
        costs=estimated,
        operations=operations,
        fidelities=[read_fidelity(path) for path in fidelities],
        fidelity_pairs=[pair for path in fidelity_pairs for pair in read_pairs(path)],
    )


def evidence_of(
    accuracies: Sequence[Accuracy],
    comparisons: Sequence[Comparison],
    groups: Sequence[Row],
    *,
    scales: pd.DataFrame,
    layers: pd.DataFrame,
    verdicts: pd.DataFrame,
    costs: pd.DataFrame,
    operations: pd.DataFrame,
    fidelities: Sequence[Fidelity] = (),
    fidelity_pairs: Sequence[Pair] = (),
) -> Evidence:
    """Put together what was read; see `read_evidence` and `Evidence`."""
    without_labels = {(found.subject.model, found.subject.dataset) for found in fidelities}
    judged, judged_without = _divided(verdicts, without_labels)
    rows = summarize(accuracies, judged, costs)
    rows, grouped = group_seeds(
        rows, [one for one in groups if _case(one) not in without_labels], SPREAD, (ACCURACIES, GROUPS), "accuracy"
    )
    fidelity, fidelity_groups = group_seeds(
        fidelity_rows(fidelities, judged_without, costs),
        [one for one in groups if _case(one) in without_labels],
        FIDELITY_SPREAD,
        (FIDELITY, FIDELITY_GROUPS),
        "fidelity",
    )
    return Evidence(
        rows,
        compared(comparisons, rows, grouped),
        grouped,
        *changes(comparisons),
        scales,
        layers,
        verdicts,
        costs,
        operations,
        fidelity,
        fidelity_groups,
        output_rows(fidelities),
        pairs_of(fidelity_pairs, fidelity, fidelity_groups),
    )


def _case(row: Row) -> tuple[str, str]:
    return row["model"], row["dataset"]


def _divided(frame: pd.DataFrame, cases: set[tuple[str, str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the lines that are not of `cases`, and those that are."""
    within = pd.Series([_case(row) in cases for row in frame[list(CASE)].to_dict("records")], frame.index, dtype=bool)
    return frame[~within], frame[within]


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


def summarize(
    measured: Iterable[Accuracy], verdicts: pd.DataFrame | None = None, costs: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return accuracies beside verdicts and times, see `rows.summarized`."""
    return summarized(map(_accuracy_row, measured), ACCURACIES, verdicts, costs, "accuracy")


def _accuracy_row(record: Accuracy) -> Row:
    """Return one record as cells."""
    return {
        **asdict(record.subject),
        "exactness": record.exactness,
        **deviation_cells(record.deviation),
        "n": record.n,
        "classes": record.classes,
        **_figure_cells(record.output),
        **{f"logits_{name}": cell for name, cell in _figure_cells(record.logits).items()},
    }


def _figure_cells(figures: Figures | None) -> Row:
    """Return the cells of one tensor's figures, in percent and points."""
    if figures is None:
        return {}
    return {
        **share_cells("top1", figures.top1),
        **share_cells("delta", figures.delta),
        "mcnemar_p": figures.mcnemar_p,
        **share_cells("top5", figures.top5),
        "ties": percent(figures.ties),
        "ties5": percent(figures.ties5),
        "agreement": percent(figures.agreement),
        "distinct_outputs": figures.distinct_outputs,
        "error": one_line(figures.error),
    }


# ---- seeds


def seed_rows(evidence: Evidence) -> pd.DataFrame:
    """Return what ``seeds.tsv`` holds: a row for each variant whose calibrator has several seeds, rounded."""
    found = evidence.groups[evidence.groups["seeds"] > 1]
    figures = [f"{name}_{part}" for name in SPREAD for part in ("mean", "sd")]
    return cast(rounded(found.assign(variant=found["group"]), figures), SEEDS)


# ---- comparisons


def compared(comparisons: Iterable[Comparison], accuracies: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons by `PAIRS`.

    An average over one seed beside fp32 counts for none of them: the variant's own comparison says more.
    """
    rows = typed(map(_pair_row, comparisons), {name: c for name, c in PAIRS.items() if name not in MADE_BY})
    return credited(rows, _counted(rows), accuracies, groups, PAIRS)


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
    return rounded(found, ("top1", "baseline_top1", "delta", "delta_low", "delta_high", "agreement"))


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
