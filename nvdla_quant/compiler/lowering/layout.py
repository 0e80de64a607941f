"""How tensors lie in memory: feature cubes and images (docs/hardware/layouts.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nvdla_quant.compiler.lowering.operations import Lowered, Part, Window
from nvdla_quant.hardware.cbuf import IMAGE_CHANNELS, ceil_div, round_up
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.network.graph import Tensor

IMAGE_LINE_ALIGNMENT = 32
"""Bytes that the lines of an image are a multiple of, or of a wider atom."""


@dataclass(frozen=True)
class Surface:
    """A tensor's place in memory, without its address.

    Element (c, y, x) of a feature cube stands at byte ``(c // n) * surface_stride + y * line_stride + x * atom +
    (c % n) * element_bytes``, with n = atom / element_bytes; an image has one surface of four components a pixel.

    Attributes
    ----------
    channels, height, width : int
        Elements; four channels in an image, whatever the network's.
    element_bytes : int
        1 or 2.
    image : bool
        Whether it is an image.
    line_stride, surface_stride : int
        Bytes between rows and between surfaces; 0 surfaces apart in an image.
    atom : int
        Bytes of one pixel in one surface.
    """

    channels: int
    height: int
    width: int
    element_bytes: int
    image: bool
    line_stride: int
    surface_stride: int
    atom: int

    @property
    def surfaces(self) -> int:
        """Number of surfaces."""
        return 1 if self.image else ceil_div(self.channels * self.element_bytes, self.atom)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.surfaces * (self.surface_stride or self.height * self.line_stride)

    def offset_of(self, window: Window) -> int:
        """Bytes from the tensor's start to the window's."""
        return window.row * self.line_stride + window.column * self.atom

    def size_of(self, window: Window) -> int:
        """Bytes that the descriptors state for the window: its rows, at this line stride."""
        return self.surfaces * window.rows * self.line_stride


def feature_surface(tensor_chw: tuple[int, int, int], target: Target, element_bytes: int) -> Surface:
    """Surface of a feature cube: lines and surfaces packed."""
    channels, height, width = tensor_chw
    line = width * target.feature_atom_bytes
    return Surface(channels, height, width, element_bytes, False, line, line * height, target.feature_atom_bytes)


def image_surface(tensor: Tensor, target: Target, element_bytes: int) -> Surface:
    """Surface of an image of four components a pixel."""
    _, height, width = tensor.chw
    pixel = IMAGE_CHANNELS * element_bytes
    line = round_up(width * pixel, max(IMAGE_LINE_ALIGNMENT, target.feature_atom_bytes))
    return Surface(IMAGE_CHANNELS, height, width, element_bytes, True, line, 0, pixel)


def element_bytes_of(precision: Precision) -> int:
    """Bytes of one element."""
    return 2 if precision is Precision.FP16 else 1


def surfaces_of(lowered: Lowered, target: Target, precision: Precision) -> Mapping[str, Surface]:
    """Surface of every tensor; one that stands in another has the strides that it finds there."""
    size = element_bytes_of(precision)
    return {name: _surface(tensor, lowered, target, size) for name, tensor in lowered.tensors.items()}


def _surface(tensor: Tensor, lowered: Lowered, target: Target, element_bytes: int) -> Surface:
    if tensor.name in lowered.images:
        return image_surface(tensor, target, element_bytes)
    surface = feature_surface(tensor.chw, target, element_bytes)
    if part := lowered.parts.get(tensor.name):
        outer = feature_surface(lowered.tensors[part.whole].chw, target, element_bytes)
        return replace(surface, line_stride=part.step * outer.line_stride, surface_stride=outer.surface_stride)
    return surface


def offset_in(part: Part, surface: Surface) -> int:
    """Bytes from the start of the whole to that of `part`, which has this surface."""
    atoms = part.first * surface.element_bytes // surface.atom
    line = surface.line_stride // part.step
    return atoms * surface.surface_stride + part.row * line + part.column * surface.atom


def whole(tensor: str, surface: Surface) -> Window:
    """Window over the whole of a tensor."""
    return Window(tensor, 0, surface.height, 0, surface.width)
