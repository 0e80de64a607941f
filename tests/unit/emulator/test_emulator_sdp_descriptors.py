"""SDP operations from memory to memory as descriptors say them, against the scalar model."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.fp16.sdp import to_int16
from nvdla_quant.emulator.operations import SdpOperation
from nvdla_quant.emulator.run import run
from nvdla_quant.errors import EmulationError
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.structs import Engine
from tests import scalar_model as scalar
from tests.descriptors import cube, loadable_of, tensor

INPUT, OUTPUT, OPERANDS = 1, 2, {"x1": 3, "x2": 4, "y": 5}
TYPES = {"int8": np.dtype(np.int8), "int16": np.dtype(np.int16), "fp16": np.dtype(np.float16)}
NUMBERS = {"int8": 0, "int16": 1, "fp16": 2}
BITS = {"int8": 8, "int16": 16, "fp16": 17}
ALUS: tuple[Literal["max", "min", "sum", "eql"], ...] = ("max", "min", "sum", "eql")
PAIRS = [(given, output) for given in ("int8", "int16") for output in ("int8", "int16", "fp16")]
"""Precisions of source and result; arithmetic is int8 for int16 to int8 too (sdp.c, map_proc_precision)."""


@dataclass(frozen=True)
class Unit:
    """A unit: `kind` 0 none, 1 multiply, 2 ALU, 3 both; `mode` 0 one operand, 1 for each channel, 2 for each point."""

    kind: int
    mode: int
    alu: int
    size: int
    shift: int
    truncate: int
    act: int
    registers: tuple[int, int]
    converters: tuple[scalar.Cvt | None, scalar.Cvt | None]


@dataclass(frozen=True)
class Case:
    given: str
    output: str
    shape: tuple[int, int, int]
    units: dict[str, Unit]
    converter: scalar.Cvt
    seed: int

    @property
    def wide(self) -> bool:
        """Whether the arithmetic takes 16 elements at a time."""
        return self.given == "int16" and self.output != "int8"


def operands_of(case: Case, name: str) -> NDArray[Any]:
    """Return (channels, height, width, parts) of one unit."""
    unit = case.units[name]
    rng = np.random.default_rng([case.seed, list(OPERANDS).index(name)])
    half = 1 << (8 * unit.size - 1)
    channels, height, width = case.shape
    shape = (channels, *((height, width) if unit.mode == 2 else (1, 1)), 2 if unit.kind == 3 else 1)
    return rng.integers(-half, half, shape).astype(f"<i{unit.size}")


def memory_of(case: Case, name: str) -> NDArray[np.uint8]:
    """Lay operands out element by element: channels together, or atoms of the data's channels at each point."""
    unit, values = case.units[name], operands_of(case, name)
    channels, height, width = case.shape
    parts = values.shape[3]
    if unit.mode == 1:
        return values.reshape(-1).view(np.uint8)
    atom = 16 if case.wide else 32
    surfaces = -(-channels // atom)
    raw = np.zeros((surfaces, height, width, atom, parts), values.dtype)
    for c, y, x, part in np.ndindex(values.shape):
        raw[c // atom, y, x, c % atom, part] = values[c, y, x, part]
    return raw.reshape(-1).view(np.uint8)


def cvt(converter: scalar.Cvt | None) -> dict[str, int]:
    values = converter or scalar.Cvt(0, 1, 0)
    return {"offset": values.offset, "scale": values.scale, "truncate": values.shift, "enable": int(bool(converter))}


def build(case: Case) -> Loadable:
    given, out = TYPES[case.given], TYPES[case.output]
    source = cube(INPUT, case.shape, 32 // given.itemsize, given.itemsize)
    destination = cube(OUTPUT, case.shape, 32 // out.itemsize, out.itemsize)
    memories: dict[int, NDArray[np.uint8] | int] = {INPUT: source["size"], OUTPUT: destination["size"]}
    fields: dict[str, Any] = {
        "src_precision": NUMBERS[case.given],
        "dst_precision": NUMBERS[case.output],
        "lut_index": -1,
        "batch_num": 1,
        "out_cvt": cvt(case.converter),
    }
    surface: dict[str, Any] = {"src_data": source, "dst_data": destination}
    for name, unit in case.units.items():
        if unit.kind and unit.mode:
            memories[OPERANDS[name]] = memory_of(case, name)
            parts = 2 if unit.kind == 3 else 1
            atom = (16 if case.wide else 32) * parts
            surface[f"{name}_data"] = cube(OPERANDS[name], (case.shape[0] * parts, *case.shape[1:]), atom, unit.size)
        fields[f"{name}_op"] = {
            "enable": 1,
            "type": unit.kind,
            "mode": unit.mode,
            "alu_type": unit.alu,
            "act": unit.act,
            "shift_value": unit.shift,
            "truncate": unit.truncate,
            "precision": unit.size - 1,
            "alu_operand": unit.registers[0],
            "mul_operand": unit.registers[1],
            "alu_cvt": cvt(unit.converters[0]),
            "mul_cvt": cvt(unit.converters[1]),
        }
    for number in range(3, 6):
        memories.setdefault(number, 32)
    bound = tensor("in", INPUT, case.shape, 32 // given.itemsize, given, source["size"])
    result = tensor("out", OUTPUT, case.shape, 32 // out.itemsize, out, destination["size"])
    return loadable_of([(Engine.SDP, fields, surface)], memories, [bound], [result])


def expected_of(case: Case, inputs: NDArray[Any]) -> NDArray[Any]:
    operands = {name: operands_of(case, name) for name, unit in case.units.items() if unit.mode}
    result = np.empty(inputs.shape, TYPES[case.output])
    for n, c, y, x in np.ndindex(inputs.shape):
        value = int(inputs[n, c, y, x])
        for name in ("x1", "x2", "y"):
            if name in case.units:
                value = unit_of(case.units[name], name, operands.get(name), value, (c, y, x))
        out = scalar.out_converter(value, case.converter, BITS[case.output])
        result[n, c, y, x] = scalar.half_of(out) if case.output == "fp16" else out
    return result


def unit_of(unit: Unit, name: str, operands: NDArray[Any] | None, value: int, at: tuple[int, int, int]) -> int:
    c, y, x = at
    if operands is None:
        low = [((v + (1 << 15)) % (1 << 16)) - (1 << 15) for v in unit.registers]
        alu, mul = unit.registers if name == "y" else low
    else:
        place = (c, y, x) if unit.mode == 2 else (c, 0, 0)
        alu, mul = int(operands[place][0]), int(operands[place][-1])
    kind = ALUS[unit.alu] if unit.kind in (2, 3) else None
    factor = mul if unit.kind in (1, 3) else None
    if name == "y":
        converters = unit.converters if unit.mode else (None, None)
        return scalar.y_unit(value, scalar.YUnit(kind, alu, factor, unit.truncate, unit.act == 3, *converters))
    act: Literal["none", "relu", "prelu"] = {1: "relu", 3: "prelu"}.get(unit.act, "none")  # type: ignore[assignment]
    return scalar.x_unit(value, scalar.XUnit(kind, alu, unit.shift, factor, unit.truncate, act))


@st.composite
def converters(draw: st.DrawFn) -> scalar.Cvt:
    offset, scale = draw(st.integers(-500, 500)), draw(st.integers(-(1 << 15), (1 << 15) - 1))
    return scalar.Cvt(offset, scale, draw(st.integers(0, 30)))


@st.composite
def units(draw: st.DrawFn, name: str, wide: bool) -> Unit:
    signed = st.integers(-(1 << 31), (1 << 31) - 1)
    kind = draw(st.integers(0, 3))
    alus = st.integers(0, 2) if name == "y" else st.integers(0, 3)
    optional = st.one_of(st.none(), converters())
    return Unit(
        kind=kind,
        mode=draw(st.integers(0, 2)),
        alu=draw(alus),
        size=2 if wide else draw(st.sampled_from([1, 2])),
        shift=draw(st.integers(0, 40)),
        truncate=draw(st.integers(0, 50)),
        act=draw(st.sampled_from([0, 1, 3])),
        registers=(draw(signed), draw(signed)),
        converters=(draw(optional), draw(optional)),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    given, output = draw(st.sampled_from(PAIRS))
    wide = given == "int16" and output != "int8"
    return Case(
        given=given,
        output=output,
        shape=(draw(st.sampled_from([1, 15, 17, 33])), draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        units={name: draw(units(name, wide)) for name in OPERANDS if draw(st.booleans())},
        converter=draw(converters()),
        seed=draw(st.integers(0, 1 << 30)),
    )


@given(cases())
def test_sdp(case: Case) -> None:
    program = decode(build(case))
    (operation,) = program.operations
    assert isinstance(operation, SdpOperation)
    assert operation.precision == ("int16" if case.wide else "int8")
    rng = np.random.default_rng(case.seed)
    half = 1 << (BITS[case.given] - 1)
    inputs = rng.integers(-half, half, (2, *case.shape)).astype(TYPES[case.given])
    expected = expected_of(case, inputs)
    np.testing.assert_array_equal(run(program, inputs), expected)
    np.testing.assert_array_equal(run(program, inputs, batch=1), expected)


def test_halves_become_integers() -> None:
    """Ties away from zero, saturated; NaN is the least number (nvdla_float.h, FpFloatToInt)."""
    values = np.array([0.5, -0.5, 1.5, 2.498046875, 40000, -40000, np.inf, -np.inf, np.nan, 2**-24], np.float16)
    assert to_int16(values).tolist() == [1, -1, 2, 2, 32767, -32768, 32767, -32768, -32768, 0]
    case = Case("fp16", "int16", (17, 2, 2), {}, scalar.Cvt(0, 1, 0), 0)
    inputs = np.random.default_rng(0).normal(0, 20000, (2, 17, 2, 2)).astype(np.float16)
    result = run(decode(build(case)), inputs)
    for place in np.ndindex(inputs.shape):
        value = float(inputs[place])
        assert result[place] == scalar.clamp(int(abs(value) + 0.5) * (1 if value > 0 else -1), 16)


@pytest.mark.parametrize(
    ("given", "output", "message"),
    [("fp16", "int8", r"dst_precision is int8, expected fp16 or int16"), ("int16", "int16", r"have two bytes")],
)
def test_refusals(given: str, output: str, message: str) -> None:
    narrow = Unit(2, 1, 2, 1, 0, 0, 0, (0, 0), (None, None))
    units = {} if given == "fp16" else {"x1": narrow}
    with pytest.raises(EmulationError, match=message):
        decode(build(Case(given, output, (4, 1, 1), units, scalar.Cvt(0, 1, 0), 0)))
