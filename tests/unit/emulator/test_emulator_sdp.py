"""The SDP against the scalar model, and against values worked out by hand."""

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.emulator.integer.rounding import saturate, shift_left, shift_right
from nvdla_quant.emulator.integer.sdp import constant_operands, integer_chain, linear_stages
from nvdla_quant.emulator.operations import Converter, Cube, Operand, Region, SdpUnit
from nvdla_quant.emulator.run import run
from nvdla_quant.hardware.targets import NV_SMALL
from nvdla_quant.loadable.structs import SdpAlu
from tests import scalar_model as scalar
from tests.emulated import OPERAND, packed_cube, program_of, sdp_program

ALU = {"max": SdpAlu.MAX, "min": SdpAlu.MIN, "sum": SdpAlu.SUM, "eql": SdpAlu.EQL}
IDENTITY = Converter(0, 1, 0)
int16 = st.integers(-(1 << 15), (1 << 15) - 1)
int32 = st.integers(-(1 << 31), (1 << 31) - 1)
CI = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def unit(**fields: object) -> SdpUnit:
    plain: dict[str, object] = {
        "name": "x1", "alu": None, "alu_operand": None, "mul_operand": None, "interleaved": False, "alu_shift": 0,
        "truncate": 0, "relu": False, "prelu": False,
    }  # fmt: skip
    return SdpUnit(**(plain | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "shift", "expected"),
    [(5, 1, 3), (-5, 1, -3), (4, 3, 1), (-4, 3, -1), (3, 3, 0), (-3, 3, 0), (7, 0, 7), (1 << 40, 3, (1 << 31) - 1),
     (-(1 << 40), 3, -(1 << 31)), ((1 << 62) + 1, 63, 1), ((1 << 62) - 1, 63, 0)],
)  # fmt: skip
def test_shift_right_rounds_half_away_from_zero_and_saturates(value: int, shift: int, expected: int) -> None:
    """2.5 -> 3, -2.5 -> -3, 0.5 -> 1, 0.375 -> 0, and both ends of int32; by hand."""
    assert shift_right(np.array([value]), shift, 32)[0] == expected


@given(st.integers(-(1 << 62), 1 << 62), st.integers(0, 63), st.sampled_from([8, 17, 32]))
def test_shift_right_is_the_rule(value: int, shift: int, bits: int) -> None:
    assert shift_right(np.array([value]), shift, bits)[0] == scalar.clamp(scalar.rnd(value, shift), bits)


@given(int32, st.integers(0, 63))
def test_shift_left_saturates(value: int, shift: int) -> None:
    assert shift_left(np.array([value]), shift, 32)[0] == scalar.clamp(value << shift, 32)


def test_saturate_takes_the_nearest_end() -> None:
    assert saturate(np.array([-129, -128, 0, 127, 128]), 8).tolist() == [-128, -128, 0, 127, 127]


def test_one_conversion_by_hand() -> None:
    """(100 + 28) * 3 >> 4 = 24; -(100 + 28) -> ties: 8 * 3 >> 4 = 1.5 -> 2, and -1.5 -> -2."""
    add = Operand(channels=np.array([28, 4, -4]))
    units = (unit(alu=SdpAlu.SUM, alu_operand=add, mul_operand=Operand(register=3), truncate=4),)
    values = np.array([100, 4, -4])
    result = integer_chain(values, units, constant_operands(units), None, IDENTITY)
    assert result.tolist() == [24, 2, -2]


