"""What moves or copies values, and what the runtime computes on the CPU."""

from dataclasses import dataclass, replace

import numpy as np

from nvdla_quant.emulator.operations.cubes import PLANE_BYTES, Cube, ElementType, element_type
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.loadable.structs import EmuOperation, RubikMode


@dataclass(frozen=True)
class RubikOperation:
    """A change of layout.

    Attributes
    ----------
    index : int
        Number of the operation in the program.
    source, destination : Cube
        Planes (the source of merge, the destination of split) are cubes of one channel to an atom. The source of
        contract has ``stride_y * stride_x`` groups of as many surfaces as the destination.
    mode : RubikMode
        Contract, split or merge.
    stride : tuple[int, int]
        (y, x) of contract, else (1, 1).
    precision : Precision
        Of both cubes.
    """

    index: int
    source: Cube
    destination: Cube
    mode: RubikMode
    stride: tuple[int, int]
    precision: Precision

    unit = "RUBIK"

    @property
    def dtype(self) -> ElementType:
        """Type of what it writes."""
        return element_type(self.precision)

    @property
    def written(self) -> Cube:
        """What it writes: `destination`, and behind each row of a plane the rest of its last 32 bytes."""
        if self.mode is not RubikMode.SPLIT:
            return self.destination
        elements = PLANE_BYTES // self.destination.element_bytes
        return replace(self.destination, width=-(-self.destination.width // elements) * elements)


@dataclass(frozen=True)
class BdmaOperation:
    """Copies, one after the other, as (source, destination).

    Lines are rows of pixels of 32 bytes, surfaces are atoms; cubes are of int8 whatever the bytes mean.
    """

    index: int
    transfers: tuple[tuple[Cube, Cube], ...]

    unit = "BDMA"

    @property
    def source(self) -> Cube:
        """Source of the first copy."""
        return self.transfers[0][0]

    @property
    def destination(self) -> Cube:
        """Destination of the first copy: what steps show."""
        return self.transfers[0][1]

    @property
    def dtype(self) -> ElementType:
        """Type of what steps show."""
        return np.dtype(np.int8)


@dataclass(frozen=True)
class CpuOperation:
    """An operation of the runtime's CPU emulator (EMU task)."""

    index: int
    kind: EmuOperation
    source: Cube
    destination: Cube
    input_scale: float
    output_scale: float
    power: float
    scale: float
    shift: float

    unit = "EMU"

    @property
    def dtype(self) -> ElementType:
        """Type of what it writes."""
        return element_type(Precision.INT8 if self.destination.element_bytes == 1 else Precision.FP16)
