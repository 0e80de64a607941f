"""The CPU's operations: rounding to half, softmax, power."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.emulator.cpu import run_cpu, saturate_int8, softmax, to_half
from nvdla_quant.emulator.operations import CpuOperation
from nvdla_quant.loadable.structs import EmuOperation
from tests.emulated import packed_cube


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