def x_units(name: str) -> st.SearchStrategy[tuple[SdpUnit, list[scalar.XUnit]]]:
    """Draw an X unit for three channels, as the emulator and as the scalar model have it (one for each channel)."""

    def build(
        alu: str | None, alu_values: list[int], shift: int, mul_values: list[int] | None, truncate: int, act: str,
        register: bool,
    ) -> tuple[SdpUnit, list[scalar.XUnit]]:  # fmt: skip
        def operand(values: list[int] | None) -> Operand | None:
            if values is None:
                return None
            return Operand(register=values[0]) if register else Operand(channels=np.array(values))

        ours = unit(
            name=name, alu=None if alu is None else ALU[alu], alu_operand=None if alu is None else operand(alu_values),
            mul_operand=operand(mul_values), alu_shift=shift, truncate=truncate, relu=act == "relu",
            prelu=act == "prelu",
        )  # fmt: skip
        pick = (lambda values, c: values[0]) if register else (lambda values, c: values[c])
        models = [
            scalar.XUnit(alu, pick(alu_values, c), shift, None if mul_values is None else pick(mul_values, c),
                         truncate, act)  # type: ignore[arg-type]
            for c in range(3)
        ]  # fmt: skip
        return ours, models

    three = st.lists(int16, min_size=3, max_size=3)
    shifts = st.one_of(st.integers(0, 16), st.integers(0, 63))
    alus = st.sampled_from([None, "sum", "sum", "sum", "max", "min", "eql"])
    acts = st.sampled_from(["none", "none", "relu", "prelu"])
    return st.builds(build, alus, three, shifts, st.one_of(st.none(), three), st.integers(0, 63), acts, st.booleans())


converters = st.builds(
    scalar.Cvt, st.one_of(st.just(0), int32), st.one_of(st.just(1), int16), st.one_of(st.just(0), st.integers(0, 63))
)


