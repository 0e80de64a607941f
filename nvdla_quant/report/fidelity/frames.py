"""Columns of what is measured without labels, and the lines that they hold.

Shares are in percent, SQNR and PSNR in dB, errors in real units and, of int8, in steps; intervals are 95 %.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

import pandas as pd

from nvdla_quant.evaluation.accuracy import Interval
from nvdla_quant.evaluation.fidelity.figures import Fidelity, OutputFigures
from nvdla_quant.evaluation.fidelity.pairs import Pair
from nvdla_quant.report.frames import (
    CASE,
    DESCRIBED,
    GROUPED,
    NOTED,
    PAIRS,
    RUN,
    Column,
    Row,
    Schema,
    counts,
    numbers,
    share,
    spreads,
    texts,
    typed,
)
from nvdla_quant.report.rows import MADE_BY, credited, deviation_cells, one_line, percent, share_cells, summarized

BY_LABELS = "classification"
"""The metric of a case that is measured by labels, as the configuration calls it."""
OUTPUTS: Schema = {
    **{name: DESCRIBED[name] for name in RUN},
    **texts(output="output, as the network's file calls it", shape="channels x height x width, or features"),
    **numbers(step="real value of one step; none in fp16"),
    **share("sqnr", "signal over noise beside fp32, over all images; 300 where nothing differs"),
    **share("psnr", "peak over noise beside fp32; none where the case has no peak"),
    **share("cosine", "mean over images of the cosine of the angle to fp32's"),
    **share("mean_error", "mean absolute difference to fp32's, in real units"),
    **numbers(
        mean_error_steps="the same in steps of the output; none in fp16",
        max_error="largest absolute difference, in real units",
        max_error_steps="the same in steps of the output; none in fp16",
        saturated="values at an end of the range",
    ),
    **share("pixel_agreement", "pixels whose highest channel is fp32's; none where the case does not ask"),
    **counts(distinct_outputs="different outputs"),
    **texts(error="why the output means nothing; then there is no figure"),
}
"""Columns of ``fidelity.tsv``: a row for each output of each variant on each target."""
MEASURED: Schema = {
    **texts(metric="what the case is measured by: classification, fidelity or command"),
    **counts(outputs="outputs of the network"),
    **share("sqnr", "signal over noise of all outputs together, each over its own signal; of one its own"),
    **texts(worst_output="output with the least SQNR"),
    **numbers(
        worst_sqnr="SQNR of that output",
        psnr="least PSNR of an output",
        cosine="least cosine of an output",
        max_error_steps="largest error of an output in its steps",
        saturated="largest share of an output's values at an end of the range",
        pixel_agreement="least share of pixels with fp32's highest channel",
    ),
    **share("number", "mean of what the case's command gives each image"),
    **numbers(number_fp32="the same of fp32's outputs"),
    **share("number_delta", "their difference on the same images"),
    **numbers(number_p="exact sign test of that"),
    "lower_is_better": Column("boolean", "whether lower numbers are better; none without a command"),
}
"""Columns that ``summary.tsv`` has besides, where a case is measured without labels."""
FIDELITY: Schema = {**DESCRIBED, **MEASURED, **texts(error="why an output means nothing"), **NOTED}
"""A row for each variant on each target: what it is, and what it is worth."""
SPREAD = ("sqnr", "number")
"""Figures whose spread over seeds is told."""
FIDELITY_GROUPS: Schema = {**FIDELITY, **GROUPED, **spreads(*SPREAD)}
"""A row for each variant over the seeds of its calibrator: the first seed's row, and the spread of figures."""
ADDED: Schema = {
    **texts(measure="what is compared: sqnr or number; none for top-1"),
    **numbers(value="the variant's", baseline_value="the baseline's"),
    **share("value_delta", "their difference on the same images"),
}
"""Columns that ``pairs.tsv`` has besides, where a case is measured without labels."""
_SHARED = ("kind", "variant", "baseline", "seeds", "n", "won", "lost", "p", "p_holm")
FIDELITY_PAIRS: Schema = {
    **{name: PAIRS[name] for name in (*CASE, "target", *_SHARED)},
    **ADDED,
    **{name: PAIRS[name] for name in MADE_BY},
}
"""A row for each paired comparison: won and lost are images that are better and worse than the baseline's."""


