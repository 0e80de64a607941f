"""A convolution up to its accumulators, and the pixels that it may read."""

from dataclasses import dataclass

from nvdla_quant.emulator.operations.cubes import Converter, Cube
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.loadable.tasks import Window


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
