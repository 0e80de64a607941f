"""Which bytes cubes share: held to the bytes themselves."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.emulator.operations import Cube


@st.composite
def windows(draw: st.DrawFn) -> tuple[Cube, Cube]:
    """Two cubes of the same strides, as windows of one tensor have."""
    line = draw(st.integers(2, 6))
    surface = line * draw(st.integers(1, 4)) + draw(st.integers(0, 4))

    def cube() -> Cube:
        rows, columns = draw(st.integers(1, surface // line)), draw(st.integers(1, line // 2))
        return Cube(1, draw(st.integers(0, 60)), draw(st.integers(1, 6)), rows, columns, 2, 1, line, surface)

    return cube(), cube()


def bytes_of(cube: Cube) -> set[int]:
    return {
        cube.offset + surface * cube.surface_stride + row * cube.line_stride + byte
        for surface in range(cube.surfaces)
        for row in range(cube.height)
        for byte in range(cube.width * cube.atom * cube.element_bytes)
    }


@given(windows(), st.integers(1, 3))
def test_cubes_that_share_a_byte_overlap(pair: tuple[Cube, Cube], times: int) -> None:
    """Of rows further apart too: never is an overlap missed."""
    one, other = pair[0], replace(pair[1], line_stride=pair[1].line_stride * times)
    if bytes_of(one) & bytes_of(other):
        assert one.overlaps(other)
        assert other.overlaps(one)


def test_columns_of_other_rows_of_a_tensor_do_not_overlap() -> None:
    """Two surfaces of 8 rows of 4 pixels: rows 0 and 1, and every second pixel of rows 6 and 7."""
    rows = Cube(1, 0, 16, 2, 4, 8, 1, 32, 256)
    columns = Cube(1, 6 * 32, 16, 4, 1, 8, 1, 16, 256)
    assert not rows.overlaps(columns)
    assert replace(rows, height=7).overlaps(columns)


@given(windows())
def test_windows_of_one_tensor_overlap_where_they_share_a_byte(pair: tuple[Cube, Cube]) -> None:
    one, other = pair
    assert one.overlaps(other) == other.overlaps(one) == bool(bytes_of(one) & bytes_of(other))
