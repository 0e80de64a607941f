"""Estimate how long the loadables of a sweep take on the hardware."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.errors import EmulationError, LoadableError, TraceError
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.jobs.files import write_json

_LOG = logging.getLogger(__name__)


def estimate_costs(
    loadables: Sequence[str],
    claims: Sequence[str],
    costs: Sequence[str],
    runs: Sequence[Mapping[str, Any]],
    memory: Mapping[str, Any],
    cpu_cycles: float,
) -> None:
    """Write a ``cost.json`` for each loadable.

    One that the hardware model does not take has the reason in the place of figures: whether it is wrong is for its
    verdict to say.

    Parameters
    ----------
    loadables : Sequence[str]
        What is estimated.
    claims : Sequence[str]
        The ``compile.json`` of those that say which layers their operations compute, in the same order.
    costs : Sequence[str]
        What is written, in the order of `loadables`.
    runs : Sequence[Mapping]
        For each its names, ``hardware`` (see `target_of`), ``clock`` in hertz, and whether it is ``claimed``.
    memory : Mapping
        ``memory`` of the configuration.
    cpu_cycles : float
        Cycles that the processor takes for each value that it computes.
    """
    left = iter(claims)
    for loadable, cost, run in zip(loadables, costs, runs, strict=True):
        claim = Path(next(left)) if run["claimed"] else None
        subject = {name: run[name] for name in ("model", "dataset", "target", "variant")}
        try:
            found = _estimated(Path(loadable), claim, run, memory, cpu_cycles)
        except (EmulationError, LoadableError, TraceError) as error:
            _LOG.warning("%s: not estimated: %s", loadable, error)
            found = {"error": " ".join(str(error).split())}
        write_json(cost, {"subject": subject, **found})


def _estimated(
    loadable: Path, claim: Path | None, run: Mapping[str, Any], memory: Mapping[str, Any], cpu_cycles: float
) -> Mapping[str, Any]:
    """Return the record of one loadable."""
    from nvdla_quant.compiler.report import read_layers
    from nvdla_quant.emulator.decode.program import decode
    from nvdla_quant.estimation.estimate import estimate
    from nvdla_quant.estimation.record import record
    from nvdla_quant.loadable.reader import read_loadable
    from nvdla_quant.timing.memory import memory_of

    content, target = read_loadable(loadable), target_of(run["hardware"])
    decode(content, target)
    given = memory_of(target, clock=run["clock"], **memory)
    layers = None if claim is None else read_layers(claim)
    return record(estimate(content, target, given, cpu_cycles), layers)
