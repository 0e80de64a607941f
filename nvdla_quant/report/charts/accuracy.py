"""The comparison as a picture: accuracy of each variant on each target, and its difference to fp32.

Bars start at zero, because a bar's length is read as its value; that hides small differences, so a second panel shows
the paired difference to fp32 as points with intervals, on an axis of its own. The numbers stand beside the marks.
"""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from nvdla_quant.errors import ReportError
from nvdla_quant.report.charts.style import ERROR, INK, arrange, colour_of, kind_of, kinds_of, lines_of, signed
from nvdla_quant.report.frames import CASE, SUMMARY, TIME, Row, alike, records
from nvdla_quant.report.rows import UNKNOWN
from nvdla_quant.report.words import mode_of

_WIDTH = 300
_ROW_HEIGHT = 22


def accuracy_chart(accuracies: pd.DataFrame) -> alt.ConcatChart:
    """Return the plot of accuracies: two panels for each case and target; targets with the same numbers share them.

    Left: top-1 as bars from zero with Wilson intervals, fp32 as a dashed line. Right: the difference to fp32 in points
    with paired intervals. A variant whose output means nothing has no bar but the word "error" and why.

    Parameters
    ----------
    accuracies : DataFrame
        By `SUMMARY`; of one case, or of several, which are drawn below each other.

    Raises
    ------
    ReportError
        No row has a target: there is nothing to draw.
    """
    panels: list[alt.LayerChart] = []
    colour = colour_of(kinds_of(row for row in records(accuracies) if row["target"] is not None))
    for (model, dataset), group in accuracies.groupby(list(CASE), sort=False):
        reference = next(iter(records(group[group["target"].isna()])), None)
        domain = _difference_domain(group)
        for names, lines in alike(group, [name for name in SUMMARY if name not in ("target", *TIME)]):
            variants = records(lines[list(SUMMARY)])
            heading = f"{model} on {dataset}, {', '.join(names)}"
            panels += [
                _accuracy_panel(heading, variants, reference, colour),
                _difference_panel(variants, domain, colour),
            ]
    if not panels:
        raise ReportError("plot: no variant was measured on any target, only fp32 or nothing; is the sweep empty?")
    return arrange(panels, 2)


def _accuracy_panel(heading: str, rows: Sequence[Row], reference: Row | None, colour: alt.Color) -> alt.LayerChart:
    """Return the bars of one case, on targets with the same numbers."""
    base = alt.Chart(_data(rows)).encode(y=_variant_axis(rows, labels=True))
    x = alt.X("top1:Q", scale=alt.Scale(domain=[0, 100]), title="top-1 accuracy (%)")
    layers = [
        base.mark_bar(height={"band": 0.7}).encode(x=x, color=colour, tooltip=_tooltip()),
        base.mark_rule(color=INK, strokeWidth=1.5).encode(x="top1_low:Q", x2="top1_high:Q"),
        _number_text(base, "top1_text"),
        base.mark_text(color=ERROR, align="left", limit=_WIDTH - 8).encode(
            x=alt.value(4), text="error_text:N", tooltip=alt.Tooltip("error:N")
        ),
    ]
    fp32 = "no fp32 reference"
    if reference is not None and reference["error"] is not None:
        fp32 = f"fp32: error: {reference['error']}"
    elif reference is not None:
        fp32 = f"dashed: fp32, {reference['top1']:.2f} %"
        line = alt.Chart(lines_of([{"fp32": reference["top1"]}]))
        layers.append(line.mark_rule(color=INK, strokeDash=[4, 3]).encode(x="fp32:Q"))
    modes = [f"{row['variant']}: {mode_of(row)}" for row in rows if row["precision"] == "fp16"]
    doubtful = [f"{row['variant']}: not verified ({row['cause']})" for row in rows if row["verdict"] == UNKNOWN]
    subtitle = [f"{_images(rows)}; {fp32}; whiskers: 95 %", _backends(rows), *modes, *doubtful]
    title = alt.TitleParams(heading, subtitle=subtitle)
    return alt.layer(*layers).properties(title=title, width=_WIDTH, height=alt.Step(_ROW_HEIGHT))


def _difference_panel(rows: Sequence[Row], domain: tuple[float, float], colour: alt.Color) -> alt.LayerChart:
    """Return the differences to fp32 of one case, on targets with the same numbers."""
    base = alt.Chart(_data(rows)).encode(y=_variant_axis(rows, labels=False))
    x = alt.X("delta:Q", scale=alt.Scale(domain=list(domain), nice=False), title="difference to fp32 (points)")
    zero = alt.Chart(lines_of([{"zero": 0}])).mark_rule(color=INK, strokeDash=[4, 3]).encode(x="zero:Q")
    title = alt.TitleParams(
        "Difference to fp32", subtitle=["same images; whiskers: 95 %, paired", "dashed: no difference"]
    )
    return alt.layer(
        zero,
        base.mark_rule(strokeWidth=1.5).encode(x="delta_low:Q", x2="delta_high:Q", color=colour),
        base.mark_point(filled=True, size=55, opacity=1).encode(x=x, color=colour, tooltip=_tooltip()),
        _number_text(base, "delta_text"),
    ).properties(title=title, width=_WIDTH, height=alt.Step(_ROW_HEIGHT))


def _data(rows: Sequence[Row]) -> alt.Data:
    """Return the rows with the texts that are drawn."""
    return lines_of(
        {
            **row,
            "kind": kind_of(row),
            "top1_text": f"{row['top1']:.2f}" if isinstance(row["top1"], float) else "",
            "delta_text": signed(row["delta"]) if isinstance(row["delta"], float) else "",
            "error_text": "" if row["error"] is None else f"error: {row['error']}",
        }
        for row in rows
    )


def _variant_axis(rows: Sequence[Row], *, labels: bool) -> alt.Y:
    """Return the axis of variants, in the order of the rows."""
    axis = alt.Axis(title=None, labelLimit=300, ticks=False, domain=False, labelPadding=6) if labels else None
    return alt.Y("variant:N", sort=[str(row["variant"]) for row in rows], axis=axis)


def _number_text(base: alt.Chart, field: str) -> alt.Chart:
    """Return the numbers in a column at the right of a panel, where they cover nothing."""
    return base.mark_text(color=INK, align="right").encode(x=alt.value(_WIDTH + 44), text=f"{field}:N")


def _tooltip() -> list[alt.Tooltip]:
    """Return what hovering shows."""
    names = (
        "variant",
        "n",
        "top1",
        "top1_low",
        "top1_high",
        "delta",
        "delta_low",
        "delta_high",
        "ties",
        "agreement",
        "compile_backend",
        "run_backend",
        "exactness",
    )
    return [alt.Tooltip(f"{name}:N", title=name) for name in names]


def _images(rows: Sequence[Row]) -> str:
    """Return the number of images, or its range."""
    counts = sorted({int(str(row["n"])) for row in rows})
    return f"{counts[0]} images" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} images"


def _backends(rows: Sequence[Row]) -> str:
    """Return which backends made the rows."""
    made = dict.fromkeys(f"{row['compile_backend']}, run on {row['run_backend']}" for row in rows)
    return "compiled by " + "; by ".join(made)


def _difference_domain(accuracies: pd.DataFrame) -> tuple[float, float]:
    """Return one axis for all targets of a case: zero and every interval, at least a point wide."""
    bounds = accuracies[["delta_low", "delta_high"]].stack()
    low, high = min([0.0, *bounds]), max([0.0, *bounds])
    margin = max(0.04 * (high - low), (1 - (high - low)) / 2)
    return round(low - margin, 4), round(high + margin, 4)
