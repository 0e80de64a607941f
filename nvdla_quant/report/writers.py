"""Sheets as Markdown, as LaTeX with booktabs rules and as HTML, by pandas."""

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nvdla_quant.jobs.files import write_text
from nvdla_quant.report.tables import Sheet

_MINUS = re.compile(r"(?<!\w)-(?=\d)")
"""A hyphen that stands for minus; one within a word stays."""


def _styled(sheet: Sheet, markup: str, minus: str) -> Any:
    """Return the cells escaped for `markup`, those of numbers with a true `minus` sign."""
    numbers = [i >= sheet.names for i in range(sheet.cells.shape[1])]
    style = sheet.cells.style.hide(axis="index").format_index(escape=markup, axis="columns").format(escape=markup)
    return style.format(lambda text: _MINUS.sub(minus, text), escape=markup, subset=(slice(None), numbers))


def to_latex(sheet: Sheet) -> str:
    """Return a sheet as a `longtable` with booktabs rules, and its notes below it."""
    columns = "l" * sheet.names + "r" * (sheet.cells.shape[1] - sheet.names)
    table = _styled(sheet, "latex", "$-$").to_latex(
        environment="longtable", column_format=columns, hrules=True, caption=_escaped(sheet.title)
    )
    return f"{table}{{\\footnotesize\n{_notes(sheet.notes)}}}\n"


def _notes(texts: Iterable[str]) -> str:
    """Return notes as paragraphs of the width of a line."""
    style = pd.DataFrame({"notes": list(texts)}).style.hide(axis="index").hide(axis="columns").format(escape="latex")
    text: str = style.to_latex(column_format=r"@{}p{\linewidth}@{}")
    return text


def _escaped(text: str) -> str:
    """Return a text so that LaTeX prints it as it is: Styler escapes cells, and no caption."""
    return _notes([text]).splitlines()[1].removesuffix(r" \\")


def to_markdown(sheet: Sheet) -> str:
    """Return a sheet as Markdown, under a heading."""
    aligned = ["left"] * sheet.names + ["right"] * (sheet.cells.shape[1] - sheet.names)
    cells = sheet.cells.replace(r"\|", r"\\|", regex=True)
    table = cells.to_markdown(index=False, tablefmt="pipe", colalign=aligned, disable_numparse=True)
    return "\n".join([f"## {sheet.title}", "", table, "", *(f"{note}  " for note in sheet.notes), ""])


def to_html(sheet: Sheet, *, caption: bool = True) -> str:
    """Return a sheet as HTML that scrolls by itself where it is wide; the page's style puts numbers at the right."""
    style = _styled(sheet, "html", "\N{MINUS SIGN}")
    if caption:
        style = style.set_caption(html.escape(sheet.title))
    # Without numbers there is text, which may wrap.
    kind = "text" if sheet.names == sheet.cells.shape[1] else f"names-{sheet.names}"
    notes = "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in sheet.notes)
    return f'<div class="sheet {kind}">{style.to_html(exclude_styles=True)}</div>\n{notes}'


def write_tex(path: Path | str, sheets: Iterable[Sheet]) -> None:
    """Write sheets for LaTeX's input command."""
    head = "% \\usepackage{booktabs,longtable} and \\usepackage[T1]{fontenc}; wide: use it in landscape\n"
    write_text(path, head + "\n".join(map(to_latex, sheets)))


def write_markdown(path: Path | str, sheets: Iterable[Sheet]) -> None:
    """Write sheets as one Markdown document."""
    write_text(path, "\n".join(map(to_markdown, sheets)))


def write_sheets(sheets: Sequence[Sheet], tex: Path | str, markdown: Path | str) -> None:
    """Write sheets for LaTeX and as Markdown."""
    write_tex(tex, sheets)
    write_markdown(markdown, sheets)
