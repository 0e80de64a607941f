"""Run operations in fp16, tile by tile: convolutions exactly or by matrix products, everything else exactly."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator import conv
from nvdla_quant.emulator.fp16_conv import ExactConvolution, prepare_exact
from nvdla_quant.emulator.fp16_sdp import Bits, Operands, constant_bits, run_chain, singles_of
from nvdla_quant.emulator.memory import DeviceMemory
from nvdla_quant.emulator.operations import ConvOperation, Cube, Fp16, SdpOperation, operand_cubes
from nvdla_quant.emulator.program import Program
from nvdla_quant.emulator.sdp_run import intact, point_operands, write_tile
from nvdla_quant.emulator.tiles import Reader, Tile, Tiling, Workspace, plan

BYTES_PER_CHANNEL = 16
"""Memory that a value takes on its way through the SDP, roughly: its own bits, operands, result."""


@dataclass(frozen=True, eq=False)
class PreparedHalves:
    """An fp16 SDP operation, ready to run.

    Attributes
    ----------
    operation : SdpOperation
        What it computes.
    convolution : ExactConvolution or Convolution or None
        Where its values come from; None: memory, through `reader`.
    reader : Reader
        Source in memory, of the convolution or of the SDP itself.
    tiling : Tiling
        How the output is cut.
    operands : Mapping
        Operands in registers and arrays.
    """

    operation: SdpOperation
    convolution: ExactConvolution | conv.Convolution | None
    reader: Reader
    tiling: Tiling
    operands: Operands


def prepare_halves(operation: SdpOperation, program: Program, fp16: Fp16) -> PreparedHalves:
    """Unpack weights and operands of an fp16 `operation`."""
    output = operation.destination
    operands = {
        (unit.name, part): constant_bits(operand, output.channels)
        for unit in operation.units
        for part, operand in (("alu", unit.alu_operand), ("mul", unit.mul_operand))
        if operand is not None and operand.cube is None
    }
    if isinstance(operation.source, ConvOperation):
        window = operation.source.weights
        memory = program.regions[window.memory].initial
        assert memory is not None, "decode checks that the loadable provides the weights"
        packed = memory[window.offset : window.offset + window.size]
        prepare = prepare_exact if fp16 is Fp16.EXACT else conv.prepare
        convolution = prepare(operation.source, packed, program.target)
        return PreparedHalves(operation, convolution, convolution.reader, convolution.tiling, operands)
    reader = Reader(operation.source, np.arange(output.channels))
    tiling = plan(output.height, output.width, BYTES_PER_CHANNEL * output.channels)
    return PreparedHalves(operation, None, reader, tiling, operands)


def run_halves(prepared: PreparedHalves, memory: DeviceMemory, workspace: Workspace) -> None:
    """Run an fp16 SDP operation, and the convolution that feeds it, on every image of `memory`."""
    operation = prepared.operation
    output = operation.destination
    source = intact(memory, prepared.reader.cube, output, prepared.convolution is None)
    points = {cube: intact(memory, cube, output, True) for cube in operand_cubes(operation)}
    for tile in prepared.tiling.tiles(memory.images):
        if prepared.convolution is None:
            values = _read(prepared, source, tile)
        elif isinstance(prepared.convolution, ExactConvolution):
            values = prepared.convolution.accumulate(source, tile)
        else:
            values = prepared.convolution.accumulate(source, tile, workspace)[0].view(np.uint32)
        operands = {**prepared.operands, **_points(operation, points, tile)}
        result = run_chain(values.reshape(-1, output.channels), operation.units, operands, operation.lut)
        write_tile(result.reshape(tile.images, tile.rows, output.width, output.channels), output, memory, tile)


def _read(prepared: PreparedHalves, source: NDArray[np.int8], tile: Tile) -> Bits:
    output = prepared.operation.destination
    halves = np.empty((tile.images, tile.rows, output.width, output.channels), np.float16)
    prepared.reader.read_halves(source, tile.first, tile.row, 0, halves)
    return singles_of(halves)


def _points(operation: SdpOperation, points: Mapping[Cube, NDArray[np.int8]], tile: Tile) -> Operands:
    operands = {}
    for where, halves in point_operands(operation, points, tile).items():
        # Constants have one image, which stands for each.
        every = np.broadcast_to(halves, (tile.images, *halves.shape[1:]))
        operands[where] = singles_of(np.asarray(every, np.float16)).reshape(-1, halves.shape[-1])
    return operands
