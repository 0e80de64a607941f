"""``nvdla-quant trace``."""

import contextlib
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nvdla_quant.cli.options import LoadableFile, MaxMacs, MaxMemory, RunTarget, bar_of, existing, read_array
from nvdla_quant.emulator.decode.program import DEFAULT_LIMITS, Limits, default_target
from nvdla_quant.emulator.decode.releases import Stop, lost_releases
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import NV_FULL
from nvdla_quant.jobs.files import write_text
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.registers.program.build import CpuPart
from nvdla_quant.registers.program.c import c_files, table_bytes
from nvdla_quant.registers.program.image import Bases, RegisterProgram, make_program
from nvdla_quant.registers.program.traces import cfg_files, txn_files
from nvdla_quant.registers.traces.statements import MEMORY_NAMES
from nvdla_quant.registers.traces.txn import DRAM, SRAM


class Format(StrEnum):
    """What a program of registers is written as."""

    CFG = "cfg"
    TXN = "txn"
    C = "c"


WRITERS: Mapping[Format, Callable[[RegisterProgram, Bases, str], Mapping[str, str]]] = {
    Format.CFG: cfg_files,
    Format.TXN: txn_files,
    Format.C: lambda program, _, name: c_files(program, name),
}


def _address(text: str) -> str:
    """Refuse what is no address."""
    with contextlib.suppress(ValueError):
        if int(text, 0) >= 0:
            return text
    raise typer.BadParameter(f"{text!r}: expected an address, decimal or 0x...")


def command(
    loadable: LoadableFile,
    image: Annotated[
        Path, typer.Option("--image", callback=existing, help=".npy as `emulate --input` takes it; see --index.")
    ],
    output: Annotated[Path, typer.Option("--output", help="The folder to write to.")],
    kind: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="txn: nvdla/hw's player of nvdlav1; cfg: that of master; c: tables and a player for bare metal. "
            "Default: txn for nv_full, cfg for others.",
        ),
    ] = None,
    configtarget: RunTarget = None,
    index: Annotated[int, typer.Option(min=0, help="Which image of the .npy, from 0.")] = 0,
    dram: Annotated[
        str, typer.Option(callback=_address, metavar="ADDRESS", help="Where the memory begins on the bus (not for c).")
    ] = hex(DRAM),
    sram: Annotated[
        str, typer.Option(callback=_address, metavar="ADDRESS", help="Where the second memory begins (not for c).")
    ] = hex(SRAM),
    cdma_first: Annotated[
        bool,
        typer.Option(
            "--cdma-first", help="Enable CDMA first and release weights late: for hardware that loses releases."
        ),
    ] = False,
    max_macs: MaxMacs = DEFAULT_LIMITS.macs,
    max_memory: MaxMemory = DEFAULT_LIMITS.memory,
) -> None:
    """Write a loadable as a program of registers, with its memory images and what it leaves of an image."""
    content = read_loadable(loadable)
    target = target_of(configtarget) if configtarget else default_target(content)
    images = read_array(image)
    if images.ndim != 4 or index >= len(images):
        raise typer.BadParameter(
            f"{image}: shape {images.shape}, --index {index}; expected [N, C, H, W] with more images than --index"
        )
    bases = Bases(int(dram, 0), int(sram, 0))
    with bar_of("operations") as bar:
        task = bar.add_task("operations", total=None)
        program = make_program(
            content,
            images[index],
            target,
            cdma_first=cdma_first,
            bases=bases,
            limits=Limits(max_macs, max_memory),
            on_operation=lambda _: bar.advance(task),
        )
    chosen = kind or (Format.TXN if target.name == NV_FULL.name else Format.CFG)
    files = WRITERS[chosen](program, bases, loadable.stem)
    for name, text in files.items():
        write_text(output / name, text)
    print(_summary(program, chosen, bases))
    for note in _notes(program, chosen, lost_releases(content, target)):
        print(f"note: {note}", file=sys.stderr)


def _summary(program: RegisterProgram, kind: Format, bases: Bases) -> str:
    sizes = ", ".join(
        f"{size} bytes of {MEMORY_NAMES[memory]}" + ("" if kind is Format.C else f" from {bases.of(memory):#x}")
        for memory, size in sorted(program.placement.sizes.items())
    )
    tables = f", {table_bytes(program)} bytes of steps" if kind is Format.C else ""
    return (
        f"{program.operations} operations, {program.interrupts} waits for interrupts, {sizes}{tables}; "
        f"target: {program.target.name}"
    )


def _notes(program: RegisterProgram, kind: Format, stop: Stop | None) -> list[str]:
    """Return what the caller has to know of a program."""
    notes = []
    left = [one for part in program.parts if isinstance(part, CpuPart) for one in part.operations]
    if left:
        names = ", ".join(f"operation {one.index} ({one.kind.name.lower()})" for one in left)
        what = "nvdla_softmax.c computes a softmax" if kind is Format.C else "the trace ends before"
        notes.append(f"{names}: computed by the processor, not by the hardware; {what}")
    if stop is not None:
        notes.append(str(stop))
    if kind is Format.TXN and program.target.name != NV_FULL.name:
        notes.append(f"nvdla/hw's player of .txn is for nv_full; for {program.target.name} it has that of .cfg")
    return notes
