"""The other figures: calibration images, layers, scales, classes, run times.

Heat maps carry their numbers where they fit, since a colour alone cannot be read off; hovering shows the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite, log2
from typing import Any

import altair as alt
import pandas as pd

from nvdla_quant.report.charts.accuracy import accuracy_chart
from nvdla_quant.report.charts.heat import ends, heat_map
from nvdla_quant.report.charts.style import INK, PALETTE, arrange, lines_of, nothing, signed
from nvdla_quant.report.charts.time import costs_chart, roofline_chart, time_chart
from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.frames import CASE, GROUP, PLACE, RUN, Row, alike, records, where

_WIDTH = 420
_CLASSES = 30
"""Classes that are drawn at most: those that change most."""


def images_chart(evidence: Evidence) -> alt.ConcatChart:
    """Return accuracy against the number of calibration images: every seed, their mean and their range."""
    groups = evidence.groups.dropna(subset=["images", "top1_mean"])
    swept = groups.groupby([*PLACE, "series"], sort=False)["images"].transform("nunique") > 1
    members = evidence.accuracies[[*GROUP, "variant", "top1"]]
    # A line for each seed, with the figures of its group beside it.
    seeds = groups[swept].drop(columns=["variant", "top1"]).merge(members, on=list(GROUP))
    panels = [
        _images_panel(evidence, (str(model), str(dataset)), targets, lines)
        for (model, dataset), found in seeds.groupby(list(CASE), sort=False)
        for targets, lines in alike(found, ["series", "images", "variant", "top1"])
    ]
    if not panels:
        return nothing("No calibrator has several numbers of images: there is nothing to plot against.")
    return arrange(panels, 1, shared_colours=False)


def _images_panel(
    evidence: Evidence, case: tuple[str, str], targets: Sequence[str], seeds: pd.DataFrame
) -> alt.LayerChart:
    """Return the lines of one case and of targets that have the same numbers."""
    groups = seeds.drop_duplicates(["group", "images"])
    place = ["images", "series", "seeds"]
    spread = {"top1_mean": "top1", "top1_sd": "sd", "top1_min": "low", "top1_max": "high"}
    means = groups[[*place, *spread]].rename(columns=spread)
    series = groups["series"].unique().tolist()
    x = alt.X("images:O", sort="ascending", title="calibration images", axis=alt.Axis(labelAngle=0, grid=False))
    y = alt.Y("top1:Q", scale=alt.Scale(zero=False), title="top-1 accuracy (%)")
    colour = alt.Color(
        "series:N",
        title=None,
        scale=alt.Scale(domain=series, range=[PALETTE[i % 8] for i in range(len(series))]),
        legend=alt.Legend(columns=2, columnPadding=24),
    )
    apart = alt.XOffset("series:N", sort=series)
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("series", "images", "top1")]
    mean, every = (
        alt.Chart(lines_of(records(frame))).encode(x=x, color=colour, xOffset=apart)
        for frame in (means, seeds[[*place, "top1", "variant"]])
    )
    layers = [
        every.mark_tick(thickness=2, size=12, orient="horizontal", opacity=1).encode(
            y=y, tooltip=[*tooltip, alt.Tooltip("variant:N")]
        ),
        mean.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", scale=alt.Scale(zero=False)), y2="high:Q"),
        mean.mark_point(filled=True, size=60, opacity=1).encode(
            y=y, tooltip=[*tooltip, alt.Tooltip("sd:N"), alt.Tooltip("seeds:N")]
        ),
    ]
    reference = evidence.reference(case)
    counts = sorted(groups["seeds"].unique())
    shown = f"{groups['n'].iloc[0]} test images; seeds: {', '.join(map(str, counts))}"
    if reference is not None and reference["top1"] is not None:
        line = alt.Chart(lines_of([{"top1": reference["top1"]}]))
        layers.append(line.mark_rule(color=INK, strokeDash=[4, 3]).encode(y="top1:Q"))
        shown += f"; dashed: fp32, {reference['top1']:.2f} %"
    title = alt.TitleParams(
        f"{' on '.join(case)}, {', '.join(targets)}",
        subtitle=[
            shown,
            "ticks: seeds; points: their means; the axis does not start at 0",
        ],
    )
    return alt.layer(*layers).properties(title=title, width=max(_WIDTH, 100 * groups["images"].nunique()), height=260)


def layers_chart(evidence: Evidence) -> alt.ConcatChart:
    """Return the signal-to-noise ratio of every layer of every variant beside fp32, on the same images."""
    panels = []
    for (model, dataset), layers in evidence.layers.groupby(list(CASE), sort=False):
        for names, lines in alike(layers, ["variant", "layer", "sqnr_fp32"]):
            cells = [_layer_cell(row) for row in records(lines)]
            images = where(evidence.verdicts, PLACE, (model, dataset, names[0]))["images"].iloc[0]
            subtitle = [
                f"dB, beside fp32 on the same {images} images; darker is worse",
                "layers in the order of execution",
            ]
            scale = alt.Scale(scheme="blues", reverse=True, domain=[0, 60], clamp=True)
            panels.append(
                heat_map(
                    f"{model} on {dataset}, {', '.join(names)}: SQNR", subtitle, cells, scale, dark="datum.value < 25"
                )
            )
    if not panels:
        why = "no loadable could be verified" if len(evidence.verdicts) else "`verify.images` is 0"
        return nothing(f"No layer was measured: {why}.")
    return arrange(panels, 1, shared_colours=False)


def _layer_cell(row: Row) -> dict[str, Any]:
    """Return one tensor as a cell of the heat map; where its SQNR is no number, an output is not either."""
    sqnr, values = row["sqnr_fp32"], max(row["values"], 1)
    finite = sqnr is not None and isfinite(sqnr)
    return {
        "row": f"{row['step']} {row['layer']}",
        "column": row["variant"],
        "value": sqnr if finite else None,
        "text": f"{sqnr:.0f}" if finite else "exact" if sqnr is not None and sqnr > 0 else "NaN",
        "cosine": _shown(row["cosine_fp32"]),
        "saturated %": round(100 * row["saturated"] / values, 3),
        "zeros %": round(100 * row["zeros"] / values, 2),
        "scale": row["scale"],
        "sqnr simulated": _shown(row["sqnr_simulated"]),
        "causes": row["causes"] or "",
    }


def scales_chart(evidence: Evidence) -> alt.ConcatChart:
    """Return each calibrator's scales beside those of the first calibrator of its case."""
    panels = []
    for case, ratios in evidence.scales.groupby(list(CASE), sort=False):
        cells = [
            {
                "row": one["tensor"],
                "column": one["calibrator"],
                "value": log2(one["ratio"]),
                "text": f"{one['ratio']:.2f}",
                "least": one["low"],
                "largest": one["high"],
            }
            for one in records(ratios)
        ]
        largest = max(0.1, *(abs(cell["value"]) for cell in cells))
        scale = alt.Scale(scheme="purpleorange", domain=[-largest, largest], domainMid=0)
        subtitle = [
            f"ratio to {ratios['baseline'].iloc[0]}; 1 is agreement, above 1 clips less",
            "seeds: geometric mean",
        ]
        panels.append(
            heat_map(f"{' on '.join(case)}: scales of the raw tables", subtitle, cells, scale, dark=ends(largest))
        )
    if not panels:
        return nothing("There is one calibrator: no scales to compare.")
    return arrange(panels, 1, shared_colours=False)


