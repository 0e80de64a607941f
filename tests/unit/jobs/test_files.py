"""Atomic writers: whole files or none, and the same bytes each time."""

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.jobs.files import atomic_path, write_bytes, write_json, write_npz, write_text


def _write_half(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_atomic_path_replaces_only_on_success(tmp_path: Path) -> None:
    path = tmp_path / "new" / "loadable.nvdla"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".nvdla"
        temporary.write_bytes(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    with pytest.raises(RuntimeError, match="stop"):
        _write_half(path, RuntimeError("stop"))
    assert path.read_bytes() == b"one"
    assert [entry.name for entry in path.parent.iterdir()] == ["loadable.nvdla"]


def test_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _write_half(tmp_path / "file", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_removed_its_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file") as temporary:
        temporary.unlink()
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file", "x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_sync_writes_the_same(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "file", sync=True) as temporary:
        temporary.write_bytes(b"kept")
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_bytes_and_text_are_written_as_given(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"\r\n\0")
    write_text(tmp_path / "b", "é\n")
    assert (tmp_path / "a").read_bytes() == b"\r\n\0"
    assert (tmp_path / "b").read_bytes() == b"\xc3\xa9\n"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_json_floats_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, {"value": value})
    back = json.loads(path.read_text(encoding="utf-8"))["value"]
    assert back == value
    assert math.copysign(1, back) == math.copysign(1, value)


def test_json_layout(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "é"\n}\n'
    write_json(tmp_path / "a.json", {"b": 1, "a": 2}, sort_keys=True)
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["a", "b"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_refuses_what_json_lacks(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", [value])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compress", [True, False])
def test_npz_round_trip_and_stable_bytes(tmp_path: Path, compress: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {
        "pixels": np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1),
        "names": np.array(["a", "é"]),
        "half": np.array([np.nan, -0.0], np.float16),
        "scalar": np.float64(1.5),
    }
    write_npz(tmp_path / "a.npz", arrays, compress=compress)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86400)
    write_npz(tmp_path / "b.npz", arrays, compress=compress)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as back:
        assert back.files == list(arrays)
        for name, values in arrays.items():
            assert back[name].dtype == np.asarray(values).dtype
            np.testing.assert_array_equal(back[name], values)


def test_npz_refuses_objects(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        write_npz(tmp_path / "a.npz", {"a": np.array([{}], dtype=object)})
    assert list(tmp_path.iterdir()) == []
