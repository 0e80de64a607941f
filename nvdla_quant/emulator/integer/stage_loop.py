"""Rounding steps of the single-point data processor, applied to a tile and written to memory in one compiled pass.

Line by line: operands of points are gathered from their atoms, values computed with all channels of a pixel together,
and the bytes spread over atoms again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._instructions import CHANNELS, copy_atom, round_vector
from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.integer.sdp import Stage
from nvdla_quant.emulator.operations import Cube
from nvdla_quant.emulator.tiles import Workspace


@dataclass(frozen=True, eq=False)
class PackedStages:
    """Rounding steps, laid out for the compiled loop.

    Attributes
    ----------
    adds, muls : NDArray[np.float64]
        ``(stages, channels)``, with zeros up to a multiple of `CHANNELS`.
    limits : NDArray[np.float64]
        ``(stages, 2)``: low and high.
    point : tuple[int, int, float]
        Which stage has a cube of operands (-1: none), its `Stage.point` and `Stage.point_scale`.
    cube : Cube or None
        That cube.
    """

    adds: NDArray[np.float64]
    muls: NDArray[np.float64]
    limits: NDArray[np.float64]
    point: tuple[int, int, float]
    cube: Cube | None


def pack_stages(stages: Sequence[Stage]) -> PackedStages:
    """Lay out `stages`."""
    rest = -len(stages[0].add) % CHANNELS
    adds = np.stack([np.pad(stage.add, (0, rest)) for stage in stages])
    muls = np.stack([np.pad(stage.mul, (0, rest)) for stage in stages])
    limits = np.array([[stage.low, stage.high] for stage in stages])
    which = next((number for number, stage in enumerate(stages) if stage.point), -1)
    point = which, stages[which].point, stages[which].point_scale
    return PackedStages(adds, muls, limits, point, stages[which].cube)


def int32_sums(sums: NDArray[Any], workspace: Workspace) -> NDArray[np.int32]:
    """Return partial sums ``(blocks, pixels, channels)`` added up, as `round_tile` takes them."""
    total = workspace.take("dots", sums.shape[1], -(-sums.shape[2] // CHANNELS) * CHANNELS, dtype=np.int32)
    _add_up(sums, total)
    return total


@jit
def _add_up(sums: NDArray[np.float32] | NDArray[np.float64], total: NDArray[np.int32]) -> None:
    blocks, pixels, channels = sums.shape
    for pixel in range(pixels):
        to, part = total[pixel, :channels], sums[0, pixel]
        for c in range(channels):
            to[c] = np.int32(part[c])
        for block in range(1, blocks):
            more = sums[block, pixel]
            for c in range(channels):
                to[c] += np.int32(more[c])


_NO_POINTS = np.zeros((1, 1), np.int8)


class Rounding(NamedTuple):
    """What `round_tile` takes: see `PackedStages`, and the memory and places of operands and of what is written.

    A place is offset, line stride and surface stride; `size` is atom, width and channels.
    """

    adds: NDArray[np.float64]
    muls: NDArray[np.float64]
    limits: NDArray[np.float64]
    point: tuple[int, int, float]
    points: NDArray[np.int8]
    point_place: tuple[int, int, int]
    destination: NDArray[np.int8]
    place: tuple[int, int, int]
    size: tuple[int, int, int]


def rounding(
    stages: PackedStages, points: NDArray[np.int8] | None, destination: NDArray[np.int8], cube: Cube
) -> Rounding:
    """Return what `round_tile` takes.

    Parameters
    ----------
    stages : PackedStages
        What to do.
    points : NDArray[np.int8] or None
        Memory of the operand cube, ``(n, bytes)``.
    destination : NDArray[np.int8]
        Memory of the destination, ``(n, bytes)``.
    cube : Cube
        Destination.
    """
    operand = stages.cube or cube
    return Rounding(
        stages.adds,
        stages.muls,
        stages.limits,
        stages.point,
        _NO_POINTS if points is None else points,
        (operand.offset, operand.line_stride, operand.surface_stride),
        destination,
        (cube.offset, cube.line_stride, cube.surface_stride),
        (cube.atom, cube.width, cube.channels),
    )


@jit
def round_tile(sums: NDArray[np.int32], job: Rounding, part: tuple[int, int, int, int]) -> None:
    """Round the sums of a tile and write int8 into device memory.

    Parameters
    ----------
    sums : NDArray[np.int32]
        What `int32_sums` returned: ``(pixels, channels)``, channels being at least those of the stages.
    job : Rounding
        What to do.
    part : tuple[int, int, int, int]
        The tile: first image, number of images, first row, number of rows.
    """
    atom, width, channels = job.size
    first, images, row, rows = part
    stages, computed = job.adds.shape
    point, near, far = job.point, job.point_place, job.place
    pitch = max(computed, (channels + atom - 1) // atom * atom)
    operand, line = np.zeros(width * pitch, np.int8), np.empty(width * pitch, np.int8)
    add, mul, limit = job.adds.ctypes.data, job.muls.ctypes.data, job.limits.ctypes.data
    source, beside, result = sums.ctypes.data, operand.ctypes.data, line.ctypes.data
    for image in range(first, first + images):
        for y in range(row, row + rows):
            if point[0] >= 0:
                memory = job.points[min(image, job.points.shape[0] - 1)]
                _gather(memory, near[0] + y * near[1], near[2], job.size, pitch, operand)
            for x in range(width):
                for c in range(0, computed, CHANNELS):
                    at = x * pitch + c
                    round_vector(
                        stages, add + 8 * c, mul + 8 * c, limit, 8 * computed, point[0], point[1], point[2],
                        beside + at, source + 4 * c, result + at,
                    )  # fmt: skip
                source += 4 * sums.shape[1]
            _spread(line, pitch, job.size, job.destination[image], far[0] + y * far[1], far[2])


@jit
def _gather(
    memory: NDArray[np.int8],
    place: int,
    surface_stride: int,
    size: tuple[int, int, int],
    pitch: int,
    line: NDArray[np.int8],
) -> None:
    """Read a line of a cube, `pitch` bytes a pixel."""
    atom, width, channels = size
    near, to = memory.ctypes.data + place, line.ctypes.data
    for c in range(0, channels, atom):
        _copy_pieces(near + c // atom * surface_stride, atom, to + c, pitch, min(atom, channels - c), width)


@jit
def _spread(
    line: NDArray[np.int8],
    pitch: int,
    size: tuple[int, int, int],
    memory: NDArray[np.int8],
    place: int,
    surface_stride: int,
) -> None:
    """Write a line into a cube; what its last atom has beyond the channels stays."""
    atom, width, channels = size
    near, to = line.ctypes.data, memory.ctypes.data + place
    for c in range(0, channels, atom):
        _copy_pieces(near + c, pitch, to + c // atom * surface_stride, atom, min(atom, channels - c), width)


@jit
def _copy_pieces(source: int, source_step: int, target: int, target_step: int, count: int, pixels: int) -> None:
    """Copy `count` bytes of each of neighbouring pixels; whole atoms of 8 and 32 bytes by one instruction."""
    if count == 8:
        for x in range(pixels):
            copy_atom(8, source + x * source_step, target + x * target_step)
    elif count == 32:
        for x in range(pixels):
            copy_atom(32, source + x * source_step, target + x * target_step)
    else:
        for x in range(pixels):
            near, to, done = source + x * source_step, target + x * target_step, 0
            while done + 8 <= count:
                copy_atom(8, near + done, to + done)
                done += 8
            while done < count:
                copy_atom(1, near + done, to + done)
                done += 1
