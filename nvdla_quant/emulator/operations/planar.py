"""Pooling and normalisation."""

from dataclasses import dataclass

from nvdla_quant.emulator.operations.cubes import Converter, Cube, ElementType, element_type
from nvdla_quant.emulator.operations.sdp import Lut
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.loadable.structs import PoolMode


@dataclass(frozen=True)
class PdpOperation:
    """Pooling.

    Attributes
    ----------
    index : int
        Number of the operation in the program.
    source, destination : Cube
        The source is in memory, or what an SDP operation hands over.
    mode : PoolMode
        Average, maximum or minimum.
    kernel, stride : tuple[int, int]
        (y, x).
    pad_top, pad_left : int
        Rows and columns before the source.
    padding_values : tuple[int, ...]
        Entry i is the sum of i + 1 padded cells in a row (average only).
    precision : Precision
        Of both cubes.
    parts : tuple[PdpOperation, ...]
        Where the unit takes the columns in parts, the pooling of each; else empty.
    reciprocals : tuple[int, int] or None
        (y, x): registers that averages are multiplied by; None: what the firmware writes for the kernel.
    """

    index: int
    source: Cube
    destination: Cube
    mode: PoolMode
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad_top: int
    pad_left: int
    padding_values: tuple[int, ...]
    precision: Precision
    parts: tuple["PdpOperation", ...] = ()
    reciprocals: tuple[int, int] | None = None

    unit = "PDP"

    @property
    def dtype(self) -> ElementType:
        """Type of what it writes."""
        return element_type(self.precision)


@dataclass(frozen=True)
class CdpOperation:
    """Local response normalisation.

    Channels beyond the cube count nothing in a sum: integers stand for them that the input converter makes 0; fp16
    has no converters, and takes the offset's bits for a half (docs/hardware/fp16.md, "Normalisation").

    Attributes
    ----------
    index : int
        Number of the operation in the program.
    source, destination : Cube
        Of one shape.
    lut : Lut
        Starts and ends are signed 38-bit numbers; in fp16 their low 32 bits are a float32, and scales and entries are
        the bits of float16.
    local_size : int
        Channels of a sum: 3, 5, 7 or 9.
    square_sum, multiply : bool
        Whether the table is asked for the sum of squares (else for the value), and its answer multiplied by the value.
    input_converter, output_converter : Converter
        Of integers, as wide as the unit has them.
    precision : Precision
        Of both cubes.
    """

    index: int
    source: Cube
    destination: Cube
    lut: Lut
    local_size: int
    square_sum: bool
    multiply: bool
    input_converter: Converter
    output_converter: Converter
    precision: Precision

    unit = "CDP"

    @property
    def dtype(self) -> ElementType:
        """Type of what it writes."""
        return element_type(self.precision)
