"""The summary as text for the terminal."""

from collections.abc import Callable, Iterable, Sequence
from io import StringIO

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nvdla_quant.report.frames import CASE, Row, records
from nvdla_quant.report.rows import UNKNOWN
from nvdla_quant.report.words import EXTRAPOLATED, milliseconds, mode_of, number, of_command, place_of, significant

_TERMINAL_COLUMNS = (
    "target",
    "variant",
    "n",
    "top-1 %",
    "95 % interval",
    "vs fp32",
    "agree %",
    "ties %",
    "logits %",
    "ms",
    "verdict",
)


_STYLES = {"ok": "", UNKNOWN: "yellow"}
"""How rows are shown by their verdict; all others are wrong, and red."""


def render_summary(accuracies: pd.DataFrame, *, width: int = 100, colour: bool = False) -> str:
    """Return accuracies as a short table for the terminal, one for each case, with a final newline.

    Parameters
    ----------
    accuracies : DataFrame
        From `evidence.summarize`.
    width : int
        Columns of the terminal; long names and errors are folded.
    colour : bool
        Use ANSI colours.
    """
    console, stream = _console(width, colour)
    for (model, dataset), lines in accuracies.groupby(list(CASE), sort=False):
        group = records(lines)
        sizes = {row["n"] for row in group}
        title = f"{model} on {dataset}" + (f", {group[0]['n']} images" if len(sizes) == 1 else "")
        columns = [name for name in _TERMINAL_COLUMNS if name != "n" or len(sizes) > 1]
        if lines["logits_top1"].isna().all():
            columns.remove("logits %")
        if lines["ms"].isna().all():
            columns.remove("ms")
        if lines["verdict"].isna().all():
            columns.remove("verdict")
        _print(console, title, columns, group, _terminal_cells)
    return _text_of(stream)


def render_fidelity(runs: pd.DataFrame, *, width: int = 100, colour: bool = False) -> str:
    """Return what was measured without labels as `render_summary` does, from a frame by `FIDELITY`."""
    console, stream = _console(width, colour)
    for (model, dataset), lines in runs.groupby(list(CASE), sort=False):
        group = records(lines)
        title = f"{model} on {dataset}, {group[0]['n']} images, outputs beside fp32"
        absent = {heading for heading, name in _OPTIONAL.items() if lines[name].isna().all()}
        if (lines["outputs"] == 1).all():
            absent.add("worst output")
        columns = [name for name in _FIDELITY_COLUMNS if name not in absent]
        _print(console, title, columns, group, _fidelity_cells)
    return _text_of(stream)


def _console(width: int, colour: bool) -> tuple[Console, StringIO]:
    """Return a console that writes into a text, and the text."""
    stream = StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
    )
    return console, stream


def _text_of(stream: StringIO) -> str:
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).strip("\n") + "\n"


def _print(
    console: Console, title: str, columns: Sequence[str], group: Sequence[Row], cells_of: Callable[[Row], Row]
) -> None:
    """Print the table of a case, and what must be known of its lines."""
    table = Table(
        box=SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False, padding=0, collapse_padding=True
    )
    for name in columns:
        is_name = name in ("target", "variant", "verdict", "worst output")
        table.add_column(name, justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name)
    for row in group:
        style = "red" if row["error"] is not None else _STYLES.get(str(row["verdict"] or "ok"), "red")
        cells = cells_of(row)
        table.add_row(*(Text(cells[name], style=style) for name in columns))
    console.print(table)
    for row in group:
        place = place_of(row)
        if row["verdict"] == UNKNOWN:
            why = f"not verified: {place}: {row['why'] or 'no reason is known'}; what was measured stands"
            console.print(Text(why, style="yellow"))
        elif row["verdict"] not in (None, "ok"):
            console.print(Text(f"{row['verdict']}: {place}: {row['cause'] or 'no single layer'}", style="red"))
        if row["error"] is not None:
            console.print(Text(f"error: {place}: {row['error']}", style="red"))
    notes = mode_notes(group)
    if any(row["ms"] is not None for row in group):
        marked = f" {EXTRAPOLATED}" if any(row["extrapolated"] for row in group) else ""
        notes.append(f"ms of an image on the hardware, estimated from the loadable.{marked}")
    for note in notes:
        console.print(Text(f"note: {note}"))
    console.print()


_FIDELITY_COLUMNS = (
    *("target", "variant", "SQNR dB", "95 % interval", "worst output", "PSNR dB", "cosine", "max steps"),
    *("same channel %", "number", "fp32's", "ms", "verdict"),
)
_OPTIONAL = {
    "PSNR dB": "psnr",
    "max steps": "max_error_steps",
    "same channel %": "pixel_agreement",
    "number": "number",
    "fp32's": "number_fp32",
    "ms": "ms",
    "verdict": "verdict",
}
"""Columns that no case needs to have, and the figures that they show."""


def _fidelity_cells(row: Row) -> dict[str, str]:
    """Return the cells of one row for the terminal, by `_FIDELITY_COLUMNS`."""
    return {
        "target": str(row["target"] or "-"),
        "variant": str(row["variant"]),
        "SQNR dB": number(row["sqnr"]) if row["error"] is None else "error",
        "95 % interval": _interval(row, "sqnr"),
        "worst output": "" if row["worst_output"] is None else f"{row['worst_output']} {number(row['worst_sqnr'])}",
        "PSNR dB": number(row["psnr"]),
        "cosine": "" if row["cosine"] is None else f"{row['cosine']:.5f}",
        "max steps": significant(row["max_error_steps"]),
        "same channel %": number(row["pixel_agreement"]),
        "number": of_command(row["number"]),
        "fp32's": of_command(row["number_fp32"]),
        "ms": milliseconds(row),
        "verdict": str(row["verdict"] or ""),
    }


def _terminal_cells(row: Row) -> dict[str, str]:
    """Return the cells of one row for the terminal, by `_TERMINAL_COLUMNS`."""
    return {
        "target": str(row["target"] or "-"),
        "variant": str(row["variant"]),
        "n": str(row["n"]),
        "top-1 %": number(row["top1"]) if row["error"] is None else "error",
        "95 % interval": _interval(row, "top1"),
        "vs fp32": number(row["delta"], sign=True),
        "agree %": number(row["agreement"]),
        "ties %": number(row["ties"]),
        "logits %": number(row["logits_top1"]),
        "ms": milliseconds(row),
        "verdict": str(row["verdict"] or ""),
    }


def mode_notes(rows: Iterable[Row]) -> list[str]:
    """Return a sentence for each fp16 row: in which mode it was run, and how far that is off."""
    return [f"{place_of(row)}: {mode_of(row)}" for row in rows if row["precision"] == "fp16"]


def _interval(row: Row, name: str, *, sign: bool = False) -> str:
    """Return the bounds of an interval."""
    low, high = number(row[f"{name}_low"], sign=sign), number(row[f"{name}_high"], sign=sign)
    return f"[{low}, {high}]" if low else ""
