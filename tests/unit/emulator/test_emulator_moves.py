"""Rubik and BDMA against copies of single bytes, address by address, as the C-model computes them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Limits, decode
from nvdla_quant.emulator.operations import Cube
from nvdla_quant.errors import EmulationError, LoadableError
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.structs import Engine
from tests.emulated import packed_cube
from tests.loadables import RESULT, SOURCE, Descriptor, cube_fields, loadable_of, rounded, run_bytes
from tests.profiles import examples
from tests.unit_loadables import copies

Bytes = NDArray[np.uint8]
PRECISIONS = {0: 1, 1: 2, 2: 2}
"""Bytes of an element by the descriptor's precision: int8, int16, fp16."""
CONTRACT, SPLIT, MERGE = range(3)
gaps = st.integers(0, 2)
sides = st.integers(1, 5)


def spaced(cube: Cube, line_gap: int, surface_gap: int, offset: int) -> Cube:
    """Return `cube` with so many units of 32 bytes behind each line and surface, and before it."""
    line = rounded(cube.width * cube.atom * cube.element_bytes) + 32 * line_gap
    surface = line * cube.height + 32 * surface_gap
    return replace(cube, line_stride=line, surface_stride=surface, offset=32 * offset)


def rubik(mode: int, precision: int, source: Cube, result: Cube, stride: tuple[int, int] = (1, 1)) -> Loadable:
    operation = {"mode": mode, "precision": precision, "stride_y": stride[0], "stride_x": stride[1]}
    surface = cube_fields("src_data", source) | cube_fields("dst_data", result)
    # A row of a plane may be filled up behind its end.
    sizes = (rounded(cube.end) + 32 for cube in (source, result))
    return loadable_of([Descriptor(Engine.RUBIK, operation, surface)], *sizes)


def random_bytes(loadable: Loadable, seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, loadable.memories[SOURCE].size).astype(np.uint8)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    precision=st.sampled_from(sorted(PRECISIONS)),
    channels=st.sampled_from([1, 16, 31, 32, 40]),
    size=st.tuples(sides, sides),
    stride=st.tuples(st.integers(1, 10), st.integers(1, 10)),
    exact=st.booleans(),
    places=st.tuples(gaps, gaps, gaps, gaps, gaps, gaps),
    seed=st.integers(0, 1 << 30),
)
def test_contract(
    precision: int, channels: int, size: tuple[int, int], stride: tuple[int, int], exact: bool, places: tuple[int, ...],
    seed: int,
) -> None:  # fmt: skip
    """Atom by atom: surface (y * stride_x + x) * surfaces + s at (v, u) goes to surface s at (v*stride_y+y, ...)."""
    element = PRECISIONS[precision]
    atom = 32 // element
    surfaces = -(-channels // atom)
    groups = stride[0] * stride[1]
    given_channels = groups * (channels if exact else surfaces * atom)
    source = spaced(packed_cube(SOURCE, (given_channels, *size), atom, element), *places[:3])
    shape = channels, size[0] * stride[0], size[1] * stride[1]
    result = spaced(packed_cube(RESULT, shape, atom, element), *places[3:])
    # Whole surfaces are read even where the descriptor counts fewer channels.
    whole = replace(source, channels=groups * surfaces * atom)
    operation = {"mode": CONTRACT, "precision": precision, "stride_y": stride[0], "stride_x": stride[1]}
    surface = cube_fields("src_data", source) | cube_fields("dst_data", result)
    loadable = loadable_of([Descriptor(Engine.RUBIK, operation, surface)], rounded(whole.end), rounded(result.end))
    data = random_bytes(loadable, seed)
    expected = np.zeros(loadable.memories[RESULT].size, np.uint8)
    for s, v, y, x, u in np.ndindex(surfaces, size[0], *stride, size[1]):
        group = (y * stride[1] + x) * surfaces + s
        here = source.offset + group * source.surface_stride + v * source.line_stride + 32 * u
        there = result.offset + s * result.surface_stride + (v * stride[0] + y) * result.line_stride
        there += 32 * (u * stride[1] + x)
        expected[there : there + 32] = data[here : here + 32]
    np.testing.assert_array_equal(run_bytes(loadable, data), expected)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    precision=st.sampled_from(sorted(PRECISIONS)),
    channels=st.sampled_from([1, 16, 31, 40]),
    size=st.tuples(sides, st.sampled_from([1, 15, 16, 33])),
    places=st.tuples(gaps, gaps, gaps, gaps, gaps, gaps),
    seed=st.integers(0, 1 << 30),
)
def test_split_and_merge(
    precision: int, channels: int, size: tuple[int, int], places: tuple[int, ...], seed: int
) -> None:
    """Element by element; rows of planes end in zeros up to 32 bytes, unused channels of cubes are 0."""
    element = PRECISIONS[precision]
    atom = 32 // element
    height, width = size
    cube = spaced(packed_cube(SOURCE, (channels, *size), atom, element), *places[:3])
    planes = spaced(packed_cube(RESULT, (channels, *size), 1, element), *places[3:])

    def element_of(c: int, y: int, x: int) -> int:
        place = cube.offset + c // atom * cube.surface_stride + y * cube.line_stride
        return place + 32 * x + c % atom * element

    def element_of_plane(c: int, y: int, x: int) -> int:
        return planes.offset + c * planes.surface_stride + y * planes.line_stride + x * element

    split = rubik(SPLIT, precision, cube, planes)
    data = random_bytes(split, seed)
    expected = np.zeros(split.memories[RESULT].size, np.uint8)
    for c, y, x in np.ndindex(channels, height, width):
        here, there = element_of(c, y, x), element_of_plane(c, y, x)
        expected[there : there + element] = data[here : here + element]
    np.testing.assert_array_equal(run_bytes(split, data), expected)

    merge = rubik(MERGE, precision, replace(planes, memory=SOURCE), replace(cube, memory=RESULT))
    data = random_bytes(merge, seed + 1)
    expected = np.zeros(merge.memories[RESULT].size, np.uint8)
    for c, y, x in np.ndindex(channels, height, width):
        here, there = element_of_plane(c, y, x), element_of(c, y, x)
        expected[there : there + element] = data[here : here + element]
    np.testing.assert_array_equal(run_bytes(merge, data), expected)


