"""The summary as a data frame, as TSV and on the terminal: same rows, right units, nothing that breaks a format."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nvdla_quant.errors import ReportError
from nvdla_quant.evaluation.accuracy import Accuracy, Deviation, Figures, Interval, Subject
from nvdla_quant.report import frames
from nvdla_quant.report.evidence import read_verdicts, summarize
from nvdla_quant.report.frames import SUMMARY, VERDICTS, Column, described, read_tsv, records, typed, write_tsv
from nvdla_quant.report.rows import reasons
from nvdla_quant.report.terminal import render_summary
from nvdla_quant.report.words import backends
from tests.unit.report.reported import verdict

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
        correction=None,
        rounding=None,
        search=None,
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
    (row,) = records(summarize([fast]))
    assert (row["exactness"], row["checked"]) == ("fast: in float32", 3)
    assert (row["deviation"], row["logits_deviation"]) == (0.00048828125, 0.0078125)
    note = "nv_full fp16: fast, at most 0.00049 (0.0078 before Softmax) from bit-exact on 3 images"
    assert f"note: {note}" in render_summary(summarize([fast]))
    assert "fast, at most 0.00049 (0.0078 before Softmax) from bit-exact on 3 images" in backends(row)
    exact = summarize([half])
    assert "note: nv_full fp16: bit-exact\n" in render_summary(exact)
    assert exact["checked"].isna().all()
    assert "note:" not in render_summary(summarize([_variant("nv_small", "int8-per-filter-entropy")]))


def test_rows_are_grouped_with_fp32_first() -> None:
    rows = summarize(RECORDS)
    assert [(row["model"], row["target"], row["variant"]) for row in records(rows)] == [
        ("lenet_1", None, "fp32"),
        ("lenet_1", "nv_small", "int8-per-filter-entropy"),
        ("lenet_1", "nv_small", "int8-per-kernel-entropy"),
        ("lenet_1", "nv_full", "fp16"),
        ("resnet", "nv_small", "int8-per-filter-entropy"),
    ]
    assert {name: str(dtype) for name, dtype in rows[list(SUMMARY)].dtypes.items()} == {
        name: column.dtype for name, column in SUMMARY.items()
    }


def test_units() -> None:
    row = records(summarize(RECORDS))[1]
    assert (row["top1"], row["top1_low"], row["top1_high"]) == (98.0, 96.88, 98.73)
    assert (row["delta"], row["delta_low"], row["delta_high"]) == (-0.4, -0.81, 0.02)
    assert (row["ties"], row["agreement"], row["mcnemar_p"]) == (25.0, 98.75, 0.125)
    assert row["logits_top1"] == 98.0


def test_errors_have_no_numbers() -> None:
    row = records(summarize(RECORDS))[2]
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
    rows = summarize(RECORDS, read_verdicts([tmp_path / "verdict.json"]))
    assert [(row["verdict"], row["cause"]) for row in records(rows)].count(("miscompiled", "race")) == 1
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
    verdicts = read_verdicts([tmp_path / "verdict.json"])
    assert verdicts["layer"].isna().all()
    assert reasons(verdicts).tolist() == ["verification-failed KeyError: 3"]
    rows = summarize(RECORDS, verdicts)
    (row,) = records(rows.dropna(subset=["verdict"]))
    assert (row["verdict"], row["cause"], row["error"], row["top1"]) == ("unknown", "verification-failed", None, 98.0)
    text = render_summary(rows, width=120)
    assert "not verified: nv_full fp16: verification-failed KeyError: 3; what was measured stands" in text.splitlines()
    coloured = next(line for line in render_summary(rows, width=120, colour=True).splitlines() if "nv_full" in line)
    assert "\x1b[33m" in coloured
    assert "\x1b[31m" not in coloured


def test_verdicts_on_nothing_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="lenet_1 / mnist / nv_large / fp16, which has no accuracy"):
        summarize(RECORDS, typed([verdict(("lenet_1", "mnist", "nv_large", "fp16"), "ok")], VERDICTS))
    for content in ("[]", "{", '{"verdict": "ok"}'):
        (tmp_path / "verdict.json").write_text(content)
        with pytest.raises(ReportError, match=r"verdict\.json: not a verdict"):
            read_verdicts([tmp_path / "verdict.json"])


def test_tsv_is_read_back(tmp_path: Path) -> None:
    rows = summarize(RECORDS)
    write_tsv(tmp_path / "summary.tsv", rows, SUMMARY)
    with (tmp_path / "summary.tsv").open(encoding="utf-8", newline="") as file:
        back = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(back) == len(rows)
    assert tuple(back[0]) == tuple(SUMMARY)
    assert back[0]["target"] == ""
    assert back[1]["top1"] == "98.0"
    assert back[1]["unified_scales"] == "true"
    assert back[2]["error"] == "constant: all 1000 images have the same scores"
    assert back[2]["top1"] == ""
    again = read_tsv(tmp_path / "summary.tsv", SUMMARY, "accuracies")
    pd.testing.assert_frame_equal(again, rows[list(SUMMARY)])


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
    two = [replace(REFERENCE, n=500), replace(_variant("nv_full", "fp16", model="lenet_1"), logits=None)]
    text = render_summary(summarize(two))
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
    assert summarize([]).empty
    write_tsv(tmp_path / "summary.tsv", summarize([]), SUMMARY)
    assert (tmp_path / "summary.tsv").read_text().count("\n") == 1


KINDS = {
    "text": Column("string", "a text"),
    "count": Column("Int64", "a count"),
    "number": Column("float64", "a number"),
    "truth": Column("boolean", "true or false"),
}


def test_every_cell_is_read_back_as_it_was(tmp_path: Path) -> None:
    """To the last bit of a number; what has no value has none, and a quote is no quoting."""
    rows = [
        {"text": 'a "quoted" text', "count": 2**53 + 1, "number": 0.1 + 0.2, "truth": True},
        {"text": "NA", "count": 0, "number": -0.0, "truth": False},
        {"text": "tab\tand\nline", "count": -1, "number": float("-inf"), "truth": None},
        {"text": None, "count": None, "number": np.nextafter(1, 2), "truth": None},
    ]
    write_tsv(tmp_path / "x.tsv", typed(rows, KINDS), KINDS)
    assert (tmp_path / "x.tsv").read_text().splitlines()[1:] == [
        'a "quoted" text\t9007199254740993\t0.30000000000000004\ttrue',
        "NA\t0\t-0.0\tfalse",
        "tab and line\t-1\t-inf\t",
        "\t\t1.0000000000000002\t",
    ]
    rows[2]["text"] = "tab and line"
    assert records(read_tsv(tmp_path / "x.tsv", KINDS, "things")) == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "No columns"),
        ("text\tcount\n", "it has no column number, truth"),
        ("text\tcount\tnumber\ttruth\na\tmany\t1\ttrue\n", "many"),
        ("text\tcount\tnumber\ttruth\na\t1\tx\ttrue\n", "x"),
        ("text\tcount\tnumber\ttruth\na\t1\t1\tyes\n", "yes"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "x.tsv").write_text(content)
    with pytest.raises(ReportError, match=rf"x\.tsv: not a table of things .*{said}"):
        read_tsv(tmp_path / "x.tsv", KINDS, "things")
    with pytest.raises(ReportError, match=r"y\.tsv: not a table of things"):
        read_tsv(tmp_path / "y.tsv", KINDS, "things")


def test_cells_of_another_type_are_refused() -> None:
    with pytest.raises(ReportError, match="not of its schema"):
        typed([{"count": "many"}], KINDS)


def test_every_column_is_documented(repository: Path) -> None:
    """In the schemas, whose columns are those of docs/report.md."""
    text = (repository / "docs" / "report.md").read_text()
    for name in ("SUMMARY", "PAIRS", "SEEDS", "LAYERS", "VERDICTS", "SCALES", "CLASSES", "CONFUSIONS"):
        schema = getattr(frames, name)
        assert all(described(schema)["what"].str.len() > 0)
        assert re.search(rf"`{name}`", text), name
