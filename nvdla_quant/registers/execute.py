"""Run operations of the emulator on the memories of a trace.

The emulator has dense memories and a trace sparse ones, so what an operation reads and writes is put side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Limits, check_work
from nvdla_quant.emulator.memory import DeviceMemory, cube_view
from nvdla_quant.emulator.operations import (
    ConvOperation,
    Cube,
    Operation,
    Region,
    SdpOperation,
    arrays_read,
    cube_of_bytes,
    cubes_read,
    cubes_written,
    weights_read,
)
from nvdla_quant.emulator.run import run_operation
from nvdla_quant.errors import TraceError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable.tasks import Window
from nvdla_quant.registers.lanes import edge, last_surface, whole_atoms
from nvdla_quant.registers.memory import TraceMemory
from nvdla_quant.registers.traces.statements import MEMORY_NAMES

MOST_BYTES = 1 << 27
"""Most bytes that what an operation reads and writes may span, gaps between lines and surfaces included."""
_Part = TypeVar("_Part")
_Given = dict[int, NDArray[np.bool_]]


@dataclass(frozen=True)
class _Extent:
    """Bytes `start` up to `end` of a memory, which are region `region` of the emulator."""

    memory: int
    start: int
    end: int
    region: int


def execute(operations: Sequence[Operation], target: Target, memory: TraceMemory, limits: Limits) -> int:
    """Run operations, each of which may take what the one before hands over; return the work (see `check_work`).

    Raises
    ------
    TraceError
        One reads what neither the trace nor an operation has set, or spans too much.
    EmulationError
        More work than the limits allow.
    """
    work = check_work(operations, limits)
    wide = [whole_atoms(operation) for operation in operations]
    edges = [edge(operation) for operation in operations]
    extents = _extents([*wide, *(one for one in edges if one is not None)])
    regions, given = {}, {}
    for extent in extents:
        content, known = memory.read(extent.memory, extent.start, extent.end - extent.start)
        # The memory is this array itself: a region that is not written is not copied.
        regions[extent.region], given[extent.region] = Region(len(content), False, content), known
    handed = [
        cube
        for one in (*wide, *edges)
        if one
        for cube in (*cubes_read(one), *cubes_written(one))
        if cube.is_handed_over
    ]
    device = DeviceMemory(regions | {cube.memory: Region(cube.end, True, None) for cube in handed}, 1)
    device.reset()
    for declared, operation, lanes in zip(operations, wide, edges, strict=True):
        for cube, named in zip(_read(_placed(declared, extents)), _read(declared), strict=True):
            _check_given(cube, named, given, f"operation {declared.index} ({declared.unit})")
        _run(_placed(operation, extents), _placed(lanes, extents), target, device)
        for cube in cubes_written(_placed(operation, extents)):
            for part in () if cube.is_handed_over else cube.parts:
                _known(part, given)[:] = True
    for extent in extents:
        content = device.bytes_of(extent.region)[0].view(np.uint8)
        memory.write(extent.memory, extent.start, content, given[extent.region])
    return work


def _run(operation: Operation, lanes: SdpOperation | None, target: Target, device: DeviceMemory) -> None:
    """Run an operation, and what stands behind its last channel, where that is apart."""
    if lanes is None:
        run_operation(operation, target, device)
        return
    run_operation(lanes, target, device)
    run_operation(operation, target, device)
    cube = operation.destination
    behind = slice(cube.channels % cube.atom, None)
    device.view(last_surface(cube), lanes.dtype)[..., behind] = device.view(lanes.destination, lanes.dtype)[..., behind]


def _read(operation: Operation) -> tuple[Cube, ...]:
    """Return all that an operation reads, what a convolution finds in the buffer included."""
    windows = map(cube_of_bytes, (*weights_read(operation), *arrays_read(operation)))
    return (*cubes_read(operation), *windows)


def _extents(operations: Sequence[Operation]) -> tuple[_Extent, ...]:
    """Return the ranges of memory that operations use, those that meet or belong together as one."""
    ranges = []
    for operation in operations:
        for cube in (*_read(operation), *cubes_written(operation)):
            ranges += [] if cube.is_handed_over else [(cube.memory, cube.offset, cube.end)]
        if isinstance(operation.source, ConvOperation) and operation.source.second_plane is not None:
            # The emulator reads both planes of an image from one memory.
            planes = operation.source.planes
            start, end = min(plane.offset for plane in planes), max(plane.end for plane in planes)
            ranges.append((planes[0].memory, start, end))
    joined: list[tuple[int, int, int]] = []
    for memory, start, end in sorted(ranges):
        if joined and joined[-1][0] == memory and start <= joined[-1][2]:
            joined[-1] = memory, joined[-1][1], max(joined[-1][2], end)
        else:
            joined.append((memory, start, end))
    total = sum(end - start for _, start, end in joined)
    if total > MOST_BYTES:
        first = operations[0]
        raise TraceError(f"operation {first.index} ({first.unit}): spans {total} bytes, the limit is {MOST_BYTES}")
    return tuple(_Extent(*where, region) for region, where in enumerate(joined))


def _placed(part: _Part, extents: tuple[_Extent, ...]) -> _Part:
    """Return `part` of an operation, all of its cubes and windows in the emulator's regions.

    What it names and does not touch, as the destination of one that only compares, stays where it is.
    """
    if isinstance(part, Cube | Window):
        holding = (e for e in extents if e.memory == part.memory and e.start <= part.offset <= e.end)
        extent = next(holding, None)
        return part if extent is None else replace(part, memory=extent.region, offset=part.offset - extent.start)
    if isinstance(part, tuple):
        return cast(_Part, tuple(_placed(item, extents) for item in part))
    if is_dataclass(part) and not isinstance(part, type):
        values: dict[str, Any] = {field.name: getattr(part, field.name) for field in fields(part)}
        return cast(_Part, replace(part, **{name: _placed(value, extents) for name, value in values.items()}))
    return part


def _known(cube: Cube, given: _Given) -> NDArray[np.int8]:
    """Return whether each byte of one cube is given, in place."""
    size = cube.element_bytes
    wide = replace(cube, channels=cube.channels * size, atom=cube.atom * size, element_bytes=1)
    return cube_view(given[cube.memory].view(np.int8)[None], wide, np.dtype(np.int8))


def _check_given(cube: Cube, named: Cube, given: _Given, where: str) -> None:
    for part, declared in () if cube.is_handed_over else zip(cube.parts, named.parts, strict=True):
        known = _known(part, given)
        if known.all():
            continue
        _, surface, row, pixel, byte = np.argwhere(known == 0)[0].tolist()
        address = declared.offset + surface * part.surface_stride + row * part.line_stride
        address += pixel * part.atom * part.element_bytes + byte
        raise TraceError(
            f"{where}: reads byte {address:#x} of {MEMORY_NAMES[declared.memory]}, which no statement and no "
            "operation has set; fill or load it first, or correct addresses, strides and sizes"
        )
