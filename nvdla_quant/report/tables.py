"""The rows of the summary: as TSV for programs, as text for the terminal; `sheets` has them for people.

Shares are in percent, differences to fp32 in percentage points, intervals are 95 %; an
empty cell is "not applicable" or, beside an entry under ``error``, "no number because the output means nothing".
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nvdla_quant.errors import ReportError
from nvdla_quant.evaluation.accuracy import Accuracy, Deviation, Figures, Interval
from nvdla_quant.jobs.files import write_text

Row = dict[str, str | int | float | bool | None]
"""One line of the summary: a cell for each of `COLUMNS`."""

_Item = TypeVar("_Item")

_FIGURE_COLUMNS = (
    "top1",
    "top1_low",
    "top1_high",
    "delta",
    "delta_low",
    "delta_high",
    "mcnemar_p",
    "top5",
    "top5_low",
    "top5_high",
    "ties",
    "ties5",
    "agreement",
    "distinct_outputs",
    "error",
)

COLUMNS = (
    "model",
    "dataset",
    "target",
    "variant",
    "precision",
    "mode",
    "calibrator",
    "preparation",
    "feeding",
    "unified_scales",
    "calibrate_backend",
    "compile_backend",
    "run_backend",
    "exactness",
    "checked",
    "deviation",
    "logits_deviation",
    "verdict",
    "cause",
    "n",
    "classes",
    *_FIGURE_COLUMNS,
    *(f"logits_{name}" for name in _FIGURE_COLUMNS),
)
"""Columns of ``summary.tsv``; those of ``logits_`` are from the tensor before the final Softmax."""


Key = tuple[str, str, str | None, str]
"""Model, data set, target, variant."""


@dataclass(frozen=True)
class VerdictRecord:
    """What a ``verdict.json`` says of one row; see `verification.diagnosis`.

    Attributes
    ----------
    key : Key
        The row.
    verdict : str
        ``ok``, ``table``, ``precision`` or ``miscompiled``.
    cause, layer, evidence : str or None
        Of the first finding that the verdict rests on; None where there is none.
    images : int
        Images that were run.
    """

    key: Key
    verdict: str
    cause: str | None
    layer: str | None
    evidence: str | None
    images: int


def read_verdict(path: Path | str) -> VerdictRecord:
    """Read what `verify.write_verdict` wrote.

    Raises
    ------
    ReportError
        The file is missing, not JSON, or lacks a key.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        subject = content["subject"]
        key = subject["model"], subject["dataset"], subject["target"], subject["variant"]
        evidence = None if content["cause"] is None else content["findings"][0]["evidence"]
        return VerdictRecord(
            key, content["verdict"], content["cause"], content["first_bad_layer"], evidence, content["images"]
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ReportError(f"{path}: not a verdict: {type(error).__name__} {error}") from error


def summarize(records: Iterable[Accuracy], verdicts: Iterable[VerdictRecord] = ()) -> list[Row]:
    """Return the rows of the summary: cases in the order given, within a case fp32 first, then as given.

    Raises
    ------
    ReportError
        Two records for one model, data set, target and variant, or a verdict on none of them.
    """
    judged = {verdict.key: verdict for verdict in verdicts}
    rows: dict[Key, Row] = {}
    for record in records:
        subject = record.subject
        key = (subject.model, subject.dataset, subject.target, subject.variant)
        if key in rows:
            raise ReportError(f"summary: two accuracy records for {' / '.join(part or '-' for part in key)}")
        rows[key] = {
            **asdict(subject),
            "exactness": record.exactness,
            **_deviation_cells(record.deviation),
            "verdict": judged[key].verdict if key in judged else None,
            "cause": judged[key].cause if key in judged else None,
            "n": record.n,
            "classes": record.classes,
            **_figure_cells(record.output),
            **{f"logits_{name}": cell for name, cell in _figure_cells(record.logits).items()},
        }
    if strangers := judged.keys() - rows.keys():
        raise ReportError(
            f"summary: a verdict on {' / '.join(map(str, min(strangers, key=str)))}, which has no accuracy"
        )
    cases = list(dict.fromkeys(key[:2] for key in rows))
    order = sorted(rows, key=lambda key: (cases.index(key[:2]), key[2] is not None))
    return [{name: rows[key][name] for name in COLUMNS} for key in order]


def _deviation_cells(deviation: Deviation | None) -> Row:
    """Return how many images were also run bit for bit, and the largest difference."""
    if deviation is None:
        return dict.fromkeys(("checked", "deviation", "logits_deviation"))
    images, output, logits = len(deviation.images), deviation.output, deviation.logits
    return {"checked": images, "deviation": output, "logits_deviation": logits}


def _figure_cells(figures: Figures | None) -> Row:
    """Return the cells of one tensor's figures, in percent and points."""
    if figures is None:
        return dict.fromkeys(_FIGURE_COLUMNS)
    return {
        **_interval_cells("top1", figures.top1),
        **_interval_cells("delta", figures.delta),
        "mcnemar_p": figures.mcnemar_p,
        **_interval_cells("top5", figures.top5),
        "ties": percent(figures.ties),
        "ties5": percent(figures.ties5),
        "agreement": percent(figures.agreement),
        "distinct_outputs": figures.distinct_outputs,
        # One line, so that each format can hold it.
        "error": None if figures.error is None else " ".join(figures.error.split()),
    }


def _interval_cells(name: str, interval: Interval | None) -> Row:
    """Return an interval as three cells in percent."""
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    value = None if interval is None else interval.value
    return {name: percent(value), f"{name}_low": percent(low), f"{name}_high": percent(high)}


def percent(share: float | None) -> float | None:
    """Return `share` in percent, rounded where one image of a million would show."""
    return None if share is None else round(100 * share, 4) + 0.0


def write_tsv(path: Path | str, rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> None:
    """Write a header of `columns`, then one line for each row."""
    lines = ["\t".join(columns), *("\t".join(_tsv_cell(row[name]) for name in columns) for row in rows)]
    write_text(path, "\n".join(lines) + "\n")


def _tsv_cell(cell: str | int | float | bool | None) -> str:
    """Return a cell as text without tabs and line ends."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    return " ".join(str(cell).split()) if isinstance(cell, str) else repr(cell)


def mode_notes(rows: Iterable[Row]) -> list[str]:
    """Return a sentence for each fp16 row: in which mode it was run, and how far that is off."""
    return [f"{place_of(row)}: {mode_of(row)}" for row in rows if row["precision"] == "fp16"]


def place_of(row: Row) -> str:
    """Return the target, if there is one, and the variant of a row."""
    return " ".join(str(row[name]) for name in ("target", "variant") if row[name] is not None)


def mode_of(row: Row) -> str:
    """Return the mode of a run in a few words, with what a check of some images found."""
    mode = str(row["exactness"]).partition(":")[0]
    if row["checked"] is None:
        return mode
    logits = "" if row["logits_deviation"] is None else f" ({row['logits_deviation']:.2g} before Softmax)"
    return f"{mode}, at most {row['deviation']:.2g}{logits} from bit-exact on {row['checked']} images"


# ---- terminal

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
    "verdict",
)


def render_summary(rows: Sequence[Row], *, width: int = 100, colour: bool = False) -> str:
    """Return the rows as a short table for the terminal, one for each case, with a final newline.

    Parameters
    ----------
    rows : sequence of Row
        From `summarize`.
    width : int
        Columns of the terminal; long names and errors are folded.
    colour : bool
        Use ANSI colours.
    """
    stream = StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
    )
    for (model, dataset), group in by_case(rows):
        sizes = {row["n"] for row in group}
        title = f"{model} on {dataset}" + (f", {group[0]['n']} images" if len(sizes) == 1 else "")
        columns = [name for name in _TERMINAL_COLUMNS if name != "n" or len(sizes) > 1]
        if all(row["logits_top1"] is None for row in group):
            columns.remove("logits %")
        if all(row["verdict"] is None for row in group):
            columns.remove("verdict")
        table = Table(
            box=SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False, padding=0, collapse_padding=True
        )
        for name in columns:
            is_name = name in ("target", "variant", "verdict")
            table.add_column(name, justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name)
        for row in group:
            style = "" if row["error"] is None and row["verdict"] in (None, "ok") else "red"
            cells = _terminal_cells(row)
            table.add_row(*(Text(cells[name], style=style) for name in columns))
        console.print(table)
        for row in group:
            place = place_of(row)
            if row["verdict"] not in (None, "ok"):
                console.print(Text(f"{row['verdict']}: {place}: {row['cause'] or 'no single layer'}", style="red"))
            if row["error"] is not None:
                console.print(Text(f"error: {place}: {row['error']}", style="red"))
        for note in mode_notes(group):
            console.print(Text(f"note: {note}"))
        console.print()
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).strip("\n") + "\n"


def _terminal_cells(row: Row) -> dict[str, str]:
    """Return the cells of one row for the terminal, by `_TERMINAL_COLUMNS`."""
    return {
        "target": str(row["target"] or "-"),
        "variant": str(row["variant"]),
        "n": str(row["n"]),
        "top-1 %": _number(row["top1"]) if row["error"] is None else "error",
        "95 % interval": _interval(row, "top1"),
        "vs fp32": _number(row["delta"], sign=True),
        "agree %": _number(row["agreement"]),
        "ties %": _number(row["ties"]),
        "logits %": _number(row["logits_top1"]),
        "verdict": str(row["verdict"] or ""),
    }


def by_case(rows: Sequence[Row]) -> list[tuple[tuple[str, str], list[Row]]]:
    """Return the rows of each case; `summarize` leaves them together."""
    return [(case, list(group)) for case, group in groupby(rows, lambda row: (str(row["model"]), str(row["dataset"])))]


def alike(
    targets: Mapping[str, Mapping[str, _Item]], key: Callable[[_Item], object]
) -> Iterable[tuple[list[str], Mapping[str, _Item]]]:
    """Yield targets together whose variants have the same numbers by `key`: they compute the same."""
    merged: dict[str, tuple[list[str], Mapping[str, _Item]]] = {}
    for target, variants in targets.items():
        numbers = repr({name: key(value) for name, value in variants.items()})
        merged.setdefault(numbers, ([], variants))[0].append(target)
    return merged.values()


def _number(cell: object, *, sign: bool = False) -> str:
    """Return a number with two decimals, an empty cell as nothing."""
    if not isinstance(cell, float):
        return ""
    text = f"{cell:+.2f}" if sign else f"{cell:.2f}"
    return "0.00" if float(text) == 0 else text


def _interval(row: Row, name: str, *, sign: bool = False) -> str:
    """Return the bounds of an interval."""
    low, high = _number(row[f"{name}_low"], sign=sign), _number(row[f"{name}_high"], sign=sign)
    return f"[{low}, {high}]" if low else ""
