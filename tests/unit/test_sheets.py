"""Tables for people: the same cells in each format, notes that say where numbers come from, nothing that breaks one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.report.sheets import (
    Sheet,
    bounds,
    escape_latex,
    number,
    p_value,
    pairs_sheet,
    seeds_sheet,
    sheets_of,
    summary_sheet,
    to_html,
    to_latex,
    to_markdown,
)
from tests.unit.reported import CASE, sweep_evidence

SHEET = Sheet("a_b on d", ("name", "top-1 %"), 1, (("int8-x", "-0.40"), ("a|b", "-0.08 to +0.02")), ("n: 5 & more.",))


def test_latex_by_hand() -> None:
    lines = to_latex(SHEET).splitlines()
    assert lines[:2] == [r"\begin{longtable}{lr}", r"\caption{a\_b on d} \\"]
    assert r"int8-x & $-$0.40 \\" in lines
    assert r"a\textbar{}b & $-$0.08 to +0.02 \\" in lines
    assert r"name & top-1 \% \\" in lines
    assert lines[-1] == r"\noindent{\footnotesize n: 5 \& more.\par}"
    assert [line for line in lines if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]


def test_markdown_by_hand() -> None:
    assert to_markdown(SHEET).splitlines() == [
        "## a_b on d",
        "",
        "| name | top-1 % |",
        "| --- | --: |",
        "| int8-x | -0.40 |",
        "| a\\|b | -0.08 to +0.02 |",
        "",
        "n: 5 & more.  ",
    ]


def test_html_by_hand() -> None:
    page = to_html(SHEET)
    assert '<td>int8-x</td><td class="n">\N{MINUS SIGN}0.40</td>' in page
    assert "n: 5 &amp; more." in page


def test_every_number_says_n_interval_backend_and_exactness() -> None:
    evidence = sweep_evidence()
    sheet = summary_sheet(evidence, CASE)
    assert [line[:3] for line in sheet.lines][:2] == [("-", "fp32", "200"), ("nv_full", "fp16", "200")]
    assert all(len(line) == len(sheet.head) for line in sheet.lines)
    notes = " ".join(sheet.notes)
    for text in ("run on onnxruntime", "compiled by builtin, run on emulator; bit-exact", "Wilson", "McNemar"):
        assert text in notes
    broken = next(line for line in sheet.lines if line[1] == "int8-broken")
    assert broken[3] == "error"
    assert "error: constant: all 200 images" in notes


def test_what_is_not_verified_says_so_beside_its_numbers() -> None:
    sheet = summary_sheet(sweep_evidence(unverified=("int8-filter",)), CASE)
    line = next(line for line in sheet.lines if line[1] == "int8-filter")
    assert (line[3], line[-2]) == ("99.00", "unknown")
    assert [note for note in sheet.notes if "not verified: not-understood what is operation 3?" in note]
    assert not any("not verified" in note for note in summary_sheet(sweep_evidence(), CASE).notes)


def test_pairs_and_seeds() -> None:
    """reported.py: per-filter loses 2 of 200 images, seeds 0 and 1 of per-kernel 20 and 40."""
    evidence = sweep_evidence()
    (mode,) = pairs_sheet(evidence, CASE, "mode").lines
    assert mode[:5] == ("nv_full", "int8-filter", "int8-kernel-seed-0", "200", "1")
    assert mode[5:7] == ("99.00", "90.00")
    assert mode[9] == "18 / 0"
    (seeds,) = seeds_sheet(evidence, CASE).lines
    # Sample standard deviation of 90 and 80.
    assert seeds[:6] == ("nv_full", "int8-kernel", "200", "2", "85.00", "7.07")
    assert seeds[6] == "80.00 to 90.00"
    assert [sheet.title.rpartition(": ")[2] for sheet in sheets_of(evidence)] == [
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b", r"a\_b"),
        ("50 % & 3 $ #1 {x}", r"50 \% \& 3 \$ \#1 \{x\}"),
        (r"\_", r"\textbackslash{}\_"),
        ("a~b^c<d>", r"a\textasciitilde{}b\textasciicircum{}c\textless{}d\textgreater{}"),
    ],
)
def test_latex_escapes(text: str, expected: str) -> None:
    assert escape_latex(text) == expected


@given(st.text(alphabet='ab\\{}$&#_%~^<>|"', max_size=20))
def test_latex_escapes_lose_nothing(text: str) -> None:
    back = escape_latex(text)
    for command, character in (
        ("textbackslash", "\0"),
        ("textasciitilde", "~"),
        ("textasciicircum", "^"),
        ("textless", "<"),
        ("textgreater", ">"),
        ("textbar", "|"),
        ("textquotedbl", '"'),
    ):
        back = back.replace(f"\\{command}{{}}", character)
    for character in "{}$&#_%":
        back = back.replace(f"\\{character}", character)
    assert back.replace("\0", "\\") == text
