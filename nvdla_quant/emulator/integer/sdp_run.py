"""Run integer SDP operations, with the convolutions that feed them, tile by tile."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.integer import conv
from nvdla_quant.emulator.integer.dots import DotConvolution
from nvdla_quant.emulator.integer.fused import convolve_and_round
from nvdla_quant.emulator.integer.rounding import shift_right
from nvdla_quant.emulator.integer.sdp import (
    constant_operands,
    integer_chain,
    linear_stages,
)
from nvdla_quant.emulator.integer.stage_loop import PackedStages, int32_sums, pack_stages, round_tile, rounding
from nvdla_quant.emulator.memory import DeviceMemory, cube_view, images_of
from nvdla_quant.emulator.operations import (
    ConvOperation,
    Cube,
    Operand,
    SdpOperation,
    element_type,
    operand_cubes,
)
from nvdla_quant.emulator.tiles import Reader, Tile, Tiling, Workspace, plan
from nvdla_quant.emulator.weights import decompress
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.loadable.tasks import Window

ReadWindow = Callable[[Window], NDArray[np.uint8]]
"""Returns the bytes of a window."""


@dataclass(frozen=True, eq=False)
class PreparedSdp:
    """An SDP operation, ready to run.

    Attributes
    ----------
    operation : SdpOperation
        What it computes, its arrays of operands read.
    parts : tuple[tuple[conv.AnyConvolution | Reader, Cube], ...]
        Where its values come from, a convolution or memory, and go to; several for a batch.
    planes, points : tuple[Cube, ...]
        What it reads: its source, and cubes of operands.
    tiling : Tiling
        How the output is cut.
    stages : PackedStages or None
        Rounding steps; None where the operation needs the general chain.
    operands : Mapping
        Operands of registers and arrays, for the general chain.
    """

    operation: SdpOperation
    parts: tuple[tuple[conv.AnyConvolution | Reader, Cube], ...]
    planes: tuple[Cube, ...]
    points: tuple[Cube, ...]
    tiling: Tiling
    stages: PackedStages | None
    operands: Mapping[tuple[str, str], NDArray[np.int64]]


def prepare_sdp(declared: SdpOperation, read: ReadWindow, target: Target) -> PreparedSdp:
    """Unpack weights and operands of an integer operation, which `read` returns the bytes of."""
    operation = with_operands(declared, read)
    output = operation.destination
    parts: tuple[tuple[conv.AnyConvolution | Reader, Cube], ...]
    points = operand_cubes(operation)
    if isinstance(operation.source, ConvOperation):
        fed = operation.source
        convolution = conv.prepare(fed, weights_of(fed, read, target), target)
        tiling, bound = convolution.tiling, convolution.bound
        plain = fed.truncate == 0 and bound < conv.INT32_LIMIT
        ends = zip(fed.source.parts, output.parts, strict=True)
        parts = tuple((convolution.of(part), destination) for part, destination in ends)
        planes: tuple[Cube, ...] = fed.planes
    else:
        narrow = operation.source.element_bytes == 1
        parts = ((Reader(operation.source, element_type(Precision.INT8 if narrow else Precision.INT16)), output),)
        planes = (operation.source,)
        bound, plain = 1 << (8 * operation.source.element_bytes - 1), True
        tiling = plan(output.height, output.width, 8 * output.channels)
    simple = plain and (operation.precision, operation.output) == (Precision.INT8, Precision.INT8)
    stages = linear_stages(operation, output.channels, bound) if simple else None
    return PreparedSdp(
        operation,
        parts,
        planes,
        points,
        tiling,
        None if stages is None else pack_stages(stages),
        constant_operands(operation.units),
    )


def with_operands(operation: SdpOperation, read: ReadWindow) -> SdpOperation:
    """Return `operation` with its arrays of operands read."""
    units = tuple(
        replace(unit, alu_operand=_resolved(unit.alu_operand, read), mul_operand=_resolved(unit.mul_operand, read))
        for unit in operation.units
    )
    return replace(operation, units=units)


def _resolved(operand: Operand | None, read: ReadWindow) -> Operand | None:
    if operand is None or operand.array is None:
        return operand
    return Operand(channels=operand.array.read(read(operand.array.window)))


def weights_of(convolution: ConvOperation, read: ReadWindow, target: Target) -> NDArray[np.uint8]:
    """Return the stream of weights of `convolution`, uncompressed."""
    values, compression = read(convolution.weights), convolution.compression
    if compression is None:
        return values
    where = f"operation {convolution.index} ({convolution.unit})"
    return decompress(convolution, values, read(compression.mask), read(compression.sizes), target, where)


def run_sdp(prepared: PreparedSdp, memory: DeviceMemory, workspace: Workspace) -> None:
    """Run an SDP operation, and the convolution that feeds it, on every image of `memory`."""
    operation = prepared.operation
    if operation.only_compares:
        return
    from_memory = not isinstance(operation.source, ConvOperation)
    points = {cube: intact(memory, (cube,), operation.destination, True) for cube in prepared.points}
    source = intact(memory, prepared.planes, operation.destination, from_memory)
    operand = next(iter(points.values()), None)
    for fed, destination in prepared.parts:
        job = None
        if prepared.stages is not None:
            job = rounding(prepared.stages, operand, memory.bytes_of(destination.memory), destination)
            if isinstance(fed, DotConvolution):
                convolve_and_round(fed, source, job, memory.images, workspace)
                continue
        for tile in prepared.tiling.tiles(memory.images):
            if isinstance(fed, Reader):
                sums: conv.Sums = _read(fed, destination, source, tile, workspace)
            else:
                sums = fed.accumulate(source, tile, workspace)
            if job is not None:
                round_tile(int32_sums(sums, workspace), job, tile.part)
            else:
                _write_general(prepared, sums, points, memory, destination, tile)


def intact(memory: DeviceMemory, planes: Sequence[Cube], destination: Cube, point_by_point: bool) -> NDArray[np.int8]:
    """Return the memory of `planes` (of one image), copied where writing `destination` would change what is to be read.

    Writing goes tile by tile. An operation that reads and writes the same points in the same places may do so in place.
    """
    values = memory.bytes_of(planes[0].memory)
    harmful = any(cube.overlaps(destination) and not (point_by_point and cube == destination) for cube in planes)
    return values.copy() if harmful else values


def _read(
    reader: Reader, output: Cube, source: NDArray[np.int8], tile: Tile, workspace: Workspace
) -> NDArray[np.float32]:
    """Return the values of a tile as ``(1, pixels, channels)``."""
    values = workspace.take("sums", tile.images, tile.rows, output.width, output.channels, dtype=np.float32)
    reader.read(source, tile.first, tile.row, 0, values)
    return values.reshape(1, -1, output.channels)


def _write_general(
    prepared: PreparedSdp,
    sums: conv.Sums,
    points: Mapping[Cube, NDArray[np.int8]],
    memory: DeviceMemory,
    output: Cube,
    tile: Tile,
) -> None:
    operation = prepared.operation
    shape = tile.images, tile.rows, output.width, output.channels
    points_now = {where: values.astype(np.int64) for where, values in point_operands(operation, points, tile).items()}
    operands = {**prepared.operands, **points_now}
    values = sums[..., : output.channels].astype(np.float64).sum(axis=0).astype(np.int64).reshape(shape)
    if isinstance(operation.source, ConvOperation):
        values = shift_right(values, operation.source.truncate, 32)
    chain = operation.units, operands, operation.lut, operation.converter, operation.output
    write_tile(integer_chain(values, *chain).astype(operation.dtype), output, memory, tile)


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
