"""What a decoded loadable consists of: typed, frozen, every address resolved to a memory and a byte offset."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.hardware.targets import Precision
from nvdla_quant.loadable.structs import EmuOperation, PoolMode, RubikMode, SdpAlu
from nvdla_quant.loadable.tasks import Window

ElementType = np.dtype[np.int8] | np.dtype[np.int16] | np.dtype[np.float16]
"""Type of a tensor's elements in the device's domain."""
PLANE_BYTES = 32
"""Rubik writes the rows of planes in units of so many bytes (``cmod/rubik/NV_NVDLA_rbk.cpp``)."""


def element_type(precision: Precision) -> ElementType:
    """Return the type of elements of `precision`."""
    if precision is Precision.FP16:
        return np.dtype(np.float16)
    return np.dtype(np.int8) if precision is Precision.INT8 else np.dtype(np.int16)


class Fp16(StrEnum):
    """How operations in fp16 are computed: bit for bit as the hardware does, or in float32 by matrix products."""

    EXACT = "exact"
    FAST = "fast"


@dataclass(frozen=True)
class Cube:
    """A feature cube or an interleaved image in one memory.

    Element ``(c, y, x)`` stands at byte ``offset + (c // atom) * surface_stride + y * line_stride + (x * atom + c %
    atom) * element_bytes``; an image with four interleaved components is a cube whose only atom has four channels.

    Attributes
    ----------
    memory : int
        Memory id.
    offset : int
        Byte of element (0, 0, 0).
    channels, height, width : int
        Elements; the last atom may be partly used.
    atom : int
        Channels that stand together.
    element_bytes : int
        1 or 2.
    line_stride, surface_stride : int
        Bytes between rows, and between groups of `atom` channels.
    batch, batch_stride : int
        Cubes of the same form, and bytes between them: one operation may take several images (multi-batch).
    """

    memory: int
    offset: int
    channels: int
    height: int
    width: int
    atom: int
    element_bytes: int
    line_stride: int
    surface_stride: int
    batch: int = 1
    batch_stride: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def surfaces(self) -> int:
        """Number of surfaces, each of `atom` channels."""
        return -(-self.channels // self.atom)

    @property
    def end(self) -> int:
        """First byte behind the cube; atoms are always whole."""
        last_line = (self.surfaces - 1) * self.surface_stride + (self.height - 1) * self.line_stride
        last_cube = (self.batch - 1) * self.batch_stride
        return self.offset + last_cube + last_line + self.width * self.atom * self.element_bytes

    @property
    def parts(self) -> "tuple[Cube, ...]":
        """The single cubes of the batch."""
        if self.batch == 1:
            return (self,)
        return tuple(
            replace(self, offset=self.offset + number * self.batch_stride, batch=1, batch_stride=0)
            for number in range(self.batch)
        )

    @property
    def size(self) -> int:
        """Bytes of its atoms, without gaps; more than its memory has where strides let them overlap."""
        return self.batch * self.surfaces * self.atom * self.height * self.width * self.element_bytes

    @property
    def is_handed_over(self) -> bool:
        """Whether it goes from unit to unit and never stands in memory; see `handed_over`."""
        return self.memory < 0

    def rows(self, first: int, last: int) -> "Cube":
        """Return the rows from `first` up to, not with, `last`."""
        return replace(self, offset=self.offset + first * self.line_stride, height=last - first)

    def overlaps(self, other: "Cube") -> bool:
        """Whether the byte ranges of the two cubes meet (gaps between rows count as part of a cube)."""
        return self.memory == other.memory and self.offset < other.end and other.offset < self.end


@dataclass(frozen=True)
class Converter:
    """``round((x - offset) * scale / 2**shift)``, saturated by whoever uses it."""

    offset: int
    scale: int
    shift: int

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing (up to saturation)."""
        return (self.offset, self.scale, self.shift) == (0, 1, 0)


@dataclass(frozen=True)
class Component:
    """One component of a pixel: `bits` bits from bit `shift` of the little-endian number at its byte `byte`."""

    plane: int
    byte: int
    bytes: int
    shift: int
    bits: int


@dataclass(frozen=True)
class Pixels:
    """A pixel format.

    Attributes
    ----------
    name : str
        As the firmware spells it, without ``FORMAT_T_``.
    components : tuple[Component, ...]
        In the order in which the kernels see them: R, G, B, A or Y, U, V, A.
    precision : Precision
        Of the components in memory.
    """

    name: str
    components: tuple[Component, ...]
    precision: Precision

    @property
    def plane_bytes(self) -> tuple[int, ...]:
        """Bytes of a pixel in each plane."""
        planes = range(max(component.plane for component in self.components) + 1)
        return tuple(max(c.byte + c.bytes for c in self.components if c.plane == plane) for plane in planes)


