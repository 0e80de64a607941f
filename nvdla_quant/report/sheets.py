"""Tables for people: the same lines as Markdown, as LaTeX with booktabs rules, and as HTML.

Every sheet says under it what its numbers are, how many images they rest on and which backends made them.
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvdla_quant.evaluation.comparison import Comparison, Spread, with_holm
from nvdla_quant.jobs.files import write_text
from nvdla_quant.report.evidence import Evidence, Repeated
from nvdla_quant.report.tables import Row, mode_of

Case = tuple[str, str]

INTERVALS = "Intervals are 95 %: Wilson's for shares, Agresti and Min's for paired differences."
FLIPS = (
    "Won and lost: images that only the variant, and only the baseline, has right. p: McNemar's exact test of won "
    "against lost."
)
TIES = "A label that ties with other classes counts with its expected value under random tie breaking."


@dataclass(frozen=True)
class Sheet:
    """A table for people.

    Attributes
    ----------
    title : str
        What it shows.
    head : tuple[str, ...]
        Names of the columns.
    names : int
        How many columns on the left hold names; the others hold numbers.
    lines : tuple[tuple[str, ...], ...]
        Cells as they are printed.
    notes : tuple[str, ...]
        What the numbers mean and where they come from.
    """

    title: str
    head: tuple[str, ...]
    names: int
    lines: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


class _Legend:
    """Letters for texts that are too long for a column."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """Return the letter of `text`: a to z, then aa, ab, ..."""
        number = len(self.texts)
        letter = "" if number < 26 else chr(ord("a") + number // 26 - 1)
        return self.texts.setdefault(text, letter + chr(ord("a") + number % 26))

    def notes(self) -> list[str]:
        """Return what the letters stand for."""
        return [f"{letter}: {text}." for text, letter in self.texts.items()]


def summary_sheet(evidence: Evidence, case: Case) -> Sheet:
    """Return a line for fp32 and for each variant of a case."""
    flips = {(c.target, c.variant): c for c in _of_case(evidence, case) if c.step is not None and c.kind == "fp32"}
    made = _Legend()
    lines = []
    for row in evidence.rows:
        if (row["model"], row["dataset"]) != case:
            continue
        pair = flips.get((str(row["target"]), str(row["variant"])))
        lines.append(
            (
                str(row["target"] or "-"),
                str(row["variant"]),
                str(row["n"]),
                number(row["top1"]) if row["error"] is None else "error",
                bounds(row["top1_low"], row["top1_high"]),
                number(row["delta"], sign=True),
                bounds(row["delta_low"], row["delta_high"], sign=True),
                "" if pair is None else f"{pair.won} / {pair.lost}",
                p_value(row["mcnemar_p"]),
                number(row["agreement"]),
                number(row["ties"]),
                number(row["top5"]),
                bounds(row["top5_low"], row["top5_high"]),
                number(row["logits_top1"]),
                "" if pair is None or pair.scores is None else f"{pair.scores.mean:.2g}",
                "" if pair is None or pair.scores is None else f"{pair.scores.worst:.2g}",
                str(row["verdict"] or ""),
                made(backends(row) if row["error"] is None else f"{backends(row)}; error: {row['error']}"),
            )
        )
    head = (
        *("target", "variant", "n", "top-1 %", "95 %", "vs fp32", "95 %", "won / lost", "p", "agrees %", "ties %"),
        *("top-5 %", "95 %", "logits top-1 %", "mean score diff.", "worst", "verdict", "made by"),
    )
    notes = (
        f"n: test images. {INTERVALS} vs fp32: points, on the same images. {FLIPS} {TIES}",
        "agrees: same top class as fp32. logits: from the tensor before Softmax. Score differences: to fp32, in real "
        "units.",
        *made.notes(),
    )
    return Sheet(f"{case[0]} on {case[1]}: accuracy", head, 2, tuple(lines), notes)


def pairs_sheet(evidence: Evidence, case: Case, kind: str) -> Sheet:
    """Return a line for each comparison of a `kind` (``mode`` or ``best``) within a case."""
    rows = _rows(evidence, case)
    made = _Legend()
    lines = []
    for pair, corrected in with_holm([c for c in _of_case(evidence, case) if c.kind == kind]):
        row = rows.get((pair.target, pair.variant)) or _group(evidence, case, pair).rows[0]
        lines.append(
            (
                pair.target,
                pair.variant,
                pair.baseline,
                str(pair.n),
                str(pair.seeds),
                number(100 * pair.top1),
                number(100 * pair.baseline_top1),
                number(100 * pair.delta.value, sign=True),
                bounds(100 * pair.delta.low, 100 * pair.delta.high, sign=True),
                f"{pair.won} / {pair.lost}",
                p_value(pair.p),
                p_value(corrected),
                "" if pair.agreement is None else number(100 * pair.agreement),
                made(backends(row)),
            )
        )
    title = {"mode": "per-filter beside per-kernel", "best": "every variant beside the most accurate one"}[kind]
    head = (
        *("target", "variant", "baseline", "n", "seeds", "top-1 %", "baseline's", "difference", "95 %", "won / lost"),
        *("p", "p, Holm", "agree %", "made by"),
    )
    notes = (
        f"n: test images, the same for both. {INTERVALS} {FLIPS} Holm: corrected for the number of comparisons on the "
        "target. Hits of several seeds are averaged image by image.",
        *made.notes(),
    )
    return Sheet(f"{case[0]} on {case[1]}: {title}", head, 3, tuple(lines), notes)


def seeds_sheet(evidence: Evidence, case: Case) -> Sheet:
    """Return a line for each variant of a case whose calibrator has several seeds."""
    made = _Legend()
    lines = [
        (
            group.target,
            group.name,
            str(group["n"]),
            str(len(group.rows)),
            *_spread_cells(group.top1),
            *_spread_cells(group.delta, sign=True),
            *_spread_cells(group.agreement)[:2],
            made(backends(group.rows[0])),
        )
        for group in evidence.repeated
        if group.case == case and len(group.rows) > 1
    ]
    head = (
        *("target", "variant", "n", "seeds", "top-1 %", "sd", "least to most", "vs fp32", "sd", "least to most"),
        *("agrees %", "sd", "made by"),
    )
    notes = (
        "n: test images of each seed. Means over the seeds of the calibrator, which draw other calibration images; sd: "
        "sample standard deviation over the seeds, in points. It says what the choice of calibration images does, and "
        "not what other test images would do: that is the interval's part.",
        *made.notes(),
    )
    return Sheet(f"{case[0]} on {case[1]}: repeated seeds", head, 2, tuple(lines), notes)


def sheets_of(evidence: Evidence) -> list[Sheet]:
    """Return the sheets of all cases; those without a line are left out."""
    found = []
    for case in evidence.cases:
        found += [summary_sheet(evidence, case), pairs_sheet(evidence, case, "mode")]
        found += [pairs_sheet(evidence, case, "best"), seeds_sheet(evidence, case)]
    return [sheet for sheet in found if sheet.lines]


def backends(row: Row) -> str:
    """Return who made a row, and how exact it is."""
    parts = [
        f"{verb} {row[key]}"
        for verb, key in (
            ("calibrated by", "calibrate_backend"),
            ("compiled by", "compile_backend"),
            ("run on", "run_backend"),
        )
        if row[key] is not None
    ]
    checked = "" if row["checked"] is None else f"; {mode_of(row)}"
    return f"{', '.join(parts)}; {row['exactness']}{checked}"


def number(cell: object, *, sign: bool = False) -> str:
    """Return a number with two decimals, an empty cell as nothing; zero has no sign."""
    if not isinstance(cell, float):
        return ""
    text = f"{cell:+.2f}" if sign else f"{cell:.2f}"
    return "0.00" if float(text) == 0 else text


def bounds(low: object, high: object, *, sign: bool = False) -> str:
    """Return the bounds of an interval."""
    return f"{number(low, sign=sign)} to {number(high, sign=sign)}" if isinstance(low, float) else ""


def p_value(cell: object) -> str:
    """Return a p-value with what of it is worth reading."""
    if not isinstance(cell, float):
        return ""
    return "< 0.0001" if cell < 0.0001 else f"{cell:.4f}" if cell < 0.01 else f"{cell:.2f}"


def _spread_cells(values: Spread | None, *, sign: bool = False) -> tuple[str, str, str]:
    """Return mean, standard deviation, range."""
    if values is None:
        return "error", "", ""
    return number(values.mean, sign=sign), number(values.sd), bounds(values.low, values.high, sign=sign)


def _of_case(evidence: Evidence, case: Case) -> Iterable[Comparison]:
    return (c for c in evidence.comparisons if (c.model, c.dataset) == case)


def _rows(evidence: Evidence, case: Case) -> dict[tuple[str, str], Row]:
    rows = (row for row in evidence.rows if (row["model"], row["dataset"]) == case)
    return {(str(row["target"]), str(row["variant"])): row for row in rows}


def _group(evidence: Evidence, case: Case, pair: Comparison) -> Repeated:
    """Return the variants that an average over seeds was made of."""
    return next(g for g in evidence.repeated if (*g.case, g.target, g.name) == (*case, pair.target, pair.variant))


# ---- formats

_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{character: f"\\{character}" for character in "{}$&#_%"},
}
_LATEX_PATTERN = re.compile("|".join(re.escape(character) for character in _LATEX_SPECIAL))


def escape_latex(text: str) -> str:
    """Return `text` so that LaTeX prints it as it is (with the T1 font encoding)."""
    return _LATEX_PATTERN.sub(lambda match: _LATEX_SPECIAL[match.group()], text)


def to_latex(sheet: Sheet) -> str:
    """Return a sheet as a `longtable` with booktabs rules, and its notes."""
    columns = "l" * sheet.names + "r" * (len(sheet.head) - sheet.names)
    cells = [
        [escape_latex(cell) if i < sheet.names else _latex_number(cell) for i, cell in enumerate(line)]
        for line in sheet.lines
    ]
    lines = [" & ".join(line) + r" \\" for line in cells]
    head = " & ".join(map(escape_latex, sheet.head)) + r" \\"
    notes = [rf"\noindent{{\footnotesize {escape_latex(note)}\par}}" for note in sheet.notes]
    return "\n".join(
        [
            rf"\begin{{longtable}}{{{columns}}}",
            rf"\caption{{{escape_latex(sheet.title)}}} \\",
            *(r"\toprule", head, r"\midrule", r"\endhead", r"\bottomrule", r"\endlastfoot"),
            *lines,
            r"\end{longtable}",
            *notes,
            "",
        ]
    )


def _latex_number(cell: str) -> str:
    """Return a number with a true minus sign; a hyphen within a word stays."""
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", escape_latex(cell))


def write_tex(path: Path | str, sheets: Iterable[Sheet]) -> None:
    """Write sheets for LaTeX's input command."""
    head = "% \\usepackage{booktabs,longtable} and \\usepackage[T1]{fontenc}; wide: use it in landscape\n"
    write_text(path, head + "\n".join(map(to_latex, sheets)))


