"""How long it takes: accuracy against time, what each layer takes beside its error, operations under the roofline."""

from collections.abc import Iterator, Sequence
from math import isfinite

import altair as alt
import pandas as pd

from nvdla_quant.report.charts.heat import heat_map
from nvdla_quant.report.charts.style import INK, KINDS, PALETTE, arrange, lines_of, nothing
from nvdla_quant.report.costs import front, layer_times, representatives, setting
from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.frames import CASE, RUN, Row, records, where
from nvdla_quant.report.words import EXTRAPOLATED, milliseconds

BOUNDS = ("MACs", "weights", "data", "output", "latency")
"""What an operation's cycles may be spent on, in the order of their colours."""
_SIZE = 230
_COLUMNS = 4
_LAYERS = 60
"""Layers that are drawn at most: those that take most."""
_NONE = "No loadable could be estimated: there are no times."
_GREY = "#999999"


def time_chart(evidence: Evidence, keep: float) -> alt.ConcatChart:
    """Return accuracy against time: a panel for each target of a case, with the variants that no other beats joined.

    Parameters
    ----------
    evidence : Evidence
        What was found.
    keep : float
        Percent of fp32's accuracy; a line shows where that is.
    """
    timed = evidence.groups[evidence.groups["error"].isna()].dropna(subset=["ms", "top1_mean"])
    if timed.empty:
        return nothing(_NONE)
    colour = _kinds(timed)
    panels = [
        _time_panel(evidence, (*case, str(target)), records(lines), records(here), keep, colour)
        for case in evidence.cases
        for here in [where(timed, CASE, case)]
        for target, lines in here.groupby("target", sort=False)
    ]
    return arrange(
        panels, min(_COLUMNS, max(len(evidence.of(case).costs["target"].unique()) for case in evidence.cases))
    )


def _time_panel(
    evidence: Evidence,
    place: tuple[str, str, str],
    groups: Sequence[Row],
    case: Sequence[Row],
    keep: float,
    colour: alt.Color,
) -> alt.LayerChart:
    """Return the variants of a target; the axes are those of all targets of the `case`."""
    times = [float(row["ms"]) for row in case]
    least, most = min(times) / 1.4, max(times) * 1.4
    reference = evidence.reference((place[0], place[1]))
    top1 = None if reference is None else reference["top1"]
    lines = [] if top1 is None else [("fp32", top1), (f"{keep:g} % of it", top1 * keep / 100)]
    heights = [value for row in case for value in _range(row)] + [value for _, value in lines]
    margin = 0.06 * (max(heights) - min(heights)) or 1.0
    x = alt.X("ms:Q", scale=alt.Scale(type="log", domain=[least, most], nice=False), title="ms an image, estimated")
    scale = alt.Scale(domain=[min(heights) - margin, max(heights) + margin], nice=False, zero=False)
    y = alt.Y("top1:Q", scale=scale, title="top-1 accuracy (%)")
    points = [_time_point(row) for row in groups]
    best = [points[i] for i in front([(point["ms"], point["top1"]) for point in points])]
    edge = [*({"ms": p["ms"], "top1": p["top1"]} for p in best), {"ms": most, "top1": best[-1]["top1"]}]
    base = alt.Chart(lines_of(points)).encode(x=x)
    tooltip = [
        alt.Tooltip(f"{name}:N") for name in ("variant", "top1", "milliseconds", "bound", "cycles", "DRAM bytes")
    ]
    layers: list[alt.Chart] = [
        alt.Chart(lines_of([{"top1": value}]))
        .mark_rule(color=_GREY, strokeDash=[4, 3])
        .encode(y=alt.Y("top1:Q", scale=scale))
        for _, value in lines
    ]
    layers += [
        alt.Chart(lines_of([{"top1": value, "text": text}]))
        .mark_text(color="#666666", align="right", baseline="bottom", dy=-2, fontSize=10)
        .encode(x=alt.value(_SIZE), y=alt.Y("top1:Q", scale=scale), text="text:N")
        for text, value in lines
    ]
    layers += [
        alt.Chart(lines_of(edge)).mark_line(color=INK, strokeWidth=1.2, interpolate="step-after").encode(x=x, y=y),
        base.mark_rule(strokeWidth=1).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q", color=colour),
        base.mark_point(filled=True, size=60, opacity=1).encode(y=y, color=colour, tooltip=tooltip),
    ]
    middle = (least * most) ** 0.5
    for align, shift, chosen in (
        ("left", 8, [one for one in best if one["ms"] <= middle]),
        ("right", -8, [one for one in best if one["ms"] > middle]),
    ):
        text = alt.Chart(lines_of(chosen)).mark_text(color=INK, align=align, dx=shift, dy=12, fontSize=10)
        layers += [text.encode(x=x, y=y, text="label:N")] if chosen else []
    title = alt.TitleParams(
        f"{place[0]} on {place[1]}, {place[2]}",
        subtitle=["line: what no other beats in both", *_starred(groups)],
    )
    return alt.layer(*layers).properties(title=title, width=_SIZE, height=_SIZE)


