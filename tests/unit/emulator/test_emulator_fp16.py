"""The exact fp16 units against the scalar model of `tests.fp16_model`, and against numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.emulator.fp16 import floats
from nvdla_quant.emulator.fp16.cdp import normalise_halves
from nvdla_quant.emulator.fp16.pdp import pool_halves
from nvdla_quant.emulator.fp16.sdp import BLOCK, run_chain, singles_of
from nvdla_quant.emulator.operations import (
    CdpOperation,
    Converter,
    Cube,
    Lut,
    Operand,
    PdpOperation,
    SdpUnit,
    TableHalf,
)
from nvdla_quant.emulator.run import run
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import NV_FULL, Precision
from nvdla_quant.loadable.structs import PoolMode, SdpAlu
from tests import fp16_model as model
from tests.emulated import INPUT, conv_program, packed_cube
from tests.fp16_model import FP17, HALF, SINGLE, Format
from tests.fp16_numbers import numbers

halves, singles = numbers(HALF), numbers(SINGLE)
FORMATS = st.sampled_from([FP17, SINGLE])


# ---- formats


@given(st.data(), FORMATS)
def test_addition(data: st.DataObject, fmt: Format) -> None:
    a = data.draw(numbers(fmt))
    # Close magnitudes cancel, which is where rounding and flushing differ most.
    b = data.draw(st.one_of(numbers(fmt), st.integers(0, 7).map(lambda low: a ^ low ^ fmt.sign_bit)))
    assert floats.add(a, b, fmt.exponents, fmt.mantissas) == model.add(fmt, a, b)


@given(st.data(), FORMATS)
def test_multiplication(data: st.DataObject, fmt: Format) -> None:
    a, b = data.draw(numbers(fmt)), data.draw(numbers(fmt))
    assert floats.multiply(a, b, fmt.exponents, fmt.mantissas) == model.multiply(fmt, a, b)


@given(st.data(), st.sampled_from([HALF, SINGLE]), st.booleans())
def test_comparison(data: st.DataObject, fmt: Format, maximum: bool) -> None:
    a = data.draw(numbers(fmt))
    b = data.draw(st.one_of(numbers(fmt), st.sampled_from([a, a ^ fmt.sign_bit, a ^ 1])))
    assert floats.larger(a, b, fmt.exponents, fmt.mantissas, maximum) == model.compare(fmt, a, b, maximum)


def test_conversions_of_all_halves() -> None:
    for bits in range(1 << 16):
        assert floats.half_to_single(bits) == model.convert(HALF, SINGLE, bits)
        assert floats.half_to_fp17(bits) == model.convert(HALF, FP17, bits)


@given(numbers(FP17))
def test_conversions_of_fp17(bits: int) -> None:
    assert floats.fp17_to_half(bits) == model.convert(FP17, HALF, bits)
    assert floats.fp17_to_single(bits) == model.convert(FP17, SINGLE, bits)


@given(st.one_of(singles, st.integers(0, (1 << 32) - 1), halves.map(floats.half_to_single)), st.integers(-2, 2))
def test_conversions_of_fp32(bits: int, off: int) -> None:
    """Around the halves too: `off` is half a unit and a bit to either side, where ties are."""
    bits = (bits + off * 0x800) % (1 << 32)
    assert floats.single_to_half(bits) == model.convert(SINGLE, HALF, bits)
    assert floats.single_to_fp17(bits) == model.convert(SINGLE, FP17, bits)


@given(st.sampled_from([16, 35]), st.integers(0, (1 << 35) - 1), st.integers(0, 34))
def test_fractions(width: int, bits: int, down: int) -> None:
    numerator = (bits >> down) % (1 << width)
    assert floats.fraction_to_fp17(numerator, width) == model.fraction(numerator, width)


@pytest.mark.parametrize(
    ("a", "b", "total"),
    [
        (0x3F800000, 0x3F800000, 0x40000000),  # 1 + 1 = 2
        (0x3F800000, 0x33800000, 0x3F800000),  # 1 + 2**-24: a tie, to even
        (0x3F800001, 0x33800000, 0x3F800002),  # one unit more: the tie goes up
        (0xBF800000, 0x3F800000, 0x80000000),  # -1 + 1 = -0, the first operand's sign
        (0x00800001, 0x80800000, 0x00000000),  # a difference of 2**-149 is flushed to zero
        (0x7F7FFFFF, 0x7F7FFFFF, 0x7F7FFFFF),  # overflow: the largest number
        (0x7FC00001, 0x7F800001, 0x7FC00001),  # the first NaN
    ],
)
def test_addition_by_hand(a: int, b: int, total: int) -> None:
    assert floats.add(a, b, 8, 23) == total


# ---- convolutions: in which order what is added


def pack(weights: NDArray[np.float16], image: bool, joined: int) -> NDArray[np.uint8]:
    """Pack ``(kernels, height, width, channels)``, as docs/hardware/weights.md says, element by element."""
    kernels, height, width, channels = weights.shape
    depth = width * channels if image else channels
    stream = []
    for group in range(0, kernels, 16):
        members = range(group, min(group + 16, kernels))
        for block in range(0, depth, 64):
            lanes = range(block, min(block + 64, depth))
            for top in range(0, height, joined):
                rows = range(top, min(top + joined, height))
                if image:
                    stream += [weights[k, r, c // channels, c % channels] for k in members for r in rows for c in lanes]
                else:
                    stream += [weights[k, top, x, c] for x in range(width) for k in members for c in lanes]
    return np.array(stream, np.float16).view(np.uint8)


def steps_of(kernel: tuple[int, int, int], image: bool, joined: int) -> list[list[tuple[int, int, int]]]:
    """Return the (row, column, channel) that each step takes, in the order of the steps."""
    height, width, channels = kernel
    if not image:
        blocks = [range(c, min(c + 64, channels)) for c in range(0, channels, 64)]
        return [[(r, x, c) for c in block] for block in blocks for r in range(height) for x in range(width)]
    vector = [(x, c) for x in range(width) for c in range(channels)]
    return [
        [(r, x, c) for r in range(top, min(top + joined, height)) for x, c in vector[first : first + 64]]
        for first in range(0, len(vector), 64)
        for top in range(0, height, joined)
    ]


@given(st.data(), st.booleans(), st.integers(0, 1 << 30))
def test_order_of_convolutions(data: st.DataObject, image: bool, seed: int) -> None:
    """Any size, stride, dilation, padding, extension: three outputs each, whose steps the model takes in the order."""
    height, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    channels = 4 if image else data.draw(st.sampled_from([1, 5, 17, 64, 65, 130]))
    joined = 1 << (data.draw(st.integers(0, 2)) if image else 0)
    stride = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    dilation = (1, 1) if image else (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2)))
    pad = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    size = 7, 6
    ends = [(k - 1) * dilation[i] + 1 for i, k in enumerate((height, width))]
    out = [(size[i] + 2 * pad[i] - ends[i]) // stride[i] + 1 for i in range(2)]
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 1, (data.draw(st.sampled_from([3, 16, 19])), height, width, channels)).astype(np.float16)
    source = Cube(INPUT, 0, 4, *size, 4, 2, 6 * 8, 6 * 8 * 7) if image else packed_cube(INPUT, (channels, *size), 16, 2)
    packed = pack(weights, image, joined)
    program = conv_program(
        source, weights, (out[0], out[1]), stride, dilation, pad, 0, packed, NV_FULL, (), Converter(0, 1, 0),
        image=image, post_extension=joined.bit_length() - 1,
    )  # fmt: skip
    shape = 2, channels, *size
    inputs = (rng.normal(0, 1, shape) * 2.0 ** rng.integers(-3, 4, shape)).astype(np.float16)
    inputs[rng.random(inputs.shape) < 0.2] = 0
    result = run(program, inputs).view(np.uint16)
    bits, weight_bits = inputs.view(np.uint16), weights.view(np.uint16)
    for _ in range(3):
        n, k, y, x = (int(rng.integers(0, end)) for end in result.shape)

        def value(step: tuple[int, int, int], n: int = n, y: int = y, x: int = x) -> int:
            row = y * stride[0] - pad[0] + step[0] * dilation[0]
            column = x * stride[1] - pad[1] + step[1] * dilation[1]
            inside = 0 <= row < size[0] and 0 <= column < size[1]
            return int(bits[n, step[2], row, column]) if inside else 0

        steps = steps_of((height, width, channels), image, joined)
        expected = model.accumulate(
            ([int(weight_bits[k, r, w, c]) for r, w, c in step], [value(lane) for lane in step]) for step in steps
        )
        assert result[n, k, y, x] == model.convert(SINGLE, HALF, expected)


def test_rows_that_do_not_fit_into_a_step_are_refused() -> None:
    weights = np.ones((1, 2, 9, 4), np.float16)
    source = Cube(INPUT, 0, 4, 4, 10, 4, 2, 80, 320)
    packed = pack(weights, True, 2)
    program = conv_program(
        source, weights, (3, 2), (1, 1), (1, 1), (0, 0), 0, packed, NV_FULL, (), Converter(0, 1, 0), image=True,
        post_extension=1,
    )  # fmt: skip
    with pytest.raises(EmulationError, match=r"post_extension 1 joins 72 channels in a step, which takes 64"):
        run(program, np.zeros((1, 4, 4, 10), np.float16))


# ---- SDP


def unit(**fields: Any) -> SdpUnit:
    plain: dict[str, Any] = {
        "name": "x1", "alu": None, "alu_operand": None, "mul_operand": None, "interleaved": False, "alu_shift": 0,
        "truncate": 0, "relu": False, "prelu": False,
    }  # fmt: skip
    return SdpUnit(**(plain | fields))


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[SdpUnit, int, int]]:
    """X1, X2 and Y with one operand for the ALU and one for the multiplier: halves in X, any fp32 in Y."""
    units = []
    for name in ("x1", "x2", "y"):
        act = draw(st.sampled_from(["none", "relu", "prelu"]))
        alu = draw(st.sampled_from([None, SdpAlu.SUM, SdpAlu.SUM, SdpAlu.MAX, SdpAlu.MIN, SdpAlu.EQL]))
        operands = [draw(singles if name == "y" else halves) for _ in range(2)]
        ours = unit(
            name=name, alu=alu, alu_operand=None if alu is None else Operand(register=0),
            mul_operand=draw(st.sampled_from([None, Operand(register=0)])), relu=act == "relu" and name != "y",
            prelu=act == "prelu",
        )  # fmt: skip
        fmt = (lambda bits: bits) if name == "y" else (lambda bits: model.convert(HALF, SINGLE, bits))
        units.append((ours, fmt(operands[0]), fmt(operands[1])))
    return units


def sdp(value: int, units: list[tuple[SdpUnit, int, int]]) -> int:
    """Return what the units make of an fp32 number: ALU first in X, multiplier first in Y."""
    for part, alu, mul in units:
        for stage in ("mul", "alu") if part.name == "y" else ("alu", "mul"):
            if stage == "mul" and part.mul_operand is not None:
                if not (part.prelu and value < SINGLE.sign_bit):
                    value = model.multiply(SINGLE, value, mul)
            elif stage == "alu" and part.alu is SdpAlu.SUM:
                value = model.add(SINGLE, value, alu)
            elif stage == "alu" and part.alu is SdpAlu.EQL:
                value = int(value != alu)
            elif stage == "alu" and part.alu is not None:
                value = model.compare(SINGLE, value, alu, part.alu is SdpAlu.MAX)
        if part.relu and value >= SINGLE.sign_bit and not SINGLE.is_nan(value):
            value = 0
    return model.convert(SINGLE, HALF, value)


@given(chains(), st.lists(singles, min_size=1, max_size=20), st.booleans())
def test_sdp(units: list[tuple[SdpUnit, int, int]], values: list[int], by_point: bool) -> None:
    """One odd number makes a whole block take the slow way, so each is tried alone too."""
    expected = [sdp(value, units) for value in values]
    for part in [slice(None)] if by_point else [slice(i, i + 1) for i in range(len(values))]:
        bits = np.array(values[part], np.uint32)[:, None]
        shape = bits.shape if by_point else (1, 1)
        operands = {
            (ours.name, which): np.full(shape, operand, np.uint32)
            for ours, alu, mul in units
            for which, operand, there in (("alu", alu, ours.alu), ("mul", mul, ours.mul_operand))
            if there is not None
        }
        result = run_chain(bits, [ours for ours, _, _ in units], operands, None)
        assert result.view(np.uint16)[:, 0].tolist() == expected[part]


def test_sdp_over_many_blocks() -> None:
    """Per-channel and per-point operands stay with their values, whichever block these lie in: numpy's own float32."""
    rng = np.random.default_rng(0)
    pixels, channels = 1 + 3 * BLOCK // 100, 100
    values, points = rng.normal(0, 1, (2, pixels, channels)).astype(np.float32)
    shift, scale = rng.normal(0, 1, (2, 1, channels)).astype(np.float16)
    operands = {
        ("x1", "alu"): singles_of(shift), ("x1", "mul"): singles_of(scale), ("x2", "alu"): points.view(np.uint32),
    }  # fmt: skip
    there = Operand(register=0)
    first = unit(alu=SdpAlu.SUM, alu_operand=there, mul_operand=there)
    units = [first, unit(name="x2", alu=SdpAlu.SUM, alu_operand=there, relu=True)]
    expected = np.maximum((values + shift.astype(np.float32)) * scale.astype(np.float32) + points, 0).astype(np.float16)
    np.testing.assert_array_equal(run_chain(values.view(np.uint32).copy(), units, operands, None), expected)


