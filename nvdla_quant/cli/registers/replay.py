"""``nvdla-quant replay``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from nvdla_quant.cli.options import AsJson, MaxMacs, MaxMemory, existing
from nvdla_quant.emulator.decode.program import DEFAULT_LIMITS, Limits
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import NV_FULL, TARGETS, Target
from nvdla_quant.jobs.files import atomic_path
from nvdla_quant.registers.map import register_map
from nvdla_quant.registers.replay import Replay, replay
from nvdla_quant.registers.traces.files import read_trace
from nvdla_quant.registers.traces.payload import format_plain

DIFFERS = 4
"""Exit status where a check found something else than it expected."""


def command(
    trace: Annotated[
        Path,
        typer.Argument(metavar="TRACE", callback=existing, help="A .cfg or .txn file, its .dat files beside it."),
    ],
    configtarget: Annotated[
        str | None,
        typer.Option(
            "--configtarget",
            metavar="NAME|SPEC",
            help=f"Hardware: {', '.join(TARGETS)}, or the path of a *.spec; default: nv_full for .txn, its own format.",
        ),
    ] = None,
    dump: Annotated[Path | None, typer.Option(help="Folder for the memory that the trace dumps or compares.")] = None,
    max_macs: MaxMacs = DEFAULT_LIMITS.macs,
    max_memory: MaxMemory = DEFAULT_LIMITS.memory,
    as_json: AsJson = False,
) -> None:
    """Run a trace of register writes and its checks as the hardware would; exit status 4 where one differs.

    Exit status 0: all checks hold; 2: the trace is malformed, or asks for what the hardware does not do.
    """
    target = _target(trace, configtarget)
    result = replay(read_trace(trace, register_map(target)), target, Limits(max_macs, max_memory))
    if dump is not None:
        for dumped in result.dumps:
            with atomic_path(dump / dumped.file) as temporary:
                temporary.write_text(format_plain(dumped.content), encoding="utf-8")
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps(_as_json(result, target), indent=2) if as_json else _render(result))
    print(f"target: {target.name}{'' if configtarget else ' (by the format)'}", file=sys.stderr)
    if not result.holds:
        raise typer.Exit(DIFFERS)


def _target(trace: Path, name: str | None) -> Target:
    if name is not None:
        return target_of(name)
    if trace.suffix == ".txn":
        return NV_FULL
    raise typer.BadParameter(f"{trace} does not say for which hardware it is; give --configtarget")


def _as_json(result: Replay, target: Target) -> dict[str, object]:
    checks = [vars(check) | {"holds": check.holds} for check in result.checks]
    return {
        "target": target.name,
        "operations": result.operations,
        "holds": result.holds,
        "checks": checks,
        "warnings": list(result.warnings),
    }


def _render(result: Replay) -> str:
    """Return a line for each check that differs, and what there was."""
    lines = [
        f"line {check.line}: {check.kind} of {check.place}: found {check.found}, expected {check.expected}"
        for check in result.checks
        if not check.holds
    ]
    held = sum(check.holds for check in result.checks)
    lines.append(f"{result.operations} operations, {held} of {len(result.checks)} checks hold")
    return "\n".join(lines)
