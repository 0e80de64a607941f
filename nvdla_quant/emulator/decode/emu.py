"""Decode an EMU (CPU) task (docs/hardware/cpu.md).

Facts: nvdla/sw ``umd/core/src/runtime/Emulator.cpp``, ``emu_interface.h``.
"""

import math

import numpy as np

from nvdla_quant.emulator.decode.addresses import AddressSpace
from nvdla_quant.emulator.operations import CpuOperation, Cube
from nvdla_quant.errors import EmulationError, LoadableError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.layout import MAX_CUBE
from nvdla_quant.loadable.structs import EmuFormat, EmuOperation

ELEMENT_BYTES = {EmuFormat.INT8: 1, EmuFormat.INT8_8: 1, EmuFormat.FP16: 2}
"""Bytes of an element; other formats are refused by the runtime."""


def decode_task(space: AddressSpace, target: Target, base: int) -> list[CpuOperation]:
    """Decode every operation of a CPU task; `base` is the number of the first one in the program.

    NVIDIA's runtime knows atoms of 8 bytes (INT8_8) and of 32. Where a target's are others, INT8 stands for those.
    """
    network = space.records(0, structs.EMU_NETWORK, 1, "network descriptor")[0]
    count = int(network["num_operations"])
    ops = space.records(int(network["operation_desc_index"]), structs.EMU_OP, count, "operations")
    buffers = space.records(int(network["operation_buffer_desc_index"]), structs.EMU_BUFFERS, count, "buffers")
    return [
        _operation(space, target, op, buffer, base + index, f"{space.where} operation {index} (EMU)")
        for index, (op, buffer) in enumerate(zip(ops, buffers, strict=True))
    ]


def _operation(
    space: AddressSpace, target: Target, op: np.void, buffers: np.void, index: int, where: str
) -> CpuOperation:
    if op["op_type"] not in list(EmuOperation):
        raise EmulationError(f"{where}: op_type is {int(op['op_type'])}, expected 0 (power) or 1 (softmax)")
    kind = EmuOperation(op["op_type"])
    source, destination = buffers["src_data"], buffers["dst_data"]
    if source["format"] != destination["format"]:
        formats = f"{int(source['format'])} and {int(destination['format'])}"
        raise EmulationError(f"{where}: formats {formats} differ, which the runtime refuses")
    if source["format"] not in ELEMENT_BYTES:
        raise EmulationError(f"{where}: format is {int(source['format'])}, expected INT8 (0), INT8_8 (1) or FP16 (3)")
    floats = {field: float(op[field]) for field in ("input_scale", "output_scale", "power", "scale", "shift")}
    if kind is EmuOperation.SOFTMAX:
        # These fields are a union with `axis`, and softmax has no others.
        floats |= {"power": 1.0, "scale": 1.0, "shift": 0.0}
    integer = source["format"] != EmuFormat.FP16
    for field, value in floats.items():
        if not math.isfinite(value):
            raise EmulationError(f"{where}: {field} is {value}, expected a finite number")
    if integer and floats["output_scale"] == 0:
        raise EmulationError(f"{where}: output_scale is 0, the result would be undefined")
    element_bytes = ELEMENT_BYTES[EmuFormat(source["format"])]
    atom = (8 if source["format"] == EmuFormat.INT8_8 else target.port_atom_bytes) // element_bytes
    cubes = [
        _cube(space, buffer, kind, (atom, element_bytes), f"{where} {side}")
        for side, buffer in (("src", source), ("dst", destination))
    ]
    if cubes[0].shape != cubes[1].shape:
        raise EmulationError(f"{where}: {cubes[0].shape} in, {cubes[1].shape} out, expected the same")
    return CpuOperation(index, kind, cubes[0], cubes[1], **floats)


def _cube(space: AddressSpace, buffer: np.void, kind: EmuOperation, sizes: tuple[int, int], where: str) -> Cube:
    atom, element_bytes = sizes
    channels, height, width = (int(buffer[field]) for field in ("channel", "height", "width"))
    if not (1 <= channels <= MAX_CUBE and 1 <= height <= MAX_CUBE and 1 <= width <= MAX_CUBE):
        raise LoadableError(f"{where}: {channels}x{height}x{width}, expected 1 to {MAX_CUBE} each")
    line, surface = int(buffer["line_stride"]), int(buffer["surf_stride"])
    if kind is EmuOperation.SOFTMAX:
        # Softmax takes its channels as they lie in memory from the first byte, whatever the strides and the size.
        height = width = 1
        atom, line, surface = channels, channels * element_bytes, channels * element_bytes
    place = int(buffer["address"]), int(buffer["offset"])
    return space.checked_cube(Cube(*place, channels, height, width, atom, element_bytes, line, surface), where)
