"""How long it takes: accuracy against time, what each layer takes beside its error, operations under the roofline."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from typing import Any

import altair as alt
import pandas as pd

from nvdla_quant.report.charts.heat import heat_map
from nvdla_quant.report.charts.style import INK, PALETTE, arrange, colour_of, kind_of, kinds_of, lines_of, nothing
from nvdla_quant.report.costs import front, layer_times, representatives, setting
from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.frames import CASE, RUN, Row, records, where
from nvdla_quant.report.words import EXTRAPOLATED, milliseconds

BOUNDS = ("MACs", "weights", "data", "output", "latency")
"""What an operation's cycles may be spent on, in the order of their colours."""
_SIZE = 210
_COLUMNS = 4
_LAYERS = 60
"""Layers that are drawn at most: those that take most."""
_NAMED = 3
"""Variants that a title names at most."""
_SHAPES = {"fp16": "square", "int8 per-kernel": "circle", "int8 per-filter": "triangle-up"}
"""Hollow, so that one is seen behind another."""
_NONE = "No loadable could be estimated: there are no times."
_GREY = "#999999"


@dataclass(frozen=True)
class _Figure:
    """What stands against time: a column of the groups, and what its axis is called."""

    name: str
    title: str


_TOP1 = _Figure("top1", "top-1 accuracy (%)")
_SQNR = _Figure("sqnr", "SQNR beside fp32 (dB)")
Bars = Sequence[tuple[str, float]]
"""Lines across a panel: what they are called, and where."""


def time_chart(evidence: Evidence, keep: float) -> alt.ConcatChart:
    """Return accuracy or SQNR against time: a panel for each target of a case, what no other beats joined.

    Parameters
    ----------
    evidence : Evidence
        What was found.
    keep : float
        Percent of fp32's accuracy, or of the signal; a line shows where that is.
    """
    timed = _timed(evidence.groups, _TOP1)
    outputs = _timed(evidence.fidelity_groups, _SQNR)
    colour, shape = _kinds(records(pd.concat([frame[["precision", "mode"]] for frame in (timed, outputs)])))
    panels: list[alt.LayerChart] = []
    columns = 1
    drawn: list[tuple[tuple[str, str], pd.DataFrame, _Figure, Bars]] = [
        (case, timed, _TOP1, _bars(evidence, case, keep)) for case in evidence.cases
    ]
    least: Bars = [(f"{keep:g} %", -10 * log10(1 - keep / 100))] if keep < 100 else []
    drawn += [(case, outputs, _SQNR, least) for case in evidence.measured]
    for case, frame, figure, bars in drawn:
        groups = records(where(frame, CASE, case)[[*_SHOWN, *_ends(figure)]])
        if not groups:
            continue
        points = [_time_point(row, figure) for row in groups]
        axes = _time_axes(points, bars)
        targets = list(dict.fromkeys(point["target"] for point in points))
        columns = max(columns, len(targets))
        for target in targets:
            here = [point for point in points if point["target"] == target]
            panel = _time_panel(here, bars, axes, figure, colour, shape)
            panels.append(panel.properties(title=_time_title(f"{' on '.join(case)}, {target}", here)))
    return arrange(panels, min(_COLUMNS, columns)) if panels else nothing(_NONE)


def _timed(groups: pd.DataFrame, figure: _Figure) -> pd.DataFrame:
    """Return the groups that can be drawn."""
    return groups[groups["error"].isna()].dropna(subset=["ms", f"{figure.name}_mean"])


def _bars(evidence: Evidence, case: tuple[str, str], keep: float) -> Bars:
    """Return where fp32's accuracy is, and what of it is to be kept."""
    reference = evidence.reference(case)
    top1 = None if reference is None else reference["top1"]
    return [] if top1 is None else [("fp32", float(top1)), (f"{keep:g} %", float(top1) * keep / 100)]


def _ends(figure: _Figure) -> list[str]:
    """Return the columns of a figure and of its intervals."""
    return [f"{figure.name}_{part}" for part in ("mean", "low", "high", "min", "max")]