def fidelity_rows(
    measured: Sequence[Fidelity], verdicts: pd.DataFrame | None = None, costs: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return fidelities beside verdicts and times, by `FIDELITY`; see `rows.summarized`."""
    return summarized(map(_run, measured), FIDELITY, verdicts, costs, "fidelity")


def output_rows(measured: Iterable[Fidelity]) -> pd.DataFrame:
    """Return a line for each output of each run, by `OUTPUTS`."""
    return typed((_output(found, one) for found in measured for one in found.outputs), OUTPUTS)


def pair_rows(pairs: Iterable[Pair], rows: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons by `FIDELITY_PAIRS`, see `rows.credited`."""
    lines = typed(map(_pair, pairs), {name: c for name, c in FIDELITY_PAIRS.items() if name not in MADE_BY})
    return credited(lines, pd.Series(True, lines.index), rows, groups, FIDELITY_PAIRS)


def _run(found: Fidelity) -> Row:
    """Return one record as cells."""
    outputs, said = found.outputs, found.numbers
    worst = min((one for one in outputs if one.sqnr), key=lambda one: one.sqnr.value if one.sqnr else 0, default=None)
    cells = [_output(found, one) for one in outputs]
    lost = [f"{one.name}: {one.error}" for one in outputs if one.error]
    return {
        **asdict(found.subject),
        "exactness": found.exactness,
        **deviation_cells(found.deviation),
        "n": found.n,
        "metric": "fidelity" if said is None else "command",
        "outputs": len(outputs),
        **_interval("sqnr", found.sqnr),
        "worst_output": None if worst is None else worst.name,
        "worst_sqnr": None if worst is None or worst.sqnr is None else worst.sqnr.value,
        **{name: _extreme(cells, name, min) for name in ("psnr", "cosine", "pixel_agreement")},
        **{name: _extreme(cells, name, max) for name in ("max_error_steps", "saturated")},
        **({} if said is None else _interval("number", said.value)),
        "number_fp32": None if said is None else said.reference.value,
        **({} if said is None else _interval("number_delta", said.delta)),
        "number_p": None if said is None else said.p,
        "lower_is_better": None if said is None else said.lower_is_better,
        "error": one_line("; ".join(lost)) or None,
    }


def _extreme(cells: Sequence[Row], name: str, which: Callable[[list[float]], float]) -> float | None:
    found = [cell[name] for cell in cells if cell.get(name) is not None]
    return which(found) if found else None


def _output(found: Fidelity, one: OutputFigures) -> Row:
    """Return one output as cells."""
    subject = asdict(found.subject)
    return {
        **{name: subject[name] for name in RUN},
        "output": one.name,
        "shape": "x".join(map(str, one.shape)),
        "step": one.step,
        **_interval("sqnr", one.sqnr),
        **_interval("psnr", one.psnr),
        **_interval("cosine", one.cosine),
        **_interval("mean_error", one.mean_error),
        "mean_error_steps": _in_steps(None if one.mean_error is None else one.mean_error.value, one.step),
        "max_error": one.max_error,
        "max_error_steps": _in_steps(one.max_error, one.step),
        "saturated": percent(one.saturated),
        **share_cells("pixel_agreement", one.agreement),
        "distinct_outputs": one.distinct_outputs,
        "error": one_line(one.error),
    }


def _in_steps(error: float | None, step: float | None) -> float | None:
    return None if error is None or step is None else error / step


def _interval(name: str, interval: Interval | None) -> Row:
    """Return an interval as three cells."""
    if interval is None:
        return {}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _pair(pair: Pair) -> Row:
    """Return one comparison as cells."""
    cells = asdict(pair)
    delta = _interval("value_delta", pair.delta)
    return {name: cell for name, cell in cells.items() if name != "delta"} | dict(delta)
