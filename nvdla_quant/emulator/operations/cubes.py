"""Where values stand: feature cubes, bindable tensors, memories."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.hardware.targets import Precision
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
        """Whether the bytes of the two cubes meet.

        Windows of one tensor, which have its strides, are told apart byte by byte, and surface by surface where only
        the lines' strides differ; of others the gaps between rows and surfaces count as part of a cube.
        """
        if self.memory != other.memory or not (self.offset < other.end and other.offset < self.end):
            return False
        for strides in ((self.surface_stride, self.line_stride), (self.surface_stride,)):
            one, same = self._grid(len(strides)), other._grid(len(strides))
            if one is not None and same is not None and other._strides[: len(strides)] == strides:
                return _share(other.offset - self.offset, strides, one, same)
        return True

    @property
    def _strides(self) -> tuple[int, int]:
        return self.surface_stride, self.line_stride

    def _grid(self, levels: int) -> tuple[int, ...] | None:
        """Surfaces, rows and bytes of a row, or (one level) surfaces and bytes of one; None where lines overlap."""
        row = self.width * self.atom * self.element_bytes
        span = (self.height - 1) * self.line_stride + row
        if self.batch > 1 or row > self.line_stride or span > self.surface_stride:
            return None
        return (self.surfaces, self.height, row) if levels > 1 else (self.surfaces, span)


def _share(apart: int, strides: tuple[int, ...], one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two boxes of a grid share a byte, the other one beginning so many bytes behind the first."""
    if not strides:
        return apart < one[0] and apart + other[0] > 0
    steps, rest = divmod(apart, strides[0])
    return any(
        steps + carried < one[0]
        and steps + carried + other[0] > 0
        and _share(rest - carried * strides[0], strides[1:], one[1:], other[1:])
        for carried in (0, 1)
    )


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


def handed_over(index: int, shape: tuple[int, int, int], atom: int, element_bytes: int) -> Cube:
    """Return the cube that operation `index` hands to the PDP: in a memory of its own, whose id is negative."""
    channels, height, width = shape
    line = width * atom * element_bytes
    return Cube(-1 - index, 0, channels, height, width, atom, element_bytes, line, line * height)


def handing_over(cube: Cube) -> int:
    """Return the number of the operation that hands `cube` over."""
    return -1 - cube.memory


def cube_of_bytes(window: Window) -> Cube:
    """Return `window` as a cube of bytes."""
    return Cube(window.memory, window.offset, 1, 1, window.size, 1, 1, window.size, window.size)


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