def test_split_zeroes_what_is_behind_a_row() -> None:
    """An SDP-like neighbour that stands within the last 32 bytes of a row is lost: the unit writes whole units."""
    planes = replace(packed_cube(RESULT, (2, 1, 4), 1), line_stride=32, surface_stride=32)
    copy: dict[str, object] = {
        "source_address": SOURCE, "destination_address": RESULT, "line_size": 64, "line_repeat": 1, "source_line": 64,
        "destination_line": 64, "surface_repeat": 1, "source_surface": 64, "destination_surface": 64,
    }  # fmt: skip
    surface = cube_fields("src_data", packed_cube(SOURCE, (2, 1, 4), 32)) | cube_fields("dst_data", planes)
    first = Descriptor(Engine.BDMA, {}, copies(copy), consumers=((1, 1),))
    second = Descriptor(Engine.RUBIK, {"mode": SPLIT, "precision": 0}, surface)
    written = run_bytes(loadable_of([first, second], 128, 64), np.arange(128, dtype=np.uint8))
    assert written.tolist() == [0, 32, 64, 96, *[0] * 28, 1, 33, 65, 97, *[0] * 28]


def test_rubik_refusals() -> None:
    cube, result = packed_cube(SOURCE, (64, 2, 2), 32), packed_cube(RESULT, (16, 4, 4), 32)
    good = {"mode": CONTRACT, "precision": 0, "stride_y": 2, "stride_x": 2}
    surface = cube_fields("src_data", cube) | cube_fields("dst_data", result)

    def refused(message: str, operation: dict[str, object], more: dict[str, object]) -> None:
        descriptor = Descriptor(Engine.RUBIK, good | operation, surface | more)
        with pytest.raises((EmulationError, LoadableError), match=message):
            decode(loadable_of([descriptor], 16384, 16384), NV_FULL)

    decode(loadable_of([Descriptor(Engine.RUBIK, good, surface)], 4096, 4096), NV_FULL)
    refused("mode is 3", {"mode": 3}, {})
    refused("precision is 3", {"precision": 3}, {})
    refused(r"stride is \(2, 0\)", {"stride_x": 0}, {})
    refused(r"stride is \(33, 2\)", {"stride_y": 33}, {})
    refused("src channel is 65", {}, {"src_data.channel": 65})
    refused("dst shape", {}, {"dst_data.height": 5})
    refused("src_data type is 2", {}, {"src_data.type": 2})
    refused("surface_stride is 100", {}, {"src_data.surf_stride": 100})
    refused("bytes 0 to 24", {}, {"src_data.surf_stride": 24576})
    refused("dst shape", {"mode": MERGE}, {})
    refused("plane_stride is 0", {"mode": MERGE}, {"src_data.plane_stride": 0})
    for target in (NV_LARGE, NV_SMALL):
        with pytest.raises(EmulationError, match=f"{target.name} has no Rubik unit"):
            decode(loadable_of([Descriptor(Engine.RUBIK, good, surface)], 4096, 4096), target)


