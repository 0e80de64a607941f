"""Work cut into pieces that stay in the processor's cache, and the way from a device cube to matrix rows.

Between device memory and a matrix product, values stand as float32 ``(images, rows, columns, channels)`` with the
padding in place. Every int8 and int16 value is exact in float32. For dot products of bytes they stand as bytes, as
``value + 128``, for those of words as int16.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._instructions import SIGN, read_atom
from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.memory import cube_view, images_of
from nvdla_quant.emulator.operations import Cube, ElementType

TILE_BYTES = 1 << 21
"""Aim for the largest matrix of a tile: measured best, with 384 rows, of 1 to 4 MiB on an AVX2 processor."""
MIN_TILE_PIXELS = 384
MAX_TILE_PIXELS = 4096
"""Fewer rows waste a matrix product, more gain nothing."""
MAX_TILE_BYTES = 1 << 28
"""Fewer rows all the same where kernels are so large that they would take more."""
MAX_ATOM = 64
"""Elements behind the last one that `read_integers` may write; no target's atom has more."""
Integers = NDArray[np.uint8 | np.int16]
"""Int8 values, as dot products take them: bytes of ``value + 128``, or words."""
_Element = TypeVar("_Element", bound=np.generic)


class Workspace:
    """Scratch arrays of one thread, kept between tiles and operations."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, type[np.generic]], NDArray[Any]] = {}

    def take(self, name: str, *shape: int, dtype: type[_Element]) -> NDArray[_Element]:
        """Return an uninitialised array; the next `take` of the same name and type may reuse it."""
        size = math.prod(shape)
        flat = self._arrays.get((name, dtype))
        if flat is None or len(flat) < size:
            flat = self._arrays[name, dtype] = np.empty(size, dtype)
        return flat[:size].reshape(shape)


@dataclass(frozen=True)
class Tile:
    """Images `first` to `first + images`, output rows `row` to `row + rows` of each."""

    first: int
    images: int
    row: int
    rows: int

    @property
    def part(self) -> tuple[int, int, int, int]:
        """What compiled functions take: the same, in this order."""
        return self.first, self.images, self.row, self.rows


@dataclass(frozen=True)
class Tiling:
    """How an output of `height` x `width` pixels is cut: whole images together, or rows of one image."""

    height: int
    width: int
    images: int
    rows: int

    @property
    def pixels(self) -> int:
        """Pixels of the largest tile."""
        return self.images * self.rows * self.width

    def tiles(self, images: int) -> Iterator[Tile]:
        """Yield the tiles of `images` images."""
        for first in range(0, images, self.images):
            for row in range(0, self.height, self.rows):
                yield Tile(first, min(self.images, images - first), row, min(self.rows, self.height - row))


def plan(height: int, width: int, bytes_per_pixel: int, tile_bytes: int = TILE_BYTES) -> Tiling:
    """Return a tiling for tiles of about `tile_bytes` that need `bytes_per_pixel` for each output pixel."""
    pixels = min(max(tile_bytes // bytes_per_pixel, MIN_TILE_PIXELS), MAX_TILE_PIXELS)
    pixels = max(min(pixels, MAX_TILE_BYTES // bytes_per_pixel), 1)
    if height * width <= pixels:
        return Tiling(height, width, pixels // (height * width), height)
    return Tiling(height, width, 1, max(1, pixels // width))


@dataclass(frozen=True, eq=False)
class Lanes:
    """Channels that are read one by one: components of pixels, and elements behind an input converter.

    Attributes
    ----------
    places : NDArray[np.int64]
        A row for each channel: byte of pixel (0, 0) behind the cube's first byte, bytes between rows, bytes between
        pixels, bytes of the number that holds it, right shift, mask, and its row in `tables`.
    tables : NDArray[np.float32]
        Value of each number.
    """

    places: NDArray[np.int64]
    tables: NDArray[np.float32]

    @cached_property
    def bytes(self) -> NDArray[np.uint8]:
        """`tables` of int8 values as ``value + 128``."""
        return (self.tables + SIGN).astype(np.uint8)

    @cached_property
    def words(self) -> NDArray[np.int16]:
        """`tables` of int8 values as int16."""
        return self.tables.astype(np.int16)


class IntegerReading(NamedTuple):
    """What `read_integers` takes: a cube's offset, (line, surface) strides, atom, (height, width); lanes; padding."""

    offset: int
    strides: tuple[int, int]
    atom: int
    size: tuple[int, int]
    places: NDArray[np.int64]
    tables: Integers
    pad: np.uint8 | np.int16


_NO_PLACES = np.zeros((0, 7), np.int64)
"""Lanes of a cube that is read as it is."""