@CI
@given(x_units("x1"), x_units("x2"), st.integers(0, 2), converters, st.lists(int32, min_size=3, max_size=30))
def test_chains_of_x_units(
    first: tuple[SdpUnit, list[scalar.XUnit]],
    second: tuple[SdpUnit, list[scalar.XUnit]],
    used: int,
    converter: scalar.Cvt,
    numbers: list[int],
) -> None:
    """Random descriptors over the whole range of int32: the general chain is the scalar model's."""
    numbers = numbers[: len(numbers) // 3 * 3]
    values = np.array(numbers, np.int64).reshape(-1, 3)
    units = (first[0], second[0])[:used]
    models = (first[1], second[1])[:used]
    out = Converter(converter.offset, converter.scale, converter.shift)
    result = integer_chain(values, units, constant_operands(units), None, out)
    for row, results in zip(values, result, strict=True):
        for channel, value in enumerate(row.tolist()):
            for model in models:
                value = scalar.x_unit(value, model[channel])
            assert results[channel] == scalar.out_converter(value, converter)


@CI
@given(
    st.sampled_from([None, "sum", "max", "min", "eql"]),
    int32, st.one_of(st.none(), int32), st.integers(0, 63), st.booleans(),
    st.one_of(st.none(), converters), st.one_of(st.none(), converters), int16, int16,
    st.lists(int32, min_size=1, max_size=8),
)  # fmt: skip
def test_y_unit(
    alu: str | None, alu_operand: int, mul_operand: int | None, truncate: int, prelu: bool,
    alu_cvt: scalar.Cvt | None, mul_cvt: scalar.Cvt | None, alu_memory: int, mul_memory: int, numbers: list[int],
) -> None:  # fmt: skip
    """Multiplier before ALU; converted operands are 16 bits, registers 32."""
    alu_operand = alu_operand if alu_cvt is None else alu_memory
    mul_operand = mul_operand if mul_cvt is None or mul_operand is None else mul_memory
    model = scalar.YUnit(alu, alu_operand, mul_operand, truncate, prelu, alu_cvt, mul_cvt)  # type: ignore[arg-type]
    ours = unit(
        name="y",
        alu=None if alu is None else ALU[alu],
        alu_operand=None if alu is None else Operand(register=alu_operand),
        mul_operand=None if mul_operand is None else Operand(register=mul_operand),
        truncate=truncate,
        prelu=prelu,
        alu_converter=None if alu_cvt is None else Converter(alu_cvt.offset, alu_cvt.scale, alu_cvt.shift),
        mul_converter=None if mul_cvt is None else Converter(mul_cvt.offset, mul_cvt.scale, mul_cvt.shift),
    )
    result = integer_chain(np.array(numbers, np.int64), (ours,), constant_operands((ours,)), None, IDENTITY)
    assert result.tolist() == [scalar.clamp(scalar.y_unit(value, model), 8) for value in numbers]


def operand_cube(shape: tuple[int, int, int], seed: int) -> tuple[Cube, NDArray[np.int8], NDArray[np.uint8]]:
    """Return a cube of int8 operands, its values (c, h, w), and the memory that holds it."""
    cube = packed_cube(OPERAND, shape, 8)
    raw = np.random.default_rng(seed).integers(0, 256, cube.end, np.uint8)
    atoms = raw.view(np.int8).reshape(cube.surfaces, shape[1], shape[2], 8)
    return cube, atoms.transpose(0, 3, 1, 2).reshape(-1, *shape[1:])[: shape[0]], raw


@CI
@given(x_units("x1"), x_units("x2"), st.integers(0, 2), st.sampled_from(["no", "add", "mul"]), converters,
       st.integers(0, 1 << 30))  # fmt: skip
def test_operations_on_memory(
    first: tuple[SdpUnit, list[scalar.XUnit]],
    second: tuple[SdpUnit, list[scalar.XUnit]],
    used: int,
    point: str,
    converter: scalar.Cvt,
    seed: int,
) -> None:
    """Whole operations, by the fast loop wherever it applies: random descriptors, one with a cube of operands."""
    shape = (3, 2, 5)
    cube, points, raw = operand_cube(shape, seed)
    units = [first[0], second[0]][:used]
    models = [first[1], second[1]][:used]
    if point != "no":
        truncate = seed % 20
        which = {"alu": SdpAlu.SUM, "alu_operand": Operand(cube=cube)}
        fields = which if point == "add" else {"mul_operand": Operand(cube=cube)}
        units.append(unit(name="x2" if used == 1 else "x1", truncate=truncate, relu=seed % 3 == 0, **fields))
        units = units[-2:]
        models = models[-1:] if used == 2 else models
    out = Converter(converter.offset, converter.scale, converter.shift)
    inputs = np.random.default_rng(seed + 1).integers(-128, 128, (2, *shape)).astype(np.int8)
    result = run(sdp_program(shape, tuple(units), out, raw), inputs)
    for place in np.ndindex(inputs.shape):
        _, c, y, x = place
        value = int(inputs[place])
        for model in models:
            value = scalar.x_unit(value, model[c])
        if point != "no":
            operand = int(points[c, y, x])
            relu = "relu" if seed % 3 == 0 else "none"
            alu, mul = ("sum", None) if point == "add" else (None, operand)
            value = scalar.x_unit(value, scalar.XUnit(alu, operand, 0, mul, seed % 20, relu))  # type: ignore[arg-type]
        assert result[place] == scalar.out_converter(value, converter)


def test_usual_operations_take_the_fast_loop() -> None:
    """Bias and scale for each kernel becomes one rounding step, in either quantization mode."""
    bias, scale = Operand(channels=np.array([5, -7])), Operand(channels=np.array([20000, 30000]))
    per_filter = unit(alu=SdpAlu.SUM, alu_operand=bias, mul_operand=scale, truncate=22, relu=True)
    per_kernel = unit(alu=SdpAlu.SUM, alu_operand=bias, relu=True)
    residual = unit(name="x2", alu=SdpAlu.SUM, alu_operand=Operand(cube=packed_cube(OPERAND, (2, 1, 1), 8)), relu=True)
    cases = [((per_filter,), IDENTITY, 1), ((per_kernel,), Converter(0, 20000, 20), 1),
             ((per_filter, residual), Converter(0, 20000, 15), 2)]  # fmt: skip
    for units, converter, expected in cases:
        operation = sdp_program((2, 1, 1), units, converter).operations[0]
        stages = linear_stages(operation, 2, 1 << 20)  # type: ignore[arg-type]
        assert stages is not None
        assert len(stages) == expected


@pytest.mark.parametrize("kind", [SdpAlu.SUM, SdpAlu.MAX])
def test_operands_that_all_images_share(kind: SdpAlu) -> None:
    """A constant cube of operands over many tiles, in the fast loop (sum) and in the general chain (max)."""
    shape = (11, 40, 50)
    cube, points, raw = operand_cube(shape, 3)
    program = sdp_program(shape, (unit(alu=kind, alu_operand=Operand(cube=cube)),), IDENTITY, raw)
    inputs = np.random.default_rng(4).integers(-128, 128, (9, *shape)).astype(np.int8)
    plain = inputs.astype(np.int64)
    expected = np.clip(plain + points, -128, 127) if kind is SdpAlu.SUM else np.maximum(plain, points)
    assert np.array_equal(run(program, inputs), expected)


def test_in_place_operation() -> None:
    """An element-wise operation may write over its source: NVIDIA's compiler lets ReLU do so."""
    program = sdp_program((9, 2, 3), (unit(relu=True),), IDENTITY)
    operation = program.operations[0]
    same = replace(operation, destination=operation.source)
    inputs = np.random.default_rng(0).integers(-128, 128, (3, 9, 2, 3)).astype(np.int8)
    result = run(program_of(same, operation.source, program.target), inputs)
    assert np.array_equal(result, np.maximum(inputs, 0))


def test_overlapping_operation() -> None:
    """Source and destination one row apart: what is read is what stood there before, however the work is cut."""
    shape = (8, 400, 50)
    source = packed_cube(OPERAND, shape, 8)
    moved = replace(source, offset=source.line_stride)
    operation = sdp_program(shape, (unit(relu=True),), IDENTITY).operations[0]
    program = program_of(replace(operation, source=source, destination=moved), source, NV_SMALL)
    program = replace(program, regions=MappingProxyType({OPERAND: Region(moved.end, True, None)}))
    inputs = np.random.default_rng(0).integers(-128, 128, (2, *shape)).astype(np.int8)
    assert np.array_equal(run(program, inputs), np.maximum(inputs, 0))


def test_saturation_between_unit_and_converter() -> None:
    """100 + (2**31 - 1) saturates to 2**31 - 1; the converter's offset takes that to 0, where 100 would remain."""
    largest = unit(alu=SdpAlu.SUM, alu_operand=Operand(register=(1 << 15) - 1), alu_shift=31)
    program = sdp_program((1, 1, 1), (largest,), Converter((1 << 31) - 1, 1, 0))
    assert run(program, np.full((1, 1, 1, 1), 100, np.int8)).item() == 0


def test_interleaved_operands_of_each_point() -> None:
    """Pairs (alu, mul) for each element: (x + alu) * mul >> 3, for 5 channels in atoms of 8."""
    shape = (5, 3, 4)
    cube = packed_cube(OPERAND, (10, 3, 4), 16)
    raw = np.random.default_rng(1).integers(0, 256, cube.end, np.uint8)
    pairs = raw.view(np.int8).reshape(3, 4, 8, 2).transpose(3, 2, 0, 1)[:, :5].astype(np.int64)
    operand = Operand(cube=cube)
    both = unit(alu=SdpAlu.SUM, alu_operand=operand, mul_operand=operand, interleaved=True, truncate=3)
    inputs = np.random.default_rng(2).integers(-128, 128, (3, *shape)).astype(np.int8)
    result = run(sdp_program(shape, (both,), IDENTITY, raw), inputs)
    for n, c, y, x in np.ndindex(inputs.shape):
        alu, mul = pairs[:, c, y, x].tolist()
        model = scalar.XUnit("sum", alu, 0, mul, 3, "none")
        assert result[n, c, y, x] == scalar.clamp(scalar.x_unit(int(inputs[n, c, y, x]), model), 8)
