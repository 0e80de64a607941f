"""Run int8 SDP operations, with the convolutions that feed them, tile by tile."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator import conv
from nvdla_quant.emulator.memory import DeviceMemory, cube_view, images_of
from nvdla_quant.emulator.operations import ConvOperation, Cube, SdpOperation, operand_cubes
from nvdla_quant.emulator.program import Program
from nvdla_quant.emulator.rounding import shift_right
from nvdla_quant.emulator.sdp import (
    Stage,
    constant_operands,
    integer_chain,
    linear_stages,
    pack_stages,
    write_stages,
)
from nvdla_quant.emulator.tiles import Reader, Tile, Tiling, Workspace, plan
from nvdla_quant.hardware import Precision

INT32_LIMIT = 1 << 31


@dataclass(frozen=True, eq=False)
class PreparedSdp:
    """An SDP operation, ready to run.

    Attributes
    ----------
    operation : SdpOperation
        What it computes.
    convolution : Convolution or None
        Where its values come from; None: memory, through `reader`.
    reader : Reader
        Source in memory, of the convolution or of the SDP itself.
    tiling : Tiling
        How the output is cut.
    stages : tuple[Stage, ...] or None
        Rounding steps; None where the operation needs the general chain.
    packed : tuple of arrays or None
        `stages` for the compiled loop.
    operands : Mapping
        Operands of registers and arrays, for the general chain.
    """

    operation: SdpOperation
    convolution: conv.Convolution | None
    reader: Reader
    tiling: Tiling
    stages: tuple[Stage, ...] | None
    packed: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None
    operands: Mapping[tuple[str, str], NDArray[np.int64]]


def prepare_sdp(operation: SdpOperation, program: Program) -> PreparedSdp:
    """Unpack weights and operands of an int8 `operation`."""
    output = operation.destination
    if isinstance(operation.source, ConvOperation):
        window = operation.source.weights
        memory = program.regions[window.memory].initial
        assert memory is not None, "decode checks that the loadable provides the weights"
        packed = memory[window.offset : window.offset + window.size]
        convolution = conv.prepare(operation.source, packed, program.target)
        reader, tiling, bound = convolution.reader, convolution.tiling, convolution.bound
        plain = operation.source.truncate == 0 and bound < INT32_LIMIT
    else:
        convolution, bound, plain = None, 128, True
        reader = Reader(operation.source, np.arange(output.channels))
        tiling = plan(output.height, output.width, 8 * output.channels)
    stages = linear_stages(operation, output.channels, bound) if plain else None
    return PreparedSdp(
        operation,
        convolution,
        reader,
        tiling,
        stages,
        None if stages is None else pack_stages(stages),
        constant_operands(operation.units),
    )


def run_sdp(prepared: PreparedSdp, memory: DeviceMemory, workspace: Workspace) -> None:
    """Run an SDP operation, and the convolution that feeds it, on every image of `memory`."""
    operation = prepared.operation
    source = intact(memory, prepared.reader.cube, operation.destination, prepared.convolution is None)
    points = {cube: intact(memory, cube, operation.destination, True) for cube in operand_cubes(operation)}
    for tile in prepared.tiling.tiles(memory.images):
        if prepared.convolution is not None:
            sums = prepared.convolution.accumulate(source, tile, workspace)
        else:
            sums = _read(prepared, source, tile, workspace)
        if prepared.stages is not None and prepared.packed is not None:
            destination = memory.bytes_of(operation.destination.memory)
            operand = next(iter(points.values()), None)
            write_stages(sums, prepared.stages, prepared.packed, operand, destination, operation.destination, tile)
        else:
            _write_general(prepared, sums, points, memory, tile)


def intact(memory: DeviceMemory, source: Cube, destination: Cube, point_by_point: bool) -> NDArray[np.int8]:
    """Return the memory of `source`, copied where writing `destination` tile by tile would change what is yet to read.

    An operation that reads and writes the same points in the same places may do so in place.
    """
    values = memory.bytes_of(source.memory)
    harmless = not source.overlaps(destination) or (point_by_point and source == destination)
    return values if harmless else values.copy()


def _read(prepared: PreparedSdp, source: NDArray[np.int8], tile: Tile, workspace: Workspace) -> NDArray[np.float32]:
    """Return the values of a tile as ``(1, pixels, channels)``."""
    output = prepared.operation.destination
    values = workspace.take("sums", tile.images, tile.rows, output.width, output.channels)
    prepared.reader.read_bytes(source, tile.first, tile.row, 0, values)
    return values.reshape(1, -1, output.channels)


def _write_general(
    prepared: PreparedSdp,
    sums: NDArray[np.float32],
    points: Mapping[Cube, NDArray[np.int8]],
    memory: DeviceMemory,
    tile: Tile,
) -> None:
    operation = prepared.operation
    output = operation.destination
    shape = tile.images, tile.rows, output.width, output.channels
    points_now = {where: values.astype(np.int64) for where, values in point_operands(operation, points, tile).items()}
    operands = {**prepared.operands, **points_now}
    values = sums.astype(np.float64).sum(axis=0).astype(np.int64).reshape(shape)
    if isinstance(operation.source, ConvOperation):
        values = shift_right(values, operation.source.truncate, 32)
    wide = integer_chain(values, operation.units, operands, operation.lut, operation.converter)
    write_tile(wide.astype(np.int8), output, memory, tile)


def write_tile(result: NDArray[np.generic], cube: Cube, memory: DeviceMemory, tile: Tile) -> None:
    """Write the elements of a tile, ``(images, rows, width, channels)``, into `cube`."""
    view = memory.view(cube, result.dtype)
    target = view[tile.first : tile.first + tile.images, :, tile.row : tile.row + tile.rows]
    for surface in range(cube.surfaces):
        channels = result[..., surface * cube.atom : (surface + 1) * cube.atom]
        target[:, surface, :, :, : channels.shape[-1]] = channels


def point_operands(
    operation: SdpOperation, points: Mapping[Cube, NDArray[np.int8]], tile: Tile
) -> dict[tuple[str, str], NDArray[np.generic]]:
    """Return the per-point operands of a tile by (unit, "alu" or "mul"), each ``(images, rows, width, channels)``.

    Parameters
    ----------
    operation : SdpOperation
        Whose operands.
    points : Mapping[Cube, NDArray[np.int8]]
        The memory ``(n, bytes)`` of each cube of operands.
    tile : Tile
        Images and rows.

    Returns
    -------
    dict
        Elements as they stand in memory: float16, int8 or int16; one image where the memory holds constants.
    """
    operands = {}
    for unit in operation.units:
        for part, operand in (("alu", unit.alu_operand), ("mul", unit.mul_operand)):
            if operand is not None and operand.cube is not None:
                elements = _points(points[operand.cube], operand.cube, operation.precision, tile)
                step = slice(part == "mul", None, 2) if unit.interleaved else slice(None)
                operands[unit.name, part] = elements[..., step]
    return operands


def _points(memory: NDArray[np.int8], cube: Cube, precision: Precision, tile: Tile) -> NDArray[np.generic]:
    dtype = np.dtype(np.float16) if precision is Precision.FP16 else np.dtype(f"<i{cube.element_bytes}")
    view = cube_view(images_of(memory, tile.first, tile.images), cube, dtype)
    part = view[:, :, tile.row : tile.row + tile.rows]
    flat = part.transpose(0, 2, 3, 1, 4).reshape(*part.shape[:1], part.shape[2], cube.width, -1)
    return flat[..., : cube.channels]
