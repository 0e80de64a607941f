"""The CPU's operations: rounding to half, softmax, power."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.emulator.cpu import run_cpu, saturate_int8, softmax, to_half
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.operations import CpuOperation
from nvdla_quant.errors import EmulationError, LoadableError
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.structs import EmuFormat, EmuOperation
from tests import scalar_model as scalar
from tests.emulated import packed_cube
from tests.loadables import SOURCE, cpu_loadable, rounded, run_bytes
from tests.profiles import examples


def operation(kind: EmuOperation, channels: int, **fields: float) -> CpuOperation:
    cube = packed_cube(0, (channels, 1, 1), channels)
    plain = {"input_scale": 1.0, "output_scale": 1 / 127, "power": 1.0, "scale": 1.0, "shift": 0.0}
    return CpuOperation(0, kind, cube, cube, **(plain | fields))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1 + 2**-11, 1 + 2**-10), (1 + 3 * 2**-11, 1 + 2**-9), (-1 - 2**-11, -1 - 2**-10), (2**-25, 2**-24),
     (2**-26, 0.0), (65519.0, 65504.0), (65520.0, np.inf), (0.0, 0.0), (np.inf, np.inf)],
)  # fmt: skip
def test_half_rounds_ties_away_from_zero(value: float, expected: float) -> None:
    """Halfway cases of normal and subnormal halves, by hand; numpy would round 1 + 2**-11 to 1."""
    assert to_half(np.array([value], np.float32))[0] == np.float16(expected)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_half_is_numpys_but_for_ties(value: float) -> None:
    with np.errstate(over="ignore"):
        numpys = np.float32(value).astype(np.float16)
    ours = to_half(np.array([value], np.float32))[0]
    if ours != numpys:
        assert abs(float(ours) - value) == abs(float(numpys) - value) or not np.isfinite(ours)
        assert abs(float(ours)) > abs(value)


def test_softmax_by_hand() -> None:
    """q = (0, 0), scale 1: p = 1/2 each, 0.5 * 127 = 63.5, and a C cast truncates to 63."""
    values = np.zeros((1, 2, 1, 1), np.int8)
    assert run_cpu(operation(EmuOperation.SOFTMAX, 2), values).reshape(-1).tolist() == [63, 63]


def test_softmax_saturates_like_nvidias_scale() -> None:
    """An output scale below 1/127 saturates at 127: p = 0.5 over 0.00093 is 537."""
    values = np.zeros((1, 2, 1, 1), np.int8)
    small = operation(EmuOperation.SOFTMAX, 2, output_scale=0.00093)
    assert run_cpu(small, values).reshape(-1).tolist() == [127, 127]


def test_softmax_in_fp16_sums_to_one() -> None:
    values = np.random.default_rng(0).normal(0, 3, (5, 10, 1, 1)).astype(np.float16)
    result = run_cpu(operation(EmuOperation.SOFTMAX, 10), values)
    assert result.dtype == np.float16
    np.testing.assert_allclose(result.astype(np.float64).sum(axis=1), 1, atol=0.01)
    assert np.array_equal(result, to_half(softmax(values.astype(np.float32))))


def test_power() -> None:
    """(1 + 2 * q * 0.5) ** 2 / 0.25 for q = -3, 0, 2: 16, 4, 36; then 3 ** 2 / (1 / 127) saturates."""
    squares = operation(EmuOperation.POWER, 3, input_scale=0.5, output_scale=0.25, power=2.0, scale=2.0, shift=1.0)
    values = np.array([-3, 0, 2], np.int8).reshape(1, 3, 1, 1)
    assert run_cpu(squares, values).reshape(-1).tolist() == [16, 4, 36]
    assert run_cpu(operation(EmuOperation.POWER, 3, power=2.0), values).reshape(-1).tolist() == [127, 0, 127]


def test_saturation_truncates_toward_zero() -> None:
    values = np.array([-1.9, 1.9, 127.9, 128.0, -129.0, np.nan], np.float32)
    assert saturate_int8(values).tolist() == [-1, 1, 127, 127, -128, 0]


FORMATS = {EmuFormat.INT8: (32, np.dtype(np.int8)), EmuFormat.INT8_8: (8, np.dtype(np.int8)),
           EmuFormat.FP16: (16, np.dtype(np.float16))}  # fmt: skip
"""Channels of an atom, and type of the elements."""
scales = st.floats(2**-10, 16, width=32)


def buffer(kind: EmuFormat, shape: tuple[int, int, int]) -> tuple[dict[str, object], int]:
    """Return the fields of a packed buffer of (C, H, W), and its bytes."""
    atom, dtype = FORMATS[kind]
    line = shape[2] * atom * dtype.itemsize
    names = dict(zip(("channel", "height", "width"), shape, strict=True))
    size = line * shape[1] * -(-shape[0] // atom)
    return {"format": kind, "line_stride": line, "surf_stride": line * shape[1], "size": size} | names, size


def sample(kind: EmuFormat, count: int, seed: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if kind is EmuFormat.FP16:
        return rng.normal(0, 4, count).astype(np.float16)
    return rng.integers(-128, 128, count).astype(np.int8)


def run_buffers(kind: EmuFormat, loadable: Loadable, values: NDArray[Any]) -> NDArray[Any]:
    given = values.view(np.uint8)
    room = np.zeros(loadable.memories[SOURCE].size, np.uint8)
    room[: len(given)] = given
    return run_bytes(loadable, room).view(FORMATS[kind][1])


@settings(max_examples=examples(100), deadline=None)
@given(
    kind=st.sampled_from(sorted(FORMATS)),
    channels=st.sampled_from([1, 8, 9, 40]),
    power=st.one_of(st.sampled_from([1.0, 2.0, 0.5, -1.0, 0.0]), st.floats(-4, 4, width=32)),
    scale=st.floats(-4, 4, width=32),
    shift=st.floats(-4, 4, width=32),
    into=scales,
    out_of=scales,
    seed=st.integers(0, 1 << 30),
)
def test_power_of_buffers(
    kind: EmuFormat, channels: int, power: float, scale: float, shift: float, into: float, out_of: float, seed: int
) -> None:
    """Every pixel of a cube by its strides; integers are scaled before and after."""
    atom, dtype = FORMATS[kind]
    fields, size = buffer(kind, (channels, 2, 3))
    operation = {"op_type": EmuOperation.POWER, "power": power, "scale": scale, "shift": shift}
    operation |= {"input_scale": into, "output_scale": out_of}
    loadable = cpu_loadable(operation, fields, fields, (rounded(size), rounded(size)))
    values = sample(kind, size // dtype.itemsize, seed)
    result = run_buffers(kind, loadable, values)
    for c, pixel in np.ndindex(channels, 6):
        place = c // atom * 6 * atom + pixel * atom + c % atom
        x = float(values[place])
        with np.errstate(all="ignore"):
            if kind is EmuFormat.FP16:
                expected: float = scalar.half(scalar.cpu_power(x, power, scale, shift))
            else:
                real = float(np.float32(x) * np.float32(into))
                y = np.float32(scalar.cpu_power(real, power, scale, shift)) / np.float32(out_of)
                expected = scalar.as_int8(float(y))
        np.testing.assert_equal(float(result[place]), expected)


@settings(max_examples=examples(100), deadline=None)
@given(
    kind=st.sampled_from(sorted(FORMATS)),
    channels=st.sampled_from([1, 2, 10, 40, 100]),
    into=scales,
    out_of=st.floats(2**-8, 1, width=32),
    seed=st.integers(0, 1 << 30),
)
def test_softmax_of_buffers(kind: EmuFormat, channels: int, into: float, out_of: float, seed: int) -> None:
    """Channels as they lie in memory, beyond one atom too; integers through halves."""
    dtype = FORMATS[kind][1]
    fields, _ = buffer(kind, (channels, 1, 1))
    size = rounded(channels * dtype.itemsize)
    operation = {"op_type": EmuOperation.SOFTMAX, "input_scale": into, "output_scale": out_of}
    loadable = cpu_loadable(operation, fields, fields, (size, size))
    values = sample(kind, channels, seed)
    result = run_buffers(kind, loadable, values)[:channels].astype(float).tolist()
    real = [float(value) for value in values]
    if kind is EmuFormat.FP16:
        expected = [scalar.half(p) for p in scalar.cpu_softmax(real)]
    else:
        halves = [scalar.half(float(np.float32(x) * np.float32(into))) for x in real]
        probabilities = [scalar.half(p) for p in scalar.cpu_softmax(halves)]
        expected = [float(scalar.as_int8(float(np.float32(p) / np.float32(out_of)))) for p in probabilities]
    assert result == expected


@pytest.mark.parametrize(
    ("operation", "result", "message"),
    [
        ({"op_type": 2}, {}, "op_type is 2"),
        ({"output_scale": 0.0}, {}, "output_scale is 0"),
        ({"power": np.inf}, {}, "power is inf"),
        ({}, {"format": EmuFormat.INT8_8}, "formats 0 and 1 differ"),
        ({}, {"format": EmuFormat.INT16}, "formats 0 and 2 differ"),
        ({}, {"height": 1}, r"\(8, 2, 3\) in, \(8, 1, 3\) out, expected the same"),
        ({}, {"surf_stride": 1 << 20, "channel": 64}, "dst: bytes 0 to"),
    ],
)
def test_refusals(operation: dict[str, object], result: dict[str, object], message: str) -> None:
    fields, size = buffer(EmuFormat.INT8, (8, 2, 3))
    good = {"op_type": EmuOperation.POWER, "power": 1.0, "scale": 1.0, "input_scale": 1.0, "output_scale": 1.0}
    decode(cpu_loadable(good, fields, fields, (size, size)))
    with pytest.raises((EmulationError, LoadableError), match=message):
        decode(cpu_loadable(good | operation, fields, fields | result, (size, size)))
