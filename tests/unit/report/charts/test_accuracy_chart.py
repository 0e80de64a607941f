"""The plot: what is drawn where, marked errors, and files that are the same each time."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from nvdla_quant.errors import ReportError
from nvdla_quant.evaluation.accuracy import Accuracy, fp32_subject, measure
from nvdla_quant.report.charts.accuracy import accuracy_chart
from nvdla_quant.report.charts.style import write_chart
from nvdla_quant.report.evidence import summarize

FP32 = fp32_subject("lenet", "mnist")
LABELS = np.arange(200) % 10
REFERENCE = np.random.default_rng(5).normal(size=(200, 10)) + 4 * np.eye(10)[LABELS]


def _record(target: str, mode: str | None, scores: Any, **names: str) -> Accuracy:
    subject = replace(
        FP32,
        target=target,
        variant="fp16" if mode is None else f"int8-{mode}-entropy",
        precision="fp16" if mode is None else "int8",
        mode=mode,
        compile_backend="builtin",
        run_backend="emulator",
        **names,
    )
    return measure(subject, LABELS, scores, exactness="bit-exact", reference=REFERENCE)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """One case, three targets; 20 wrong images of 200 on nv_small per-filter, and a constant output."""
    wrong = REFERENCE.copy()
    wrong[:20] = -wrong[:20]
    return summarize(
        [
            measure(FP32, LABELS, REFERENCE, exactness="fp32"),
            _record("nv_full", None, REFERENCE.astype(np.float16)),
            _record("nv_large", "per-filter", REFERENCE),
            _record("nv_small", "per-filter", wrong),
            _record("nv_small", "per-kernel", np.tile(REFERENCE[:1], (200, 1))),
        ]
    )


def _panels(rows: pd.DataFrame) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = accuracy_chart(rows).to_dict()["concat"]
    return panels


def test_two_panels_for_each_target(rows: pd.DataFrame) -> None:
    titles = [panel["title"]["text"] for panel in _panels(rows)]
    assert titles[::2] == ["lenet on mnist, nv_full", "lenet on mnist, nv_large", "lenet on mnist, nv_small"]
    assert set(titles[1::2]) == {"Difference to fp32"}


def test_targets_with_the_same_numbers_share_their_panels() -> None:
    records = [_record(target, "per-filter", REFERENCE) for target in ("nv_full", "nv_large", "nv_small")]
    extra = _record("nv_full", "per-kernel", REFERENCE)
    panels = _panels(summarize([measure(FP32, LABELS, REFERENCE, exactness="fp32"), *records, extra]))
    titles = [panel["title"]["text"] for panel in panels]
    assert titles[::2] == ["lenet on mnist, nv_full", "lenet on mnist, nv_large, nv_small"]


def test_bars_start_at_zero_and_differences_share_an_axis(rows: pd.DataFrame) -> None:
    panels = _panels(rows)
    assert all(panel["layer"][0]["encoding"]["x"]["scale"]["domain"] == [0, 100] for panel in panels[::2])
    domains = [panel["layer"][2]["encoding"]["x"]["scale"]["domain"] for panel in panels[1::2]]
    assert domains[0] == domains[1] == domains[2]
    assert domains[0][0] < rows["delta_low"].min() < 0 < rows["delta_high"].max() < domains[0][1]


def test_drawn_text(rows: pd.DataFrame, tmp_path: Path) -> None:
    """20 of 200 images lost: 10 points; top-1 of fp32 by counting."""
    path = tmp_path / "plot.svg"
    write_chart(accuracy_chart(rows), path)
    texts = ["".join(node.itertext()) for node in ElementTree.parse(path).iter() if node.tag.endswith("text")]
    hits = REFERENCE.argmax(axis=1) == LABELS
    lost = hits.copy()
    lost[:20] = False
    assert f"{100 * lost.mean():.2f}" in texts
    assert f"\N{MINUS SIGN}{100 * (hits.mean() - lost.mean()):.2f}" in texts
    assert any(f"dashed: fp32, {100 * hits.mean():.2f} %" in text for text in texts)
    assert "error: constant: all 200 images have the same scores" in texts
    assert any("compiled by builtin, run on emulator" in text for text in texts)
    assert {"fp16", "int8-per-filter-entropy", "int8-per-kernel-entropy"} <= set(texts)


def test_other_references(rows: pd.DataFrame) -> None:
    without = rows.dropna(subset=["target"])
    assert "no fp32 reference" in _panels(without)[0]["title"]["subtitle"][0]
    fp32 = rows["target"].isna()
    broken = rows.assign(error=rows["error"].mask(fp32, "all zero"), top1=rows["top1"].mask(fp32))
    assert "fp32: error: all zero" in _panels(broken)[0]["title"]["subtitle"][0]


def test_all_panels_share_one_colour_scale(rows: pd.DataFrame) -> None:
    scales = [
        layer["encoding"]["color"]["scale"]
        for panel in _panels(rows)
        for layer in panel["layer"]
        if "color" in layer["encoding"]
    ]
    assert all(scale == scales[0] for scale in scales)
    assert scales[0]["domain"] == ["fp16", "int8 per-kernel", "int8 per-filter"]
    assert len(set(scales[0]["range"])) == 3
    only = rows[rows["target"].isna() | (rows["target"] == "nv_full")]
    assert _panels(only)[0]["layer"][0]["encoding"]["color"]["scale"]["domain"] == ["fp16"]


def test_several_cases_are_drawn_apart(rows: pd.DataFrame) -> None:
    both = pd.concat([rows, rows.assign(model="resnet")])
    assert len(_panels(both)) == 12
    assert _panels(both)[6]["title"]["text"] == "resnet on mnist, nv_full"


def test_an_empty_sweep_is_refused(rows: pd.DataFrame) -> None:
    for empty in (rows[:0], rows[:1]):
        with pytest.raises(ReportError, match="no variant was measured"):
            accuracy_chart(empty)


@pytest.mark.parametrize(("suffix", "repeats"), [(".svg", 2), (".pdf", 4), (".png", 2)])
def test_files_have_stable_bytes(rows: pd.DataFrame, tmp_path: Path, suffix: str, repeats: int) -> None:
    """The PDF writer's order of font faces, if there are several, is random: more tries for it."""
    contents = set()
    for _ in range(repeats):
        write_chart(accuracy_chart(rows[:2]), tmp_path / f"plot{suffix}")
        contents.add((tmp_path / f"plot{suffix}").read_bytes())
    assert len(contents) == 1
    assert [path.name for path in tmp_path.iterdir()] == [f"plot{suffix}"]


def test_unknown_format_is_refused(rows: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"'\.gif', expected one of \.svg"):
        write_chart(accuracy_chart(rows[:2]), tmp_path / "plot.gif")
