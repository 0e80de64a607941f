"""A program of registers as C: tables of one loadable beside a player (``nvdla_quant/registers/c``)."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import CpuOperation, Cube
from nvdla_quant.registers.device import Interrupt
from nvdla_quant.registers.map import Register, RegisterMap, register_map
from nvdla_quant.registers.program.build import HardwarePart
from nvdla_quant.registers.program.image import RegisterProgram, Result
from nvdla_quant.registers.program.steps import Address, AwaitInterrupt, Half, Poll, Put, Remark, Step, address_of

SOURCES = ("nvdla_program.h", "nvdla_player.c", "nvdla_softmax.c", "main.c")
TABLES = "nvdla_program.c"
STEP_BYTES = 8
"""Bytes of a ``struct nvdla_step``."""
BYTES_A_LINE = 24


def c_files(program: RegisterProgram, name: str) -> Mapping[str, str]:
    """Return the C files of a program, by name; `name` says in a comment what it is of."""
    folder = files("nvdla_quant.registers") / "c"
    fixed = {file: (folder / file).read_text(encoding="utf-8") for file in SOURCES}
    return {TABLES: "\n".join(_tables(program, name)) + "\n", **fixed}


def table_bytes(program: RegisterProgram) -> int:
    """Return the bytes of the table of steps."""
    steps = (step for part in program.parts if isinstance(part, HardwarePart) for step in part.steps)
    return STEP_BYTES * sum(not isinstance(step, Remark) for step in steps)


def _tables(program: RegisterProgram, name: str) -> Iterator[str]:
    registers = register_map(program.target)
    comment = name.replace("*/", "* /")
    yield f"/* {comment} for {program.target.name}: {program.operations} operations of the hardware. */"
    yield '#include "nvdla_program.h"'
    parts: list[str] = []
    for part in program.parts:
        number = len(parts)
        if isinstance(part, HardwarePart):
            rows = [_step(program, registers, step) for step in part.steps]
            yield from _array(f"struct nvdla_step steps_{number}", rows)
            count = sum(not isinstance(step, Remark) for step in part.steps)
            parts.append(f"{{steps_{number}, {count}, 0}}")
            continue
        yield from _array(f"struct nvdla_cpu cpu_{number}", [_cpu(program, one) for one in part.operations])
        parts += [f"{{0, 0, &cpu_{number}[{index}]}}" for index in range(len(part.operations))]
    yield from _array("struct nvdla_part parts", [f"    {part}," for part in parts])
    contents = []
    for memory, content in sorted(program.contents.items()):
        yield from _array(f"uint8_t bytes_{memory}", _bytes(content))
        span = _span(program, Address(memory, 0), len(content))
        contents.append(f"    {{{span}, bytes_{memory}}},")
    yield from _array("struct nvdla_content contents", contents)
    results = [
        f"    {{{_result_span(program, result)}, {zlib.crc32(result.expected.tobytes()):#010x}u}},"
        for result in program.results
    ]
    yield from _array("struct nvdla_result results", results)
    sizes = ", ".join(f"{program.placement.sizes.get(memory, 0)}u" for memory in range(2))
    yield "const struct nvdla_program nvdla_program = {"
    yield f'    "{program.target.name}",'
    for table, rows in (("parts", parts), ("contents", contents), ("results", results)):
        yield f"    {table}, {len(rows)},"
    yield f"    {{{sizes}}},"
    yield f"    {_cube_span(program, program.input.cube)},"
    yield f"    {_cube_span(program, program.output.cube)},"
    yield "};"


def _array(declared: str, rows: Sequence[str]) -> Iterator[str]:
    yield f"\nstatic const {declared}[] = {{"
    yield from rows
    yield "};"


def _word(registers: RegisterMap, register: Register) -> str:
    return f"{registers.address(register) // 4:#06x}"


def _step(program: RegisterProgram, registers: RegisterMap, step: Step) -> str:
    match step:
        case Put(register, Half(address, high)):
            memory, offset = program.placement.place(address)
            kind = "NVDLA_ADDRESS_HIGH" if high else "NVDLA_ADDRESS_LOW"
            return f"    {{{kind}, {memory}, {_word(registers, register)}, {offset:#x}u}}, /* {register} */"
        case Put(register, int(value)):
            return f"    {{NVDLA_WRITE, 0, {_word(registers, register)}, {value:#x}u}}, /* {register} */"
        case Poll(register, value):
            return f"    {{NVDLA_POLL, 0, {_word(registers, register)}, {value:#x}u}}, /* {register} */"
        case AwaitInterrupt(source, group):
            status, mask = registers.register("GLB", "S_INTR_STATUS"), Interrupt(source, group).mask
            return f"    {{NVDLA_WAIT, 0, {_word(registers, status)}, {mask:#x}u}}, /* {source}, group {group} */"
        case Remark(text):
            return f"    /* {text} */"
    raise AssertionError(f"{step} is no step")


def _cpu(program: RegisterProgram, operation: CpuOperation) -> str:
    source, destination = operation.source, operation.destination
    sizes = (source.channels, source.height, source.width, source.atom)
    strides = (source.line_stride, source.surface_stride, destination.line_stride, destination.surface_stride)
    floats = (operation.input_scale, operation.output_scale, operation.power, operation.scale, operation.shift)
    words = [
        f"NVDLA_{operation.kind.name}",
        str(source.element_bytes),
        _cube_span(program, source),
        _cube_span(program, destination),
        *(f"{number}u" for number in (*sizes, *strides)),
        *(f"{np.float32(number).item().hex()}f" for number in floats),
    ]
    return f"    {{{', '.join(words)}}},"


def _cube_span(program: RegisterProgram, cube: Cube) -> str:
    return _span(program, address_of(cube), cube.end - cube.offset)


def _result_span(program: RegisterProgram, result: Result) -> str:
    return _span(program, result.address, len(result.expected))


def _span(program: RegisterProgram, address: Address, size: int) -> str:
    memory, offset = program.placement.place(address)
    return f"{{{memory}, {offset:#x}u, {size}u}}"


def _bytes(content: NDArray[np.uint8]) -> list[str]:
    rows = (content[start : start + BYTES_A_LINE].tolist() for start in range(0, len(content), BYTES_A_LINE))
    return ["    " + ", ".join(map(str, row)) + "," for row in rows]
