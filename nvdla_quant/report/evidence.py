"""What a report rests on, read from its files: accuracies, comparisons, seeds, scales, layers, verdicts."""

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from nvdla_quant.errors import ReportError
from nvdla_quant.evaluation.accuracy import read_accuracy
from nvdla_quant.evaluation.comparison import Comparison, Spread, read_comparisons, spread, with_holm
from nvdla_quant.report.tables import UNKNOWN, Key, Row, VerdictRecord, percent, read_verdict, summarize
from nvdla_quant.table.table import read_table

Record = Mapping[str, Any]
RUN = ("model", "dataset", "target", "variant")
"""What names a run."""


@dataclass(frozen=True)
class Repeated:
    """A variant over the seeds of its calibrator; a variant of one seed stands for itself.

    Attributes
    ----------
    model, dataset, target, name : str
        Names; the variants' without the seed.
    series : str
        The name without the number of calibration images.
    images : int or None
        Number of calibration images; None in fp16.
    rows : tuple[Row, ...]
        The variants' rows of the summary.
    top1, delta, agreement : Spread or None
        In percent and points; None where the output of one of them means nothing, or fp32's does.
    """

    model: str
    dataset: str
    target: str
    name: str
    series: str
    images: int | None
    rows: tuple[Row, ...]
    top1: Spread | None
    delta: Spread | None
    agreement: Spread | None

    @property
    def case(self) -> tuple[str, str]:
        """Return model and data set."""
        return self.model, self.dataset

    @property
    def error(self) -> str | None:
        """Return why an output means nothing, if one does."""
        return next((str(row["error"]) for row in self.rows if row["error"] is not None), None)

    @property
    def variants(self) -> tuple[str, ...]:
        """Return the names of the variants."""
        return tuple(str(row["variant"]) for row in self.rows)

    def __getitem__(self, column: str) -> Any:
        """Return what the first row holds: what a variant's record fixes is the same for every seed."""
        return self.rows[0][column]


@dataclass(frozen=True)
class ScaleRatio:
    """A calibrator's scale of a tensor beside that of the first calibrator of the case.

    Over seeds, `ratio` is the geometric mean, `low` and `high` the least and the largest.
    """

    model: str
    dataset: str
    calibrator: str
    baseline: str
    tensor: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class LayerError:
    """One tensor that a loadable writes: a line of ``layers.tsv``; see `verification.verify`.

    Attributes
    ----------
    run : Key
        Model, data set, target, variant.
    step : int
        Place in the order of execution.
    layer : str
        Layer that the tensor belongs to.
    sqnr, cosine : float or None
        Beside fp32 on the same images: dB, and the cosine of the angle.
    sqnr_simulated : float or None
        Beside the simulated int8 network; None in fp16.
    saturated, zeros : float
        Shares of the values.
    scale : float
        Real value of one step.
    causes : str
        What is wrong here, empty where nothing is.
    """

    run: Key
    step: int
    layer: str
    sqnr: float | None
    cosine: float | None
    sqnr_simulated: float | None
    saturated: float
    zeros: float
    scale: float
    causes: str


@dataclass(frozen=True)
class Evidence:
    """All that a report is made from, but run times and digests."""

    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    repeated: tuple[Repeated, ...]
    scales: tuple[ScaleRatio, ...] = ()
    layers: tuple[LayerError, ...] = ()
    verdicts: tuple[VerdictRecord, ...] = ()

    @property
    def cases(self) -> list[tuple[str, str]]:
        """Return models and data sets, in the order of the configuration."""
        return list(dict.fromkeys(group.case for group in self.repeated))

    def unverified(self, group: Repeated) -> list[str]:
        """Return why variants of a group could not be verified, each reason once; none where all could."""
        keys = {(*group.case, group.target, variant) for variant in group.variants}
        return list(dict.fromkeys(one.why for one in self.verdicts if one.verdict == UNKNOWN and one.key in keys))

    def reference(self, case: tuple[str, str]) -> Row | None:
        """Return the row of fp32."""
        rows = (row for row in self.rows if (row["model"], row["dataset"]) == case)
        return next((row for row in rows if row["variant"] == "fp32"), None)