_SHOWN = ["target", "group", "precision", "mode", "seeds", "ms", "cycles", "dram_bytes", "bound", "extrapolated"]
"""Columns of the groups that are drawn."""


def _time_axes(points: Sequence[Row], bars: Bars) -> tuple[alt.X, alt.Scale]:
    """Return the axes that all targets of a case share: of time, and the scale of accuracy."""
    times = [point["ms"] for point in points]
    heights = [point[end] for point in points for end in ("low", "high")] + [value for _, value in bars]
    margin = 0.06 * (max(heights) - min(heights)) or 1.0
    x = _log(alt.X, "ms", (min(times) / 2, max(times) * 1.4), "ms an image, estimated")
    return x, alt.Scale(domain=[min(heights) - margin, max(heights) + margin], nice=False, zero=False)


def _time_panel(
    points: Sequence[Row],
    bars: Bars,
    axes: tuple[alt.X, alt.Scale],
    figure: _Figure,
    colour: alt.Color,
    shape: alt.Shape,
) -> alt.LayerChart:
    """Return the variants of a target."""
    x, scale = axes
    y = alt.Y("value:Q", scale=scale, title=figure.title)
    best = [points[i] for i in front([(point["ms"], point["value"]) for point in points])]
    edge = [*({"ms": one["ms"], "value": one["value"]} for one in best)]
    edge.append({"ms": x["scale"]["domain"][1], "value": edge[-1]["value"]})
    base = alt.Chart(lines_of(points)).encode(x=x)
    shown = {"variant": "variant", "value": figure.name}
    shown |= {name: name for name in ("milliseconds", "bound", "cycles", "bytes")}
    tooltip = [alt.Tooltip(f"{name}:N", title=title) for name, title in shown.items()]
    bar = alt.Chart(lines_of({"text": text, "value": value} for text, value in bars)).encode(y=y)
    layers = [
        bar.mark_rule(color=_GREY, strokeDash=[4, 3]),
        bar.mark_text(color="#666666", align="left", baseline="bottom", dy=-2, fontSize=10).encode(
            x=alt.value(3), text="text:N"
        ),
        alt.Chart(lines_of(edge)).mark_line(color=INK, strokeWidth=1.2, interpolate="step-after").encode(x=x, y=y),
        base.mark_rule(strokeWidth=1).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q", color=colour),
        base.mark_point(filled=False, size=70, strokeWidth=2, opacity=1).encode(
            y=y, color=colour, shape=shape, tooltip=tooltip
        ),
    ]
    return alt.layer(*layers).properties(width=_SIZE, height=_SIZE)


def _time_title(title: str, points: Sequence[Row]) -> alt.TitleParams:
    """Return the title of a target: with it the variants that no other beats."""
    best = [points[i]["variant"] for i in front([(point["ms"], point["value"]) for point in points])]
    more = [f"and {len(best) - _NAMED} more"] if len(best) > _NAMED else []
    starred = sorted({point["kind"].split()[0] for point in points if "*" in point["milliseconds"]})
    marked = [f"extrapolated: {', '.join(starred)}"] if starred else []
    return alt.TitleParams(title, subtitle=["no other beats:", *best[:_NAMED], *more, *marked])


def _time_point(row: Row, figure: _Figure) -> Row:
    """Return a variant as a point, with its 95 % interval or, of several seeds, their range."""
    ends = ("low", "high") if row["seeds"] == 1 else ("min", "max")
    low, high = (float(row[f"{figure.name}_{end}"]) for end in ends)
    return {
        "target": row["target"],
        "variant": row["group"],
        "kind": kind_of(row),
        "value": float(row[f"{figure.name}_mean"]),
        "low": low,
        "high": high,
        "ms": float(row["ms"]),
        "milliseconds": milliseconds(row),
        "bound": row["bound"],
        "cycles": f"{row['cycles']:,}",
        "bytes": f"{row['dram_bytes']:,}",
    }


