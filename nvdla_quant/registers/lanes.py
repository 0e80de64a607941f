"""What the SDP makes of the elements behind the last channel, which stand in its last atom.

Hardware works on whole atoms: from memory it takes what stands there, from a convolution 0 for kernels that are not
there, and all units apply. Nobody means these elements, but a trace's CRC covers them. (Confirmed by NVIDIA's traces of
33 channels and of 1 kernel on nv_small.) The units behind the SDP do the same in the emulator.
"""

from dataclasses import replace

from nvdla_quant.emulator.decode.fields import ELEMENT_BYTES
from nvdla_quant.emulator.operations import (
    ConvOperation,
    Cube,
    Operand,
    OperandArray,
    Operation,
    SdpOperation,
    SdpUnit,
    handed_over,
)
from nvdla_quant.loadable.tasks import Window


def whole_atoms(operation: Operation) -> Operation:
    """Return an SDP operation from memory as one of whole atoms, and any other as it is."""
    if not isinstance(operation, SdpOperation) or isinstance(operation.source, ConvOperation):
        return operation
    source, destination = operation.source, operation.destination
    if source.atom != destination.atom or destination.channels % destination.atom == 0:
        return operation
    whole = destination.surfaces * destination.atom
    units = tuple(_resized(unit, destination.channels, whole) for unit in operation.units)
    source, destination = (replace(cube, channels=whole) for cube in (source, destination))
    return replace(operation, source=source, destination=destination, units=units)


def edge(operation: Operation) -> SdpOperation | None:
    """Return what happens in the last atoms of an operation behind a convolution; None where they are whole.

    Its source is a cube of zeros and its destination another one, both in memories of their own.
    """
    if not isinstance(operation, SdpOperation) or not isinstance(operation.source, ConvOperation):
        return None
    cube = operation.destination
    if cube.channels % cube.atom == 0 or cube.batch > 1 or operation.only_compares:
        return None
    shape = cube.atom, cube.height, cube.width
    sizes = ELEMENT_BYTES[operation.source.precision], cube.element_bytes
    source, destination = (handed_over(ZEROS + place, shape, cube.atom, size) for place, size in enumerate(sizes))
    first = (cube.surfaces - 1) * cube.atom
    units = tuple(_shifted(unit, first, cube.atom) for unit in operation.units)
    return replace(operation, source=source, destination=destination, units=units)


ZEROS = 1 << 20
"""Number that no operation has: for the memories of `edge`."""


def last_surface(cube: Cube) -> Cube:
    """Return the last surface of `cube`, with whole atoms."""
    behind = (cube.surfaces - 1) * cube.surface_stride
    return replace(cube, offset=cube.offset + behind, channels=cube.atom)


def _resized(unit: SdpUnit, channels: int, whole: int) -> SdpUnit:
    """Return a unit whose operands, of `channels` channels, are of `whole`."""

    def resized(operand: Operand | None) -> Operand | None:
        if operand is None:
            return None
        if operand.array is not None:
            array = operand.array
            size = array.window.size // channels * whole
            return replace(operand, array=replace(array, window=replace(array.window, size=size)))
        if operand.cube is not None:
            count = operand.cube.channels // channels
            return replace(operand, cube=replace(operand.cube, channels=whole * count))
        return operand

    return replace(unit, alu_operand=resized(unit.alu_operand), mul_operand=resized(unit.mul_operand))


def _shifted(unit: SdpUnit, first: int, count: int) -> SdpUnit:
    """Return a unit with the operands of `count` channels from `first` on."""

    def shifted(operand: Operand | None) -> Operand | None:
        if operand is None:
            return None
        if operand.array is not None:
            return replace(operand, array=_part(operand.array, first, count))
        return operand if operand.cube is None else replace(operand, cube=last_surface(operand.cube))

    return replace(unit, alu_operand=shifted(unit.alu_operand), mul_operand=shifted(unit.mul_operand))


def _part(array: OperandArray, first: int, count: int) -> OperandArray:
    size = array.step * array.dtype.itemsize
    window = Window(array.window.memory, array.window.offset + first * size, count * size)
    return replace(array, window=window)