@dataclass(frozen=True, eq=False)
class Reader:
    """What is read of a cube, and how.

    Attributes
    ----------
    cube : Cube
        Source; one of a batch.
    dtype : ElementType
        Type of its elements.
    lanes : Lanes or None
        Channels to take; None: all of the cube, as they are.
    pad_value : float
        Value of coordinates outside the cube.
    """

    cube: Cube
    dtype: ElementType
    lanes: Lanes | None = None
    pad_value: float = 0.0

    @property
    def channels(self) -> int:
        """Channels that `read` gives."""
        return self.cube.channels if self.lanes is None else len(self.lanes.places)

    def read(self, source: NDArray[np.int8], first: int, row: int, column: int, out: NDArray[np.float32]) -> None:
        """Read elements into `out` (images, rows, columns, channels), from image `first` and (`row`, `column`).

        Parameters
        ----------
        source : NDArray[np.int8]
            The memory, ``(n, bytes)``.
        first : int
            First image.
        row, column : int
            Coordinates of ``out[:, 0, 0]``; they may lie outside the cube.
        out : NDArray[np.float32]
            Result.
        """
        cube = self.cube
        size = cube.height, cube.width
        if self.lanes is not None:
            places, tables = self.lanes.places, self.lanes.tables
            _read_lanes(source, first, cube.offset, *size, row, column, places, tables, np.float32(self.pad_value), out)
        elif self.dtype == np.int8:
            strides = cube.line_stride, cube.surface_stride
            _read_atoms(source, first, cube.offset, *strides, cube.atom, *size, row, column, self.pad_value, out)
        else:
            self._read_wide(source, first, row, column, out)

    def integers(self, dtype: type[np.uint8] | type[np.int16]) -> IntegerReading:
        """Return how `read_integers` reads this: as bytes of ``value + 128``, or as int16."""
        cube, lanes, are_bytes = self.cube, self.lanes, dtype is np.uint8
        places = _NO_PLACES
        tables: Integers = np.zeros((0, 1), dtype)
        if lanes is not None:
            places, tables = lanes.places, lanes.bytes if are_bytes else lanes.words
        size, strides = (cube.height, cube.width), (cube.line_stride, cube.surface_stride)
        pad = dtype(int(self.pad_value) + (SIGN if are_bytes else 0))
        return IntegerReading(cube.offset, strides, cube.atom, size, places, tables, pad)

    def read_halves(
        self, source: NDArray[np.int8], first: int, row: int, column: int, out: NDArray[np.float16]
    ) -> None:
        """Read what are halves, or become halves in the input converter, without loss of a bit; see `read`."""
        if self.lanes is None and self.dtype == np.float16:
            self._read_wide(source, first, row, column, out)
            return
        wide = np.empty(out.shape, np.float32)
        self.read(source, first, row, column, wide)
        out[:] = wide

    def _read_wide(
        self,
        source: NDArray[np.int8],
        first: int,
        row: int,
        column: int,
        out: NDArray[np.float32] | NDArray[np.float16],
    ) -> None:
        """Read elements of two bytes, converted to the type of `out`; see `read`."""
        cube = self.cube
        images, rows, columns, _ = out.shape
        out[:] = self.pad_value
        y0, y1 = max(row, 0), min(row + rows, cube.height)
        x0, x1 = max(column, 0), min(column + columns, cube.width)
        if y0 >= y1 or x0 >= x1:
            return
        view = cube_view(images_of(source, first, images), cube, self.dtype)
        # (images, rows, columns, surfaces, atom), as the channels of the output are ordered.
        atoms = view[:, :, y0:y1, x0:x1].transpose(0, 2, 3, 1, 4)
        inside = out[:, y0 - row : y1 - row, x0 - column : x1 - column]
        whole = cube.channels // cube.atom
        joined = whole * cube.atom
        inside[..., :joined].reshape(*inside.shape[:3], whole, cube.atom)[:] = atoms[..., :whole, :]
        if joined < cube.channels:
            inside[..., joined:] = atoms[..., whole, : cube.channels - joined]


@jit
def _read_atoms(
    source: NDArray[np.int8],
    first: int,
    offset: int,
    line_stride: int,
    surface_stride: int,
    atom: int,
    height: int,
    width: int,
    row: int,
    column: int,
    pad_value: float,
    out: NDArray[np.float32],
) -> None:
    """Copy whole atoms, converted to float32, with padding around the cube."""
    images, rows, columns, channels = out.shape
    pad = np.float32(pad_value)
    x0 = min(max(-column, 0), columns)
    x1 = max(min(columns, width - column), x0)
    for image in range(images):
        memory = source[min(first + image, source.shape[0] - 1)]
        for r in range(rows):
            y = row + r
            line = out[image, r]
            if y < 0 or y >= height:
                line[:, :] = pad
                continue
            line[:x0, :] = pad
            line[x1:, :] = pad
            start = offset + y * line_stride + column * atom
            for c0 in range(0, channels, atom):
                count = min(atom, channels - c0)
                surface = start + c0 // atom * surface_stride
                # Loops run over slices: numba vectorises only indices that cannot be negative.
                for x in range(x0, x1):
                    target = line[x, c0 : c0 + count]
                    values = memory[surface + x * atom : surface + x * atom + count]
                    for c in range(count):
                        target[c] = values[c]


