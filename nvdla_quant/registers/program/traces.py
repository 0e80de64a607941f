"""A program of registers as a trace for NVIDIA's players, with its memory images and what it leaves."""

import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import TraceError
from nvdla_quant.registers.device import Interrupt
from nvdla_quant.registers.map import register_map
from nvdla_quant.registers.program.build import CpuPart, HardwarePart
from nvdla_quant.registers.program.image import Bases, RegisterProgram, Result
from nvdla_quant.registers.program.steps import Address, AwaitInterrupt, Poll, Put, Remark, Step
from nvdla_quant.registers.traces.cfg import format_cfg
from nvdla_quant.registers.traces.payload import format_chunks, format_plain
from nvdla_quant.registers.traces.statements import (
    Await,
    CheckCrc,
    CheckFile,
    Expect,
    Fill,
    Load,
    OnInterrupt,
    Statement,
    Write,
)
from nvdla_quant.registers.traces.statements import (
    Remark as Comment,
)
from nvdla_quant.registers.traces.txn import format_txn

ALL_BITS = 0xFFFFFFFF
LAST = "done"
"""Event behind which the results of a ``.cfg`` are compared."""
Files = Mapping[str, str]
"""Texts by the names of files."""


def cfg_files(program: RegisterProgram, bases: Bases, name: str) -> Files:
    """Return a ``.cfg`` called `name` and its ``.dat`` files.

    Each unit's statements are a stream of their own: before a unit goes on behind an interrupt, its stream waits for
    that. NVIDIA's player clears interrupts, so the program does not.
    """
    steps = _only_steps(program)
    statements: list[Statement] = []
    for result in program.results:
        memory, address = _stands(program, bases, result)
        statements.append(Fill(0, memory, address, len(result.expected)))
    files = {}
    for load, content in _loads(program, bases, name):
        statements.append(load)
        files[load.file] = format_chunks(content)
    statements += _streams(program, bases, steps)
    for result in program.results:
        memory, address = _stands(program, bases, result)
        crc = zlib.crc32(result.expected.tobytes())
        statements.append(CheckCrc(0, LAST, memory, address, len(result.expected), crc))
    return {f"{name}.cfg": format_cfg(statements), **files}


def _streams(program: RegisterProgram, bases: Bases, steps: Sequence[Step]) -> Iterator[Statement]:
    """Yield the steps, what waits for an interrupt in the stream of each unit that goes on behind it."""
    last = max(number for number, step in enumerate(steps) if isinstance(step, AwaitInterrupt))
    before: str | None = None
    behind: set[str] = set()
    for number, step in enumerate(steps):
        match step:
            case AwaitInterrupt(source, group):
                before, behind = LAST if number == last else f"{source}_{group}_{number}", set()
                yield OnInterrupt(0, source, group, before)
            case Put(register=register) | Poll(register=register) if str(register) != "GLB.S_INTR_STATUS":
                if before is not None and register.unit not in behind:
                    behind.add(register.unit)
                    yield Await(0, register.unit, before)
                if isinstance(step, Put):
                    yield Write(0, register, program.placement.value(step.value, bases))
                else:
                    yield Expect(0, register, ALL_BITS, step.value, wait=True)
            case Remark(text):
                yield Comment(0, text)


def txn_files(program: RegisterProgram, bases: Bases, name: str) -> Files:
    """Return a ``.txn`` called `name`, its ``.dat`` files, and the expected bytes in files of the dumps' names."""
    steps = _only_steps(program)
    statements: list[Statement] = []
    files = {}
    for load, content in (*_zeros(program, bases, name), *_loads(program, bases, name)):
        statements.append(load)
        files[load.file] = format_plain(content)
    registers = register_map(program.target)
    status = registers.register("GLB", "S_INTR_STATUS")
    for step in steps:
        match step:
            case Put(register, value):
                statements.append(Write(0, register, program.placement.value(value, bases)))
            case Poll(register, value):
                statements.append(Expect(0, register, ALL_BITS, value, wait=True))
            case AwaitInterrupt(source, group):
                mask = Interrupt(source, group).mask
                statements.append(Expect(0, status, mask, mask, wait=True))
            case Remark(text):
                statements.append(Comment(0, text))
    for number, result in enumerate(program.results):
        memory, address = _stands(program, bases, result)
        file = f"{name}_result{number or ''}.dat"
        statements.append(CheckFile(0, None, memory, address, len(result.expected), file))
        files[file] = format_plain(result.expected)
    return {f"{name}.txn": format_txn(statements, registers), **files}


def _only_steps(program: RegisterProgram) -> tuple[Step, ...]:
    """Return the steps of a program that has one part of hardware, and what the processor does behind it."""
    if len([part for part in program.parts if isinstance(part, HardwarePart)]) != 1:
        raise TraceError(
            f"loadable: {len(program.parts)} parts, of hardware and processor in turn; a trace has one part of "
            "hardware first: write it as C, whose caller computes what is between"
        )
    first = program.parts[0]
    if isinstance(first, CpuPart):
        raise TraceError("loadable: begins on the processor, expected the hardware first; write it as C")
    return first.steps


def _loads(program: RegisterProgram, bases: Bases, name: str) -> Iterator[tuple[Load, NDArray[np.uint8]]]:
    """Yield what fills each memory that the program starts from."""
    for memory, content in sorted(program.contents.items()):
        where, address = program.placement.on_bus(Address(memory, 0), bases)
        yield Load(0, where, address, f"{name}_{memory}.dat", len(content)), content


def _zeros(program: RegisterProgram, bases: Bases, name: str) -> Iterator[tuple[Load, NDArray[np.uint8]]]:
    """Yield what clears the memory of the results: bytes between their lines are compared, too."""
    for number, result in enumerate(program.results):
        memory, address = _stands(program, bases, result)
        size = len(result.expected)
        yield Load(0, memory, address, f"{name}_zeros{number or ''}.dat", size), np.zeros(size, np.uint8)


def _stands(program: RegisterProgram, bases: Bases, result: Result) -> tuple[int, int]:
    """Return memory and bus address of a result."""
    return program.placement.on_bus(result.address, bases)
