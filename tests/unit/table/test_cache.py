"""Calibration caches: the two example lines are public, the golden ones are TensorRT 8.5.3.1's own."""

import contextlib
import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nvdla_quant.errors import CacheError
from nvdla_quant.table.cache import CalibrationCache, format_cache, our_header, parse_cache, read_cache, write_cache

CACHE = b"""TRT-8503-EntropyCalibration2
data: 3c010a14
(Unnamed Layer* 4) [Fully Connected]_output: 3da311b2
prob: 3c010a0a
"""

NAMES = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text.strip() and not text.endswith("\r")
)
SCALES = st.floats(width=32, min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)


def test_reads_what_tensorrt_wrote() -> None:
    cache = parse_cache(CACHE)
    assert cache.header == "TRT-8503-EntropyCalibration2"
    assert list(cache.scales) == ["data", "(Unnamed Layer* 4) [Fully Connected]_output", "prob"]
    # Inputs of 0 to 1: the best threshold is that of all 2048 bins, 2048.5 / 2048.
    assert cache.scales["data"] == np.float32(2048.5 / 2048 / 127)
    assert format_cache(cache).encode() == CACHE


def test_short_digits_are_padded_on_the_left() -> None:
    assert parse_cache(b"any header\nx: 123456\n").scales["x"] == struct.unpack(">f", bytes.fromhex("00123456"))[0]


def test_splits_at_the_last_colon() -> None:
    assert parse_cache(b"h\nblock: conv: 3f800000\n").entries == (("block: conv", 1.0),)


def test_accepts_windows_line_ends_and_a_missing_last_one() -> None:
    assert parse_cache(b"h\r\na: 3f800000\r\nb: 40000000").entries == (("a", 1.0), ("b", 2.0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b" \n\n", "empty file"),
        (b"TRT-8503-EntropyCalibration2\n", "no entries"),
        (CACHE[:-5], r"line 4: 'prob: 3c01' is cut short"),
        (CACHE[:-14], r"line 4: 'pr' is cut short|line 4: 'p' is cut short"),
        (CACHE[:-10], r"line 4: .* is cut short"),
        (b"h\na: 3f800000\nb\nc: 3f800000\n", "line 3: 'b' is not an entry"),
        (b"h\na: 3f8000000\n", "line 2: .* is not an entry"),
        (b"h\na: 3f80zz00\n", "line 2: .* is not an entry"),
        (b"h\na: 3f800000\na: 3f800000\n", "entry 'a' stands twice"),
        (b"h\na: 00000000\n", "entry 'a' has scale 0.0"),
        (b"h\na: bf800000\n", "entry 'a' has scale -1.0"),
        (b"h\na: 7fc00000\n", "entry 'a' has scale nan"),
        (b"h\na: 7f800000\n", "entry 'a' has scale inf"),
        (b"data: 3c010a14\nprob: 3c010a0a\n", "line 1: 'data: 3c010a14' is an entry, expected a header"),
        (b"\x80\x81", "byte 0 is not UTF-8"),
        (b"h\na: 3f800000\n\0", "byte 14 is zero"),
        (b"conv1_param_0 140.5 127.0 98.25\nfc_param_0 3.5\nconv1 1.270e+02\nfc 14.1\n", "INT8 table of ncnn"),
    ],
)
def test_refuses_what_is_no_cache(content: bytes, message: str) -> None:
    with pytest.raises(CacheError, match=message):
        parse_cache(content)


def test_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    path.write_bytes(b"")
    with pytest.raises(CacheError, match=f"^{re.escape(str(path))}: empty"):
        read_cache(path)


def test_our_header_says_who_wrote_it() -> None:
    assert our_header("entropy").startswith("nvdla-quant-")
    assert "TRT" not in our_header("entropy")


@pytest.mark.parametrize("name", ["", "a\nb", "a\0", "a\r"])
def test_refuses_names_that_would_not_come_back(name: str) -> None:
    with pytest.raises(CacheError):
        CalibrationCache("h", ((name, 1.0),))


def test_scales_are_rounded_to_float32_and_checked_after_it() -> None:
    assert CalibrationCache("h", (("a", 0.1),)).scales["a"] == float(np.float32(0.1))
    with pytest.raises(CacheError, match="entry 'a' has scale 1e-60"):
        CalibrationCache("h", (("a", 1e-60),))


@given(st.dictionaries(NAMES, SCALES, min_size=1))
def test_what_is_written_is_read(scales: dict[str, float]) -> None:
    cache = CalibrationCache("some header", tuple(scales.items()))
    assert parse_cache(format_cache(cache).encode()) == cache


def test_file_round_trip(tmp_path: Path) -> None:
    cache = parse_cache(CACHE)
    write_cache(cache, tmp_path / "calibration.cache")
    assert read_cache(tmp_path / "calibration.cache") == cache


@given(st.integers(0, len(CACHE)), st.integers(0, len(CACHE)), st.binary(max_size=8))
@example(0, len(CACHE), b"")
def test_damage_is_a_cache_error_or_still_a_cache(start: int, length: int, patch: bytes) -> None:
    try:
        cache = parse_cache(CACHE[:start] + patch + CACHE[start + length :])
    except CacheError:
        return
    assert cache.entries
    assert all(math.isfinite(scale) and scale > 0 for _, scale in cache.entries)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_cache_error_or_a_cache(content: bytes) -> None:
    with contextlib.suppress(CacheError):
        assert parse_cache(content).entries


def test_golden_caches_come_back_byte_for_byte(shared: Path) -> None:
    paths = sorted((shared / "golden" / "tensorrt").glob("*/*.cache"))
    assert len(paths) == 15
    for path in paths:
        assert format_cache(read_cache(path)).encode() == path.read_bytes()
