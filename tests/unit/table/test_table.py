"""Calibration tables: the rules are nvdla/sw's ParseTest.cpp, as found by running `nvdla_compiler`."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.errors import TableError
from nvdla_quant.table.table import CalibrationTable, parse_table, read_table, write_table

TABLE = b'{"data": {"scale": 2.00787, "min": 0, "max": 0, "offset": 0}, "conv1": {"min": -6.35, "max": 12.7}}'
SCALES = st.floats(width=32, min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)


def test_scale_wins_else_min_and_max() -> None:
    assert dict(parse_table(TABLE).scales) == {"data": 2.00787, "conv1": 12.7 / 127}


def test_integers_are_scales() -> None:
    assert parse_table(b'{"a": {"scale": 2}}')["a"] == 2.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "holds a JSON list"),
        (b"{}", "no entries"),
        (b'{"a": {"scale": 1}, "a": {"scale": 2}}', "'a' stands twice"),
        (b'{"a": {"scale": 1, "scale": 2}}', "'scale' stands twice"),
        (b'{"a": 0.5}', "entry 'a' is 0.5, expected an object"),
        (b'{"a": {"offset": 0}}', "entry 'a' has neither"),
        (b'{"a": {"min": 0}}', "entry 'a' has neither"),
        (b'{"a": {"min": 0, "max": 0}}', "entry 'a' has scale 0.0"),
        (b'{"a": {"scale": "0.5"}}', "entry 'a': scale is '0.5'"),
        (b'{"a": {"scale": true}}', "entry 'a': scale is True"),
        (b'{"a": {"scale": null}}', "entry 'a': scale is None"),
        (b'{"a": {"scale": NaN}}', "entry 'a': scale is nan"),
        (b'{"a": {"scale": 1e999}}', "entry 'a': scale is inf"),
        (b'{"a": {"scale": 1' + b"0" * 400 + b"}}", "entry 'a': scale is 1000"),
        (b'{"a": {"scale": 1' + b"0" * 5000 + b"}}", "not JSON"),
        (b'{"a": {"scale": 0}}', "entry 'a' has scale 0.0"),
        (b'{"a": {"scale": -1}}', "entry 'a' has scale -1.0"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"[" * 100000, "not JSON"),
    ],
)
def test_refuses_what_is_no_table(content: bytes, message: str) -> None:
    with pytest.raises(TableError, match=message):
        parse_table(content)


def test_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text("{}")
    with pytest.raises(TableError, match=f"^{re.escape(str(path))}: no entries"):
        read_table(path)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), SCALES, min_size=1))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, scales: dict[str, float]) -> None:
    path = tmp_path_factory.getbasetemp() / "table.json"
    write_table(CalibrationTable(scales), path)
    assert dict(read_table(path).scales) == scales
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert all(list(entry) == ["scale", "min", "max", "offset"] for entry in entries.values())


@given(st.integers(0, len(TABLE)), st.integers(0, len(TABLE)), st.binary(max_size=8))
def test_damage_is_a_table_error_or_still_a_table(start: int, length: int, patch: bytes) -> None:
    try:
        table = parse_table(TABLE[:start] + patch + TABLE[start + length :])
    except TableError:
        return
    assert all(scale > 0 for scale in table.scales.values())


def test_golden_tables_are_read(shared: Path) -> None:
    paths = sorted((shared / "golden" / "models").glob("*/calibration.fixed.json"))
    assert paths
    for path in paths:
        assert "data" in read_table(path).scales