def read_evidence(
    accuracies: Iterable[Path | str],
    comparisons: Iterable[Path | str],
    groups: Sequence[Record],
    *,
    tables: Sequence[Path | str] = (),
    calibrators: Sequence[Record] = (),
    verdicts: Sequence[Path | str] = (),
    layers: Sequence[Path | str] = (),
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
    """
    judged = [read_verdict(path) for path in verdicts]
    rows = summarize(map(read_accuracy, accuracies), judged)
    found = [comparison for path in comparisons for comparison in read_comparisons(path)]
    return Evidence(
        tuple(rows),
        tuple(found),
        tuple(repeat(groups, rows)),
        tuple(scale_ratios(calibrators, [read_table(Path(path)).scales for path in tables])),
        tuple(line for path, one in zip(layers, judged, strict=False) for line in read_layers(path, one.key)),
        tuple(judged),
    )


def repeat(groups: Iterable[Record], rows: Iterable[Row]) -> list[Repeated]:
    """Return the groups with the figures of their rows."""
    by_run = {tuple(row[key] for key in RUN): row for row in rows}
    found = []
    for group in groups:
        names = (group["model"], group["dataset"], group["target"])
        members = tuple(by_run[*names, variant] for variant in group["variants"])
        figures = (_spread(members, column) for column in ("top1", "delta", "agreement"))
        found.append(Repeated(*names, group["name"], group["series"], group["images"], members, *figures))
    return found


def _spread(rows: Iterable[Row], column: str) -> Spread | None:
    """Return the spread of a column, None where a row has no number."""
    cells = [row[column] for row in rows]
    numbers = [cell for cell in cells if isinstance(cell, float)]
    return spread(numbers) if len(numbers) == len(cells) else None


PAIR_COLUMNS = (
    *("model", "dataset", "target", "kind", "variant", "baseline", "seeds", "n", "top1", "baseline_top1", "delta"),
    *("delta_low", "delta_high", "won", "lost", "p", "p_holm", "agreement", "score_step", "mean_score_difference"),
    *("worst_score_difference", "worst_image", "worst_class", "changed_classes", "changed_confusions"),
    *("calibrate_backend", "compile_backend", "run_backend", "exactness"),
)
"""Columns of ``pairs.tsv``: shares in percent, differences in points, scores in real units."""
SEED_COLUMNS = (
    *("model", "dataset", "target", "variant", "images", "seeds", "n"),
    *(f"{name}_{part}" for name in ("top1", "delta", "agreement") for part in ("mean", "sd", "min", "max")),
    *("error", "calibrate_backend", "compile_backend", "run_backend", "exactness"),
)
"""Columns of ``seeds.tsv``, in percent and points."""
_MADE_BY = ("calibrate_backend", "compile_backend", "run_backend", "exactness")


def pair_rows(evidence: Evidence) -> list[Row]:
    """Return a row for each comparison, with p-values corrected for their number (see `comparison.with_holm`).

    An average over one seed beside fp32 is left out: the variant's own comparison says more.
    """
    runs = {tuple(row[key] for key in RUN): row for row in evidence.rows}
    runs |= {(*group.case, group.target, group.name): group.rows[0] for group in evidence.repeated}
    kept = [c for c in evidence.comparisons if c.kind != "fp32" or c.step is not None or c.seeds > 1]
    return [
        _pair_row(pair, p, runs[pair.model, pair.dataset, pair.target, pair.variant]) for pair, p in with_holm(kept)
    ]


def _pair_row(pair: Comparison, p_holm: float, row: Row) -> Row:
    """Return one comparison by `PAIR_COLUMNS`."""
    scores = pair.scores
    detailed = pair.agreement is not None
    return {
        **{key: getattr(pair, key) for key in ("model", "dataset", "target", "kind", "variant", "baseline", "seeds")},
        "n": pair.n,
        "top1": percent(pair.top1),
        "baseline_top1": percent(pair.baseline_top1),
        "delta": percent(pair.delta.value),
        "delta_low": percent(pair.delta.low),
        "delta_high": percent(pair.delta.high),
        "won": pair.won,
        "lost": pair.lost,
        "p": pair.p,
        "p_holm": p_holm,
        "agreement": percent(pair.agreement),
        "score_step": pair.step,
        "mean_score_difference": None if scores is None else scores.mean,
        "worst_score_difference": None if scores is None else scores.worst,
        "worst_image": None if scores is None else scores.image,
        "worst_class": None if scores is None else scores.label,
        "changed_classes": len(pair.classes) if detailed else None,
        "changed_confusions": pair.changed_cells if detailed else None,
        **{key: row[key] for key in _MADE_BY},
    }


def seed_rows(evidence: Evidence) -> list[Row]:
    """Return a row for each variant whose calibrator has several seeds."""
    return [
        {
            "model": group.model,
            "dataset": group.dataset,
            "target": group.target,
            "variant": group.name,
            "images": group.images,
            "seeds": len(group.rows),
            "n": group["n"],
            **_spread_columns("top1", group.top1),
            **_spread_columns("delta", group.delta),
            **_spread_columns("agreement", group.agreement),
            "error": group.error,
            **{key: group[key] for key in _MADE_BY},
        }
        for group in evidence.repeated
        if len(group.rows) > 1
    ]


def _spread_columns(name: str, values: Spread | None) -> Row:
    """Return a spread as cells."""
    if values is None:
        return dict.fromkeys(f"{name}_{part}" for part in ("mean", "sd", "min", "max"))
    return {
        f"{name}_mean": round(values.mean, 4),
        f"{name}_sd": None if values.sd is None else round(values.sd, 4),
        f"{name}_min": values.low,
        f"{name}_max": values.high,
    }


def scale_ratios(calibrators: Sequence[Record], tables: Sequence[Mapping[str, float]]) -> list[ScaleRatio]:
    """Return each calibrator's scales beside those of the first of its case, which are left out.

    Seeds are averaged geometrically, of both. Tensors that one of the two lacks are left out.
    """
    cases: dict[tuple[str, str], dict[str, list[Mapping[str, float]]]] = {}
    for record, table in zip(calibrators, tables, strict=True):
        cases.setdefault((record["model"], record["dataset"]), {}).setdefault(record["name"], []).append(table)
    found = []
    for case, named in cases.items():
        (baseline, first), *others = named.items()
        for name, seeds in others:
            for tensor in first[0]:
                base = [table[tensor] for table in first if tensor in table]
                ours = [table[tensor] for table in seeds if tensor in table]
                if len(base) == len(first) and len(ours) == len(seeds):
                    middle = statistics.geometric_mean(base)
                    ratios = [scale / middle for scale in (statistics.geometric_mean(ours), min(ours), max(ours))]
                    found.append(ScaleRatio(*case, name, baseline, tensor, *ratios))
    return found


_LAYER_COLUMNS = (
    *("step", "layer", "scale", "sqnr_fp32", "cosine_fp32", "sqnr_simulated", "saturated", "zeros", "values", "causes"),
)
"""Columns of ``layers.tsv`` that the report reads."""


def read_layers(path: Path | str, run: Key) -> list[LayerError]:
    """Read a ``layers.tsv``.

    Raises
    ------
    ReportError
        The file is missing, empty or lacks a column. A header alone is right: a loadable that could not be verified.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if missing := [name for name in _LAYER_COLUMNS if name not in (lines.fieldnames or ())]:
                raise ValueError(f"no column {', '.join(missing)}")
            return [_layer(line, run) for line in lines]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{path}: not a table of layers ({error!r}); remove it and run again") from error


def _layer(line: Mapping[str, str], run: Key) -> LayerError:
    """Return one line of the table."""
    values = max(int(line["values"]), 1)
    return LayerError(
        run,
        int(line["step"]),
        line["layer"],
        _number(line["sqnr_fp32"]),
        _number(line["cosine_fp32"]),
        _number(line["sqnr_simulated"]),
        int(line["saturated"]) / values,
        int(line["zeros"]) / values,
        float(line["scale"]),
        line["causes"],
    )


def _number(cell: str) -> float | None:
    """Return a number, None for an empty cell."""
    return float(cell) if cell else None


def layer_costs(layers: Sequence[LayerError]) -> list[float]:
    """Return what each layer of one run adds to the noise, as a share of the signal, in the order of execution.

    Noise over signal is ``10 ** (-SQNR / 10)``; a layer's cost is its own minus that of the step before. It is below 0
    where a layer removes noise, as a ReLU or a pooling may, and not a number where it has no finite SQNR.
    """
    noise = [0.0, *(_noise(layer.sqnr) for layer in layers)]
    return [after - before for before, after in pairwise(noise)]


def _noise(sqnr: float | None) -> float:
    """Return noise over signal."""
    if sqnr is None or math.isnan(sqnr):
        return math.nan
    return 10 ** (-sqnr / 10) if sqnr > -3000 else math.inf