def to_markdown(sheet: Sheet) -> str:
    """Return a sheet as Markdown, under a heading."""
    rule = ["---"] * sheet.names + ["--:"] * (len(sheet.head) - sheet.names)
    lines = [sheet.head, rule, *sheet.lines]
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([f"## {sheet.title}", "", *table, "", *(f"{note}  " for note in sheet.notes), ""])


def write_markdown(path: Path | str, sheets: Iterable[Sheet]) -> None:
    """Write sheets as one Markdown document."""
    write_text(path, "\n".join(map(to_markdown, sheets)))


def to_html(sheet: Sheet, *, caption: bool = True) -> str:
    """Return a sheet as HTML that scrolls by itself where it is wide."""
    # Without numbers there is text, which may wrap.
    parts = [f'<div class="sheet{" text" if sheet.names == len(sheet.head) else ""}"><table>']
    parts += [f"<caption>{html.escape(sheet.title)}</caption>"] if caption else []
    parts.append(f"<thead><tr>{_cells('th', sheet.head, sheet.names)}</tr></thead><tbody>")
    parts += [f"<tr>{_cells('td', line, sheet.names)}</tr>" for line in sheet.lines]
    parts.append("</tbody></table></div>")
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in sheet.notes]
    return "\n".join(parts)


def _cells(tag: str, cells: Sequence[str], names: int) -> str:
    """Return the cells of one line; numbers have a true minus sign and stand at the right."""
    texts = [html.escape(cell) for cell in cells]
    minus = [re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", text) for text in texts[names:]]
    return "".join(
        [*(f"<{tag}>{text}</{tag}>" for text in texts[:names]), *(f'<{tag} class="n">{text}</{tag}>' for text in minus)]
    )
