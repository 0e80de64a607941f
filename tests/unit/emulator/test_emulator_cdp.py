"""Local response normalisation against a scalar model of the rule, and its fast fp16 against the formula."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.operations import CdpOperation, Cube
from nvdla_quant.emulator.run import run
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL, TARGETS
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.structs import Engine
from tests import scalar_model as scalar
from tests.emulated import packed_cube
from tests.loadables import RESULT, SOURCE, Descriptor, cube_fields, loadable_of, rounded, run_bytes
from tests.profiles import examples

int16 = st.integers(-(1 << 15), (1 << 15) - 1)
TYPES = {"int8": (np.dtype(np.int8), 0), "int16": (np.dtype(np.int16), 1), "fp16": (np.dtype(np.float16), 2)}
"""Type of the elements, and number of the precision in the descriptor."""


@st.composite
def tables(draw: st.DrawFn, size: int, largest: int) -> scalar.Table:
    """A table somewhere among the sums, of any slope; a wider one than the sums hits more often."""
    exponential = size == 65 and draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    start = draw(st.one_of(st.integers(-largest, largest), st.integers(-(1 << 37), (1 << 37) - 1)))
    end = draw(st.one_of(st.integers(-largest, largest), st.integers(-(1 << 37), (1 << 37) - 1)))
    slopes = st.tuples(int16, st.integers(-16, 15))
    # A linear shift is a signed number of 6 bits, a logarithm's offset one of 8.
    select = draw(st.integers(-64, 40) if exponential else st.integers(-32, 31))
    entries = tuple(rng.integers(-(1 << 15), 1 << 15, size).tolist())
    return scalar.Table(entries, start, end, exponential, select, draw(slopes), draw(slopes))


@st.composite
def normalisations(draw: st.DrawFn) -> scalar.Lrn:
    bits: Any = draw(st.sampled_from([8, 16]))
    largest = 9 << 2 * bits
    least, out_least = -1 << bits - 1, -1 << (24 if bits == 8 else 31)
    return scalar.Lrn(
        size=draw(st.sampled_from([3, 5, 7, 9])),
        square_sum=draw(st.booleans()),
        multiply=draw(st.booleans()),
        before=scalar.Cvt(draw(st.integers(least, -least - 1)), draw(int16), draw(st.integers(0, 31))),
        after=scalar.Cvt(draw(st.integers(out_least, -out_least - 1)), draw(int16), draw(st.integers(0, 63))),
        exp=draw(tables(65, largest)),
        only=draw(tables(257, largest)),
        priorities=(draw(st.integers(0, 1)), draw(st.integers(0, 1)), draw(st.integers(0, 1))),
        bits=bits,
    )


def table_fields(lrn: scalar.Lrn) -> dict[str, object]:
    fields: dict[str, object] = {"method": int(not lrn.exp.exponential)}
    for name, table in (("linear_exp", lrn.exp), ("linear_only", lrn.only)):
        fields |= {f"{name}_table": table.entries, f"{name}_offset": table.select}
        fields |= {f"{name}_start": table.start % (1 << 64), f"{name}_end": table.end % (1 << 64)}
        for side, (scale, shift) in (("underflow", table.below), ("overflow", table.above)):
            fields |= {f"{name}_{side}_scale": scale, f"{name}_{side}_shift": shift}
    names = ("underflow", "overflow", "hybrid")
    return fields | {f"{name}_priority": value for name, value in zip(names, lrn.priorities, strict=True)}


def cdp(source: Cube, result: Cube, precision: int, table: dict[str, object], **fields: object) -> Loadable:
    operation = {"in_precision": precision, "out_precision": precision, "local_size": 3} | fields
    surface = cube_fields("src_data", source) | cube_fields("dst_data", result)
    return loadable_of([Descriptor(Engine.CDP, operation, surface)], rounded(source.end), rounded(result.end), [table])


def converters(lrn: scalar.Lrn) -> dict[str, object]:
    return {
        f"{name}.{field}": value
        for name, cvt in (("in_cvt", lrn.before), ("out_cvt", lrn.after))
        for field, value in (("offset", cvt.offset), ("scale", cvt.scale), ("truncate", cvt.shift))
    }


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lrn=normalisations(),
    channels=st.sampled_from([1, 3, 8, 33]),
    small=st.booleans(),
    even=st.booleans(),
    span=st.sampled_from([1, 16, 128]),
    seed=st.integers(0, 1 << 30),
)
def test_integers(lrn: scalar.Lrn, channels: int, small: bool, even: bool, span: int, seed: int) -> None:
    """Every converter, table, size, bypass and priority, int8 and int16, from descriptors."""
    target = NV_SMALL if small and lrn.bits == 8 else NV_FULL
    dtype, precision = TYPES[f"int{lrn.bits}"]
    atom = target.feature_atom_bytes // dtype.itemsize
    source, result = (packed_cube(memory, (channels, 1, 2), atom, dtype.itemsize) for memory in (SOURCE, RESULT))
    fields = converters(lrn) | {
        "local_size": lrn.size + even,
        "bypass_sqsum": not lrn.square_sum,
        "bypass_out_mul": not lrn.multiply,
    }
    loadable = cdp(source, result, precision, table_fields(lrn), **fields)
    # Whole atoms are given, so that what stands behind the last channel must not count.
    values = np.random.default_rng(seed).integers(-span, span, rounded(source.end) // dtype.itemsize).astype(dtype)
    written = run_bytes(loadable, values.view(np.uint8), target).view(dtype)
    for pixel in range(2):
        places = [
            c // atom * source.surface_stride // dtype.itemsize + pixel * atom + c % atom for c in range(channels)
        ]
        around = [int(values[place]) for place in places]
        for channel, place in enumerate(places):
            assert written[place] == scalar.normalise(around, channel, lrn)


def plain_table(values: object = 0) -> dict[str, object]:
    """Linear tables over sums of 0 to 64 and 0 to 256, both of the same values."""
    names = "linear_exp", "linear_only"
    return {"method": 1, "linear_exp_end": 64, "linear_only_end": 256} | {f"{name}_table": values for name in names}


def test_arithmetic_by_hand() -> None:
    """Channels 1, 2, 3 over three: sums 5, 14, 13; a table of 7 everywhere makes 7, 14, 21; offset 1, times 3, by 2."""
    cube = packed_cube(SOURCE, (3, 1, 1), 32)
    cvt = {"in_cvt.scale": 1, "out_cvt.scale": 3, "out_cvt.offset": 1, "out_cvt.truncate": 1}
    loadable = cdp(cube, packed_cube(RESULT, (3, 1, 1), 32), 0, plain_table(7), **cvt)
    data = np.zeros(32, np.uint8)
    data[:3] = 1, 2, 3
    # (7 - 1) * 3 / 2 = 9; (14 - 1) * 3 / 2 = 19.5 -> 20; (21 - 1) * 3 / 2 = 30.
    assert run_bytes(loadable, data)[:3].tolist() == [9, 20, 30]


def test_fp16_is_the_formula_of_lrn() -> None:
    """A table of x ** -0.75 over sums of 1 to 17 in steps of 1/16; within the errors of halves and of interpolation."""
    rng = np.random.default_rng(0)
    values = rng.uniform(1, 1.3, (1, 32, 3, 3)).astype(np.float16)
    bits = np.array([1 + place / 16 for place in range(257)]) ** -0.75
    ends = np.array([1, 17], np.float32).view(np.uint32).tolist()
    table: dict[str, object] = {
        "linear_only_table": bits.astype(np.float16).view(np.int16),
        "linear_only_offset": -4,
        "linear_only_start": ends[0],
        "linear_only_end": ends[1],
        "hybrid_priority": 1,
        "underflow_priority": 1,
        "overflow_priority": 1,
        "method": 1,
    }
    cube = packed_cube(SOURCE, (32, 3, 3), 16, 2)
    loadable = cdp(cube, packed_cube(RESULT, (32, 3, 3), 16, 2), 2, table, local_size=5)
    program = decode(loadable, NV_FULL)
    (operation,) = program.operations
    assert isinstance(operation, CdpOperation)
    data = values.reshape(1, 2, 16, 3, 3).transpose(0, 1, 3, 4, 2).copy().view(np.uint8).ravel()
    written = run_bytes(loadable, data).view(np.float16).reshape(2, 3, 3, 16).transpose(0, 3, 1, 2).reshape(32, 3, 3)
    squares = np.pad(values[0].astype(np.float64) ** 2, ((2, 2), (0, 0), (0, 0)))
    sums = sum(squares[place : place + 32] for place in range(5))
    np.testing.assert_allclose(written, values[0] * sums**-0.75, rtol=3e-3)


def test_fp16_beyond_the_tables() -> None:
    """Below, the first entry and its slope; above, the last and its slope: 2 - 0.5 * (10 - x), 4 + 0.25 * (x - 20)."""
    # The other table begins far above, so that it never hits.
    floats = np.array([10, 20, 1e30], np.float32).view(np.uint32).tolist()
    halves = np.array([0.5, 0.25], np.float16).view(np.int16).tolist()
    entries = np.array([2.0, *[3.0] * 255, 4.0], np.float16).view(np.int16)
    table: dict[str, object] = {
        "linear_only_table": entries,
        "linear_only_offset": -5,
        "linear_only_start": floats[0],
        "linear_only_end": floats[1],
        "linear_exp_start": floats[2],
        "linear_only_underflow_scale": halves[0],
        "linear_only_overflow_scale": halves[1],
        "hybrid_priority": 1,
        "underflow_priority": 1,
        "overflow_priority": 1,
        "method": 1,
    }
    fields = {"bypass_sqsum": 1, "bypass_out_mul": 1}
    cube = packed_cube(SOURCE, (2, 1, 1), 16, 2)
    loadable = cdp(cube, packed_cube(RESULT, (2, 1, 1), 16, 2), 2, table, **fields)
    data = np.zeros(16, np.float16)
    data[:2] = 6, 28
    assert run_bytes(loadable, data.view(np.uint8)).view(np.float16)[:2].tolist() == [0.0, 6.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"out_precision": 1}, "out_precision is 1, expected in_precision"),
        ({"in_precision": 3, "out_precision": 3}, "in_precision is 3"),
        ({"local_size": 11}, "local_size is 11"),
        ({"local_size": 1}, "local_size is 1"),
        ({"local_size": 0}, "local_size is 0"),
        ({"lut_index": -1}, "lut_index is -1"),
        ({"lut_index": 1}, "lut_index 1, the task has 1"),
    ],
)
def test_refusals(fields: dict[str, object], message: str) -> None:
    cube = packed_cube(SOURCE, (3, 1, 1), 32)
    loadable = cdp(cube, packed_cube(RESULT, (3, 1, 1), 32), 0, plain_table(), **fields)
    with pytest.raises(Exception, match=message):
        decode(loadable, NV_FULL)


def test_other_targets_have_no_wide_types() -> None:
    cube = packed_cube(SOURCE, (3, 1, 1), 16, 2)
    loadable = cdp(cube, packed_cube(RESULT, (3, 1, 1), 16, 2), 1, plain_table())
    for target in (NV_LARGE, NV_SMALL):
        assert target in TARGETS.values()
        with pytest.raises(EmulationError, match="int16, which nv_"):
            decode(loadable, target)


def test_cubes_must_be_aligned_and_in_memory() -> None:
    cube, result = packed_cube(SOURCE, (3, 2, 1), 32), packed_cube(RESULT, (3, 2, 1), 32)
    for field, value, message in (
        ("src_data.line_stride", 33, "line_stride is 33, expected a multiple of 32"),
        ("dst_data.type", 2, "dst_data type is 2, expected memory"),
        ("dst_data.height", 1, "dst shape"),
    ):
        surface = cube_fields("src_data", cube) | cube_fields("dst_data", result) | {field: value}
        operation = {"in_precision": 0, "out_precision": 0, "local_size": 3}
        loadable = loadable_of([Descriptor(Engine.CDP, operation, surface)], 128, 128, [plain_table()])
        with pytest.raises(EmulationError, match=message):
            decode(loadable, NV_FULL)


def test_steps_and_batches() -> None:
    """Images of a batch do not mix, and a step shows the type and shape of what was written."""
    cube, result = (packed_cube(memory, (32, 1, 1), 32) for memory in (SOURCE, RESULT))
    program = decode(cdp(cube, result, 0, plain_table(1), **{"in_cvt.scale": 1, "out_cvt.scale": 1}), NV_FULL)
    inputs = np.random.default_rng(0).integers(-100, 100, (5, 32, 1, 1)).astype(np.int8)
    seen = []
    together = run(program, inputs, batch=5, on_step=lambda op, values, _: seen.append((op.unit, values)))
    # A table of 1 everywhere.
    np.testing.assert_array_equal(together, inputs)
    assert seen[0][0] == "CDP"
    np.testing.assert_array_equal(seen[0][1], inputs)
