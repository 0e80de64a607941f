"""``nvdla-quant estimate``."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvdla_quant.cli.options import AsJson, LoadableFile, RunTarget, existing
from nvdla_quant.compiler.report import read_layers
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.decode.releases import lost_releases
from nvdla_quant.estimation.estimate import CPU, Estimate, estimate
from nvdla_quant.estimation.measured import read_measured
from nvdla_quant.estimation.record import fit_record, layers_of, record
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.timing.memory import DEFAULT_CLOCK, DEFAULT_LATENCY, memory_of

if TYPE_CHECKING:
    from nvdla_quant.estimation.fit import Fit

LAYERS = 40
"""Characters of the layers' names that a line of the table has room for."""


def command(
    loadable: LoadableFile,
    configtarget: RunTarget = None,
    clock: Annotated[float, typer.Option(min=1.0, help="Of the core, in hertz.")] = DEFAULT_CLOCK,
    latency: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Cycles from an address to its data, and from written data to the answer; "
            f"default: {DEFAULT_LATENCY}.",
        ),
    ] = None,
    bandwidth: Annotated[
        float | None,
        typer.Option(min=0.01, help="Bytes a cycle, each way; default: as many as the core's interface is wide."),
    ] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Reads and writes share the bandwidth.")] = False,
    outstanding: Annotated[
        int | None, typer.Option(min=1, help="Most reads under way; default: as many as the core asks for.")
    ] = None,
    host_gap: Annotated[
        int, typer.Option(min=0, help="Idle cycles of the processor behind each access to a register.")
    ] = 0,
    cpu_cycles: Annotated[
        float, typer.Option(min=0.0, help="Cycles of the processor for each value that it computes (softmax).")
    ] = 0.0,
    report: Annotated[
        Path | None,
        typer.Option(callback=existing, help="The compile.json of the loadable, which names the layers."),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(
            "--fit",
            callback=existing,
            metavar="TSV",
            help="Times that a board took, to find latency and bandwidth from: a line for each operation, with columns "
            "op (or layer, with --report) and cycles (or us, ms).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how many cycles a loadable takes on the hardware, operation by operation, without running it."""
    for name, value in (("--clock", clock), ("--bandwidth", bandwidth), ("--cpu-cycles", cpu_cycles)):
        if value is not None and not math.isfinite(value):
            raise typer.BadParameter(f"{name} {value}: expected a number")
    if measured is not None and (latency is not None or bandwidth is not None):
        raise typer.BadParameter("--fit finds latency and bandwidth: leave --latency and --bandwidth out")
    content = read_loadable(loadable)
    program = decode(content, target_of(configtarget) if configtarget else None)
    target = program.target
    memory = memory_of(
        target,
        latency=DEFAULT_LATENCY if latency is None else latency,
        bandwidth=bandwidth,
        clock=clock,
        host_gap=host_gap,
        shared=shared,
        outstanding=outstanding,
    )
    found = estimate(content, target, memory, cpu_cycles)
    layers = None if report is None else read_layers(report)
    notes = [*program.warnings]
    fitted = None
    if measured is not None:
        # What it searches with takes longer to import than an estimate takes.
        from nvdla_quant.estimation.fit import fit

        fitted = fit(found, read_measured(measured, found, layers))
        found = estimate(content, target, fitted.memory, cpu_cycles)
        notes += fitted.notes
    if any(row.unit == CPU for row in found.rows) and not cpu_cycles:
        notes.append("operations of the processor are not counted; give --cpu-cycles")
    if (stop := lost_releases(content, target)) is not None:
        notes.append(str(stop))
    notes += [f"extrapolated: {reason}" for reason in found.extrapolated]
    if as_json:
        more = {} if fitted is None else {"fit": fit_record(fitted)}
        print(json.dumps({**record(found, layers), **more, "notes": notes}, indent=2))
        return
    if fitted is not None:
        print("\n".join(_fit_table(fitted)), end="\n\n")
    print("\n".join(_table(found, layers)))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _fit_table(fitted: "Fit") -> Iterator[str]:
    """Yield the lines of a fit."""
    lines = [["op", "unit", "measured", "fitted", "error"]]
    for one in fitted.residuals:
        error = f"{100 * one.error:+.2f} %"
        lines.append([str(one.operation), one.unit, f"{one.measured:,.0f}", f"{one.fitted:,.0f}", error])
    yield from _aligned(lines, {0, 1})
    yield ""
    parts = (
        f"{name} {found.value:.4g} {unit}" + (f" +- {found.deviation:.2g}" if found.determined else " (not determined)")
        for name, found, unit in (
            ("latency", fitted.latency, "cycles"),
            ("bandwidth", fitted.bandwidth, "bytes a cycle"),
        )
    )
    yield f"fitted to {len(fitted.residuals)} times: {', '.join(parts)}; median error {100 * fitted.error:.2f} %"


def _aligned(lines: Sequence[Sequence[str]], left: Set[int]) -> Iterator[str]:
    """Yield lines of cells one below the other, to the left in the columns that `left` names."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _table(found: Estimate, layers: Mapping[int, Sequence[str]] | None) -> Iterator[str]:
    """Yield the lines of an estimate."""
    total = sum(row.cycles for row in found.rows) or 1.0
    heads = ["op", "unit", "cycles", "share", "bound", "read", "written"]
    lines = [heads if layers is None else [*heads, "layers"]]
    for row in found.rows:
        marked = "*" if row.extrapolated else ""
        line = [
            ",".join(map(str, (row.operation, *row.others))),
            row.unit,
            f"{row.cycles:,.0f}{marked}",
            f"{100 * row.cycles / total:.1f} %",
            row.bound,
            f"{row.traffic.read:,}",
            f"{row.traffic.output:,}",
        ]
        if layers is not None:
            names = ", ".join(layers_of(row, layers))
            line.append(names if len(names) <= LAYERS else f"{names[: LAYERS - 3]}...")
        lines.append(line)
    yield from _aligned(lines, {0, 1, 4, 7})
    traffic, memory = found.traffic, found.memory
    yield ""
    yield (
        f"{found.cycles:,.0f} cycles on {found.target.name}: {1e3 * found.seconds:,.3f} ms at "
        f"{memory.clock / 1e6:g} MHz, {found.images_per_second or math.inf:,.1f} images/s; "
        f"{found.bound} for the most part"
    )
    yield (
        f"{traffic.bytes:,} bytes of memory ({traffic.read:,} read, {traffic.output:,} written), at most "
        f"{found.peak_bandwidth:.2f} a cycle; memory: latency {memory.read_latency:g} cycles, "
        f"{memory.read_bytes:g} bytes a cycle{' shared by both ways' if memory.shared else ' each way'}"
    )
    if found.extrapolated:
        yield "* extrapolated: no measurement stands behind it"
