"""The summary in its three forms: same rows, right units, nothing that breaks a format."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from nvdla_quant.errors import ReportError
from nvdla_quant.evaluation.accuracy import Accuracy, Deviation, Figures, Interval, Subject
from nvdla_quant.report.sheets import backends
from nvdla_quant.report.tables import (
    COLUMNS,
    VerdictRecord,
    read_verdict,
    render_summary,
    summarize,
    write_tsv,
)

FIGURES = Figures(
    top1=Interval(0.98, 0.9688, 0.9873),
    top5=Interval(1.0, 0.9962, 1.0),
    ties=0.25,
    ties5=0.5,
    agreement=0.9875,
    delta=Interval(-0.004, -0.0081, 0.0002),
    mcnemar_p=0.125,
    distinct_outputs=812,
    error=None,
)
BROKEN = Figures(None, None, None, None, None, None, None, 1, "constant: all 1000 images\thave\nthe same scores")
REFERENCE = Accuracy(
    subject=Subject(
        model="lenet_1",
        dataset="mnist",
        target=None,
        variant="fp32",
        precision="fp32",
        mode=None,
        calibrator=None,
        preparation=None,
        feeding=None,
        unified_scales=None,
        calibrate_backend=None,
        compile_backend=None,
        run_backend="onnxruntime",
    ),
    n=1000,
    classes=10,
    exactness="fp32",
    deviation=None,
    output=replace(FIGURES, delta=None, mcnemar_p=None, agreement=None, ties=0.0),
    logits=None,
)


def _variant(target: str, variant: str, output: Figures = FIGURES, **subject: str) -> Accuracy:
    full = replace(
        REFERENCE.subject, target=target, variant=variant, precision="int8", mode="per-filter", unified_scales=True
    )
    return Accuracy(replace(full, **subject), 1000, 10, "bit-exact", None, output, FIGURES)  # type: ignore[arg-type]


RECORDS = [
    _variant("nv_small", "int8-per-filter-entropy"),
    _variant("nv_small", "int8-per-kernel-entropy", BROKEN),
    _variant("nv_small", "int8-per-filter-entropy", model="resnet"),
    REFERENCE,
    _variant("nv_full", "fp16"),
]


def test_fp16_rows_say_how_they_were_run() -> None:
    """In the TSV's cells, and in a sentence below the terminal's table and among the notes of the others."""
    half = _variant("nv_full", "fp16", precision="fp16")
    fast = replace(half, exactness="fast: in float32", deviation=Deviation((1, 5, 9), 0.00048828125, 0.0078125))
    (row,) = summarize([fast])
    assert (row["exactness"], row["checked"]) == ("fast: in float32", 3)
    assert (row["deviation"], row["logits_deviation"]) == (0.00048828125, 0.0078125)
    note = "nv_full fp16: fast, at most 0.00049 (0.0078 before Softmax) from bit-exact on 3 images"
    assert f"note: {note}" in render_summary([row])
    assert "fast, at most 0.00049 (0.0078 before Softmax) from bit-exact on 3 images" in backends(row)
    (exact,) = summarize([half])
    assert "note: nv_full fp16: bit-exact\n" in render_summary([exact])
    assert exact["checked"] is None
    assert "note:" not in render_summary(summarize([_variant("nv_small", "int8-per-filter-entropy")]))


def test_rows_are_grouped_with_fp32_first() -> None:
    rows = summarize(RECORDS)
    assert [(row["model"], row["target"], row["variant"]) for row in rows] == [
        ("lenet_1", None, "fp32"),
        ("lenet_1", "nv_small", "int8-per-filter-entropy"),
        ("lenet_1", "nv_small", "int8-per-kernel-entropy"),
        ("lenet_1", "nv_full", "fp16"),
        ("resnet", "nv_small", "int8-per-filter-entropy"),
    ]
    assert all(tuple(row) == COLUMNS for row in rows)


def test_units() -> None:
    row = summarize(RECORDS)[1]
    assert (row["top1"], row["top1_low"], row["top1_high"]) == (98.0, 96.88, 98.73)
    assert (row["delta"], row["delta_low"], row["delta_high"]) == (-0.4, -0.81, 0.02)
    assert (row["ties"], row["agreement"], row["mcnemar_p"]) == (25.0, 98.75, 0.125)
    assert row["logits_top1"] == 98.0


def test_errors_have_no_numbers() -> None:
    row = summarize(RECORDS)[2]
    assert row["error"] == "constant: all 1000 images have the same scores"
    assert all(row[name] is None for name in ("top1", "top1_low", "delta", "top5", "ties", "agreement"))
    assert row["distinct_outputs"] == 1


def test_two_records_for_one_row_are_refused() -> None:
    with pytest.raises(ReportError, match="lenet_1 / mnist / nv_full / fp16"):
        summarize([*RECORDS, RECORDS[-1]])


def test_verdicts_stand_in_their_rows(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text(
        '{"subject": {"model": "lenet_1", "dataset": "mnist", "target": "nv_full", "variant": "fp16"},'
        ' "verdict": "miscompiled", "cause": "race", "first_bad_layer": "conv1", "images": 8,'
        ' "findings": [{"evidence": "reads what is written later"}]}'
    )
    verdict = read_verdict(tmp_path / "verdict.json")
    rows = summarize(RECORDS, [verdict])
    assert [(row["verdict"], row["cause"]) for row in rows].count(("miscompiled", "race")) == 1
    text = render_summary(rows, width=120)
    assert "miscompiled: nv_full fp16: race" in text.splitlines()
    assert next(line for line in text.splitlines() if line.split()[:2] == ["nv_full", "fp16"]).endswith("miscompiled")
    assert "verdict" not in render_summary(summarize(RECORDS))


def test_a_loadable_that_could_not_be_verified_is_not_wrong(tmp_path: Path) -> None:
    """Its figures stand, with the remark; what a failed verification did not find out is null."""
    (tmp_path / "verdict.json").write_text(
        '{"subject": {"model": "lenet_1", "dataset": "mnist", "target": "nv_full", "variant": "fp16"},'
        ' "verdict": "unknown", "cause": "verification-failed", "first_bad_layer": null, "images": 8, "margin": null,'
        ' "fp32": null, "simulated": null, "scores_layer": null, "mode": null,'
        ' "findings": [{"evidence": "KeyError: 3", "layer": "", "operation": null}]}'
    )
    verdict = read_verdict(tmp_path / "verdict.json")
    assert (verdict.layer, verdict.why) == (None, "verification-failed KeyError: 3")
    rows = summarize(RECORDS, [verdict])
    (row,) = (row for row in rows if row["verdict"] is not None)
    assert (row["verdict"], row["cause"], row["error"], row["top1"]) == ("unknown", "verification-failed", None, 98.0)
    text = render_summary(rows, width=120)
    assert "not verified: nv_full fp16: verification-failed; the accuracy stands" in text.splitlines()
    coloured = next(line for line in render_summary(rows, width=120, colour=True).splitlines() if "nv_full" in line)
    assert "\x1b[33m" in coloured
    assert "\x1b[31m" not in coloured


def test_verdicts_on_nothing_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="lenet_1 / mnist / nv_large / fp16, which has no accuracy"):
        summarize(RECORDS, [VerdictRecord(("lenet_1", "mnist", "nv_large", "fp16"), "ok", None, None, None, 8)])
    for content in ("[]", "{", '{"verdict": "ok"}'):
        (tmp_path / "verdict.json").write_text(content)
        with pytest.raises(ReportError, match=r"verdict\.json: not a verdict"):
            read_verdict(tmp_path / "verdict.json")


def test_tsv_is_read_back(tmp_path: Path) -> None:
    rows = summarize(RECORDS)
    write_tsv(tmp_path / "summary.tsv", rows)
    with (tmp_path / "summary.tsv").open(encoding="utf-8", newline="") as file:
        back = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(back) == len(rows)
    assert tuple(back[0]) == COLUMNS
    assert back[0]["target"] == ""
    assert back[1]["top1"] == "98.0"
    assert back[1]["unified_scales"] == "true"
    assert back[2]["error"] == "constant: all 1000 images have the same scores"
    assert back[2]["top1"] == ""


def test_terminal_table() -> None:
    text = render_summary(summarize(RECORDS))
    assert "\x1b" not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].strip() == "lenet_1 on mnist, 1000 images"
    assert any(line.split()[:3] == ["-", "fp32", "98.00"] for line in lines)
    row = next(line for line in lines if "nv_full" in line)
    assert row.split() == ["nv_full", "fp16", "98.00", "[96.88,", "98.73]", "-0.40", "98.75", "25.00", "98.00"]
    assert any(line.startswith("error: nv_small int8-per-kernel-entropy: constant") for line in lines)
    assert "\x1b" in render_summary(summarize(RECORDS), colour=True)


def test_terminal_table_shows_only_columns_that_differ_or_exist() -> None:
    records = [replace(REFERENCE, n=500), replace(_variant("nv_full", "fp16", model="lenet_1"), logits=None)]
    text = render_summary(summarize(records))
    assert "images" not in text
    assert "logits" not in text
    assert any(line.split()[:3] == ["nv_full", "fp16", "1000"] for line in text.splitlines())


@pytest.mark.parametrize("width", [60, 80, 90, 200])
def test_terminal_table_keeps_to_the_width(width: int) -> None:
    text = render_summary(summarize(RECORDS), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("[96.88, 98.73]") == 4
    assert ("int8-per-filter-entropy" in text) == (width >= 90)


def test_nothing_to_show(tmp_path: Path) -> None:
    assert summarize([]) == []
    write_tsv(tmp_path / "summary.tsv", [])
    assert (tmp_path / "summary.tsv").read_text().count("\n") == 1