# ---- tables


@st.composite
def tables(draw: st.DrawFn, count: int, may_be_exponential: bool) -> model.Table:
    entries = draw(st.lists(halves, min_size=8, max_size=8))
    near = st.builds(lambda value: int(np.float32(value).view(np.uint32)), st.floats(-64, 64, width=32))
    bound = st.one_of(near, near, singles.filter(lambda bits: (bits >> 23) % 256 != 255))
    exponential = may_be_exponential and draw(st.booleans())
    select = draw(st.one_of(st.integers(-12, 6), st.integers(-40, 40)))
    return model.Table(
        [entries[i * 7 % 8] for i in range(count)], draw(bound), draw(bound), exponential, select, draw(halves),
        draw(halves),
    )  # fmt: skip


def half_of(table: model.Table) -> TableHalf:
    """Return the table as the emulator has it: signed numbers from the descriptor."""

    def signed(bits: int, width: int) -> int:
        return bits - (1 << width) if bits >> width - 1 else bits

    entries = np.array([signed(entry, 16) for entry in table.entries])
    start, end = signed(table.start, 32), signed(table.end, 32)
    slopes = (signed(table.below, 16), 0), (signed(table.above, 16), 0)
    return TableHalf(entries, start, end, table.exponential, table.select, *slopes)


