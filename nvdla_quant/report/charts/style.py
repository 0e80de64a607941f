"""How every figure looks, and how it is written."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from nvdla_quant.errors import ReportError
from nvdla_quant.jobs.files import write_bytes, write_text
from nvdla_quant.report.frames import Row

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
_GRAMMAR = "_".join(alt.SCHEMA_VERSION.split(".")[:2])
"""The version of Vega-Lite that charts are in, as vl-convert has it."""
_PPI = 144
"""Pixels of an inch, in a PNG."""


def arrange(panels: list[Any], columns: int, *, shared_colours: bool = True) -> alt.ConcatChart:
    """Return `panels` side by side in so many columns, in the style of all figures.

    One font face and no transparency: the PDF writer orders several of either at random. Resolved and configured at
    once, since each method of a chart that does so copies the whole.
    """
    return alt.concat(
        *panels,
        columns=columns,
        spacing={"row": 28, "column": 24},
        resolve=alt.Resolve(scale=alt.ScaleResolveMap(color="shared" if shared_colours else "independent")),
        config=alt.Config(
            font=FONT,
            background="white",
            padding=12,
            title=alt.TitleConfig(anchor="start", fontWeight="normal", fontSize=13, subtitleColor="#666666", offset=8),
            axis=alt.AxisConfig(titleFontWeight="normal", labelColor=INK, titleColor=INK, gridColor="#e5e5e5"),
            legend=alt.LegendConfig(titleFontWeight="normal", orient="top", labelLimit=400),
            view=alt.ViewConfig(stroke=None),
        ),
    )


def lines_of(rows: Iterable[Mapping[str, Any]]) -> alt.Data:
    """Return the data of a plot.

    As a tuple: Altair copies lists, and all that is in them, with every step that makes a plot of parts.
    """
    return alt.Data(values=tuple(rows))


def kind_of(row: Row) -> str:
    """Return the group of a run that sets its colour: precision and quantization mode."""
    return " ".join(str(row[name]) for name in ("precision", "mode") if row[name] is not None)


def kinds_of(rows: Iterable[Row]) -> list[str]:
    """Return the kinds of some runs, in the order of their colours."""
    present = {kind_of(row) for row in rows}
    return [kind for kind in KINDS if kind in present]


def colour_of(kinds: Sequence[str]) -> alt.Color:
    """Return the colours of kinds: one scale for all panels, since they share a legend."""
    return alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds, range=[KINDS[kind] for kind in kinds]))


def nothing(text: str) -> alt.ConcatChart:
    """Return a figure that says why there is nothing to draw."""
    chart = alt.Chart(lines_of([{"text": text}])).mark_text(color=INK, align="left", fontSize=13)
    return arrange([chart.encode(x=alt.value(0), text="text:N").properties(width=600, height=30)], 1)


def write_chart(chart: alt.ConcatChart, *paths: Path | str) -> None:
    """Write `chart` as SVG, PDF or PNG, by the suffix of each of `paths`, atomically and with stable bytes.

    It is drawn once, as SVG, whatever it is written as. Neither a browser nor the network is needed. Tests hold every
    chart to the grammar, which would take a third of the time here.

    Raises
    ------
    ReportError
        Another suffix.
    """
    svg = vl_convert.vegalite_to_svg(chart.to_dict(validate=False), vl_version=_GRAMMAR)
    for path in map(Path, paths):
        match path.suffix:
            case ".svg":
                write_text(path, svg)
            case ".pdf":
                write_bytes(path, vl_convert.svg_to_pdf(svg))
            case ".png":
                write_bytes(path, vl_convert.svg_to_png(svg, ppi=_PPI))
            case other:
                raise ReportError(f"{path}: unknown plot format {other!r}, expected one of .svg, .pdf, .png")


def signed(value: float, decimals: int = 2) -> str:
    """Return a number with its sign as drawn: a true minus, and no sign before zero."""
    text = f"{value:+.{decimals}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
