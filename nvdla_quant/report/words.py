"""Numbers and remarks as they are printed, in every table, plot and sentence alike."""

from typing import Any

import pandas as pd

from nvdla_quant.report.frames import Row


def number(cell: Any, *, sign: bool = False) -> str:
    """Return a number with two decimals, an empty cell as nothing; zero has no sign."""
    if pd.isna(cell):
        return ""
    text = f"{cell:+.2f}" if sign else f"{cell:.2f}"
    return "0.00" if float(text) == 0 else text


def bounds(low: Any, high: Any, *, sign: bool = False) -> str:
    """Return the bounds of an interval."""
    return "" if pd.isna(low) else f"{number(low, sign=sign)} to {number(high, sign=sign)}"


def p_value(cell: Any) -> str:
    """Return a p-value with what of it is worth reading."""
    if pd.isna(cell):
        return ""
    return "< 0.0001" if cell < 0.0001 else f"{cell:.4f}" if cell < 0.01 else f"{cell:.2f}"


def p_said(cell: Any) -> str:
    """Return a p-value in a sentence."""
    text = p_value(cell)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def of_command(cell: Any, *, sign: bool = False) -> str:
    """Return a number of a user's command, which may be of any size, with four significant digits."""
    if pd.isna(cell):
        return ""
    return f"{cell:+.4g}" if sign and cell else f"{cell:.4g}"


def significant(cell: Any) -> str:
    """Return a number with two significant digits, an empty cell as nothing."""
    return "" if pd.isna(cell) else f"{cell:.2g}"


EXTRAPOLATED = "* extrapolated: no measurement stands behind a part of it (docs/timing.md)."
"""What stands below numbers with a star."""


def milliseconds(row: Row) -> str:
    """Return the time of an estimate with three digits, and a star where it is extrapolated."""
    return starred(row, "" if pd.isna(row["ms"]) else _digits(row["ms"]))


def starred(row: Row, text: str) -> str:
    """Return a number of an estimate with a star where that is extrapolated, no number as nothing."""
    return f"{text}*" if text and row["extrapolated"] else text


def _digits(value: float) -> str:
    """Return a number with three significant digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def bound_of(row: Row) -> str:
    """Return in words what an estimate's cycles are spent on."""
    return f"{row['bound']} for the most part"


def place_of(row: Row) -> str:
    """Return the target, if there is one, and the variant of a row."""
    return " ".join(row[name] for name in ("target", "variant") if row[name] is not None)


def mode_of(row: Row) -> str:
    """Return the mode of a run in a few words, with what a check of some images found."""
    mode = str(row["exactness"]).partition(":")[0]
    if row["checked"] is None:
        return mode
    logits = "" if row["logits_deviation"] is None else f" ({row['logits_deviation']:.2g} before Softmax)"
    return f"{mode}, at most {row['deviation']:.2g}{logits} from bit-exact on {row['checked']} images"


def backends(row: Row) -> str:
    """Return who made a row, and how exact it is."""
    verbs = {"calibrate_backend": "calibrated by", "compile_backend": "compiled by", "run_backend": "run on"}
    parts = [f"{verb} {row[key]}" for key, verb in verbs.items() if row[key] is not None]
    checked = "" if row["checked"] is None else f"; {mode_of(row)}"
    return f"{', '.join(parts)}; {row['exactness']}{checked}"


def remarks(row: Row) -> str:
    """Return what must be known beside the numbers of a row: that they mean nothing, or that nobody verified them."""
    error = "" if row["error"] is None else f"; error: {row['error']}"
    return error if row["verdict"] != "unknown" else f"{error}; not verified: {row['why'] or 'no reason is known'}"
