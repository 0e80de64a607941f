"""The convolution's input: pixel formats, and what the input converter makes of every number.

docs/hardware/layouts.md, "Pixel formats", and docs/hardware/convolution.md, "Input converter", have the rules.

Facts: nvdla/hw ``cmod/cdma/NV_NVDLA_cdma.cpp`` (``ImageConvDataResponseSequencerCommon``: where a component stands, and
that the order behind it is R, G, B, A; ``process_one_element_*``: what is signed) and ``hls/cdma_libs/cdma_cvt.cpp``
(converter). A component has at most 16 bits, so the converter is a table of all its values.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.integer.rounding import shift_right
from nvdla_quant.emulator.operations import Component, Converter, ConvOperation, Cube, Pixels, element_type
from nvdla_quant.emulator.tiles import Lanes
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.loadable.structs import ImageFormat

MAX_HALF = 65504
ORDERS = {
    "R": (0,),
    "RGBA": (0, 1, 2, 3),
    "BGRA": (2, 1, 0, 3),
    "ARGB": (1, 2, 3, 0),
    "ABGR": (3, 2, 1, 0),
}
"""Where R, G, B, A (or Y, U, V, A) stand for components in this order in memory."""
PACKED = {
    "RGBA": ((0, 10), (10, 10), (20, 10), (30, 2)),
    "BGRA": ((20, 10), (10, 10), (0, 10), (30, 2)),
    "ARGB": ((2, 10), (12, 10), (22, 10), (0, 2)),
    "ABGR": ((22, 10), (12, 10), (2, 10), (0, 2)),
}
"""(shift, bits) of R, G, B, A in a number of 32 bits, from its lowest bits up."""


def _interleaved(precision: Precision, order: str) -> tuple[tuple[Component, ...], Precision]:
    size = 1 if precision is Precision.INT8 else 2
    return tuple(Component(0, place * size, size, 0, 8 * size) for place in ORDERS[order]), precision


def _packed(order: str) -> tuple[tuple[Component, ...], Precision]:
    return tuple(Component(0, 0, 4, shift, bits) for shift, bits in PACKED[order]), Precision.INT16


def _two_planes(precision: Precision, swapped: bool) -> tuple[tuple[Component, ...], Precision]:
    size = 1 if precision is Precision.INT8 else 2
    # The names give the components from the highest bits down: U8V8 has V first in memory.
    u, v = (0, 1) if swapped else (1, 0)
    planes = ((0, 0), (1, u), (1, v))
    return tuple(Component(plane, place * size, size, 0, 8 * size) for plane, place in planes), precision


_BYTES, _WORDS, _HALVES = Precision.INT8, Precision.INT16, Precision.FP16
PIXELS: dict[int, Pixels] = {
    int(number): Pixels(number.name, *layout)
    for number, layout in {
        ImageFormat.R8: _interleaved(_BYTES, "R"),
        ImageFormat.R10: _interleaved(_WORDS, "R"),
        ImageFormat.R12: _interleaved(_WORDS, "R"),
        ImageFormat.R16: _interleaved(_WORDS, "R"),
        ImageFormat.R16_I: _interleaved(_WORDS, "R"),
        ImageFormat.R16_F: _interleaved(_HALVES, "R"),
        ImageFormat.A16B16G16R16: _interleaved(_WORDS, "RGBA"),
        ImageFormat.X16B16G16R16: _interleaved(_WORDS, "RGBA"),
        ImageFormat.A16B16G16R16_F: _interleaved(_HALVES, "RGBA"),
        ImageFormat.A16Y16U16V16: _interleaved(_WORDS, "BGRA"),
        ImageFormat.V16U16Y16A16: _interleaved(_WORDS, "ARGB"),
        ImageFormat.A16Y16U16V16_F: _interleaved(_HALVES, "BGRA"),
        ImageFormat.A8B8G8R8: _interleaved(_BYTES, "RGBA"),
        ImageFormat.A8R8G8B8: _interleaved(_BYTES, "BGRA"),
        ImageFormat.B8G8R8A8: _interleaved(_BYTES, "ARGB"),
        ImageFormat.R8G8B8A8: _interleaved(_BYTES, "ABGR"),
        ImageFormat.X8B8G8R8: _interleaved(_BYTES, "RGBA"),
        ImageFormat.X8R8G8B8: _interleaved(_BYTES, "BGRA"),
        ImageFormat.B8G8R8X8: _interleaved(_BYTES, "ARGB"),
        ImageFormat.R8G8B8X8: _interleaved(_BYTES, "ABGR"),
        ImageFormat.A2B10G10R10: _packed("RGBA"),
        ImageFormat.A2R10G10B10: _packed("BGRA"),
        ImageFormat.B10G10R10A2: _packed("ARGB"),
        ImageFormat.R10G10B10A2: _packed("ABGR"),
        ImageFormat.A2Y10U10V10: _packed("BGRA"),
        ImageFormat.V10U10Y10A2: _packed("ARGB"),
        ImageFormat.A8Y8U8V8: _interleaved(_BYTES, "BGRA"),
        ImageFormat.V8U8Y8A8: _interleaved(_BYTES, "ARGB"),
        ImageFormat.Y8___U8V8_N444: _two_planes(_BYTES, swapped=False),
        ImageFormat.Y8___V8U8_N444: _two_planes(_BYTES, swapped=True),
        ImageFormat.Y10___U10V10_N444: _two_planes(_WORDS, swapped=False),
        ImageFormat.Y10___V10U10_N444: _two_planes(_WORDS, swapped=True),
        ImageFormat.Y12___U12V12_N444: _two_planes(_WORDS, swapped=False),
        ImageFormat.Y12___V12U12_N444: _two_planes(_WORDS, swapped=True),
        ImageFormat.Y16___U16V16_N444: _two_planes(_WORDS, swapped=False),
        ImageFormat.Y16___V16U16_N444: _two_planes(_WORDS, swapped=True),
    }.items()
}
"""Every image format of the firmware (``FORMAT_T_*``, kmd/firmware/conv.c ``map_img_fmt``)."""


def lanes_of(operation: ConvOperation, used: NDArray[np.intp]) -> Lanes | None:
    """Return how to read the channels `used` of the source of `operation`; None where all are taken as they are."""
    source = operation.source
    components = _elements(source) if operation.pixels is None else operation.pixels.components
    tables = [_table(operation, channel, components[channel]) for channel in used.tolist()]
    plain = all(table is None for table in tables)
    if plain and tuple(components[channel] for channel in used.tolist()) == _elements(source):
        return None
    distinct: dict[bytes, int] = {}
    values: list[NDArray[np.float32]] = []
    places = []
    for channel, table in zip(used.tolist(), tables, strict=True):
        component = components[channel]
        whole = _as_it_is(component.bits, source_type(operation)) if table is None else table
        row = distinct.setdefault(whole.tobytes(), len(distinct))
        values += [whole] if row == len(values) else []
        cube = source if component.plane == 0 or operation.second_plane is None else operation.second_plane
        surface = 0 if operation.pixels is not None else channel // source.atom * source.surface_stride
        step = cube.atom * cube.element_bytes
        place = cube.offset - source.offset + surface + component.byte
        mask = (1 << component.bits) - 1
        places.append((place, cube.line_stride, step, component.bytes, component.shift, mask, row))
    joined = np.zeros((len(values), max(len(value) for value in values)), np.float32)
    for row, value in enumerate(values):
        joined[row, : len(value)] = value
    return Lanes(np.array(places, np.int64), joined)


def source_type(operation: ConvOperation) -> Precision:
    """Return the precision of the source's elements."""
    if operation.pixels is not None:
        return operation.pixels.precision
    return operation.precision


