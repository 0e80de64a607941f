"""What a decoded loadable consists of: typed, frozen, every address resolved to a memory and a byte offset."""

from nvdla_quant.emulator.operations.convolution import Component, Compression, ConvOperation, Pixels
from nvdla_quant.emulator.operations.cubes import (
    PLANE_BYTES,
    Converter,
    Cube,
    ElementType,
    Fp16,
    Port,
    Region,
    cube_of_bytes,
    element_type,
    handed_over,
    handing_over,
)
from nvdla_quant.emulator.operations.moves import BdmaOperation, CpuOperation, RubikOperation
from nvdla_quant.emulator.operations.planar import CdpOperation, PdpOperation
from nvdla_quant.emulator.operations.sdp import Lut, Operand, OperandArray, SdpOperation, SdpUnit, TableHalf
from nvdla_quant.loadable.tasks import Window

__all__ = [
    "PLANE_BYTES",
    "BdmaOperation",
    "CdpOperation",
    "Component",
    "Compression",
    "ConvOperation",
    "Converter",
    "CpuOperation",
    "Cube",
    "ElementType",
    "Fp16",
    "Lut",
    "Operand",
    "OperandArray",
    "Operation",
    "PdpOperation",
    "Pixels",
    "Port",
    "Region",
    "RubikOperation",
    "SdpOperation",
    "SdpUnit",
    "TableHalf",
    "arrays_read",
    "cube_of_bytes",
    "cubes_fetched",
    "cubes_kept",
    "cubes_read",
    "cubes_written",
    "element_type",
    "handed_over",
    "handing_over",
    "operand_cubes",
    "sources_read",
    "weights_read",
]

Operation = SdpOperation | PdpOperation | CdpOperation | RubikOperation | BdmaOperation | CpuOperation
"""What writes memory. A convolution is the source of the SDP operation that it feeds."""


def cubes_read(operation: Operation) -> tuple[Cube, ...]:
    """Return what `operation` reads, its own source first; constants (weights, arrays of operands) are not cubes."""
    operands = operand_cubes(operation) if isinstance(operation, SdpOperation) else ()
    return (*sources_read(operation), *operands)


def sources_read(operation: Operation) -> tuple[Cube, ...]:
    """Return what `operation` reads but for operands."""
    if isinstance(operation, BdmaOperation):
        return tuple(source for source, _ in operation.transfers)
    return operation.source.planes if isinstance(operation.source, ConvOperation) else (operation.source,)


def cubes_fetched(convolution: ConvOperation) -> tuple[Cube, ...]:
    """Return what `convolution` reads from memory, weights as cubes of bytes; the rest is in the buffer."""
    kept = convolution.kept_rows
    data = tuple(plane.rows(kept, plane.height) for plane in convolution.planes if kept < plane.height)
    return data if convolution.keeps_weights else (*data, *map(cube_of_bytes, convolution.weight_windows))


def cubes_kept(convolution: ConvOperation) -> tuple[Cube, ...]:
    """Return where the data and weights that `convolution` finds in the buffer stood in memory."""
    data = tuple(plane.rows(0, convolution.kept_rows) for plane in convolution.planes if convolution.kept_rows)
    return (*data, *map(cube_of_bytes, convolution.weight_windows)) if convolution.keeps_weights else data


def operand_cubes(operation: SdpOperation) -> tuple[Cube, ...]:
    """Return the cubes of operands of `operation`, each once."""
    operands = (operand for unit in operation.units for operand in (unit.alu_operand, unit.mul_operand))
    cubes = (operand.cube for operand in operands if operand is not None)
    return tuple(dict.fromkeys(cube for cube in cubes if cube is not None))


def weights_read(operation: Operation) -> tuple[Window, ...]:
    """Return the weights of the convolution that feeds `operation`."""
    return operation.source.weight_windows if isinstance(operation.source, ConvOperation) else ()


def arrays_read(operation: Operation) -> tuple[Window, ...]:
    """Return the arrays of operands of `operation`."""
    units = operation.units if isinstance(operation, SdpOperation) else ()
    operands = (operand for unit in units for operand in (unit.alu_operand, unit.mul_operand))
    arrays = (operand.array for operand in operands if operand is not None)
    return tuple(dict.fromkeys(array.window for array in arrays if array is not None))


def cubes_written(operation: Operation) -> tuple[Cube, ...]:
    """Return what `operation` writes."""
    if isinstance(operation, BdmaOperation):
        return tuple(destination for _, destination in operation.transfers)
    if isinstance(operation, SdpOperation) and operation.only_compares:
        return ()
    return (operation.written if isinstance(operation, RubikOperation) else operation.destination,)