@jit
def read_integers(
    source: NDArray[np.int8],
    first: int,
    corner: tuple[int, int],
    reading: IntegerReading,
    shape: tuple[int, int, int, int],
    out: Integers,
) -> None:
    """Read int8 elements as bytes of ``value + 128``, or as int16; see `Reader.read`.

    Parameters
    ----------
    source, first, corner
        Memory, first image, and row and column of the first element.
    reading : IntegerReading
        What is read.
    shape : tuple[int, int, int, int]
        Images, rows, columns, channels.
    out : NDArray[np.uint8] or NDArray[np.int16]
        Result, flat, of the type that `reading` was made for; `MAX_ATOM` elements more than `shape` has, which may be
        written too.
    """
    if reading.places.shape[0] == 0:
        _read_pixels(source, first, reading, corner, shape, out)
        return
    target = out[: shape[0] * shape[1] * shape[2] * shape[3]].reshape(shape)
    height, width = reading.size
    _read_lanes(
        source, first, reading.offset, height, width, *corner, reading.places, reading.tables, reading.pad, target
    )


@jit
def _read_pixels(
    source: NDArray[np.int8],
    first: int,
    reading: IntegerReading,
    corner: tuple[int, int],
    shape: tuple[int, int, int, int],
    out: Integers,
) -> None:
    """Copy whole atoms, with padding around the cube.

    What an atom has beyond the last channel lands where the next pixel comes, which is written afterwards.
    """
    images, rows, columns, channels = shape
    size, atom, pad = reading.size, reading.atom, reading.pad
    x0 = min(max(-corner[1], 0), columns)
    x1 = max(min(columns, size[1] - corner[1]), x0)
    start = 0
    for image in range(images):
        memory = source[min(first + image, source.shape[0] - 1)]
        for r in range(rows):
            y = corner[0] + r
            if y < 0 or y >= size[0]:
                out[start : start + columns * channels] = pad
            else:
                inside, right = start + x0 * channels, start + x1 * channels
                out[start:inside] = pad
                place = reading.offset + y * reading.strides[0] + (corner[1] + x0) * atom
                _copy_pixels(memory, place, reading.strides[1], atom, x1 - x0, channels, out, inside)
                out[right : start + columns * channels] = pad
            start += columns * channels


@jit
def _copy_pixels(
    memory: NDArray[np.int8],
    place: int,
    surface_stride: int,
    atom: int,
    pixels: int,
    channels: int,
    out: Integers,
    start: int,
) -> None:
    """Copy the atoms of neighbouring pixels; `start` is the place in `out`."""
    surfaces, size = (channels + atom - 1) // atom, out.itemsize
    near, to = memory.ctypes.data + place, out.ctypes.data + start * size
    if atom == 32:
        for x in range(pixels):
            for surface in range(surfaces):
                target = to + (x * channels + 32 * surface) * size
                read_atom(32, out, near + surface * surface_stride + 32 * x, target)
    elif atom % 8 == 0:
        for x in range(pixels):
            for surface in range(surfaces):
                source, target = near + surface * surface_stride + atom * x, to + (x * channels + atom * surface) * size
                for byte in range(0, atom, 8):
                    read_atom(8, out, source + byte, target + byte * size)
    else:
        for x in range(pixels):
            for c in range(channels):
                source = near + c // atom * surface_stride + x * atom + c % atom
                read_atom(1, out, source, to + (x * channels + c) * size)


@jit
def _read_lanes(
    source: NDArray[np.int8],
    first: int,
    offset: int,
    height: int,
    width: int,
    row: int,
    column: int,
    places: NDArray[np.int64],
    tables: NDArray[np.float32] | Integers,
    pad: np.float32 | np.uint8 | np.int16,
    out: NDArray[np.float32] | Integers,
) -> None:
    """Copy single channels through tables of all numbers."""
    images, rows, columns, _ = out.shape
    x0 = min(max(-column, 0), columns)
    x1 = max(min(columns, width - column), x0)
    for image in range(images):
        memory = source[min(first + image, source.shape[0] - 1)]
        for r in range(rows):
            y = row + r
            line = out[image, r]
            if y < 0 or y >= height:
                line[:, :] = pad
                continue
            line[:x0, :] = pad
            line[x1:, :] = pad
            for k in range(places.shape[0]):
                step, size, shift, mask = places[k, 2], places[k, 3], places[k, 4], places[k, 5]
                table = tables[places[k, 6]]
                at = offset + places[k, 0] + y * places[k, 1] + (column + x0) * step
                if size == 1:
                    for x in range(x0, x1):
                        line[x, k] = table[memory[at] & 255]
                        at += step
                    continue
                for x in range(x0, x1):
                    number = np.int64(memory[at]) & 255
                    for byte in range(1, size):
                        number |= (np.int64(memory[at + byte]) & 255) << (8 * byte)
                    line[x, k] = table[(number >> shift) & mask]
                    at += step
