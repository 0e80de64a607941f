"""Tables for people: the same cells in each format, notes that say where numbers come from, nothing that breaks one."""

import re

import pytest

from nvdla_quant.report.tables import pairs_sheet, seeds_sheet, sheet, sheets_of, summary_sheet
from nvdla_quant.report.words import bounds, number, p_value
from nvdla_quant.report.writers import to_html, to_latex, to_markdown
from tests.unit.report.reported import CASE, lines_of, sweep_evidence

LINES = (("int8-x", "-0.40", ""), ("a|b", "-0.08 to +0.02", "1"))
SHEET = sheet("a_b on d", ("name", "95 %", "95 %"), 1, LINES, ("n: 5 & more.",))


def test_latex_by_hand() -> None:
    lines = to_latex(SHEET).splitlines()
    assert lines[:2] == [r"\begin{longtable}{lrr}", r"\caption{a\_b on d} \\"]
    assert r"int8-x & $-$0.40 &  \\" in lines
    assert r"a|b & $-$0.08 to +0.02 & 1 \\" in lines
    # The head stands on each page.
    assert lines.count(r"name & 95 \% & 95 \% \\") == 2
    assert lines[-5:] == [
        r"{\footnotesize",
        r"\begin{tabular}{@{}p{\linewidth}@{}}",
        r"n: 5 \& more. \\",
        r"\end{tabular}",
        "}",
    ]
    assert [r"\toprule" in lines, r"\midrule" in lines, r"\bottomrule" in lines] == [True] * 3


def test_markdown_by_hand() -> None:
    assert to_markdown(SHEET).splitlines() == [
        "## a_b on d",
        "",
        "| name   |           95 % |   95 % |",
        "|:-------|---------------:|-------:|",
        "| int8-x |          -0.40 |        |",
        "| a\\|b   | -0.08 to +0.02 |      1 |",
        "",
        "n: 5 & more.  ",
    ]


def test_html_by_hand() -> None:
    page = to_html(SHEET)
    cells = re.findall("<t[dh] >(.*?)</t[dh]>", page)
    assert cells == [
        "name",
        "95 %",
        "95 %",
        "int8-x",
        "\N{MINUS SIGN}0.40",
        "",
        "a|b",
        "\N{MINUS SIGN}0.08 to +0.02",
        "1",
    ]
    assert page.startswith('<div class="sheet names-1"><table>')
    assert "<caption>a_b on d</caption>" in page
    assert "n: 5 &amp; more." in page
    assert "<caption>" not in to_html(SHEET, caption=False)


def test_nothing_breaks_a_format() -> None:
    """Headings, cells, titles and notes with what each format takes for its own."""
    nasty = r"a & b_c % $ # {x} \y ~ ^ <b> | \"q\" é"
    one = sheet(nasty, (nasty, "x"), 2, [(nasty, "1-2")], (nasty,))
    latex = to_latex(one)
    for special in ("a & b", "b_c", "% $", "{x}", r"\y"):
        assert special not in latex
    assert latex.count(r"a \& b\_c \% \$ \# \{x\}") == 6  # The title and the head twice, a cell, a note.
    page = to_html(one)
    assert "<b>" not in page
    assert page.count("&lt;b&gt;") == 4
    assert r"<b> \| " in to_markdown(one).splitlines()[4]


def test_a_sheet_without_a_line_is_written() -> None:
    empty = sheet("t", ("name", "n"), 1, [])
    assert r"\end{longtable}" in to_latex(empty)
    assert "<tbody>" in to_html(empty)


def test_every_number_says_n_interval_backend_and_exactness() -> None:
    evidence = sweep_evidence()
    shown = summary_sheet(evidence, CASE)
    assert lines_of(shown)[0][:3] == ("-", "fp32", "200")
    assert lines_of(shown)[1][:3] == ("nv_full", "fp16", "200")
    assert not shown.cells.isna().any(axis=None)
    notes = " ".join(shown.notes)
    for text in ("run on onnxruntime", "compiled by builtin, run on emulator; bit-exact", "Wilson", "McNemar"):
        assert text in notes
    broken = next(line for line in lines_of(shown) if line[1] == "int8-broken")
    assert broken[3] == "error"
    assert "error: constant: all 200 images" in notes


def test_what_is_not_verified_says_so_beside_its_numbers() -> None:
    shown = summary_sheet(sweep_evidence(unverified=("int8-filter",)), CASE)
    line = next(line for line in lines_of(shown) if line[1] == "int8-filter")
    assert (line[3], line[-2]) == ("99.00", "unknown")
    assert [note for note in shown.notes if "not verified: not-understood what is operation 3?" in note]
    assert not any("not verified" in note for note in summary_sheet(sweep_evidence(), CASE).notes)


def test_pairs_and_seeds() -> None:
    """reported.py: per-filter loses 2 of 200 images, seeds 0 and 1 of per-kernel 20 and 40."""
    evidence = sweep_evidence()
    (mode,) = lines_of(pairs_sheet(evidence, CASE, "mode"))
    assert mode[:5] == ("nv_full", "int8-filter", "int8-kernel-seed-0", "200", "1")
    assert mode[5:7] == ("99.00", "90.00")
    assert mode[9] == "18 / 0"
    (seeds,) = lines_of(seeds_sheet(evidence, CASE))
    # Sample standard deviation of 90 and 80.
    assert seeds[:6] == ("nv_full", "int8-kernel", "200", "2", "85.00", "7.07")
    assert seeds[6] == "80.00 to 90.00"
    assert [one.title.rpartition(": ")[2] for one in sheets_of(evidence)] == [
        "accuracy",
        "per-filter beside per-kernel",
        "every variant beside the most accurate one",
        "repeated seeds",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.00001, "< 0.0001"), (0.00312, "0.0031"), (0.25, "0.25"), (1.0, "1.00"), (None, "")]
)
def test_p_values(value: float | None, text: str) -> None:
    assert p_value(value) == text


def test_numbers() -> None:
    assert (number(-0.004, sign=True), number(0.5, sign=True), number(None)) == ("0.00", "+0.50", "")
    assert (bounds(1.0, 2.0), bounds(None, None)) == ("1.00 to 2.00", "")