def around(table: model.Table, offset: float) -> int:
    """Return the fp32 number `offset` entries behind the start of a table."""
    with np.errstate(over="ignore"):
        start = np.array([table.start], np.uint32).view(np.float32)[0]
        return int(np.float32(start + offset * 2.0**table.select).view(np.uint32))


priorities = st.tuples(*[st.integers(0, 1)] * 3)
offsets = st.lists(st.floats(-1, 70), max_size=8)
finite = singles.filter(lambda bits: (bits >> 23) % 256 != 255)


@given(tables(65, True), tables(257, False), priorities, st.lists(finite, max_size=8), offsets)
def test_table_of_the_sdp(
    exp: model.Table, only: model.Table, order: tuple[int, int, int], values: list[int], near: list[float]
) -> None:
    values = values + [around(table, offset) for table in (exp, only) for offset in near] + [exp.start, only.start]
    values = [value for value in values if (value >> 23) % 256 != 255]
    under, over, hybrid = order
    lut = Lut(half_of(exp), half_of(only), hybrid, under, over)
    bits = np.array(values, np.uint32)[:, None]
    result = run_chain(bits, [unit(name="y", lookup=True)], {}, lut).view(np.uint16)
    chosen = [model.choose(model.sdp_entry(exp, x), model.sdp_entry(only, x), under, over, hybrid) for x in values]
    assert result[:, 0].tolist() == [model.convert(SINGLE, HALF, model.convert(FP17, SINGLE, x)) for x in chosen]


