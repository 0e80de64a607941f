"""The report as one HTML file that opens offline: it holds its scripts, and forbids itself every request."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from nvdla_quant.jobs.files import write_text
from nvdla_quant.report.charts.accuracy import accuracy_chart
from nvdla_quant.report.charts.figures import classes_chart, images_chart, layers_chart, scales_chart, times_chart
from nvdla_quant.report.charts.time import costs_chart, roofline_chart, time_chart
from nvdla_quant.report.costs import layer_times, representatives
from nvdla_quant.report.evidence import Evidence, layer_costs
from nvdla_quant.report.fidelity.chart import fidelity_chart
from nvdla_quant.report.fidelity.tables import numbers_sheet, outputs_sheet
from nvdla_quant.report.fidelity.tables import pairs_sheet as fidelity_pairs_sheet
from nvdla_quant.report.fidelity.tables import seeds_sheet as fidelity_seeds_sheet
from nvdla_quant.report.fidelity.tables import time_sheet as fidelity_time_sheet
from nvdla_quant.report.frames import CASE, RUN, Row, records, where
from nvdla_quant.report.recommendation.answers import glances, recommend
from nvdla_quant.report.recommendation.record import Recommendation
from nvdla_quant.report.rows import UNKNOWN, reasons
from nvdla_quant.report.tables import KINDS, Sheet, pairs_sheet, seeds_sheet, sheet, summary_sheet, time_sheet
from nvdla_quant.report.times import JOB_SECONDS, shards_for
from nvdla_quant.report.words import number
from nvdla_quant.report.writers import to_html

_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
"""Content security policy: no file and no address but this page."""
_STYLE = """
body { font: 15px/1.45 "Liberation Sans", Arial, Helvetica, sans-serif; color: #222; margin: 0 auto; max-width: 1180px;
  padding: 1rem 1.5rem 4rem; }