def _time_point(row: Row) -> dict[str, object]:
    """Return a variant as a point with its range."""
    low, high = _range(row)
    return {
        "variant": row["group"],
        "label": row["group"].removeprefix("int8-"),
        "kind": _kind(row),
        "top1": float(row["top1_mean"]),
        "low": low,
        "high": high,
        "ms": float(row["ms"]),
        "milliseconds": milliseconds(row),
        "bound": row["bound"],
        "cycles": f"{row['cycles']:,}",
        "DRAM bytes": f"{row['dram_bytes']:,}",
    }


def _range(row: Row) -> tuple[float, float]:
    """Return the 95 % interval of one run, or the range of several seeds."""
    ends = ("top1_low", "top1_high") if row["seeds"] == 1 else ("top1_min", "top1_max")
    low, high = (float(row[name]) for name in ends)
    return low, high


def _kind(row: Row) -> str:
    return " ".join(str(row[name]) for name in ("precision", "mode") if row[name] is not None)


def _kinds(groups: pd.DataFrame) -> alt.Color:
    """Return the colours of precisions and modes: one scale for all panels."""
    present = {_kind(row) for row in records(groups)}
    kinds = [kind for kind in KINDS if kind in present]
    return alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds, range=[KINDS[kind] for kind in kinds]))


def _starred(rows: Sequence[Row]) -> list[str]:
    """Return the remark that some of the times are extrapolated, where they are."""
    names = {row["precision"] for row in rows if row["extrapolated"]}
    return [f"extrapolated: {', '.join(sorted(names))}"] if names else []


def costs_chart(evidence: Evidence) -> alt.ConcatChart:
    """Return what each layer takes beside how far it is off fp32, for the fastest of each precision on each target."""
    panels: list[alt.LayerChart] = []
    chosen = representatives(evidence.accuracies, evidence.costs)
    for case in evidence.cases:
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


def _share_cell(row: Row) -> dict[str, object]:
    named = {"cycles": f"{row['cycles']:,}", "bound": row["bound"], "bytes": f"{row['bytes']:,}", "units": row["units"]}
    return {"row": row["layer"], "column": row["column"], "value": row["share"], "text": f"{row['share']:.1f}", **named}


def _error_cell(row: Row) -> dict[str, object]:
    sqnr = row["sqnr"]
    finite = sqnr is not None and isfinite(sqnr)
    text = f"{sqnr:.0f}" if finite else "" if sqnr is None else "exact" if sqnr > 0 else "NaN"
    return {"row": row["layer"], "column": row["column"], "value": sqnr if finite else None, "text": text}


def roofline_chart(evidence: Evidence) -> alt.ConcatChart:
    """Return the operations that multiply under what MAC array and memory allow, for those that `costs_chart` shows."""
    chosen = representatives(evidence.accuracies, evidence.costs)
    panels: list[alt.LayerChart] = []
    for case in evidence.cases:
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
    return arrange(panels, min(_COLUMNS, max(where(chosen, CASE, case).shape[0] for case in evidence.cases)))


def _peak(run: Row) -> int:
    peak: int = run[f"peak_{run['precision']}"]
    return peak


def _roof_points(evidence: Evidence, run: Row) -> Iterator[dict[str, object]]:
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
    x = alt.X(
        "intensity:Q", scale=alt.Scale(type="log", domain=list(wide), nice=False), title="multiplications for a byte"
    )
    y = alt.Y("rate:Q", scale=alt.Scale(type="log", domain=list(high), nice=False), title="multiplications a cycle")
    colours = alt.Scale(domain=list(BOUNDS), range=list(PALETTE[: len(BOUNDS)]))
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("layers", "bound", "cycles", "bytes")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".3g") for name in ("intensity", "rate")]
    layers = [
        alt.Chart(lines_of(roof)).mark_line(color=INK, strokeWidth=1.2, clip=True).encode(x=x, y=y),
        alt.Chart(lines_of([{"rate": peak, "text": f"{peak:,}"}]))
        .mark_text(color="#666666", align="right", baseline="bottom", dy=-2, fontSize=10)
        .encode(x=alt.value(_SIZE), y=y, text="text:N"),
    ]
    if points:
        base = alt.Chart(lines_of(points)).mark_point(filled=True, size=40, opacity=1)
        bound = alt.Color("bound:N", title="cycles spent on", scale=colours)
        layers.append(base.encode(x=x, y=y, color=bound, tooltip=tooltip))
    title = alt.TitleParams(
        f"{run['model']} on {run['dataset']}, {_column(run)}", subtitle=[run["variant"], setting(run)]
    )
    return alt.layer(*layers).properties(title=title, width=_SIZE, height=_SIZE)
