"""Instructions that numba has no words for: dot products of bytes in registers, and copies of whole atoms.

Each is written in LLVM's own language (llvmlite) where a compiled function calls it. Addresses are those of bytes, as
``ctypes.data`` has them; nothing checks that what is behind them is there.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from nvdla_quant.emulator._jit import instruction

if TYPE_CHECKING:
    from llvmlite import ir

STEP_BYTES = 4
"""Bytes of the input, and of each kernel, that one lane of a dot product takes."""


class Vnni512(NamedTuple):
    """Dot products of four unsigned and four signed bytes, added modulo 2**32 to each of 16 lanes of 32 bits.

    VPDPBUSD in Intel's Software Developer's Manual. These classes are types that functions are compiled for, so that
    none has an instruction which the processor has not.
    """

    lanes: int = 16


class Vnni256(NamedTuple):
    """The same for 8 lanes."""

    lanes: int = 8


class Pairs256(NamedTuple):
    """Sums of the products of two pairs of signed words for each of 8 lanes (VPMADDWD), and a sum (VPADDD)."""

    lanes: int = 8


Dots = Vnni512 | Vnni256 | Pairs256
PIXELS: Mapping[int, tuple[int, ...]] = MappingProxyType({16: (12, 12, 8, 6), 8: (12, 6)})
"""By lanes, and vectors of kernels that go together from one on: the pixels that go with them. Then all sums fit in the
registers: 32 of 512 bits, or 16 of 256."""
SIGN = 0x80
"""Turns int8 into the byte of ``value + 128``, and back."""


CHANNELS = 16
"""Channels that `round_vector` takes."""


@instruction
def pixels_together(typing: Any, vectors: Any, kind: Any) -> tuple[Any, Any]:
    """Return the pixels that `dot_tile` takes with so many vectors, a literal; 1 where it takes no so many vectors."""
    from llvmlite import ir
    from numba.core import types

    found = PIXELS[_lanes(kind)][vectors.literal_value - 1 : vectors.literal_value]

    def write(*_: Any) -> Any:
        return ir.Constant(ir.IntType(64), found[0] if found else 1)

    return types.int64(vectors, kind), write


@instruction
def dot_tile(
    typing: Any,
    vectors: Any,
    kind: Any,
    places: Any,
    taps: Any,
    runs: Any,
    steps: Any,
    weights: Any,
    start: Any,
    sums: Any,
    pitch: Any,
) -> tuple[Any, Any]:
    """Compute sums of products of pixels and ``vectors * lanes`` kernels, which stay in registers until the end.

    `vectors` is a literal, `kind` one of `Dots`, of which the type alone counts; `pixels_together` says how many
    pixels. All else is int64: `places` the address of as many addresses as there are pixels, each of a pixel's first
    byte; `taps` that of `runs` distances from there to a run of ``steps * STEP_BYTES`` bytes; `weights` that of the
    weights (run, step, kernel, element of the step); `start` that of the int32 which the sums begin with, one a kernel;
    `sums` that of the first pixel's results (int32), `pitch` bytes before the next one's. Of more vectors than go
    together nothing is computed.
    """
    from llvmlite import ir
    from numba.core import cgutils, types

    count, columns = _lanes(kind), vectors.literal_value
    rows = next(iter(PIXELS[count][columns - 1 : columns]), 0)
    add_products = _pair_products if issubclass(kind.instance_class, Pairs256) else _dot_products

    def write(context: Any, builder: "ir.IRBuilder", _: Any, arguments: Any) -> Any:
        if not rows:
            return context.get_dummy_value()
        places, taps, runs, steps, weights, start, sums, pitch = arguments[2:]
        word, number = ir.IntType(64), ir.IntType(32)
        vector, width = ir.VectorType(number, count), count * STEP_BYTES
        pixel = [_load(builder, _beyond(builder, places, 8 * row), word) for row in range(rows)]
        # LLVM makes registers of these variables, since nothing takes their addresses.
        totals = [[cgutils.alloca_once(builder, vector) for _ in range(columns)] for _ in range(rows)]
        for column in range(columns):
            first = _load(builder, _beyond(builder, start, width * column), vector)
            for row in range(rows):
                builder.store(first, totals[row][column])
        weight = cgutils.alloca_once_value(builder, weights)
        with cgutils.for_range(builder, runs) as run:
            tap = builder.add(taps, builder.mul(run.index, ir.Constant(word, 8)))
            distance = cgutils.alloca_once_value(builder, _load(builder, tap, word))
            with cgutils.for_range(builder, steps):
                here, behind = builder.load(weight), builder.load(distance)
                factors = [_load(builder, _beyond(builder, here, width * column), vector) for column in range(columns)]
                for row in range(rows):
                    taken = _spread(builder, _load(builder, builder.add(pixel[row], behind), number), vector)
                    for total, factor in zip(totals[row], factors, strict=True):
                        builder.store(add_products(builder, builder.load(total), taken, factor), total)
                builder.store(_beyond(builder, here, width * columns), weight)
                builder.store(_beyond(builder, behind, STEP_BYTES), distance)
        for row in range(rows):
            line = builder.add(sums, builder.mul(pitch, ir.Constant(word, row)))
            for column, total in enumerate(totals[row]):
                _store(builder, builder.load(total), _beyond(builder, line, width * column))
        return context.get_dummy_value()

    return types.void(vectors, kind, *[types.int64] * 8), write


def _lanes(kind: Any) -> int:
    lanes: int = kind.instance_class().lanes
    return lanes


def _dot_products(builder: "ir.IRBuilder", total: Any, taken: Any, factor: Any) -> Any:
    from llvmlite import ir
    from numba.core import cgutils

    kind = ir.FunctionType(total.type, [total.type] * 3)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * total.type.count}"
    dot = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(dot, [total, taken, factor])


def _pair_products(builder: "ir.IRBuilder", total: Any, taken: Any, factor: Any) -> Any:
    from llvmlite import ir
    from numba.core import cgutils

    words = ir.VectorType(ir.IntType(16), 2 * total.type.count)
    kind = ir.FunctionType(total.type, [words] * 2)
    pairs = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pmadd.wd")
    return builder.add(total, builder.call(pairs, [builder.bitcast(part, words) for part in (taken, factor)]))


@instruction
def copy_atom(typing: Any, size: Any, source: Any, target: Any) -> tuple[Any, Any]:
    """Copy `size` bytes, a literal, between addresses."""
    from llvmlite import ir
    from numba.core import types

    def write(context: Any, builder: "ir.IRBuilder", _: Any, arguments: Any) -> Any:
        atom = ir.VectorType(ir.IntType(8), size.literal_value)
        _store(builder, _load(builder, arguments[1], atom), arguments[2])
        return context.get_dummy_value()

    return types.void(size, types.int64, types.int64), write


@instruction
def read_atom(typing: Any, size: Any, kind: Any, source: Any, target: Any) -> tuple[Any, Any]:
    """Write `size` int8, a literal, from one address to another as `dot_tile` takes them.

    `kind` is an array, of which the type alone counts: of uint8 for bytes of ``value + 128``, of int16 for words.
    """
    from llvmlite import ir
    from numba.core import types

    count, are_words = size.literal_value, kind.dtype == types.int16

    def write(context: Any, builder: "ir.IRBuilder", _: Any, arguments: Any) -> Any:
        atom = ir.VectorType(ir.IntType(8), count)
        values = _load(builder, arguments[2], atom)
        if are_words:
            values = builder.sext(values, ir.VectorType(ir.IntType(16), count))
        else:
            values = builder.xor(values, ir.Constant(atom, [SIGN] * count))
        _store(builder, values, arguments[3])
        return context.get_dummy_value()

    return types.void(size, kind, types.int64, types.int64), write


@instruction
def round_vector(
    typing: Any,
    stages: Any,
    adds: Any,
    muls: Any,
    limits: Any,
    pitch: Any,
    point_stage: Any,
    point_kind: Any,
    point_scale: Any,
    operand: Any,
    sums: Any,
    result: Any,
) -> tuple[Any, Any]:
    """Apply rounding steps to `CHANNELS` int32 at `sums` and write them as int8 at `result`; in float64, see `Stage`.

    `adds` and `muls` are addresses of float64, `pitch` bytes before those of the next step; `limits` that of a pair of
    float64 for each step. The step `point_stage` (-1: none) adds the int8 at `operand` times `point_scale` if
    `point_kind` is 1, and multiplies by them if it is 2.
    """
    from llvmlite import ir
    from numba.core import cgutils, types

    def write(_: Any, builder: "ir.IRBuilder", __: Any, arguments: Any) -> Any:
        stages, adds, muls, limits, pitch, point_stage, point_kind, point_scale, operand, sums, result = arguments
        double = ir.DoubleType()
        vector = ir.VectorType(double, CHANNELS)

        def function(name: str, count: int) -> Any:
            kind = ir.FunctionType(vector, [vector] * count)
            return cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{CHANNELS}f64")

        def update(change: Any) -> None:
            builder.store(change(builder.load(values)), values)

        integers = _load(builder, sums, ir.VectorType(ir.IntType(32), CHANNELS))
        values = cgutils.alloca_once_value(builder, builder.sitofp(integers, vector))
        halves = ir.Constant(vector, [0.5] * CHANNELS)
        with cgutils.for_range(builder, stages) as stage:
            is_here = builder.icmp_signed("==", stage.index, point_stage)
            row = builder.mul(stage.index, pitch)

            def points(builder: "ir.IRBuilder" = builder) -> Any:
                return builder.sitofp(_load(builder, operand, ir.VectorType(ir.IntType(8), CHANNELS)), vector)

            with builder.if_then(builder.and_(is_here, builder.icmp_signed("==", point_kind, point_kind.type(1)))):
                scaled = builder.fmul(points(), _spread(builder, point_scale, vector))
                update(lambda value, scaled=scaled: builder.fadd(value, scaled))
            added = builder.fadd(builder.load(values), _load(builder, builder.add(adds, row), vector))
            builder.store(builder.fmul(added, _load(builder, builder.add(muls, row), vector)), values)
            with builder.if_then(builder.and_(is_here, builder.icmp_signed("==", point_kind, point_kind.type(2)))):
                factor = points()
                update(lambda value, factor=factor: builder.fmul(value, factor))
            limit = builder.add(limits, builder.mul(stage.index, ir.Constant(stage.index.type, 16)))
            low = _spread(builder, _load(builder, limit, double), vector)
            high = _spread(builder, _load(builder, _beyond(builder, limit, 8), double), vector)
            value = builder.load(values)
            value = builder.fadd(value, builder.call(function("copysign", 2), [halves, value]))
            value = builder.call(function("trunc", 1), [value])
            value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
            builder.store(builder.select(builder.fcmp_ordered(">", value, high), high, value), values)
        integers = builder.fptosi(builder.load(values), ir.VectorType(ir.IntType(32), CHANNELS))
        _store(builder, builder.trunc(integers, ir.VectorType(ir.IntType(8), CHANNELS)), result)
        return _.get_dummy_value()

    numbers = [types.int64] * 7 + [types.float64] + [types.int64] * 3
    return types.void(*numbers), write


def _beyond(builder: "ir.IRBuilder", address: Any, distance: int) -> Any:
    return builder.add(address, address.type(distance))


def _load(builder: "ir.IRBuilder", address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _store(builder: "ir.IRBuilder", value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


def _spread(builder: "ir.IRBuilder", value: Any, vector: Any) -> Any:
    """Return a vector that has `value` in all lanes."""
    from llvmlite import ir

    index, nothing = ir.IntType(32), ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, index(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(index, vector.count), [0] * vector.count))