h1 { font-size: 1.5rem; margin: .2rem 0 .6rem; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem;
  border-bottom: 1px solid #ccc; padding-bottom: .2rem; } h3 { font-size: 1.05rem; margin: 1.4rem 0 .3rem; }
nav { font-size: .85rem; margin: .4rem 0 1rem; } nav a { margin-right: .9rem; display: inline-block; }
.answer { border-left: 5px solid #0072b2; background: #f2f7fb; padding: .6rem 1rem; margin: .7rem 0;
  break-inside: avoid; }
.answer.none { border-color: #b2182b; background: #fbf2f2; } .answer h3 { margin: 0; font-size: .95rem; color: #555; }
.answer .use { font-size: 1.15rem; font-weight: bold; margin: .2rem 0 .4rem; } .answer li { margin: .25rem 0; }
.sheet { overflow: auto; max-height: 85vh; margin: .8rem 0 .2rem; }
table { border-collapse: collapse; font-size: .82rem; }
caption { text-align: left; font-weight: bold; padding: .2rem 0; }
th { white-space: normal; text-align: left; vertical-align: bottom; position: sticky; top: 0; background: #fff;
  box-shadow: inset 0 2px #333, inset 0 -1px #333; }
th, td { padding: .16rem .55rem .16rem 0; } td { white-space: nowrap; vertical-align: top; }
.text td { white-space: normal; }
.names-1 :is(th, td):nth-child(n+2), .names-2 :is(th, td):nth-child(n+3), .names-3 :is(th, td):nth-child(n+4),
.names-5 :is(th, td):nth-child(n+6) { text-align: right; }
tbody tr:last-child td { border-bottom: 2px solid #333; } tbody tr:hover { background: #f4f4f4; }
.note { font-size: .8rem; color: #555; margin: .15rem 0; max-width: 70rem; }
.chart { overflow-x: auto; margin: .6rem 0; }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto; font-size: .78rem; white-space: pre-wrap; }
details { margin: .4rem 0; } summary { cursor: pointer; } .bad { color: #b2182b; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav, .vega-embed summary { display: none; }
  .sheet, .chart { overflow: visible; max-height: none; } table { font-size: 6.2pt; } th, td { padding-right: .3rem; }
  .chart svg { max-width: 100%; height: auto; } h2, h3, caption { break-after: avoid; }
  tr { break-inside: avoid; } }
"""
_GLOBALS = "window.vegaEmbed = vegaEmbed;"
"""What the page takes out of the bundle of Vega, Vega-Lite and vega-embed."""
_DRAW = """
const charts = [...document.querySelectorAll(".chart")];
const draw = place => vegaEmbed(place, JSON.parse(place.nextElementSibling.textContent),
  {renderer: "svg", actions: {export: true, source: false, compiled: false, editor: false}})
  .then(() => { place.dataset.drawn = "yes"; })
  .catch(error => { place.textContent = "This plot could not be drawn: " + error; place.dataset.drawn = "no"; });
Promise.all(charts.map(draw)).then(() => {
  document.body.dataset.drawn = charts.filter(place => place.dataset.drawn === "yes").length;
});
"""
_COSTLY = 3
"""Layers that are listed for each variant: those that cost most."""
_CONFUSIONS = 25
"""Changes of the confusion matrix that are listed for each case."""


def write_page(
    path: Path | str,
    evidence: Evidence,
    keep: float,
    times: Sequence[Row],
    kernels: Mapping[str, int],
    manifest: Mapping[str, Any],
) -> None:
    """Write the report.

    Parameters
    ----------
    path : Path or str
        Where it goes.
    evidence : Evidence
        With scales, layers and verdicts where there are any.
    keep : float
        How much of fp32's accuracy the user wants kept, in percent.
    times : sequence of Row
        From `times.read_times`.
    kernels : Mapping
        From `times.read_kernels`.
    manifest : Mapping
        What ``manifest.json`` holds.
    """
    write_text(path, render_page(evidence, keep, times, kernels, manifest))


def render_page(
    evidence: Evidence, keep: float, times: Sequence[Row], kernels: Mapping[str, int], manifest: Mapping[str, Any]
) -> str:
    """Return the report as HTML; see `write_page`."""
    charts = _Charts()
    sections = [
        *([("accuracy", "Accuracy", _accuracy(evidence, charts))] if evidence.cases else []),
        *([("fidelity", "Outputs beside fp32", _fidelity(evidence, charts))] if evidence.measured else []),
        ("time", "Time", _time(evidence, keep, charts)),
        ("modes", "Modes and variants in pairs", _pairs(evidence)),
        ("images", "Calibration images and seeds", _images(evidence, charts)),
        ("layers", "Layers", _layers(evidence, charts)),
        ("scales", "Scales of the calibrators", _note(_SCALES) + charts.add(scales_chart(evidence))),
        *([("classes", "Classes and confusions", _classes(evidence, charts))] if evidence.cases else []),
        ("wrong", "Wrong outputs", _wrong(evidence)),
        ("times", "Run times of the jobs", _times(times, kernels, charts, manifest["config"]["shards"])),
        ("environment", "Environment", _environment(manifest)),
        ("reproduce", "Reproduce", _reproduce(manifest)),
    ]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    body = "".join(f'<section><h2 id="{key}">{title}</h2>{content}</section>' for key, title, content in sections)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width"><title>nvdla-quant report</title>'
        f"<style>{_STYLE}</style><script>{_library()}</script></head><body>"
        f"<h1>Which quantization mode to use, and why</h1><nav>{links}</nav>{_answers(recommend(evidence, keep))}{body}"
        f"<script>{_DRAW}</script></body></html>\n"
    )


@cache
def _library() -> str:
    """Return the library that draws the plots, which takes two seconds to make and is the same on every page."""
    bundle: str = vl_convert.javascript_bundle(_GLOBALS)
    return bundle


_SCALES = (
    "The ratio of each calibrator's scale of a tensor to that of the first calibrator of the case, from "
    "table.raw.json. A scale that is larger clips less and rounds more coarsely."
)
_LAYERS = (
    "Every loadable was run on a few test images, and each tensor that it writes was compared with fp32 on the same "
    "images. SQNR is signal over noise in dB: 6 dB are one bit. A layer's cost is the noise over signal that it adds "
    "to that of the step before (10 to the power of -SQNR / 10); in a network with branches the step before is not "
    "always its input."
)
_OUTPUTS = (
    "Every output of every variant beside fp32's on the same images, without labels. SQNR is signal over noise in dB, "
    "over all images; 20 dB are 1 % of noise, 6 dB one bit."
)
_TIME = (
    "How long an image takes on the hardware, estimated from the loadable for the memory and clock of the "
    "configuration (docs/timing.md): nothing was run for it. Operations overlap, so that the cycles of all layers may "
    "be more than those of the network. What the processor computes itself (Softmax) counts with `cpu_cycles` of the "
    "configuration, by default 0."
)
_BY_LAYER = (
    "Where the time goes beside where the accuracy goes, for the fastest variant of each precision on each target. A "
    "row has the name of the tensor that its operations make; a layer that runs within another's stands there."
)
_ROOF = (
    "Every operation that multiplies, of the fastest variant of each precision, under what the MAC array and the "
    "memory allow. Bytes are those of the way that takes longer, reading or writing. Operations below the roof whose "
    "time goes to MACs do not fill the array: they have fewer channels or kernels than it takes at a time, or so few "
    "pixels that it waits for its next weights."
)
_UNVERIFIED = (
    "Nobody could say whether these loadables compute their networks, which does not make them wrong: their accuracy "
    "was measured as that of all others, and stands."
)
_CLASSES = (
    "Beside fp32 on the same images, as expected numbers of images where classes tie. Positive: the variant has more "
    "of them right."
)


class _Charts:
    """Plots in the order of the page, each with its specification beside it."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, chart: alt.ConcatChart) -> str:
        """Return the place of a plot."""
        self.count += 1
        # "<" could end the script element. Not held to the grammar, see `write_chart`.
        text = json.dumps(chart.to_dict(validate=False), allow_nan=False).replace("<", "\\u003c")
        return f'<div class="chart" id="chart-{self.count}"></div><script type="application/json">{text}</script>'


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _answers(answers: Iterable[Recommendation]) -> str:
    """Return the first screen: the answers in a line each, then why."""
    answers = list(answers)
    parts = [to_html(one, caption=False) for one in glances(answers)]
    for one in answers:
        reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in (*one.times, *one.reasons))
        place = f"{' on '.join(one.case)}; {', '.join(one.targets)}"
        parts.append(
            f'<div class="answer{"" if one.choice else " none"}"><h3>{html.escape(place)}</h3>'
            f'<p class="use">{html.escape(one.headline)}</p><ul>{reasons}</ul></div>'
        )
    return "".join(parts)


def _accuracy(evidence: Evidence, charts: _Charts) -> str:
    parts = []
    for case in evidence.cases:
        accuracies = where(evidence.accuracies, CASE, case)
        parts += [charts.add(accuracy_chart(accuracies)), to_html(summary_sheet(evidence, case))]
    return "".join(parts)


def _fidelity(evidence: Evidence, charts: _Charts) -> str:
    parts = [_note(_OUTPUTS), charts.add(fidelity_chart(evidence))]
    for case in evidence.measured:
        sheets = outputs_sheet(evidence, case), numbers_sheet(evidence, case)
        parts += [to_html(one) for one in sheets if len(one.cells)]
    return "".join(parts)


def _time(evidence: Evidence, keep: float, charts: _Charts) -> str:
    parts = [_note(_TIME), charts.add(time_chart(evidence, keep))]
    parts += [to_html(one) for one in _time_sheets(evidence) if len(one.cells)]
    parts += [_note(_BY_LAYER), charts.add(costs_chart(evidence)), _note(_ROOF), charts.add(roofline_chart(evidence))]
    chosen = records(representatives(evidence.runs, evidence.costs))
    longest = [(run, row) for run in chosen for row in _longest(evidence, run)]
    head = (
        *("model", "data set", "target", "variant", "layer", "share", "cycles", "bound", "bytes", "units"),
        "SQNR dB",
    )
    if longest:
        lines = (_timed(run, row) for run, row in longest)
        table = to_html(sheet("Layers that take most, for the fastest of each precision", head, 5, lines))
        parts.append(f"<details><summary>Layers that take most</summary>{table}</details>")
    if len(lost := evidence.costs.dropna(subset=["error"])):
        cells = _headed(lost[[*RUN, "error"]], ("model", "data set", "target", "variant", "why"))
        parts.append(to_html(Sheet("What could not be estimated", cells, 5)))
    reasons = evidence.costs.dropna(subset=["reasons"]).drop_duplicates(["target", "reasons"])
    said = {f"{row['target']}: {row['reasons']}" for row in records(reasons)}
    parts += [_note(f"Extrapolated: {text}.") for text in sorted(said)]
    return "".join(parts)


def _time_sheets(evidence: Evidence) -> list[Sheet]:
    labelled = [time_sheet(evidence, case) for case in evidence.cases]
    return labelled + [fidelity_time_sheet(evidence, case) for case in evidence.measured]


def _longest(evidence: Evidence, run: Row) -> Sequence[Row]:
    key = [run[name] for name in RUN]
    layers = layer_times(where(evidence.operations, RUN, key), where(evidence.layers, RUN, key))
    return records(layers.nlargest(_COSTLY, "cycles"))


def _timed(run: Row, row: Row) -> tuple[str, ...]:
    """Return the cells of a layer that takes long."""
    cells = (f"{row['share']:.1f} %", f"{row['cycles']:,}", row["bound"], f"{row['bytes']:,}", row["units"])
    return (*(run[name] for name in RUN), row["layer"], *cells, number(row["sqnr"]))


def _pairs(evidence: Evidence) -> str:
    sheets = [pairs_sheet(evidence, case, kind) for case in evidence.cases for kind in KINDS]
    sheets += [fidelity_pairs_sheet(evidence, case, kind) for case in evidence.measured for kind in ("fp32", *KINDS)]
    return "".join(to_html(one) for one in sheets if len(one.cells)) or _note("There is one variant: nothing to pair.")


def _images(evidence: Evidence, charts: _Charts) -> str:
    sheets = [seeds_sheet(evidence, case) for case in evidence.cases]
    sheets += [fidelity_seeds_sheet(evidence, case) for case in evidence.measured]
    sheets = [one for one in sheets if len(one.cells)]
    return charts.add(images_chart(evidence)) + (
        "".join(map(to_html, sheets)) or _note("Every calibrator has one seed: nothing is known of their spread.")
    )


def _layers(evidence: Evidence, charts: _Charts) -> str:
    layers = evidence.layers.assign(cost=layer_costs(evidence.layers))
    layers["run"] = layers.groupby(list(RUN), sort=False).ngroup()
    costly = layers[layers["cost"] > 0].sort_values("cost", ascending=False, kind="stable")
    costly = costly.groupby("run").head(_COSTLY).sort_values("run", kind="stable")
    head = (
        *("model", "data set", "target", "variant", "layer", "cost", "SQNR dB", "cosine"),
        *("SQNR to simulated", "saturated", "zeros", "scale"),
    )
    table = to_html(sheet("Layers that cost most, for each variant", head, 5, map(_layer, records(costly))))
    folded = f"<details><summary>Layers that cost most</summary>{table}</details>" if len(costly) else ""
    return _note(_LAYERS) + charts.add(layers_chart(evidence)) + folded


def _layer(layer: Row) -> tuple[str, ...]:
    """Return the cells of a layer that costs much."""
    values = max(layer["values"], 1)
    cells = (f"{layer['cost']:.2e}", number(layer["sqnr_fp32"]), f"{layer['cosine_fp32']:.4f}")
    shares = (f"{layer['saturated'] / values:.2%}", f"{layer['zeros'] / values:.1%}", f"{layer['scale']:.5g}")
    return (*(layer[name] for name in RUN), layer["layer"], *cells, number(layer["sqnr_simulated"]), *shares)


def _classes(evidence: Evidence, charts: _Charts) -> str:
    parts = [_note(_CLASSES), charts.add(classes_chart(evidence))]
    for case in evidence.cases:
        here = evidence.of(case)
        pairs = where(here.comparisons, ["kind"], ["fp32"])
        keys = [*RUN, "kind", "baseline"]
        changed = here.confusions.merge(pairs.dropna(subset=["score_step"])[[*keys, "n"]], on=keys)
        changed["change"] = changed["after"] - changed["before"]
        most = changed.sort_values("change", key=lambda size: -size.abs(), kind="stable").head(_CONFUSIONS)
        head = ("target", "variant", "label", "classified as", "fp32", "variant's", "change", "n")
        if len(most):
            note = (
                f"The {len(most)} largest changes of {pairs['changed_confusions'].sum()}; images, with ties by parts."
            )
            lines = map(_confusion, records(most))
            parts.append(to_html(sheet(f"{' on '.join(case)}: confusion changes", head, 2, lines, (note,))))
    return "".join(parts)


def _confusion(row: Row) -> tuple[str, ...]:
    counts = (number(row["before"]), number(row["after"]), number(row["change"], sign=True))
    return (row["target"], row["variant"], str(row["label"]), str(row["predicted"]), *counts, str(row["n"]))


def _wrong(evidence: Evidence) -> str:
    """Return what is wrong, why, and where it begins; and what was looked at."""
    broken = evidence.runs.dropna(subset=["error"]).drop(columns="verdict")
    broken = broken.rename(columns={"error": "why"}).assign(verdict="output", layer="")
    verdicts = evidence.verdicts.assign(why=reasons(evidence.verdicts))
    doubtful = verdicts[verdicts["verdict"] == UNKNOWN]
    columns = [*RUN, "verdict", "why", "layer"]
    wrong = pd.concat([broken[columns], verdicts[~verdicts["verdict"].isin(["ok", UNKNOWN])][columns]]).fillna("")
    names = ("model", "data set", "target", "variant")
    parts = []
    if len(wrong):
        head = (*names, "verdict", "why", "first bad layer")
        parts.append(to_html(Sheet("What is wrong", _headed(wrong, head), len(head))))
    else:
        verdict = "no verdict says wrong" if len(doubtful) else "every verdict is ok"
        parts.append(_note(f"None: no output is constant, flat, zero or NaN, and {verdict}."))
    if len(doubtful):
        cells = _headed(doubtful[[*RUN, "why"]].fillna(""), (*names, "why"))
        parts.append(to_html(Sheet("What is not verified", cells, 5, (_UNVERIFIED,))))
    images = ", ".join(map(str, sorted(verdicts["images"].unique()))) or "no"
    checked = f"{len(verdicts)} loadables were compared with their networks layer by layer, on {images} images each."
    return "".join(parts) + _note(checked)


def _headed(frame: pd.DataFrame, head: Sequence[str]) -> pd.DataFrame:
    """Return `frame` under the headings that are printed; a sheet has its lines once each."""
    return frame.reset_index(drop=True).set_axis(list(head), axis="columns")


def _times(times: Sequence[Row], kernels: Mapping[str, int], charts: _Charts, shards: int) -> str:
    lines = tuple(
        (str(row["rule"]), str(row["jobs"]), f"{row['seconds']:.1f}", f"{row['longest']:.1f}", str(row["memory"]))
        for row in times
    )
    head = ("rule", "jobs", "seconds together", "longest", "most MiB")
    notes = ["From Snakemake's benchmark files of the jobs that made these results; jobs ran beside each other."]
    if kernels:
        counts = ", ".join(f"{name} in {jobs} jobs" for name, jobs in sorted(kernels.items()))
        notes.append(f"The emulator computed int8 convolutions by {counts}; results do not depend on it.")
    if (enough := shards_for(times, shards)) is not None:
        notes.append(
            f"Made with shards: {shards}. With shards: {enough}, the longest job that runs a loadable takes "
            f"{JOB_SECONDS // 60} minutes or less; k times the test images want k times the shards."
        )
    return charts.add(times_chart(times)) + to_html(sheet("Jobs", head, 1, lines, tuple(notes)), caption=False)


def _environment(manifest: Mapping[str, Any]) -> str:
    software = manifest["software"]
    git = software["nvdla_quant"]["git"]
    state = "not in a git checkout" if git is None else git["commit"] + (", with changes" if git["dirty"] else "")
    lines = [
        ("nvdla-quant", f"source {software['nvdla_quant']['source']}; {state}"),
        ("Python", software["python"]),
        ("system", f"{software['system']} on {software['machine']}; SIMD: {' '.join(software['simd'])}"),
        *((name, str(version or "not installed")) for name, version in software["distributions"].items()),
    ]
    return to_html(sheet("Versions", ("what", "version"), 2, lines), caption=False)


def _reproduce(manifest: Mapping[str, Any]) -> str:
    command = html.escape(manifest["command"])
    dependent = sum(1 for entry in manifest["artefacts"].values() if entry.get("processor_dependent"))
    text = (
        "At the commit above, with the inputs below, the same command gives the same bytes, on any number of cores. "
        f"{dependent} of {len(manifest['artefacts'])} artefacts follow from fp32 sums, whose last bits may differ on "
        "another class of processor; nvdla-quant compare-manifests lists those that differ between two runs, and why."
    )
    config = html.escape(json.dumps(manifest["config"], indent=1, ensure_ascii=False))
    parts = [f"<pre>{command}</pre>", _note(text)]
    parts.append(f"<details><summary>Configuration after defaults</summary><pre>{config}</pre></details>")
    for key in ("inputs", "artefacts"):
        lines = tuple(
            (
                name,
                "processor" if entry.get("processor_dependent") else "",
                str(entry.get("bytes", "")),
                entry["sha256"],
            )
            for name, entry in manifest[key].items()
        )
        table = to_html(sheet(key, (key, "depends on", "bytes", "SHA-256"), 2, lines), caption=False)
        parts.append(f"<details><summary>Digests of {len(lines)} {key}</summary>{table}</details>")
    return "".join(parts)
