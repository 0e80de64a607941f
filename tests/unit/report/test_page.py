"""The page: every section, no request, and, in a browser, every plot drawn."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import altair as alt
import pandas as pd
import pytest

from nvdla_quant.configuration.artefacts import FIGURES
from nvdla_quant.report.charts.figures import figures
from nvdla_quant.report.charts.style import write_chart
from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.frames import LAYERS, RATIOS, VERDICTS, typed
from nvdla_quant.report.page import render_page
from tests.unit.report.reported import LOST, sweep_evidence

KERNELS = {"vnni512": 3, "float32": 1}
TIMES: Any = [{"rule": "run_loadable", "jobs": 3, "seconds": 12.5, "longest": 6.0, "memory": 280}]
MANIFEST: Any = {
    "command": "snakemake --configfile a.yaml",
    "software": {
        "nvdla_quant": {"source": "0123456789ab", "git": {"commit": "c0ffee", "dirty": True}},
        "python": "CPython 3.12",
        "distributions": {"numpy": "2.2", "altair": None},
        "system": "Linux",
        "machine": "x86_64",
        "simd": ["AVX2"],
    },
    "config": {"note": "</script><b>", "shards": 4},
    "inputs": {"m.caffemodel": {"bytes": 3, "sha256": "ab"}},
    "artefacts": {"results/a": {"bytes": 4, "sha256": "cd", "processor_dependent": True}},
}
EMPTY = {"layers": LAYERS, "verdicts": VERDICTS, "scales": RATIOS}
CYCLES: dict[str, int | None] = {
    **{"fp16": 2000, "int8-filter": 1000, "int8-kernel-seed-0": 1002, "int8-kernel-seed-1": 1002},
    "int8-broken": None,
}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def swept(*targets: str) -> Evidence:
    """Return a sweep whose calibrators have two numbers of images each."""
    evidence = sweep_evidence(targets=targets or ("nv_full",), cycles=CYCLES)
    more = evidence.groups.dropna(subset=["images"]).assign(images=16)
    groups = pd.concat([evidence.groups, more], ignore_index=True)
    return replace(evidence, groups=groups.astype({"images": "Int64"}))


def drawn(name: str, evidence: Evidence) -> alt.ConcatChart:
    """Return a figure of a sweep of which 99 % of fp32's accuracy is asked."""
    return figures(99.0)[name](evidence)


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(swept(), 99.0, TIMES, KERNELS, MANIFEST)


