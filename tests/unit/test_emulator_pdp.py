"""Pooling against the scalar model, and the arithmetic notes' own example."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nvdla_quant.emulator.run import run
from nvdla_quant.hardware import NV_FULL, NV_SMALL
from nvdla_quant.loadable.structs import PoolMode
from tests import scalar_model as scalar
from tests.emulated import pool_program

MODES = {"average": PoolMode.AVERAGE, "max": PoolMode.MAX, "min": PoolMode.MIN}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    mode=st.sampled_from(sorted(MODES)),
    small=st.booleans(),
    channels=st.sampled_from([1, 8, 33]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pad=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    seed=st.integers(0, 1 << 30),
)
def test_pooling(
    mode: str, small: bool, channels: int, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int],
    pad: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    """Every window that touches the cube, of any size, stride and padding value."""
    pad = min(pad[0], kernel[0] - 1), min(pad[1], kernel[1] - 1)
    out = [1, 1]
    for axis in range(2):
        # Windows that start inside the cube.
        out[axis] = min((size[axis] + pad[axis] - 1) // stride[axis] + 1, 4)
    corners = {(y, x): (y * stride[0] - pad[0], x * stride[1] - pad[1]) for y, x in np.ndindex(*out)}
    assume(all(y + kernel[0] - size[0] <= 7 and x + kernel[1] - size[1] <= 7 for y, x in corners.values()))
    rng = np.random.default_rng(seed)
    padding = tuple(rng.integers(-100, 100, 7).tolist())
    target = NV_SMALL if small else NV_FULL
    program = pool_program((channels, *size), (out[0], out[1]), MODES[mode], kernel, stride, pad, padding, target)
    inputs = rng.integers(-128, 128, (2, channels, *size)).astype(np.int8)
    result = run(program, inputs)
    for n, c, y, x in np.ndindex(result.shape):
        rows = {place: int(inputs[n, c][place]) for place in np.ndindex(*size)}
        assert result[n, c, y, x] == scalar.pool(rows, corners[y, x], kernel, mode, padding)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "expected"), [(100, 100), (-100, -100), (1, 1), (127, 127)])
def test_average_of_nine_equal_values(value: int, expected: int) -> None:
    """3x3 of v: rnd(rnd(9v * 0x5555 / 65536) * 0x5555 / 65536); 900 -> 299.995 -> 300 -> 99.998 -> 100."""
    program = pool_program((1, 3, 3), (1, 1), PoolMode.AVERAGE, (3, 3), (1, 1), (0, 0), (0,) * 7)
    assert run(program, np.full((1, 1, 3, 3), value, np.int8))[0, 0, 0, 0] == expected


def test_average_rounds_twice() -> None:
    """2x2 of 1, 0, 0, 0: 1/2 -> 1 (away from zero), 1/2 -> 1; one rounding would give 0."""
    program = pool_program((1, 2, 2), (1, 1), PoolMode.AVERAGE, (2, 2), (1, 1), (0, 0), (0,) * 7)
    assert run(program, np.array([[[[1, 0], [0, 0]]]], np.int8))[0, 0, 0, 0] == 1
    assert run(program, np.array([[[[-1, 0], [0, 0]]]], np.int8))[0, 0, 0, 0] == -1