@dataclass(frozen=True)
class Compression:
    """Compressed weights: `mask` has a bit for each element, `sizes` the bytes of each kernel group (WMB and WGS)."""

    mask: Window
    sizes: Window


@dataclass(frozen=True)
class ConvOperation:
    """A convolution, up to the accumulator.

    Attributes
    ----------
    index : int
        Number of the operation in the program.
    source : Cube
        Features or image (of an image in two planes, the first).
    weights : Window
        Packed weights.
    out_channels, out_height, out_width : int
        Size of what it hands to the SDP.
    kernel_height, kernel_width : int
        Taps (of the network, not of the extended descriptor).
    pixels : Pixels or None
        Format of an image, whose weights are packed by pre- and post-extension; None: features.
    post_extension : int
        Log2 of the kernel rows that one MAC operation takes (images).
    stride, dilation : tuple[int, int]
        (y, x).
    pad_top, pad_left : int
        Rows and columns before the cube.
    pad_value : float
        Value of every coordinate outside the cube, after the input converter.
    precision : Precision
        Of the arithmetic and the weights.
    converter : Converter or None
        Input converter of an integer source.
    signed : bool
        Whether the source's integers are signed.
    truncate : int
        Right shift of the accumulator's output.
    second_plane : Cube or None
        Second plane of an image (U and V).
    means : tuple[int, ...] or None
        Offsets of the input converter for each component of an image, in place of its own.
    compression : Compression or None
        None: every weight is in `weights`.
    winograd_shift : int or None
        Winograd: right shift behind the transform of the input; None: direct.
    kept_rows : int
        First rows of the source that it does not read: the convolution before left them in the buffer.
    keeps_weights : bool
        Whether it finds its weights in the buffer.
    """

    index: int
    source: Cube
    weights: Window
    out_channels: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    pixels: Pixels | None
    post_extension: int
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad_top: int
    pad_left: int
    pad_value: float
    precision: Precision
    converter: Converter | None
    signed: bool
    truncate: int
    second_plane: Cube | None = None
    means: tuple[int, ...] | None = None
    compression: Compression | None = None
    winograd_shift: int | None = None
    kept_rows: int = 0
    keeps_weights: bool = False

    unit = "CONV"

    @property
    def channels(self) -> int:
        """Channels of a kernel: of the features (Winograd's strides multiply them), or components of a pixel."""
        if self.pixels is not None:
            return len(self.pixels.components)
        return self.source.channels * (1 if self.winograd_shift is None else self.stride[0] * self.stride[1])

    @property
    def planes(self) -> tuple[Cube, ...]:
        """Its source, and the second plane of an image that has one."""
        return (self.source,) if self.second_plane is None else (self.source, self.second_plane)

    @property
    def weight_windows(self) -> tuple[Window, ...]:
        """Where its weights stand."""
        if self.compression is None:
            return (self.weights,)
        return self.weights, self.compression.mask, self.compression.sizes

    @property
    def weight_count(self) -> int:
        """Weights of all kernels."""
        return self.out_channels * self.kernel_height * self.kernel_width * self.channels

    @property
    def multiplications(self) -> int:
        """Multiplications of one inference."""
        products = self.weight_count * self.out_height * self.out_width * self.source.batch
        return products if self.winograd_shift is None else products // 4


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


def handed_over(index: int, shape: tuple[int, int, int], atom: int, element_bytes: int) -> Cube:
    """Return the cube that operation `index` hands to the PDP: in a memory of its own, whose id is negative."""
    channels, height, width = shape
    line = width * atom * element_bytes
    return Cube(-1 - index, 0, channels, height, width, atom, element_bytes, line, line * height)


def handing_over(cube: Cube) -> int:
    """Return the number of the operation that hands `cube` over."""
    return -1 - cube.memory


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


def cube_of_bytes(window: Window) -> Cube:
    """Return `window` as a cube of bytes."""
    return Cube(window.memory, window.offset, 1, 1, window.size, 1, 1, window.size, window.size)


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


@dataclass(frozen=True)
class Region:
    """A memory: its size, its bytes at the start of an inference, and whether an inference changes it."""

    size: int
    written: bool
    initial: NDArray[np.uint8] | None = field(repr=False)


@dataclass(frozen=True)
class Port:
    """A bindable tensor."""

    name: str
    cube: Cube
    precision: Precision

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.cube.shape

    @property
    def dtype(self) -> ElementType:
        """Type of its elements in the device's domain."""
        return element_type(self.precision)
