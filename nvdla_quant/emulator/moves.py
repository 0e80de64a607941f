"""Operations that only move values: changes of layout (Rubik) and copies (BDMA).

docs/hardware/moves.md has the rules. Facts: nvdla/hw ``cmod/rubik/NV_NVDLA_rbk.cpp``, ``cmod/bdma/BdmaCore.cpp``.
"""

from dataclasses import replace

import numpy as np

from nvdla_quant.emulator.memory import DeviceMemory, Values
from nvdla_quant.emulator.operations import BdmaOperation, Cube, ElementType, RubikOperation
from nvdla_quant.loadable.structs import RubikMode


def run_rubik(operation: RubikOperation, memory: DeviceMemory) -> None:
    """Change the layout of a cube in every image of `memory`.

    Contract spreads groups of channels over the pixels of a larger image (a deconvolution's last step): group ``y *
    stride_x + x`` becomes the pixels at (y, x) of each ``stride_y`` x ``stride_x`` block. Split writes a plane for each
    channel, its rows filled up with zeros; merge makes a cube of planes.
    """
    values = memory.gather(operation.source, _integers(operation.source))
    if operation.mode is RubikMode.CONTRACT:
        whole = operation.destination.surfaces * operation.destination.atom
        values = _contract(values, operation.stride, whole)
        memory.scatter(replace(operation.destination, channels=whole), values)
    else:
        beyond = operation.written.width - operation.source.width
        memory.scatter(operation.written, np.pad(values, ((0, 0), (0, 0), (0, 0), (0, beyond))))


def _contract(values: Values, stride: tuple[int, int], channels: int) -> Values:
    n, _, height, width = values.shape
    groups = values.reshape(n, *stride, channels, height, width)
    spread: Values = groups.transpose(0, 3, 4, 1, 5, 2).reshape(n, channels, height * stride[0], width * stride[1])
    return spread


def run_bdma(operation: BdmaOperation, memory: DeviceMemory) -> None:
    """Copy bytes, one transfer after the other, in every image of `memory`."""
    for source, destination in operation.transfers:
        memory.scatter(destination, memory.gather(source, _integers(source)))


def _integers(cube: Cube) -> ElementType:
    """Return the type that keeps every bit of the elements of `cube`."""
    return np.dtype(np.int8) if cube.element_bytes == 1 else np.dtype(np.int16)