def _kinds(groups: Sequence[Row]) -> tuple[alt.Color, alt.Shape]:
    """Return colours and shapes of precisions and modes: one scale for all panels."""
    kinds = kinds_of(groups)
    shapes = alt.Scale(domain=kinds, range=[_SHAPES[kind] for kind in kinds])
    return colour_of(kinds), alt.Shape("kind:N", title=None, scale=shapes)


def _log(axis: Any, field: str, domain: tuple[float, float], title: str) -> Any:
    """Return a logarithmic axis, with lines at powers of ten, and at 2 and 5 of them where there are few."""
    least, most = domain
    steps = (1, 2, 5) if most < 100 * least else (1,)
    powers = range(floor(log10(least)), ceil(log10(most)) + 1)
    # Divided, not multiplied by a negative power, which would be off in the last digit.
    values = [step * 10**power if power >= 0 else step / 10**-power for power in powers for step in steps]
    shown = alt.Axis(values=[value for value in values if least <= value <= most], format="~g")
    return axis(f"{field}:Q", scale=alt.Scale(type="log", domain=[least, most], nice=False), axis=shown, title=title)


def costs_chart(evidence: Evidence) -> alt.ConcatChart:
    """Return what each layer takes beside how far it is off fp32, for the fastest of each precision on each target."""
    panels: list[alt.LayerChart] = []
    chosen = representatives(evidence.runs, evidence.costs)
    for case in evidence.every_case:
        runs = records(where(chosen, CASE, case))
        if not runs:
            continue
        found = {_column(run): _layers_of(evidence, run) for run in runs}
        every = pd.concat(found, names=["column"]).reset_index("column")
        most = every.groupby("layer", sort=False)["share"].max()
        shown = set(most.nlargest(_LAYERS).index)
        lines = [row for row in records(every) if row["layer"] in shown]
        # Both maps have all rows, so that they stand beside each other.
        rows = {row["layer"]: None for row in lines}
        some = [f"the {_LAYERS} layers that take most of {len(most)}"] if len(most) > len(shown) else []
        marked = [EXTRAPOLATED] if any(run["extrapolated"] for run in runs) else []
        shares = [_share_cell(row) for row in lines]
        errors = [_error_cell(row) for row in lines]
        order = {layer: number for number, layer in enumerate(rows)}
        for cells in (shares, errors):
            cells.sort(key=lambda cell: order[str(cell["row"])])
        times = alt.Scale(scheme="oranges", domain=[0, max(1.0, float(most.max()))])
        sqnr = alt.Scale(scheme="blues", reverse=True, domain=[0, 60], clamp=True)
        subtitle = ["% of the cycles of all operations; the fastest variant of each precision", *some, *marked]
        beside = ["dB, beside fp32 on the images of the verdict; darker is worse", *some]
        dark = f"datum.value > {0.6 * float(most.max())}"
        panels += [
            heat_map(f"{' on '.join(case)}: time of each layer", subtitle, shares, times, dark=dark),
            heat_map("SQNR of what it makes", beside, errors, sqnr, dark="datum.value < 25"),
        ]
    return arrange(panels, 2, shared_colours=False) if panels else nothing(_NONE)


def _column(run: Row) -> str:
    return f"{run['target']} {run['precision']}{'*' if run['extrapolated'] else ''}"


def _layers_of(evidence: Evidence, run: Row) -> pd.DataFrame:
    """Return what each layer of a run takes."""
    key = [run[name] for name in RUN]
    return layer_times(where(evidence.operations, RUN, key), where(evidence.layers, RUN, key))


def _share_cell(row: Row) -> Row:
    named = {"cycles": f"{row['cycles']:,}", "bound": row["bound"], "bytes": f"{row['bytes']:,}", "units": row["units"]}
    return {"row": row["layer"], "column": row["column"], "value": row["share"], "text": f"{row['share']:.1f}", **named}


def _error_cell(row: Row) -> Row:
    sqnr = row["sqnr"]
    finite = sqnr is not None and isfinite(sqnr)
    text = f"{sqnr:.0f}" if finite else "" if sqnr is None else "exact" if sqnr > 0 else "NaN"
    return {"row": row["layer"], "column": row["column"], "value": sqnr if finite else None, "text": text}


