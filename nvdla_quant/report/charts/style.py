"""How every figure looks, and how it is written."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import altair as alt

from nvdla_quant.errors import ReportError
from nvdla_quant.jobs.files import atomic_path

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
INK = "#333333"
ERROR = "#b2182b"
KINDS = {
    # Okabe and Ito's palette, told apart by colour-blind readers.
    "fp16": "#009e73",
    "int8 per-kernel": "#e69f00",
    "int8 per-filter": "#56b4e9",
}
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
"""The whole palette, for what has no colour of its own."""
_FORMATS = {".svg": "svg", ".pdf": "pdf", ".png": "png"}


def arrange(panels: list[Any], columns: int, *, shared_colours: bool = True) -> alt.ConcatChart:
    """Return `panels` side by side in so many columns, in the style of all figures.

    One font face and no transparency: the PDF writer orders several of either at random.
    """
    return (
        alt.concat(*panels, columns=columns, spacing={"row": 28, "column": 24})
        .resolve_scale(color="shared" if shared_colours else "independent")
        .configure(font=FONT, background="white", padding=12)
        .configure_title(anchor="start", fontWeight="normal", fontSize=13, subtitleColor="#666666", offset=8)
        .configure_axis(titleFontWeight="normal", labelColor=INK, titleColor=INK, gridColor="#e5e5e5")
        .configure_legend(titleFontWeight="normal", orient="top", labelLimit=400)
        .configure_view(stroke=None)
    )


def lines_of(rows: Iterable[Mapping[str, Any]]) -> alt.Data:
    """Return the data of a plot.

    As a tuple: Altair copies lists, and all that is in them, with every step that makes a plot of parts.
    """
    return alt.Data(values=tuple(rows))


def nothing(text: str) -> alt.ConcatChart:
    """Return a figure that says why there is nothing to draw."""
    chart = alt.Chart(lines_of([{"text": text}])).mark_text(color=INK, align="left", fontSize=13)
    return arrange([chart.encode(x=alt.value(0), text="text:N").properties(width=600, height=30)], 1)


def write_chart(path: Path | str, chart: alt.ConcatChart) -> None:
    """Write `chart` as SVG, PDF or PNG, by the suffix of `path`, atomically and with stable bytes.

    Neither a browser nor the network is needed.

    Raises
    ------
    ReportError
        Another suffix.
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise ReportError(f"{path}: unknown plot format {path.suffix!r}, expected one of {', '.join(_FORMATS)}")
    with atomic_path(path) as temporary:
        chart.save(str(temporary), format=_FORMATS[path.suffix], ppi=144)


def signed(value: float, decimals: int = 2) -> str:
    """Return a number with its sign as drawn: a true minus, and no sign before zero."""
    text = f"{value:+.{decimals}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