def _elements(cube: Cube) -> tuple[Component, ...]:
    """Return where each channel of `cube` stands in its pixel or atom."""
    size = cube.element_bytes
    return tuple(Component(0, channel % cube.atom * size, size, 0, 8 * size) for channel in range(cube.channels))


def _as_it_is(bits: int, precision: Precision) -> NDArray[np.float32]:
    """Return the value of each number without a converter: bytes and words are signed, ten bits stand on top."""
    raw = np.arange(1 << bits, dtype=np.uint32) << (max(bits, 16) - bits)
    if bits == 8:
        return np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
    with np.errstate(invalid="ignore"):
        return raw.astype(np.uint16).view(element_type(precision)).astype(np.float32)


def _table(operation: ConvOperation, channel: int, component: Component) -> NDArray[np.float32] | None:
    """Return what the input converter makes of each number, or None where it changes nothing."""
    source, converter = source_type(operation), operation.converter
    if converter is None or source is Precision.FP16:
        return None
    if operation.means is not None:
        converter = replace(converter, offset=operation.means[channel])
    return _converted(converter, component.bits, operation.signed, source, operation.precision)


@lru_cache(maxsize=256)
def _converted(
    converter: Converter, bits: int, signed: bool, source: Precision, precision: Precision
) -> NDArray[np.float32] | None:
    """Return ``sat(sat17(round((x - offset) * scale >> truncate)))`` of each number, to the arithmetic's precision.

    None where that changes nothing. All channels of a feature cube ask for the same, so it is kept; nobody writes it.
    """
    width = 8 if source is Precision.INT8 else 16
    raw = np.arange(1 << bits, dtype=np.int64) << (width - bits)
    table = _convert(_low_signed(raw, width) if signed else raw, converter, precision)
    table.flags.writeable = False
    return None if np.array_equal(table, _as_it_is(bits, source)) else table


def _convert(values: NDArray[np.int64], converter: Converter, precision: Precision) -> NDArray[np.float32]:
    offset = _low_signed(np.array(converter.offset), 16)
    wide = shift_right((values - offset) * converter.scale, converter.shift, 17)
    if precision is Precision.FP16:
        # Rounded to nearest even; what would be infinite becomes the largest half (nvdla_float.h, FpIntToFloat).
        return np.clip(wide, -MAX_HALF, MAX_HALF).astype(np.float16).astype(np.float32)
    limit = 1 << (7 if precision is Precision.INT8 else 15)
    return np.clip(wide, -limit, limit - 1).astype(np.float32)


def _low_signed(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    half = 1 << (bits - 1)
    return ((values + half) & ((1 << bits) - 1)) - half
