"""Heat maps; they carry their numbers where they fit, since a colour alone cannot be read off."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from nvdla_quant.report.charts.style import INK, lines_of

_CELL = 26
_NUMBERED = 46
"""Width of a cell that holds a number."""
_MANY = 16
"""Columns from which on the cells of a heat map are too narrow for numbers."""


def ends(largest: float) -> str:
    """Return where a diverging scale is dark: at both ends."""
    return f"abs(datum.value) > {0.6 * largest}"


def heat_map(
    title: str,
    subtitle: Sequence[str],
    cells: Sequence[Mapping[str, Any]],
    scale: alt.Scale,
    *,
    dark: str = "false",
    numeric: bool = False,
) -> alt.LayerChart:
    """Return a heat map of `cells`: row, column, value, text, and what hovering shows beside.

    `dark`: where the colour is so dark that the number is white, as an expression over `datum.value`.
    """
    rows, columns = (list(dict.fromkeys(cell[key] for cell in cells)) for key in ("row", "column"))
    if numeric:
        columns.sort(key=float)
    few = len(columns) <= _MANY
    axis = {"title": None, "ticks": False, "domain": False, "labelLimit": 320}
    # Slanted labels of narrow columns would overlap.
    angle = 0 if numeric else -40 if few else -90
    x = alt.X("column:N", sort=columns, axis=alt.Axis(**axis, orient="top", labelAngle=angle))
    y = alt.Y("row:N", sort=rows, axis=alt.Axis(**axis))
    base = alt.Chart(lines_of(cells)).encode(x=x, y=y)
    names = [name for name in cells[0] if name not in ("row", "column", "text", "value")]
    tooltip = [alt.Tooltip("row:N"), alt.Tooltip("column:N"), alt.Tooltip("text:N", title="value")]
    tooltip += [alt.Tooltip(f"{name}:N") for name in names]
    layers = [
        base.mark_rect(stroke="white").encode(color=alt.Color("value:Q", scale=scale, legend=None), tooltip=tooltip)
    ]
    if few:
        colour = alt.condition(f"isValid(datum.value) && {dark}", alt.value("white"), alt.value(INK))
        layers.append(base.mark_text(fontSize=10).encode(text="text:N", color=colour))
    size = {"width": alt.Step(_NUMBERED if few else _CELL / 2), "height": alt.Step(20)}
    return alt.layer(*layers).properties(title=alt.TitleParams(title, subtitle=list(subtitle)), **size)