def classes_chart(evidence: Evidence) -> alt.ConcatChart:
    """Return by how many images the hits of each class change beside fp32."""
    panels = []
    for case in evidence.cases:
        here = evidence.of(case)
        detailed = where(here.comparisons, ["kind"], ["fp32"]).dropna(subset=["score_step"])
        # A variant without any change has one line and no class: it is not like one that was not run.
        found = detailed[list(RUN)].merge(where(here.classes, ["kind"], ["fp32"]), how="left", on=list(RUN))
        found["change"] = found["after"] - found["before"]
        sizes = found.groupby("label", sort=False)["change"].agg(lambda change: change.abs().max())
        shown = sizes.sort_values(ascending=False, kind="stable").index[:_CLASSES]
        if not len(shown):
            continue
        largest = max(1.0, sizes.max())
        for names, lines in alike(found, ["variant", "label", "change", "n"]):
            cells = [
                {
                    "row": row["variant"],
                    "column": str(row["label"]),
                    "value": row["change"],
                    "text": signed(row["change"], 1).removesuffix(".0"),
                    "images of the class": row["n"],
                }
                for row in records(lines[lines["label"].isin(shown)])
            ]
            scale = alt.Scale(scheme="purpleorange", reverse=True, domain=[-largest, largest], domainMid=0)
            subtitle = ["images that the variant has right more than fp32, with ties by parts; empty: no change"]
            if len(sizes) > len(shown):
                subtitle.append(f"the {len(shown)} classes that change most, of {len(sizes)} that change")
            if cells:
                panels.append(
                    heat_map(
                        f"{' on '.join(case)}, {', '.join(names)}: hits by class",
                        subtitle,
                        cells,
                        scale,
                        dark=ends(largest),
                        numeric=True,
                    )
                )
    if not evidence.cases:
        return nothing("No case is measured by labels: there are no classes.")
    if not panels:
        return nothing("No class changed: every variant has the same images of each class right as fp32.")
    return arrange(panels, 1, shared_colours=False)


def times_chart(times: Sequence[Row]) -> alt.ConcatChart:
    """Return the seconds of all jobs of each rule."""
    if not times:
        return nothing("No run times: the folder of benchmark files is empty.")
    base = alt.Chart(lines_of([{**row, "text": f"{row['seconds']:.1f} s"} for row in times]))
    y = alt.Y("rule:N", sort=[str(row["rule"]) for row in times], axis=alt.Axis(title=None, ticks=False, domain=False))
    x = alt.X("seconds:Q", title="seconds of all jobs together")
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("rule", "jobs", "seconds", "longest", "memory")]
    chart = alt.layer(
        base.mark_bar(color=PALETTE[0], height={"band": 0.7}).encode(x=x, y=y, tooltip=tooltip),
        base.mark_text(color=INK, align="left", dx=4).encode(x=x, y=y, text="text:N"),
    )
    return arrange([chart.properties(width=_WIDTH, height=alt.Step(20))], 1)


def _shown(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: one that is not finite as text."""
    return value if value is None or isfinite(value) else str(value)


def _accuracy(evidence: Evidence) -> alt.ConcatChart:
    """Return the accuracy of every variant."""
    if not evidence.cases:
        return nothing("No case is measured by labels; see the outputs beside fp32.")
    return accuracy_chart(evidence.accuracies)


def figures(keep: float) -> Mapping[str, Callable[[Evidence], alt.ConcatChart]]:
    """Return what is drawn of a sweep, by the name of its files; run times are only on the page: they are no artefact.

    Parameters
    ----------
    keep : float
        How much of fp32's accuracy the user wants kept, in percent.
    """
    return {
        "accuracy": _accuracy,
        "time": partial(time_chart, keep=keep),
        "costs": costs_chart,
        "roofline": roofline_chart,
        "images": images_chart,
        "layers": layers_chart,
        "scales": scales_chart,
        "classes": classes_chart,
    }
