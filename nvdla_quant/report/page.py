"""The report as one HTML file that opens offline: it holds its scripts, and forbids itself every request."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from nvdla_quant.evaluation.comparison import Comparison
from nvdla_quant.jobs.files import write_text
from nvdla_quant.report.evidence import Evidence, LayerError, layer_costs
from nvdla_quant.report.figures import classes_chart, images_chart, layers_chart, scales_chart, times_chart
from nvdla_quant.report.plots import accuracy_chart
from nvdla_quant.report.recommendation import Recommendation, glance, recommend
from nvdla_quant.report.sheets import Sheet, number, pairs_sheet, seeds_sheet, summary_sheet, to_html
from nvdla_quant.report.tables import Row

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
.text td { white-space: normal; } .n { text-align: right; }
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


def write_page(path: Path | str, evidence: Evidence, times: Sequence[Row], manifest: Mapping[str, Any]) -> None:
    """Write the report.

    Parameters
    ----------
    path : Path or str
        Where it goes.
    evidence : Evidence
        With scales, layers and verdicts where there are any.
    times : sequence of Row
        From `times.read_times`.
    manifest : Mapping
        What ``manifest.json`` holds.
    """
    write_text(path, render_page(evidence, times, manifest))


def render_page(evidence: Evidence, times: Sequence[Row], manifest: Mapping[str, Any]) -> str:
    """Return the report as HTML; see `write_page`."""
    charts = _Charts()
    sections = [
        ("accuracy", "Accuracy", _accuracy(evidence, charts)),
        ("modes", "Modes and variants in pairs", _pairs(evidence)),
        ("images", "Calibration images and seeds", _images(evidence, charts)),
        ("layers", "Layers", _layers(evidence, charts)),
        ("scales", "Scales of the calibrators", _note(_SCALES) + charts.add(scales_chart(evidence))),
        ("classes", "Classes and confusions", _classes(evidence, charts)),
        ("wrong", "Wrong outputs", _wrong(evidence)),
        ("times", "Run times", _times(times, charts)),
        ("environment", "Environment", _environment(manifest)),
        ("reproduce", "Reproduce", _reproduce(manifest)),
    ]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    body = "".join(f'<section><h2 id="{key}">{title}</h2>{content}</section>' for key, title, content in sections)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width"><title>nvdla-quant report</title>'
        f"<style>{_STYLE}</style><script>{vl_convert.javascript_bundle(_GLOBALS)}</script></head><body>"
        f"<h1>Which quantization mode to use, and why</h1><nav>{links}</nav>{_answers(recommend(evidence))}{body}"
        f"<script>{_DRAW}</script></body></html>\n"
    )


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
        # "<" could end the script element.
        text = json.dumps(chart.to_dict(), allow_nan=False).replace("<", "\\u003c")
        return f'<div class="chart" id="chart-{self.count}"></div><script type="application/json">{text}</script>'


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _answers(answers: Iterable[Recommendation]) -> str:
    """Return the first screen: the answers in a line each, then why."""
    answers = list(answers)
    parts = [to_html(glance(answers), caption=False)]
    for one in answers:
        reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in one.reasons)
        place = f"{' on '.join(one.case)}; {', '.join(one.targets)}"
        parts.append(
            f'<div class="answer{"" if one.choice else " none"}"><h3>{html.escape(place)}</h3>'
            f'<p class="use">{html.escape(one.headline)}</p><ul>{reasons}</ul></div>'
        )
    return "".join(parts)


def _accuracy(evidence: Evidence, charts: _Charts) -> str:
    parts = []
    for case in evidence.cases:
        rows = [row for row in evidence.rows if (row["model"], row["dataset"]) == case]
        parts += [charts.add(accuracy_chart(rows)), to_html(summary_sheet(evidence, case))]
    return "".join(parts)


def _pairs(evidence: Evidence) -> str:
    sheets = [pairs_sheet(evidence, case, kind) for case in evidence.cases for kind in ("mode", "best")]
    return "".join(to_html(sheet) for sheet in sheets if sheet.lines) or _note("There is one variant: nothing to pair.")


def _images(evidence: Evidence, charts: _Charts) -> str:
    sheets = [sheet for case in evidence.cases if (sheet := seeds_sheet(evidence, case)).lines]
    return charts.add(images_chart(evidence)) + (
        "".join(map(to_html, sheets)) or _note("Every calibrator has one seed: nothing is known of their spread.")
    )


def _layers(evidence: Evidence, charts: _Charts) -> str:
    runs: dict[Any, list[LayerError]] = {}
    for layer in evidence.layers:
        runs.setdefault(layer.run, []).append(layer)
    lines = []
    for run, layers in runs.items():
        costs = layer_costs(layers)
        worst = sorted((i for i, cost in enumerate(costs) if cost > 0), key=lambda i: -costs[i])[:_COSTLY]
        for i in worst:
            one = layers[i]
            cells = (f"{costs[i]:.2e}", number(one.sqnr), f"{one.cosine:.4f}" if one.cosine is not None else "")
            more = (number(one.sqnr_simulated), f"{one.saturated:.2%}", f"{one.zeros:.1%}", f"{one.scale:.5g}")
            lines.append((*map(str, run), one.layer, *cells, *more))
    head = (
        *("model", "data set", "target", "variant", "layer", "cost", "SQNR dB", "cosine"),
        *("SQNR to simulated", "saturated", "zeros", "scale"),
    )
    sheet = Sheet("Layers that cost most, for each variant", head, 5, tuple(lines), ())
    table = f"<details><summary>Layers that cost most</summary>{to_html(sheet)}</details>" if lines else ""
    return _note(_LAYERS) + charts.add(layers_chart(evidence)) + table


def _classes(evidence: Evidence, charts: _Charts) -> str:
    parts = [_note(_CLASSES), charts.add(classes_chart(evidence))]
    for case in evidence.cases:
        pairs = [c for c in evidence.comparisons if (c.model, c.dataset) == case and c.kind == "fp32"]
        changes = [(pair, change) for pair in pairs for change in pair.confusions]
        changes.sort(key=lambda item: -abs(item[1].after - item[1].before))
        lines = tuple(_confusion(pair, change) for pair, change in changes[:_CONFUSIONS])
        head = ("target", "variant", "label", "classified as", "fp32", "variant's", "change", "n")
        if lines:
            total = sum(pair.changed_cells for pair in pairs)
            note = f"The {len(lines)} largest changes of {total}; images, with ties by parts."
            parts.append(to_html(Sheet(f"{' on '.join(case)}: confusion changes", head, 2, lines, (note,))))
    return "".join(parts)


def _confusion(pair: Comparison, change: Any) -> tuple[str, ...]:
    counts = (number(change.before), number(change.after), number(change.after - change.before, sign=True))
    return (pair.target, pair.variant, str(change.label), str(change.predicted), *counts, str(pair.n))


def _wrong(evidence: Evidence) -> str:
    """Return what is wrong, why, and where it begins; and what was looked at."""
    lines = [
        (*(str(row[key] or "") for key in ("model", "dataset", "target", "variant")), "output", str(row["error"]), "")
        for row in evidence.rows
        if row["error"] is not None
    ]
    lines += [
        (*map(str, one.key), one.verdict, f"{one.cause or ''} {one.evidence or ''}".strip(), one.layer or "")
        for one in evidence.verdicts
        if one.verdict != "ok"
    ]
    looked = len(evidence.verdicts)
    images = ", ".join(map(str, sorted({one.images for one in evidence.verdicts}))) or "no"
    checked = f"{looked} loadables were compared with their networks layer by layer, on {images} images each."
    if not lines:
        return _note(f"None: no output is constant, flat, zero or NaN, and every verdict is ok. {checked}")
    head = ("model", "data set", "target", "variant", "verdict", "why", "first bad layer")
    return to_html(Sheet("What is wrong", head, 7, tuple(lines), (checked,)))


def _times(times: Sequence[Row], charts: _Charts) -> str:
    lines = tuple(
        (str(row["rule"]), str(row["jobs"]), f"{row['seconds']:.1f}", f"{row['longest']:.1f}", str(row["memory"]))
        for row in times
    )
    head = ("rule", "jobs", "seconds together", "longest", "most MiB")
    note = "From Snakemake's benchmark files of the jobs that made these results; jobs ran beside each other."
    return charts.add(times_chart(times)) + to_html(Sheet("Jobs", head, 1, lines, (note,)), caption=False)


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
    return to_html(Sheet("Versions", ("what", "version"), 2, tuple(lines), ()), caption=False)


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
        sheet = Sheet(key, (key, "depends on", "bytes", "SHA-256"), 2, lines, ())
        parts.append(
            f"<details><summary>Digests of {len(lines)} {key}</summary>{to_html(sheet, caption=False)}</details>"
        )
    return "".join(parts)
