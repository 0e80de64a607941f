"""Verify a loadable: measure every layer, judge, and write what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.program import decode
from nvdla_quant.files import write_json, write_text
from nvdla_quant.hardware import Target
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.network.graph import Network
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.verification.diagnosis import Finding, Verdict, diagnose
from nvdla_quant.verification.layers import Comparison, Examination, Examined, examine
from nvdla_quant.verification.mapping import base_name, describe_operation

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Verification:
    """A verdict and the rows that it rests on, one for each tensor that the loadable writes."""

    verdict: Verdict
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the verdict and the rows as JSON can hold them."""
        rows = [{key: _finite(value) for key, value in row.items()} for row in self.rows]
        return {**self.verdict.as_json(), "layers": rows}


def verify(
    loadable: Loadable,
    network: Network,
    table: CalibrationTable | None,
    images: NDArray[np.float32],
    target: Target | None = None,
) -> Verification:
    """Run a loadable on some images and judge it.

    Parameters
    ----------
    loadable : Loadable
        NVIDIA's or ours.
    network : Network
        The network that it was compiled from, or one that computes the same, with its weights.
    table : CalibrationTable or None
        The table that it was compiled with; fp16 needs none.
    images : NDArray[float32]
        (n, channels, height, width) in the network's own domain. Four or more let the scores' variation count.
    target : Target, optional
        Hardware; see `program.default_target`.

    Raises
    ------
    NvdlaQuantError
        The loadable cannot be run here, or the files do not belong together; see `layers.examine`.
    """
    examination = examine(decode(loadable, target), network, table, np.asarray(images, np.float32))
    verdict = diagnose(examination)
    return Verification(verdict, tuple(_rows(examination, verdict.findings)))


def write_verdict(path: Path, verification: Verification, subject: Mapping[str, str]) -> None:
    """Write ``verdict.json``: the verdict, what it rests on, and under ``subject`` which loadable of a sweep it is."""
    write_json(path, {"subject": dict(subject), **verification.verdict.as_json()})


def write_layers(path: Path, verification: Verification) -> None:
    """Write ``layers.tsv``: a line for each tensor that the loadable writes, an empty field where there is no value."""
    lines = ["\t".join(verification.rows[0])]
    lines += ["\t".join(map(_text, row.values())) for row in verification.rows]
    write_text(path, "\n".join(lines) + "\n")


def _rows(examination: Examination, findings: Sequence[Finding]) -> list[Row]:
    return [_row(number, step, findings) for number, step in enumerate(examination.steps)]


def _row(number: int, step: Examined, findings: Sequence[Finding]) -> Row:
    last = step.operations[-1].index
    causes = [finding.cause.value for finding in findings if finding.operation == last]
    compared = step.weights[0] if step.weights else None
    does = dict.fromkeys(describe_operation(operation) for operation in step.operations)
    return {
        "step": number,
        "layer": base_name(step.step.tensor),
        "operations": ",".join(str(operation.index) for operation in step.operations),
        "does": ", ".join(does),
        "layers": ",".join(dict.fromkeys(base_name(name) for name in step.step.layers)),
        "shape": "x".join(map(str, step.values.shape[1:])),
        "scale": step.scale,
        "effective_scale": step.effective,
        **_columns("fp32", step.fp32),
        **_columns("simulated", step.simulated),
        "local_error": step.local.error,
        "local_tolerance": float(step.local.tolerance.max()),
        "local_share": step.local.share,
        "saturated": step.saturated,
        "zeros": step.zeros,
        "values": step.values.size,
        "constant_channels": step.constant_channels,
        "wrong_weights": None if compared is None else int(np.count_nonzero(compared.wrong)),
        "causes": ",".join(dict.fromkeys(causes)),
    }


def _columns(reference: str, comparison: Comparison | None) -> dict[str, float | None]:
    names = ("sqnr", "cosine", "correlation")
    return {f"{name}_{reference}": None if comparison is None else getattr(comparison, name) for name in names}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