@st.composite
def drawn_copies(draw: st.DrawFn) -> dict[str, int]:
    size, lines, surfaces = 32 * draw(st.integers(1, 3)), draw(sides), draw(sides)
    copy = {"line_size": size, "line_repeat": lines, "surface_repeat": surfaces}
    for side in ("source", "destination"):
        line = size + 32 * draw(gaps)
        copy |= {f"{side}_line": line, f"{side}_surface": line * lines + 32 * draw(gaps)}
    return copy


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(work=st.lists(drawn_copies(), min_size=1, max_size=20), seed=st.integers(0, 1 << 30))
def test_bdma(work: list[dict[str, int]], seed: int) -> None:
    """Lines and surfaces of any stride; later copies overwrite what earlier ones wrote."""
    size = max(copy[f"{side}_surface"] * copy["surface_repeat"] for copy in work for side in ("source", "destination"))
    named = [{"source_address": SOURCE, "destination_address": RESULT} | copy for copy in work]
    loadable = loadable_of([Descriptor(Engine.BDMA, {}, copies(*named))], size, size)
    data = random_bytes(loadable, seed)
    expected = np.zeros(size, np.uint8)
    for copy in work:
        for surface, line in np.ndindex(copy["surface_repeat"], copy["line_repeat"]):
            here = surface * copy["source_surface"] + line * copy["source_line"]
            there = surface * copy["destination_surface"] + line * copy["destination_line"]
            expected[there : there + copy["line_size"]] = data[here : here + copy["line_size"]]
    np.testing.assert_array_equal(run_bytes(loadable, data), expected)


COPY: dict[str, object] = {
    "source_address": SOURCE, "destination_address": RESULT, "line_size": 32, "line_repeat": 2, "source_line": 32,
    "destination_line": 32, "surface_repeat": 1, "source_surface": 64, "destination_surface": 64,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"line_size": 0}, "line_size is 0"),
        ({"line_size": 33}, "line_size is 33"),
        ({"line_repeat": 0}, "line_repeat is 0"),
        ({"line_repeat": 8193}, "line_repeat is 8193, expected 1 to 8192"),
        ({"surface_repeat": 8193}, "surface_repeat is 8193"),
        ({"surface_repeat": 8192}, "source: bytes 0 to"),
        ({"source_line": 16}, "source_line is 16, expected 32 or more"),
        ({"destination_surface": 32}, "destination_surface is 32, expected 64 or more"),
        ({"source_line": 48, "source_surface": 96}, "line_stride is 48, expected a multiple of 32"),
        ({"destination_address": 9}, "address index 9"),
    ],
)
def test_bdma_refusals(change: dict[str, object], message: str) -> None:
    loadable = loadable_of([Descriptor(Engine.BDMA, {}, copies(COPY, COPY | change))], 4096, 4096)
    with pytest.raises((EmulationError, LoadableError), match=message):
        decode(loadable, NV_FULL)


def test_bdma_counts_and_targets() -> None:
    """No transfers is no operation; more than 20 are refused, and so is the unit where a target has none."""
    copy = Descriptor(Engine.BDMA, {}, copies(COPY), consumers=())
    nothing = Descriptor(Engine.BDMA, {}, {"num_transfers": 0}, consumers=())
    assert len(decode(loadable_of([nothing, copy], 64, 64), NV_FULL).operations) == 1
    with pytest.raises(EmulationError, match="num_transfers is 21, expected at most 20"):
        decode(loadable_of([Descriptor(Engine.BDMA, {}, {"num_transfers": 21})], 64, 64), NV_FULL)
    with pytest.raises(EmulationError, match="source_type is 2"):
        decode(loadable_of([Descriptor(Engine.BDMA, {}, copies(COPY) | {"source_type": 2})], 64, 64), NV_FULL)
    for target in (NV_LARGE, NV_SMALL):
        with pytest.raises(EmulationError, match=f"{target.name} has no BDMA unit"):
            decode(loadable_of([copy], 64, 64), target)


def test_copies_count_as_work() -> None:
    """20 copies of 64 bytes read and write 2560, which count as 32 each: a lower limit refuses them at once."""
    loadable = loadable_of([Descriptor(Engine.BDMA, {}, copies(*[COPY] * 20))], 64, 64)
    decode(loadable, NV_FULL, Limits(macs=2560 * 32))
    with pytest.raises(EmulationError, match=r"time of 81920 .* the limit is 81919; raise --max-macs"):
        decode(loadable, NV_FULL, Limits(macs=2560 * 32 - 1))