# ---- pooling and normalisation


@given(
    st.sampled_from([PoolMode.AVERAGE, PoolMode.MAX, PoolMode.MIN]), st.data(),
    st.tuples(st.integers(1, 6), st.integers(1, 6)), st.tuples(st.integers(1, 8), st.integers(1, 8)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
)  # fmt: skip
def test_pooling(
    mode: PoolMode, data: st.DataObject, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]
) -> None:
    """Rows from the left, then columns from the top; averages by two reciprocals of the size, rounded to fp17."""
    pad = data.draw(st.integers(0, kernel[0] - 1)), data.draw(st.integers(0, kernel[1] - 1))
    out = [(size[i] + pad[i] - 1) // stride[i] + 1 for i in range(2)]
    values = np.array(data.draw(st.lists(halves, min_size=size[0] * size[1], max_size=size[0] * size[1])), np.uint16)
    source, destination = packed_cube(0, (1, *size), 16, 2), packed_cube(1, (1, out[0], out[1]), 16, 2)
    operation = PdpOperation(0, source, destination, mode, kernel, stride, *pad, (0,) * 7, Precision.FP16)
    result = pool_halves(operation, values.view(np.float16).reshape(1, 1, *size)).view(np.uint16)[0, 0]

    def join(first: int, second: int) -> int:
        if mode is PoolMode.AVERAGE:
            return model.add(FP17, first, second)
        return model.compare(HALF, first, second, mode is PoolMode.MAX)

    def reciprocal(window: int) -> int:
        # The firmware's table is 1/window cut to fp17, not rounded.
        exponent = -(window - 1).bit_length()
        return (FP17.bias + exponent << 10) + int((1 / window) * 2.0**-exponent * 1024) - 1024

    for y, x in np.ndindex(*out):
        lines = []
        for row in range(max(y * stride[0] - pad[0], 0), min(y * stride[0] - pad[0] + kernel[0], size[0])):
            left = x * stride[1] - pad[1]
            cells = [int(values[row * size[1] + c]) for c in range(max(left, 0), min(left + kernel[1], size[1]))]
            cells = [model.convert(HALF, FP17, cell) for cell in cells] if mode is PoolMode.AVERAGE else cells
            total = cells[0]
            for cell in cells[1:]:
                total = join(total, cell)
            lines.append(total)
        total = lines[0]
        for line in lines[1:]:
            total = join(line, total)
        if mode is PoolMode.AVERAGE:
            for window in reversed(kernel):
                total = model.multiply(FP17, total, reciprocal(window))
            total = model.convert(FP17, HALF, total)
        assert result[y, x] == total


@given(
    tables(65, True), tables(257, False), priorities, st.sampled_from([3, 5, 7, 9]), st.booleans(), st.booleans(),
    st.lists(halves, min_size=1, max_size=12),
)  # fmt: skip
def test_normalisation(
    exp: model.Table, only: model.Table, order: tuple[int, int, int], local_size: int, square_sum: bool,
    multiplies: bool, values: list[int],
) -> None:  # fmt: skip
    """Squares are added in pairs from the middle outwards, in fp32; what lies outside the cube is zero."""
    under, over, hybrid = order
    lut = Lut(half_of(exp), half_of(only), hybrid, under, over)
    cube = packed_cube(0, (len(values), 1, 1), 16, 2)
    plain = Converter(0, 1, 0)
    operation = CdpOperation(0, cube, cube, lut, local_size, square_sum, multiplies, plain, plain, Precision.FP16)
    inputs = np.array(values, np.uint16).view(np.float16).reshape(1, -1, 1, 1)
    result = normalise_halves(operation, inputs).view(np.uint16).reshape(-1)
    wide = [model.convert(HALF, FP17, value) for value in values]
    terms = [model.convert(FP17, SINGLE, value) for value in wide]
    squares = [model.multiply(SINGLE, term, term) for term in terms]

    def square(place: int) -> int:
        return squares[place] if 0 <= place < len(values) else 0

    for c, value in enumerate(wide):
        total = terms[c]
        if square_sum:
            total = model.add(SINGLE, model.add(SINGLE, square(c - 1), square(c + 1)), square(c))
            for away in range(2, local_size // 2 + 1):
                total = model.add(SINGLE, total, model.add(SINGLE, square(c - away), square(c + away)))
        factor = model.choose(model.cdp_entry(exp, total), model.cdp_entry(only, total), under, over, hybrid)
        passed = value if FP17.is_nan(value) else factor
        expected = model.multiply(FP17, value, factor) if multiplies else passed
        assert result[c] == model.convert(FP17, HALF, expected)
