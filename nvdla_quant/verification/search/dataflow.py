"""Which values each operation of a loadable reads: found byte by byte, whatever the descriptors are called."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Program
from nvdla_quant.emulator.operations import Cube, arrays_read, cube_of_bytes, cubes_read, cubes_written

NOBODY = -1
"""Bytes that hold constants or zeros: no operation and no input wrote them."""


@dataclass(frozen=True)
class Flow:
    """What meets in a program.

    Attributes
    ----------
    sources : tuple[tuple[int, ...], ...]
        For each operation, in the order of execution: what it reads, as positions in that order; -2, -3, ... stand for
        the first, second, ... input, `NOBODY` for bytes that nothing wrote.
    outputs : tuple[tuple[int, ...], ...]
        The same for each output tensor.
    """

    sources: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


def input_mark(port: int) -> int:
    """Return what stands in `Flow` for input number `port`."""
    return -2 - port


def trace(program: Program) -> Flow:
    """Follow every byte from what wrote it to what reads it."""
    owners = {id_: np.full(region.size, NOBODY, np.int32) for id_, region in program.regions.items()}
    for number, port in enumerate(program.inputs):
        _bytes(owners, port.cube)[:] = input_mark(number)
    sources = []
    for position, operation in enumerate(program.operations):
        found = [owner for cube in cubes_read(operation) for owner in _read(owners, cube)]
        arrays = [owner for window in arrays_read(operation) for owner in _read(owners, cube_of_bytes(window))]
        # Arrays of operands are constants, mostly.
        sources.append(tuple(dict.fromkeys([*found, *(owner for owner in arrays if owner != NOBODY)])))
        for cube in cubes_written(operation):
            _bytes(owners, cube)[:] = position
    return Flow(tuple(sources), tuple(_read(owners, port.cube) for port in program.outputs))


def _bytes(owners: dict[int, NDArray[np.int32]], cube: Cube) -> NDArray[np.int32]:
    """Return the owners of a cube's bytes in place, ``(surfaces, height, bytes of a row)``."""
    array = owners[cube.memory]
    shape = cube.surfaces, cube.height, cube.width * cube.atom * cube.element_bytes
    strides = cube.surface_stride * array.itemsize, cube.line_stride * array.itemsize, array.itemsize
    return np.ndarray(shape, array.dtype, array.data, cube.offset * array.itemsize, strides)


def _read(owners: dict[int, NDArray[np.int32]], cube: Cube) -> tuple[int, ...]:
    """Return who wrote the bytes of `cube`, in the order of execution."""
    return tuple(int(owner) for owner in np.unique(_bytes(owners, cube)))
