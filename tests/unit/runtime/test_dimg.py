"""Raw dumps as nvdla_runtime writes them.

The printed forms were taken from NVIDIA's own header: a program that includes nvdla/sw ``umd/external/include/half.h``
and streams all 65536 halves through the branch of ``DlaImage.cpp`` prints ``%g`` for each, but 31744 for every NaN and
0 for 0x7800 (32768).
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nvdla_quant.errors import DumpError
from nvdla_quant.runtime.dimg import as_dumped, read_dimg, write_dimg_binary, write_dimg_text

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=20)
DUMPS = st.one_of(hnp.arrays(np.int8, SHAPES), hnp.arrays(np.int16, SHAPES), hnp.arrays(np.float16, SHAPES))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dimg") / "output.dimg"


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    return values.view(f"u{values.itemsize}")


@given(DUMPS)
def test_text_round_trip(path: Path, values: NDArray[Any]) -> None:
    write_dimg_text(path, values)
    content = path.read_bytes()
    assert content.endswith(b" ")
    assert content.count(b" ") == values.size
    back = read_dimg(path, shape=values.shape, dtype=values.dtype)
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(_bits(back), _bits(as_dumped(values)))


@given(DUMPS, st.sampled_from([8, 32]))
def test_binary_round_trip(path: Path, values: NDArray[Any], atom_bytes: int) -> None:
    write_dimg_binary(path, values, atom_bytes=atom_bytes)
    for back in (read_dimg(path), read_dimg(path, shape=values.shape, dtype=values.dtype)):
        assert back.dtype == values.dtype
        assert back.shape == values.shape
        np.testing.assert_array_equal(_bits(back), _bits(as_dumped(values)))


def test_every_half_survives_the_text(path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(64, 32, 32)
    write_dimg_text(path, values)
    np.testing.assert_array_equal(
        _bits(read_dimg(path, shape=(64, 32, 32), dtype=np.float16)), _bits(as_dumped(values))
    )
    changed = np.flatnonzero(_bits(as_dumped(values)) != _bits(values))
    assert len(changed) == 2 * 1023 + 1  # every NaN, and 32768


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[[1, -2], [3, -128]], [[127, 0], [5, 6]]], np.int8), b"1 -2 3 -128 127 0 5 6 "),
        (
            np.array([-0.0, np.inf, -np.inf, np.nan, 32768, -32768, 2**-24, 0.1, 65504, 1e5 / 3], np.float16),
            b"-0 inf -inf 31744 0 -32768 5.96046e-08 0.0999756 65504 33344 ",
        ),
    ],
)
def test_text_is_what_the_runtime_prints(path: Path, values: NDArray[Any], expected: bytes) -> None:
    write_dimg_text(path, values.reshape(values.shape if values.ndim == 3 else (-1, 1, 1)))
    assert path.read_bytes() == expected


@pytest.mark.parametrize(
    ("dtype", "atom_bytes", "words"),
    [
        # Strides and size as in NVIDIA's tensor descriptors for a ten-class output (line = surface = atom bytes).
        (np.int8, 32, (40, 1, 1, 10, 32, 32, 32)),
        (np.int8, 8, (41, 1, 1, 10, 8, 8, 16)),
        (np.float16, 32, (43, 1, 1, 10, 32, 32, 32)),
        (np.float16, 8, (43, 1, 1, 10, 32, 32, 32)),
    ],
)
def test_binary_layout(path: Path, dtype: type, atom_bytes: int, words: tuple[int, ...]) -> None:
    values = np.arange(10, dtype=dtype).reshape(10, 1, 1)
    write_dimg_binary(path, values, atom_bytes=atom_bytes)
    assert path.read_bytes() == b"DIMG" + struct.pack("<I7I", 0, *words) + values.tobytes()


def test_reader_ignores_the_strides_of_the_device(path: Path) -> None:
    path.write_bytes(b"DIMG" + struct.pack("<8I", 0, 40, 2, 1, 1, 4096, 8192, 999) + bytes([255, 1]))
    np.testing.assert_array_equal(read_dimg(path), np.array([[[-1, 1]]], np.int8))


def test_text_of_unknown_type_and_shape_is_a_vector_as_written(path: Path) -> None:
    path.write_bytes(b"0 0.000930309 -3 ")
    np.testing.assert_array_equal(read_dimg(path), [0, 0.000930309, -3])


def test_line_ends_of_a_console_are_accepted(path: Path) -> None:
    path.write_bytes(b"1 2 \r\n3 4\r\n")
    np.testing.assert_array_equal(read_dimg(path, shape=(4, 1, 1), dtype=np.int8).ravel(), [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("content", "dtype", "message"),
    [
        (b"", "i1", "empty"),
        (b" \n", "i1", "empty"),
        (b"1 2 3 ", "i1", "3 values, expected 4"),
        (b"1 2 3 4 5 ", "i1", "5 values, expected 4"),
        (b"1 2 3 12", "i1", "truncated"),
        (b"1 2 x 4 ", "i1", "value 2 .*b'x'"),
        (b"1 2 3.5 4 ", "i1", "value 2 .*integer"),
        (b"1 2 128 4 ", "i1", "value 2 .*128, outside of int8"),
        (b"1 2 -129 4 ", "i1", "outside of int8"),
        (b"1 2 999999999999 4 ", "i1", "value 2"),
        (b"1 nan 3 4 ", "f2", "value 1 .*number"),
        (b"1 0x7c00 3 4 ", "f2", "value 1"),
        (b"1 1_0 3 4 ", "f2", "value 1"),
        (b"1 65520 3 4 ", "f2", "outside of float16"),
        (b"1 2 3 4 ", "f4", "int8, int16 or float16, not float32"),
        (b"\xff\xfe\x00", "i1", "value 0"),
        (b"DIM", "i1", "value 0"),
        (b"DIMG", "i1", "truncated.* 4 bytes"),
        (b"DIMG" + struct.pack("<8I", 1, 40, 1, 1, 4, 32, 32, 32) + bytes(4), "i1", "version 1"),
        (b"DIMG" + struct.pack("<8I", 0, 13, 1, 1, 4, 32, 32, 32) + bytes(4), "i1", "surface format 13"),
        (b"DIMG" + struct.pack("<8I", 0, 43, 1, 1, 4, 32, 32, 32) + bytes(8), "i1", "holds float16, expected int8"),
        (b"DIMG" + struct.pack("<8I", 0, 40, 2, 1, 2, 32, 32, 32) + bytes(4), "i1", r"shape \(2, 1, 2\)"),
        (b"DIMG" + struct.pack("<8I", 0, 40, 1, 1, 4, 32, 32, 32) + bytes(3), "i1", "truncated.* 3 bytes"),
        (b"DIMG" + struct.pack("<8I", 0, 40, 1, 1, 4, 32, 32, 32) + bytes(5), "i1", "extra"),
    ],
)
def test_malformed_dumps_are_refused(path: Path, content: bytes, dtype: str, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DumpError, match=message):
        read_dimg(path, shape=(4, 1, 1), dtype=dtype)


def test_a_header_of_huge_sizes_allocates_nothing(path: Path) -> None:
    path.write_bytes(b"DIMG" + struct.pack("<8I", 0, 40, 2**32 - 1, 2**32 - 1, 2**32 - 1, 0, 0, 0))
    with pytest.raises(DumpError, match="truncated"):
        read_dimg(path)


def test_an_empty_shape_is_refused(path: Path) -> None:
    path.write_bytes(b"DIMG" + struct.pack("<8I", 0, 40, 0, 1, 1, 0, 0, 0))
    with pytest.raises(DumpError, match="empty shape"):
        read_dimg(path)


def test_a_missing_dump_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match=r"output\.dimg: cannot read .*log"):
        read_dimg(tmp_path / "output.dimg")


@given(st.binary(max_size=200), st.sampled_from([None, "i1", "i2", "f2"]))
def test_any_bytes_parse_or_raise_dump_error(path: Path, content: bytes, dtype: str | None) -> None:
    for prefix in (b"", b"DIMG", b"DIMG" + struct.pack("<2I", 0, 40)):
        path.write_bytes(prefix + content)
        try:
            values = read_dimg(path, dtype=dtype)
        except DumpError:
            continue
        assert values.size > 0


@pytest.mark.parametrize(
    "values", [np.zeros((2, 1, 1), np.float32), np.zeros(10, np.int8), np.zeros((0, 1, 1), np.int8)]
)
def test_writers_refuse_what_the_runtime_cannot_write(path: Path, values: NDArray[Any]) -> None:
    for write in (write_dimg_text, write_dimg_binary):
        with pytest.raises(DumpError):
            write(path, values)


def test_unknown_atom_is_refused(path: Path) -> None:
    with pytest.raises(DumpError, match="atoms of 16 bytes"):
        write_dimg_binary(path, np.zeros((1, 1, 1), np.int8), atom_bytes=16)


def test_an_editor_may_have_removed_the_last_blank(tmp_path: Path) -> None:
    """As in ONNC's published test_Shuffle.output.dimg."""
    path = tmp_path / "output.dimg"
    path.write_text("1 -2 3")
    assert read_dimg(path, edited=True).tolist() == [1, -2, 3]
    with pytest.raises(DumpError, match="truncated"):
        read_dimg(path)
