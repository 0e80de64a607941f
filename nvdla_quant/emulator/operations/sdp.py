"""A single-point operation: its units, operands and table."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations.convolution import ConvOperation
from nvdla_quant.emulator.operations.cubes import Converter, Cube, ElementType, element_type
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.loadable.structs import SdpAlu
from nvdla_quant.loadable.tasks import Window


@dataclass(frozen=True)
class OperandArray:
    """Where an array of operands stands: every `step`-th element of `window` from `start`."""

    window: Window
    dtype: np.dtype[np.int8] | np.dtype[np.int16] | np.dtype[np.float16]
    start: int
    step: int

    def read(self, raw: NDArray[np.uint8]) -> NDArray[np.int64] | NDArray[np.float16]:
        """Return the operands from the bytes of the window."""
        values = np.frombuffer(raw.tobytes(), self.dtype)[self.start :: self.step]
        return values.astype(np.float16) if self.dtype == np.float16 else values.astype(np.int64)


@dataclass(frozen=True)
class Operand:
    """Where an SDP unit's operand comes from: a register, an array (one value for each channel), or a cube.

    Exactly one is set; `channels` are the values of an array that was read, int64 or float16. Registers of fp16
    operations keep their bits, which are a half in X and a float in Y.
    """

    register: int | np.float16 | np.float32 | None = None
    channels: NDArray[np.int64] | NDArray[np.float16] | None = None
    array: OperandArray | None = None
    cube: Cube | None = None


@dataclass(frozen=True)
class SdpUnit:
    """X1 or X2 (ALU, then multiplier), or Y (multiplier, then ALU, then table), as the firmware programs it.

    Attributes
    ----------
    name : str
        "x1", "x2" or "y".
    alu : SdpAlu or None
        None: bypassed.
    alu_operand, mul_operand : Operand or None
        None where the part is bypassed. Per-point BOTH operands share one cube, whose elements alternate (alu, mul).
    interleaved : bool
        Whether per-point operands alternate.
    alu_shift : int
        Left shift of the ALU operand (X).
    truncate : int
        Right shift behind the multiplier; applied even where it is bypassed (X).
    relu, prelu : bool
        Clamp at zero; multiply only negative values.
    alu_converter, mul_converter : Converter or None
        Operand converters (Y, operands from memory).
    lookup : bool
        Apply the table (Y).
    """

    name: str
    alu: SdpAlu | None
    alu_operand: Operand | None
    mul_operand: Operand | None
    interleaved: bool
    alu_shift: int
    truncate: int
    relu: bool
    prelu: bool
    alu_converter: Converter | None = None
    mul_converter: Converter | None = None
    lookup: bool = False


@dataclass(frozen=True)
class TableHalf:
    """One of the two tables of a LUT: `linear_exp` (65 entries) or `linear_only` (257)."""

    entries: NDArray[np.int64]
    start: int
    end: int
    exponential: bool
    select: int
    underflow: tuple[int, int]
    overflow: tuple[int, int]


@dataclass(frozen=True)
class Lut:
    """A look-up table; a priority is 0 for `linear_exp`, 1 for `linear_only`."""

    linear_exp: TableHalf
    linear_only: TableHalf
    hybrid_priority: int
    underflow_priority: int
    overflow_priority: int


@dataclass(frozen=True)
class SdpOperation:
    """A single-point operation: source -> X1 -> X2 -> Y -> output converter -> memory.

    `precision` is that of the arithmetic, `output` that of the result; an integer source is as wide as its cube's
    elements.
    """

    index: int
    source: Cube | ConvOperation
    units: tuple[SdpUnit, ...]
    lut: Lut | None
    converter: Converter
    precision: Precision
    destination: Cube
    output: Precision

    unit = "SDP"

    @property
    def dtype(self) -> ElementType:
        """Type of what it writes."""
        return element_type(self.output)

    @property
    def only_compares(self) -> bool:
        """Whether Y compares for equality: that sets a status register and writes no memory (``NV_NVDLA_sdp.cpp``)."""
        return any(unit.name == "y" and unit.alu is SdpAlu.EQL for unit in self.units)