def roofline_chart(evidence: Evidence) -> alt.ConcatChart:
    """Return the operations that multiply under what MAC array and memory allow, for those that `costs_chart` shows."""
    chosen = representatives(evidence.runs, evidence.costs)
    panels: list[alt.LayerChart] = []
    for case in evidence.every_case:
        runs = records(where(chosen, CASE, case))
        points = [list(_roof_points(evidence, run)) for run in runs]
        every = [point for some in points for point in some]
        if not every:
            continue
        wide = [float(point["intensity"]) for point in every] + [_peak(run) / run["read_bytes"] for run in runs]
        high = [float(point["rate"]) for point in every] + [float(_peak(run)) for run in runs]
        domains = (min(wide) / 2, max(wide) * 2), (min(high) / 2, max(high) * 2)
        panels += [_roof_panel(run, some, *domains) for run, some in zip(runs, points, strict=True)]
    if not panels:
        return nothing("No operation multiplies: there is nothing under the roofline.")
    return arrange(panels, min(_COLUMNS, max(where(chosen, CASE, case).shape[0] for case in evidence.every_case)))


def _peak(run: Row) -> int:
    peak: int = run[f"peak_{run['precision']}"]
    return peak


def _roof_points(evidence: Evidence, run: Row) -> Iterator[Row]:
    """Yield the operations of a run that multiply.

    Intensity is in multiplications for a byte of the way, reading or writing, that takes longer; of both where they
    share their rate. So no operation can stand above the roof.
    """
    for one in records(where(evidence.operations, RUN, [run[name] for name in RUN])):
        ways = one["bytes_read"] / run["read_bytes"], one["bytes_written"] / run["write_bytes"]
        memory = sum(ways) if run["shared"] else max(ways)
        if one["macs"] and one["cycles"] and memory:
            yield {
                "layers": one["layers"] or f"operation {one['op']}",
                "intensity": one["macs"] / (memory * run["read_bytes"]),
                "rate": one["macs"] / one["cycles"],
                "bound": one["bound"],
                "cycles": one["cycles"],
                "bytes": one["bytes_read"] + one["bytes_written"],
            }


def _roof_panel(
    run: Row, points: Sequence[Row], wide: tuple[float, float], high: tuple[float, float]
) -> alt.LayerChart:
    """Return the operations of a run under its roof."""
    peak, bandwidth = _peak(run), run["read_bytes"]
    ridge = min(max(peak / bandwidth, wide[0]), wide[1])
    roof = [{"intensity": at, "rate": min(peak, at * bandwidth)} for at in (wide[0], ridge, wide[1])]
    x = _log(alt.X, "intensity", wide, "multiplications for a byte")
    y = _log(alt.Y, "rate", high, "multiplications a cycle")
    colours = alt.Scale(domain=list(BOUNDS), range=list(PALETTE[: len(BOUNDS)]))
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("layers", "bound", "cycles", "bytes")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".3g") for name in ("intensity", "rate")]
    layers = [
        alt.Chart(lines_of(roof)).mark_line(color=INK, strokeWidth=1.2).encode(x=x, y=y),
        alt.Chart(lines_of([{"rate": peak, "text": f"{peak:,}"}]))
        .mark_text(color="#666666", align="right", baseline="bottom", dy=-2, fontSize=10)
        .encode(x=alt.value(_SIZE), y=y, text="text:N"),
    ]
    if points:
        base = alt.Chart(lines_of(points)).mark_point(filled=True, size=40, opacity=1)
        bound = alt.Color("bound:N", title="cycles spent on", scale=colours)
        layers.append(base.encode(x=x, y=y, color=bound, tooltip=tooltip))
    title = alt.TitleParams(
        f"{run['model']} on {run['dataset']}, {_column(run)}", subtitle=[run["variant"], *setting(run)]
    )
    return alt.layer(*layers).properties(title=title, width=_SIZE, height=_SIZE)
