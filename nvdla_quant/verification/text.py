"""A verdict on a loadable as text for a terminal."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nvdla_quant.verification.judgement.verdicts import Finding, Judgement, Near, Verdict
from nvdla_quant.verification.measures.comparison import Comparison
from nvdla_quant.verification.verify import Row, Verification

PLAIN_WIDTH = 160
"""Columns of the table where the output is no terminal."""
_COLOURS = {Judgement.OK: "green", Judgement.TABLE: "yellow", Judgement.UNKNOWN: "yellow"}
_MEANING = {
    Judgement.OK: "it computes what the network does",
    Judgement.TABLE: "it does what its table says, but the table costs too much",
    Judgement.PRECISION: "it does what the network says, but fp16 cannot hold it",
    Judgement.MISCOMPILED: "it computes something else than its network and table say",
    Judgement.UNKNOWN: "what some operations are for was not found out, which does not make them wrong",
}


def render_verification(verification: Verification) -> Group:
    """Return a table of the layers, the findings, and the verdict."""
    verdict = verification.verdict
    heads = ("layer", "ops", "shape", "scale", "SQNR fp32", "cos", "SQNR int8", "cos", "local error")
    table = Table(*heads, "saturated", "zeros", "constant", box=None, header_style="bold", pad_edge=False)
    for row in verification.rows:
        bad = bool(row["causes"]) and row["local_share"] > 0
        table.add_row(*_cells(row), style="red" if bad else "")
    parts: list[Any] = [table, Text()]
    parts += [
        Text(f"{finding.weight}: {finding.cause}{_where(finding)}: {finding.evidence}") for finding in verdict.findings
    ]
    parts += [Text(f"warning: {warning}") for warning in verdict.warnings if not warning.startswith("race:")]
    if verdict.scores_layer is not None and verdict.fp32 is not None and verdict.margin is not None:
        only = Near(verdict.scores_layer, verdict.fp32, verdict.simulated, verdict.margin)
        parts += [Text(_beside(one, verdict)) for one in verdict.outputs or (only,)]
    how = "by what the compiler says of it" if verdict.claimed else "by a search, since no compiler says"
    parts.append(Text(f"each operation was taken for what it is {how}"))
    first = f": {verdict.cause} at {verdict.first_bad_layer or 'no single layer'}" if verdict.cause is not None else ""
    line = f"verdict: {verdict.verdict}{first} ({_MEANING[verdict.verdict]})"
    parts.append(Text(line, style=_COLOURS.get(verdict.verdict, "red")))
    return Group(*parts)


def _beside(output: Near, verdict: Verdict) -> str:
    """Return how near an output is to the references."""
    side = "inside" if output.margin >= 0 else "beyond"
    beside = f"{output.scores_layer}: {_near(output.fp32)} beside fp32 ({abs(output.margin):.4f} {side} the limit)"
    if output.simulated is not None:
        beside += f", {_near(output.simulated)} beside the simulated int8 network ({verdict.mode})"
    return f"{beside}, {verdict.images} images"


def _where(finding: Finding) -> str:
    """Return the layer and the operation of a finding, where it has them."""
    operation = "" if finding.operation is None else f"operation {finding.operation}"
    if not finding.layer:
        return f", {operation}" if operation else ""
    return f", {finding.layer}" + (f" ({operation})" if operation else "")


def _cells(row: Row) -> list[str]:
    scale = f"{row['scale']:.5g}"
    if row["effective_scale"] != row["scale"]:
        scale += f" -> {row['effective_scale']:.5g}"
    values = max(row["values"], 1)
    return [
        row["layer"],
        row["operations"],
        row["shape"],
        scale,
        _decibels(row["sqnr_fp32"]),
        _ratio(row["cosine_fp32"]),
        _decibels(row["sqnr_simulated"]),
        _ratio(row["cosine_simulated"]),
        f"{row['local_error']:.3g}",
        f"{row['saturated'] / values:.1%}",
        f"{row['zeros'] / values:.0%}",
        str(row["constant_channels"]),
    ]


def _near(comparison: Comparison) -> str:
    return f"cosine {comparison.cosine:.4f}, correlation {comparison.correlation:.4f}"


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} dB"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
