"""Verify a loadable: measure every step, judge, and write what was found."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.claim.records import Claim
from nvdla_quant.emulator.decode.program import Program, decode, fitting_targets
from nvdla_quant.emulator.operations import ConvOperation, SdpOperation
from nvdla_quant.errors import CompileError, NvdlaQuantError, TableError
from nvdla_quant.hardware.targets import Precision, QuantizationMode, Target
from nvdla_quant.jobs.files import write_json, write_text
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.network.graph import Network
from nvdla_quant.table.consistency import check_complete
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.verification.claimed.claims import examine_claimed
from nvdla_quant.verification.judgement.diagnosis import diagnose, unknown
from nvdla_quant.verification.judgement.verdicts import Finding, Verdict
from nvdla_quant.verification.measures.comparison import Comparison
from nvdla_quant.verification.measures.examination import Examination, Held, subject_of
from nvdla_quant.verification.search.doing import describe_operation
from nvdla_quant.verification.search.mapping import base_name
from nvdla_quant.verification.search.unclaimed import examine_by_search

SEARCH_SECONDS = 60.0
"""Time that the search for what operations compute may take, where no claim says it."""

Row = Mapping[str, Any]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verification:
    """A verdict and the rows that it rests on, one for each tensor of the network that the loadable holds."""

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
    claim: Claim | None = None,
    seconds: float = SEARCH_SECONDS,
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
    claim : Claim, optional
        What the compiler says that the operations stand for. Without one, this compiler is asked what it makes of the
        network, and only a loadable that is not laid out so is searched for what its operations compute.
    seconds : float
        Time that such a search may take; then the verdict is ``unknown``.

    Raises
    ------
    NvdlaQuantError
        The loadable cannot be run here, or the files do not belong together; see `examination.subject_of`.
    """
    program = decode(loadable, target)
    if program.precision is not Precision.INT8:
        table = None
    elif table is None:
        raise TableError("no calibration table given, but the loadable is int8: its scales stand in no loadable")
    else:
        check_complete(network, table)
    subject = subject_of(program, network, table, np.asarray(images, np.float32))
    claim = claim or own_claim(loadable, program, network, table)
    try:
        examination = examine_by_search(subject, seconds) if claim is None else examine_claimed(subject, claim)
        verdict = diagnose(examination)
        return Verification(verdict, tuple(_rows(examination, verdict.findings)))
    except NvdlaQuantError:
        raise
    except Exception as error:  # A defect here says nothing of the loadable, and must not end a sweep.
        _LOG.exception("verification failed")
        return Verification(unknown(program, f"{type(error).__name__}: {error}", len(images)), ())


def own_claim(loadable: Loadable, program: Program, network: Network, table: CalibrationTable | None) -> Claim | None:
    """Return what this compiler says of the operations of a loadable that is laid out as it would lay it out.

    None where it is another compiler's. Contents may differ: whether they are right is what verification finds out.
    """
    from nvdla_quant.compiler.compile import compile_network  # Here: a loadable with a claim needs no compiler.

    modes = [None] if table is None else [QuantizationMode.PER_FILTER, QuantizationMode.PER_KERNEL]
    others = [fitting.target for fitting in fitting_targets(loadable)]
    for target in dict.fromkeys([program.target, *others]):
        for mode in modes:
            try:
                compilation = compile_network(network, table, target, program.precision, mode)
            except (CompileError, TableError):
                continue
            if _layout(parse_loadable(compilation.data)) == _layout(loadable):
                return compilation.claim
    return None


def _layout(loadable: Loadable) -> object:
    """Return all of a loadable but the contents of its blobs."""
    blobs = tuple((blob.name, blob.interface, blob.sub_interface, len(blob.data)) for blob in loadable.blobs)
    return loadable.tasks, loadable.memories, loadable.tensors, loadable.addresses, blobs


def verify_in_sweep(
    loadable: Loadable,
    network: Network,
    table: CalibrationTable | None,
    images: NDArray[np.float32],
    target: Target,
    claim: Claim | None,
) -> Verification:
    """Verify a loadable of a sweep; what cannot be verified is ``unknown``, with the reason, and the sweep goes on."""
    try:
        return verify(loadable, network, table, images, target, claim)
    except NvdlaQuantError as error:
        _LOG.warning("not verified: %s", error)
        return Verification(unknown(decode(loadable, target), str(error), len(images)), ())


def write_verdict(path: Path, verification: Verification, subject: Mapping[str, str]) -> None:
    """Write ``verdict.json``: the verdict, what it rests on, and under ``subject`` which loadable of a sweep it is."""
    write_json(path, {"subject": dict(subject), **verification.verdict.as_json()})


def write_layers(path: Path, verification: Verification) -> None:
    """Write ``layers.tsv``: a line for each tensor that the loadable holds, an empty field where there is no value."""
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(_text(row[column]) for column in COLUMNS) for row in verification.rows]
    write_text(path, "\n".join(lines) + "\n")


COLUMNS = (
    "step", "layer", "operations", "does", "layers", "shape", "scale", "effective_scale", "sqnr_fp32", "cosine_fp32",
    "correlation_fp32", "sqnr_simulated", "cosine_simulated", "correlation_simulated", "local_error", "local_tolerance",
    "local_share", "saturated", "zeros", "values", "constant_channels", "wrong_weights", "causes",
)  # fmt: skip
"""Columns of ``layers.tsv``."""


def _rows(examination: Examination, findings: Sequence[Finding]) -> Iterator[Row]:
    for number, held in enumerate(examination.held):
        yield _row(number, held, findings, examination.claimed)


def _row(number: int, held: Held, findings: Sequence[Finding], claimed: bool) -> Row:
    operations = [operation for step in held.steps for operation in step.operations]
    numbers = sorted(operation.index for operation in operations)
    causes = [finding.cause.value for finding in findings if finding.operation in numbers]
    checks = [check for step in held.steps for check in step.weights]
    convolutions = [
        one for one in operations if isinstance(one, SdpOperation) and isinstance(one.source, ConvOperation)
    ]
    compared = bool(checks) or (claimed and bool(convolutions))
    values = sum(step.values.size for step in held.steps)
    return {
        "step": number,
        "layer": held.layer,
        "operations": ",".join(map(str, numbers)),
        "does": ", ".join(dict.fromkeys(map(describe_operation, operations))),
        "layers": ",".join(dict.fromkeys(base_name(name) for step in held.steps for name in step.layers)),
        "shape": "x".join(map(str, held.values.shape[1:])),
        "scale": held.scale,
        "effective_scale": held.effective,
        **_columns("fp32", held.beside.fp32),
        **_columns("simulated", held.beside.simulated),
        "local_error": max(step.local.error for step in held.steps),
        "local_tolerance": max(step.local.tolerance for step in held.steps),
        "local_share": sum(step.local.share * step.values.size for step in held.steps) / max(values, 1),
        "saturated": held.saturated,
        "zeros": held.zeros,
        "values": held.values.size,
        "constant_channels": held.constant_channels,
        "wrong_weights": sum(int(np.count_nonzero(check.wrong)) for check in checks) if compared else None,
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