class Elements(HTMLParser):
    """Tags that are opened and closed, and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.unbalanced: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for key, value in attributes if key in ("src", "href", "action", "data")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)


def test_elements_are_balanced_and_refer_to_the_page_alone(page: str) -> None:
    elements = Elements()
    elements.feed(page)
    assert not elements.open
    assert not elements.unbalanced
    assert all(reference.startswith("#") for reference in elements.references)
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(", page.partition("<style>")[2].partition("</style>")[0])


def test_the_first_thing_is_the_answer(page: str) -> None:
    text = re.sub("<script.*?</script>|<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    assert text.index("Use int8 per-filter") < text.index("n: test images")
    for expected in ("constant-output every channel is constant", "c0ffee, with changes", "&lt;/script&gt;&lt;b&gt;"):
        assert expected in text
    assert "snakemake --configfile a.yaml" in text
    assert "Made with shards: 4. With shards: 1, the longest job" in text


def test_time_has_a_section(page: str) -> None:
    text = re.sub("<script.*?</script>|<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    section = text[text.index("How long an image takes on the hardware") :]
    for expected in ("1,000", "2,000*", "500", "What could not be estimated", "an operation that nothing is known of"):
        assert expected in section


def test_what_is_not_verified_stands_apart_from_what_is_wrong() -> None:
    everything = ("fp16", "int8-filter", "int8-kernel-seed-0", "int8-kernel-seed-1", "int8-broken")
    text = render_page(sweep_evidence(unverified=everything), 99.0, TIMES, KERNELS, MANIFEST)
    wrong, doubtful = (text.index(f"<caption>What is {kind}</caption>") for kind in ("wrong", "not verified"))
    assert text[wrong:doubtful].count("<tr>") == 2  # The head, and the constant output.
    assert text[doubtful:].partition("</table>")[0].count("what is operation 3?") == 5
    sound = render_page(sweep_evidence({"int8-filter": 0}, unverified=("int8-filter",)), 99.0, TIMES, KERNELS, MANIFEST)
    assert "which is not verified." in sound


def test_the_plot_says_what_is_not_verified() -> None:
    bare, doubtful = (drawn("accuracy", sweep_evidence(unverified=names)) for names in ((), ("int8-filter",)))
    said = "int8-filter: not verified (not-understood)"
    assert said in doubtful.to_dict()["concat"][0]["title"]["subtitle"]
    assert said not in bare.to_dict()["concat"][0]["title"]["subtitle"]


def test_plots_are_json(page: str) -> None:
    specifications = re.findall(r'<script type="application/json">(.*?)</script>', page)
    assert len(specifications) == 9
    assert all("$schema" in json.loads(text) for text in specifications)


def test_figures_are_those_of_the_sweep_s_artefacts() -> None:
    assert tuple(figures(99.0)) == FIGURES


@pytest.mark.parametrize("name", FIGURES)
def test_figures_as_files(name: str, tmp_path: Path) -> None:
    chart = drawn(name, swept())
    assert chart.to_dict(validate=True) == chart.to_dict(validate=False)
    write_chart(chart, tmp_path / "figure.svg")
    nodes = ElementTree.parse(tmp_path / "figure.svg").iter()
    texts = {"".join(node.itertext()) for node in nodes if node.tag.rpartition("}")[2] in ("text", "tspan")}
    expected = {
        "accuracy": {"99.00", "error: constant: all 200 images have the same scores"},
        "time": {"fp32", "99 %", "int8-filter", "extrapolated: fp16", "fp16"},
        # Half of the cycles each; what is made is ip1, and the layer behind it runs within.
        "costs": {"50.0", "conv1", "ip1", "40", "20", "exact", "nv_full fp16*", "nv_full int8"},
        "roofline": {"64", "32", "1 MHz, latency 40 cycles", "8 bytes a cycle each way"},
        "images": {"8", "16", "int8-kernel", "calibration images"},
        "layers": {"40", "20", "exact", "0 conv1"},
        "scales": {"1.49", "0.98", "minmax"},
        # Classes 0 and 1 lose an image each to per-filter, and each class 4 to seed 1 of per-kernel.
        "classes": {"\N{MINUS SIGN}1", "\N{MINUS SIGN}4", "int8-filter"},
    }[name]
    assert expected <= texts


@pytest.mark.parametrize("name", ["accuracy", "images", "layers", "classes"])
def test_targets_with_the_same_numbers_share_a_panel(name: str) -> None:
    one, two = (drawn(name, swept(*targets)).to_dict() for targets in (("nv_full",), ("nv_full", "nv_large")))
    assert len(one["concat"]) == len(two["concat"])
    assert "lenet on mnist, nv_full, nv_large" in two["concat"][0]["title"]["text"]


@pytest.mark.parametrize(("variants", "angle"), [(4, -40), (40, -90)])
def test_labels_of_narrow_columns_stand_upright(variants: int, angle: int) -> None:
    """Columns of 13 pixels: labels of 10 that are slanted by 40 degrees would be 8 apart, and overlap."""
    evidence = sweep_evidence({f"int8-filter-{i}": 0 for i in range(variants)})
    panel = drawn("layers", evidence).to_dict()["concat"][0]
    assert panel["layer"][0]["encoding"]["x"]["axis"]["labelAngle"] == angle


@pytest.mark.parametrize("name", ["time", "costs", "roofline"])
def test_times_that_nobody_could_estimate(name: str) -> None:
    text = json.dumps(drawn(name, sweep_evidence(cycles=dict.fromkeys(LOST))).to_dict())
    assert re.search(r"No (loadable could be estimated|operation multiplies)", text)


@pytest.mark.parametrize("name", ["images", "layers", "scales", "classes"])
def test_figures_without_anything_to_draw_say_so(name: str, tmp_path: Path) -> None:
    bare = replace(sweep_evidence({"int8-filter": 0}), **{name: typed([], schema) for name, schema in EMPTY.items()})
    write_chart(drawn(name, bare), tmp_path / "figure.svg")
    assert re.search("There is|No ", (tmp_path / "figure.svg").read_text())


def opened(page: str, folder: Path) -> tuple[str, set[str]]:
    """Open `page` in headless Chromium: what it became, and the addresses that it asked for.

    The browser's own requests (updates, dictionaries) are told apart by their initiator, which is no origin.
    """
    assert CHROMIUM is not None
    folder.mkdir()
    (folder / "report.html").write_text(page)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    options += ["--disable-component-update", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=30000"]
    log = folder / "net.json"
    command = [CHROMIUM, *options, f"--log-net-log={log}", "--dump-dom", (folder / "report.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = {
        event["url"] for event in events if "url" in event and event.get("initiator") not in (None, "not an origin")
    }
    return done.stdout, {url for url in asked if not url.startswith(("file:", "data:", "blob:"))}


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_every_plot_is_drawn_and_nothing_is_requested(page: str, tmp_path: Path) -> None:
    content, asked = opened(page, tmp_path / "report")
    assert re.search(r'<body[^>]* data-drawn="9"', content), content[-2000:]
    places = re.findall(r'<div class="chart[^>]*>(.*?)<script type="application/json">', content, re.DOTALL)
    assert [bool(re.search(r"<svg.*<text", place, re.DOTALL)) for place in places] == [True] * 9
    assert asked == set()
    # The same look finds a request where there is one.
    assert opened('<img src="http://127.0.0.1:9/x.png">', tmp_path / "other")[1] == {"http://127.0.0.1:9/x.png"}
