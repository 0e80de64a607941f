"""Outputs beside fp32's as a picture: the SQNR of each variant on each target, and what a command says."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from nvdla_quant.report.charts.style import ERROR, INK, arrange, colour_of, kind_of, kinds_of, lines_of, nothing
from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.fidelity.frames import OUTPUTS
from nvdla_quant.report.frames import RUN, Row, alike, records, where
from nvdla_quant.report.words import number, of_command

_WIDTH = 260
_ROW_HEIGHT = 22
_COLUMNS = 2


def fidelity_chart(evidence: Evidence) -> alt.ConcatChart:
    """Return a panel for each output of each case and target, targets with the same numbers together.

    Points are SQNR in dB with 95 % intervals, on an axis that all outputs of a case share; behind them how far a
    command's number is from fp32's, where the case has a command. An output that means nothing has the word "error".
    """
    panels: list[alt.LayerChart] = []
    colour = colour_of(kinds_of(records(evidence.fidelity)))
    for case in evidence.measured:
        here = evidence.of(case)
        rows = here.outputs.merge(here.fidelity[[*RUN, "precision", "mode", "n"]], how="left", on=list(RUN))
        domain = _domain(rows[["sqnr_low", "sqnr_high"]])
        for targets, lines in alike(rows, [name for name in OUTPUTS if name != "target"]):
            place = f"{' on '.join(case)}, {', '.join(targets)}"
            for output, of_one in lines.groupby("output", sort=False):
                subtitle = [f"output {output}, {of_one['n'].iloc[0]} images", "SQNR beside fp32; whiskers: 95 %"]
                shown = [_point(row, "sqnr", number(row["sqnr"])) for row in records(of_one)]
                panels.append(_panel(place, subtitle, shown, ("SQNR (dB)", domain), colour))
            said = where(here.fidelity, ["target"], [targets[0]]).dropna(subset=["number"])
            if len(said):
                shown = [
                    _point(
                        row, "number_delta", of_command(row["number_delta"], sign=True).replace("-", "\N{MINUS SIGN}")
                    )
                    for row in records(said)
                ]
                ends = _domain(said[["number_delta_low", "number_delta_high"]], zero=True)
                better = "lower" if said["lower_is_better"].any() else "higher"
                subtitle = [f"fp32 has {of_command(said['number_fp32'].iloc[0])}; {better} is better", "whiskers: 95 %"]
                axis = ("number minus fp32's", ends)
                panels.append(_panel("By the command", subtitle, shown, axis, colour))
    if not panels:
        return nothing("No case is measured without labels.")
    return arrange(panels, _COLUMNS)


def _point(row: Row, name: str, text: str) -> Row:
    """Return a variant as it is drawn."""
    error = row.get("error")
    return {
        "variant": row["variant"],
        "kind": kind_of(row),
        "value": row[name],
        "low": row[f"{name}_low"],
        "high": row[f"{name}_high"],
        "text": text,
        "error": "" if error is None else f"error: {error}",
    }


def _panel(
    title: str,
    subtitle: Sequence[str],
    points: Sequence[Row],
    axis: tuple[str, tuple[float, float]],
    colour: alt.Color,
) -> alt.LayerChart:
    """Return the variants of one output, or of a command."""
    names, (label, domain) = [str(point["variant"]) for point in points], axis
    variants = alt.Axis(title=None, labelLimit=300, ticks=False, domain=False, labelPadding=6)
    base = alt.Chart(lines_of(points)).encode(y=alt.Y("variant:N", sort=names, axis=variants))
    x = alt.X("value:Q", scale=alt.Scale(domain=list(domain), nice=False, zero=False), title=label)
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("variant", "value", "low", "high")]
    layers = [
        base.mark_rule(strokeWidth=1.5).encode(x="low:Q", x2="high:Q", color=colour),
        base.mark_point(filled=True, size=55, opacity=1).encode(x=x, color=colour, tooltip=tooltip),
        base.mark_text(color=INK, align="right").encode(x=alt.value(_WIDTH + 44), text="text:N"),
        base.mark_text(color=ERROR, align="left", limit=_WIDTH - 8).encode(x=alt.value(4), text="error:N"),
    ]
    heading = alt.TitleParams(title, subtitle=list(subtitle))
    return alt.layer(*layers).properties(title=heading, width=_WIDTH, height=alt.Step(_ROW_HEIGHT))


def _domain(ends: pd.DataFrame, *, zero: bool = False) -> tuple[float, float]:
    """Return one axis for all intervals, with a margin; `zero` is on it where that is asked for."""
    bounds = [*ends.stack(), *([0.0] if zero else [])] or [0.0]
    low, high = min(bounds), max(bounds)
    margin = 0.06 * (high - low) or 1.0
    return round(low - margin, 4), round(high + margin, 4)
