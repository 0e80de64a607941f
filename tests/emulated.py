"""Build small programs of one operation, without a loadable."""

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Program
from nvdla_quant.emulator.operations import (
    Converter,
    ConvOperation,
    Cube,
    Operation,
    PdpOperation,
    Port,
    Region,
    SdpOperation,
    SdpUnit,
)
from nvdla_quant.emulator.pixels import PIXELS
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, Precision, Target
from nvdla_quant.loadable.structs import FORMAT_A8B8G8R8, FORMAT_A16B16G16R16_F, PoolMode
from nvdla_quant.loadable.tasks import Window

INPUT, OUTPUT, OPERAND, WEIGHTS = range(4)
"""Memories of the programs that are made here."""


def packed_cube(memory: int, shape: tuple[int, int, int], atom: int, element_bytes: int = 1) -> Cube:
    """Return a cube without gaps at the start of `memory`."""
    channels, height, width = shape
    line = width * atom * element_bytes
    return Cube(memory, 0, channels, height, width, atom, element_bytes, line, line * height)


def program_of(
    operation: Operation, source: Cube, target: Target, constants: dict[int, NDArray[np.uint8]] | None = None
) -> Program:
    """Return a program whose input is `source` and whose output is what `operation` writes."""
    destination = operation.destination
    regions = {
        source.memory: Region(source.end, True, None),
        destination.memory: Region(destination.end, True, None),
    }
    regions |= {memory: Region(len(raw), False, raw) for memory, raw in (constants or {}).items()}
    precision = Precision.INT8 if source.element_bytes == 1 else Precision.FP16
    ports = (Port("in", source, precision),), (Port("out", destination, precision),)
    return Program(target, (operation,), MappingProxyType(regions), *ports, ())


def sdp_program(
    shape: tuple[int, int, int],
    units: tuple[SdpUnit, ...],
    converter: Converter,
    operand_bytes: NDArray[np.uint8] | None = None,
    target: Target = NV_SMALL,
) -> Program:
    """Return an SDP operation from memory to memory."""
    atom = target.feature_atom_bytes
    source, destination = packed_cube(INPUT, shape, atom), packed_cube(OUTPUT, shape, atom)
    operation = SdpOperation(0, source, units, None, converter, Precision.INT8, destination, Precision.INT8)
    constants = {} if operand_bytes is None else {OPERAND: operand_bytes}
    return program_of(operation, source, target, constants)


def conv_program(
    source: Cube,
    weights: NDArray[np.int8] | NDArray[np.float16],
    out_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad: tuple[int, int],
    pad_value: int,
    packed: NDArray[np.uint8],
    target: Target,
    units: tuple[SdpUnit, ...],
    converter: Converter,
    image: bool = False,
    post_extension: int = 0,
    truncate: int = 0,
    input_converter: Converter | None = None,
    signed: bool = True,
) -> Program:
    """Return a convolution with the SDP operation behind it; `weights` are (kernels, height, width, channels)."""
    precision = Precision.FP16 if weights.dtype == np.float16 else Precision.INT8
    element_bytes = weights.dtype.itemsize
    kernels, height, width, _ = weights.shape
    convolution = ConvOperation(
        index=0,
        source=source,
        weights=Window(WEIGHTS, 0, len(packed)),
        out_channels=kernels,
        out_height=out_size[0],
        out_width=out_size[1],
        kernel_height=height,
        kernel_width=width,
        pixels=PIXELS[FORMAT_A8B8G8R8 if element_bytes == 1 else FORMAT_A16B16G16R16_F] if image else None,
        post_extension=post_extension,
        stride=stride,
        dilation=dilation,
        pad_top=pad[0],
        pad_left=pad[1],
        pad_value=pad_value,
        precision=precision,
        converter=input_converter,
        signed=signed,
        truncate=truncate,
    )
    atom = target.feature_atom_bytes // element_bytes
    destination = packed_cube(OUTPUT, (kernels, *out_size), atom, element_bytes)
    operation = SdpOperation(1, convolution, units, None, converter, precision, destination, precision)
    return program_of(operation, source, target, {WEIGHTS: packed})


def pool_program(
    shape: tuple[int, int, int],
    out_size: tuple[int, int],
    mode: PoolMode,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    padding_values: tuple[int, ...],
    target: Target = NV_FULL,
) -> Program:
    """Return a pooling operation."""
    atom = target.feature_atom_bytes
    source, destination = packed_cube(INPUT, shape, atom), packed_cube(OUTPUT, (shape[0], *out_size), atom)
    operation = PdpOperation(
        0, source, destination, mode, kernel, stride, pad[0], pad[1], padding_values, Precision.INT8
    )
    return program_of(operation, source, target)
