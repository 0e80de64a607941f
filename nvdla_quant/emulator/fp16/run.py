"""Run operations in fp16, tile by tile: convolutions exactly or by matrix products, everything else exactly."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.fp16.conv import ExactConvolution, prepare_exact
from nvdla_quant.emulator.fp16.sdp import Bits, Operands, constant_bits, run_chain, singles_of, to_int16
from nvdla_quant.emulator.fp16.winograd import ExactWinograd, prepare_exact_winograd
from nvdla_quant.emulator.integer import conv
from nvdla_quant.emulator.integer.sdp_run import (
    ReadWindow,
    intact,
    point_operands,
    weights_of,
    with_operands,
    write_tile,
)
from nvdla_quant.emulator.memory import DeviceMemory
from nvdla_quant.emulator.operations import ConvOperation, Cube, Fp16, SdpOperation, operand_cubes
from nvdla_quant.emulator.tiles import Reader, Tile, Tiling, Workspace, plan
from nvdla_quant.hardware.targets import Precision, Target

BYTES_PER_CHANNEL = 16
"""Memory that a value takes on its way through the SDP, roughly: its own bits, operands, result."""
AnyHalves = ExactConvolution | ExactWinograd | conv.AnyConvolution


@dataclass(frozen=True, eq=False)
class PreparedHalves:
    """An fp16 SDP operation, ready to run.

    Attributes
    ----------
    operation : SdpOperation
        What it computes.
    parts : tuple[tuple[AnyHalves | Reader, Cube], ...]
        Where its values come from, a convolution or memory, and go to; several for a batch.
    planes, points : tuple[Cube, ...]
        What it reads: its source, and cubes of operands.
    tiling : Tiling
        How the output is cut.
    operands : Mapping
        Operands in registers and arrays.
    """

    operation: SdpOperation
    parts: tuple[tuple[AnyHalves | Reader, Cube], ...]
    planes: tuple[Cube, ...]
    points: tuple[Cube, ...]
    tiling: Tiling
    operands: Operands


def prepare_halves(declared: SdpOperation, read: ReadWindow, target: Target, fp16: Fp16) -> PreparedHalves:
    """Unpack weights and operands of an fp16 operation, which `read` returns the bytes of."""
    operation = with_operands(declared, read)
    output, points = operation.destination, operand_cubes(operation)
    operands = {
        (unit.name, part): constant_bits(operand, output.channels)
        for unit in operation.units
        for part, operand in (("alu", unit.alu_operand), ("mul", unit.mul_operand))
        if operand is not None and operand.cube is None
    }
    if not isinstance(operation.source, ConvOperation):
        reader = Reader(operation.source, np.dtype(np.float16))
        tiling = plan(output.height, output.width, BYTES_PER_CHANNEL * output.channels)
        return PreparedHalves(operation, ((reader, output),), (operation.source,), points, tiling, operands)
    fed = operation.source
    convolution = _prepare_convolution(fed, weights_of(fed, read, target), target, fp16)
    ends = zip(fed.source.parts, output.parts, strict=True)
    parts = tuple((convolution.of(part), destination) for part, destination in ends)
    return PreparedHalves(operation, parts, fed.planes, points, convolution.tiling, operands)


def _prepare_convolution(fed: ConvOperation, packed: NDArray[np.uint8], target: Target, fp16: Fp16) -> AnyHalves:
    """Return the convolution `fed`; Winograd is exact in both modes."""
    if fed.winograd_shift is not None:
        return prepare_exact_winograd(fed, packed, target)
    return prepare_exact(fed, packed, target) if fp16 is Fp16.EXACT else conv.prepare(fed, packed, target)


def run_halves(prepared: PreparedHalves, memory: DeviceMemory, workspace: Workspace) -> None:
    """Run an fp16 SDP operation, and the convolution that feeds it, on every image of `memory`."""
    operation = prepared.operation
    if operation.only_compares:
        return
    output = operation.destination
    source = intact(memory, prepared.planes, output, not isinstance(operation.source, ConvOperation))
    points = {cube: intact(memory, (cube,), output, True) for cube in prepared.points}
    for fed, destination in prepared.parts:
        for tile in prepared.tiling.tiles(memory.images):
            if isinstance(fed, Reader):
                values = _read(fed, destination, source, tile)
            elif isinstance(fed, ExactConvolution | ExactWinograd):
                values = fed.accumulate(source, tile)
            else:
                values = fed.accumulate(source, tile, workspace)[0].view(np.uint32)
            operands = {**prepared.operands, **_points(operation, points, tile)}
            halves = run_chain(values.reshape(-1, output.channels), operation.units, operands, operation.lut)
            result = to_int16(halves) if operation.output is Precision.INT16 else halves
            shape = tile.images, tile.rows, output.width, output.channels
            write_tile(result.reshape(shape), destination, memory, tile)


def _read(reader: Reader, output: Cube, source: NDArray[np.int8], tile: Tile) -> Bits:
    halves = np.empty((tile.images, tile.rows, output.width, output.channels), np.float16)
    reader.read_halves(source, tile.first, tile.row, 0, halves)
    return singles_of(halves)


def _points(operation: SdpOperation, points: Mapping[Cube, NDArray[np.int8]], tile: Tile) -> Operands:
    operands = {}
    for where, halves in point_operands(operation, points, tile).items():
        # Constants have one image, which stands for each.
        every = np.broadcast_to(halves, (tile.images, *halves.shape[1:]))
        operands[where] = singles_of(np.asarray(every, np.float16)).reshape(-1, halves.shape[-1])
    return operands
