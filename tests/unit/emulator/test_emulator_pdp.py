"""Pooling against the scalar model, and an average of nine, step by step."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nvdla_quant.emulator.decode.program import Limits, decode
from nvdla_quant.emulator.run import run
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL
from nvdla_quant.loadable.describe import describe
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.structs import Engine, PoolMode
from tests import scalar_model as scalar
from tests.emulated import packed_cube, pool_program
from tests.loadables import RESULT, SOURCE, Fields, cube_fields, run_bytes
from tests.profiles import examples
from tests.unit_loadables import copied_then_pooled, single

MODES = {"average": PoolMode.AVERAGE, "max": PoolMode.MAX, "min": PoolMode.MIN}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


@dataclass(frozen=True)
class Pooling:
    """A pooling as a descriptor has it; `parts` are the widths (of the input, of the output) of its parts."""

    mode: str
    channels: int
    size: tuple[int, int]
    out: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int, int, int]
    padding: tuple[int, ...]
    parts: tuple[tuple[int, int], ...]
    bits: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int8 if self.bits == 8 else np.int16)

    def fields(self) -> dict[str, object]:
        names = ("pad_top", "pad_bottom", "pad_left", "pad_right")
        fields: dict[str, object] = {
            "pool_mode": MODES[self.mode], "pool_height": self.kernel[0] - 1, "pool_width": self.kernel[1] - 1,
            "stride_y": self.stride[0], "stride_x": self.stride[1], "precision": int(self.bits == 16),
            "padding_value": self.padding, "split_num": max(len(self.parts), 1),
        }  # fmt: skip
        fields |= dict(zip(names, self.pad, strict=True))
        if self.parts:
            for name, (width_in, width_out) in (("first", self.parts[0]), ("last", self.parts[-1])):
                fields |= {f"partial_in_width_{name}": width_in, f"partial_width_{name}": width_out}
        if len(self.parts) > 2:
            fields |= {"partial_in_width_mid": self.parts[1][0], "partial_width_mid": self.parts[1][1]}
        return fields

    def check(self, given: np.ndarray[Any, Any], result: np.ndarray[Any, Any]) -> None:
        """Compare ``(c, h, w)`` with the scalar model, which knows of no parts."""
        for c, y, x in np.ndindex(self.channels, *self.out):
            rows = {place: int(given[c][place]) for place in np.ndindex(*self.size)}
            corner = y * self.stride[0] - self.pad[0], x * self.stride[1] - self.pad[2]
            mode: Any = self.mode
            assert result[c, y, x] == scalar.pool(rows, corner, self.kernel, mode, self.padding, self.bits)


@st.composite
def poolings(draw: st.DrawFn, with_parts: bool, widths: tuple[int, ...] = (8, 16)) -> Pooling:
    """A pooling whose windows cover the padded source but for less than a stride; parts as a compiler plans them."""
    bits = draw(st.sampled_from(widths))
    kernel, stride, out, pads = [], [], [], []
    size = []
    for axis in range(2):
        k, s = draw(st.integers(1, 8)), draw(st.sampled_from([1, 2, 3, 8]))
        before, after = draw(st.integers(0, min(k - 1, 7))), draw(st.integers(0, min(k - 1, 7)))
        count = draw(st.integers(3, 7) if with_parts and axis else st.integers(1, 3))
        length = (count - 1) * s + k - before - after + draw(st.integers(0, s - 1))
        assume(length >= 1)
        kernel.append(k), stride.append(s), out.append(count), pads.extend((before, after)), size.append(length)
    parts: list[tuple[int, int]] = []
    if with_parts:
        first, middle, number = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(2, 4))
        outputs = [first, *[middle] * (number - 2)]
        outputs.append(out[1] - sum(outputs))
        # Only windows of the first part may reach into the padding on the left.
        assume(outputs[-1] >= 1 and first * stride[1] >= pads[2])
        # The first part ends with its last window, each other takes a stride for each of its windows.
        inputs = [(first - 1) * stride[1] + kernel[1] - pads[2], *[middle * stride[1]] * (number - 2)]
        inputs.append(size[1] - sum(inputs))
        assume(min(inputs) >= 1)
        parts = list(zip(inputs, outputs, strict=True))
    limit = 100 if bits == 8 else 30000
    return Pooling(
        draw(st.sampled_from(sorted(MODES))), draw(st.sampled_from([1, 9])), (size[0], size[1]), (out[0], out[1]),
        (kernel[0], kernel[1]), (stride[0], stride[1]), (pads[0], pads[1], pads[2], pads[3]),
        tuple(draw(st.integers(-limit, limit)) for _ in range(7)), tuple(parts), bits,
    )  # fmt: skip


def unpack(data: np.ndarray[Any, Any], pooling: Pooling, size: tuple[int, int], atom: int) -> np.ndarray[Any, Any]:
    """Return ``(c, h, w)`` of a packed cube."""
    surfaces = -(-pooling.channels // atom)
    atoms = data.view(pooling.dtype)[: surfaces * size[0] * size[1] * atom].reshape(surfaces, *size, atom)
    return atoms.transpose(0, 3, 1, 2).reshape(-1, *size)[: pooling.channels]


def only_pooling(pooling: Pooling, small: bool, change: Fields | None = None) -> Loadable:
    atom = (8 if small else 32) // pooling.dtype.itemsize
    source = packed_cube(SOURCE, (pooling.channels, *pooling.size), atom, pooling.dtype.itemsize)
    result = packed_cube(RESULT, (pooling.channels, *pooling.out), atom, pooling.dtype.itemsize)
    return single(Engine.PDP, pooling.fields() | (change or {}), source, result)


def run_pooling(pooling: Pooling, loadable: Loadable, small: bool, seed: int) -> None:
    atom = (8 if small else 32) // pooling.dtype.itemsize
    data = np.random.default_rng(seed).integers(0, 256, loadable.memories[SOURCE].size).astype(np.uint8)
    written = run_bytes(loadable, data, NV_SMALL if small else NV_FULL)
    pooling.check(unpack(data, pooling, pooling.size, atom), unpack(written, pooling, pooling.out, atom))


@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(pooling=poolings(with_parts=False), small=st.booleans(), seed=st.integers(0, 1 << 30))
def test_descriptors(pooling: Pooling, small: bool, seed: int) -> None:
    """int8 and int16 of any window, stride, padding and padding value, from descriptors."""
    small = small and pooling.bits == 8
    run_pooling(pooling, only_pooling(pooling, small), small, seed)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(pooling=poolings(with_parts=True), small=st.booleans(), seed=st.integers(0, 1 << 30))
def test_parts_give_what_the_whole_gives(pooling: Pooling, small: bool, seed: int) -> None:
    """Parts share columns or leave some out, as windows overlap or stand apart."""
    small = small and pooling.bits == 8
    loadable = only_pooling(pooling, small)
    (operation,) = decode(loadable, NV_SMALL if small else NV_FULL).operations
    assert len(operation.parts) == len(pooling.parts)  # type: ignore[union-attr]
    run_pooling(pooling, loadable, small, seed)


HALVES = Pooling("max", 8, (4, 8), (2, 4), (2, 2), (2, 2), (0, 0, 0, 0), (0,) * 7, ((4, 2), (4, 2)), 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split_num": 0}, "split_num is 0, expected 1 to 64"),
        ({"split_num": 65}, "split_num is 65, expected 1 to 64"),
        ({"partial_width_last": 3}, r"partial widths of the output is \[2, 3\], expected a sum of 4"),
        ({"partial_in_width_last": 5}, r"columns of part 1 is \(4, 9\), expected 0 to 8"),
        ({"partial_in_width_first": 5}, r"columns of part 1 is \(5, 9\), expected 0 to 8"),
        ({"partial_in_width_first": 2}, "outputs of part 0 is 2, expected 1; it would hang"),
        ({"partial_in_width_first": 1025}, "a partial width is 1025"),
        ({"pool_width": 8}, "pool window"),
        ({"stride_x": 9}, "stride is"),
        ({"precision": 3}, "precision is 3"),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    decode(only_pooling(HALVES, small=False), NV_FULL)
    with pytest.raises(EmulationError, match=message):
        decode(only_pooling(HALVES, small=False, change=change), NV_FULL)


def on_the_fly(pooling: Pooling, fields: Fields | None = None, **changes: Any) -> Loadable:
    source = packed_cube(SOURCE, (pooling.channels, *pooling.size), 32)
    result = packed_cube(RESULT, (pooling.channels, *pooling.out), 32)
    return copied_then_pooled(source, result, pooling.fields() | (fields or {}), **changes)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(pooling=poolings(with_parts=False, widths=(8,)), seed=st.integers(0, 1 << 30))
def test_on_the_fly(pooling: Pooling, seed: int) -> None:
    """Pooling what an SDP operation hands over is pooling what it would have written; nothing races."""
    loadable = on_the_fly(pooling)
    program = decode(loadable, NV_FULL)
    assert program.warnings == ()
    assert [operation.unit for operation in program.operations] == ["SDP", "PDP"]
    run_pooling(pooling, loadable, False, seed)


def test_what_is_handed_over_needs_both_sides() -> None:
    pooling = replace(HALVES, parts=())

    def refused(message: str, fields: Fields | None = None, **changes: Any) -> None:
        with pytest.raises(EmulationError, match=message):
            decode(on_the_fly(pooling, fields, **changes), NV_FULL)

    refused("operation 1 .*on-the-fly source, but operation -1 is no SDP operation", waits=False)
    nobody = {"src_data.type": 0, "src_data.address": SOURCE, "src_data.surf_stride": 1024, "src_data.line_stride": 256}
    refused("operation 0 .*on-the-fly destination, but no pooling takes it", second_surface=nobody)
    memory = cube_fields("dst_data", packed_cube(RESULT, (8, *pooling.size), 32)) | {"dst_data.type": 0}
    refused("operation 1 .*on-the-fly source, but operation 0 is no", first_surface=memory)
    refused("split_num is 2, expected 1 on the fly", {"split_num": 2})
    refused("src shape is .*, expected what operation 0 hands over", second_surface={"src_data.width": 7})
    refused("precision is int16, expected that of operation 0, int8", {"precision": 1})
    refused("dst_data type is 2", second_surface={"dst_data.type": 2})


def test_what_is_handed_over_counts_as_memory() -> None:
    """The emulator keeps the 4x8 pixels of 32 bytes between the two units."""
    loadable = on_the_fly(replace(HALVES, parts=()))
    declared = sum(memory.size for memory in loadable.memories)
    decode(loadable, NV_FULL, Limits(memory=declared + 4 * 8 * 32))
    with pytest.raises(EmulationError, match=f"{declared + 4 * 8 * 32} bytes of memory"):
        decode(loadable, NV_FULL, Limits(memory=declared + 4 * 8 * 32 - 1))


def test_description_says_where_a_pooling_reads() -> None:
    chains = [operation["chain"] for operation in describe(on_the_fly(replace(HALVES, parts=())))["operations"]]
    assert chains[1] == ["max pooling 2x2, stride 2x2, on the fly"]
    (only,) = describe(only_pooling(HALVES, small=False))["operations"]
    assert only["chain"] == ["max pooling 2x2, stride 2x2, in 2 parts"]
