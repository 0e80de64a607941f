"""The loadable's flatbuffer and descriptors."""

import contextlib
import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvdla_quant.errors import LoadableError
from nvdla_quant.loadable import records, structs
from nvdla_quant.loadable.reader import parse_loadable, read_loadable
from nvdla_quant.loadable.writer import serialize_loadable


@pytest.mark.parametrize(
    ("name", "size"),
    # Sizes as gcc gives them for NVIDIA's headers (docs/hardware/loadable.md, "Sources").
    [
        ("NETWORK", 40),
        ("COMMON_OP", 36),
        ("CUBE", 32),
        ("CVT", 8),
        ("CONV_OP", 92),
        ("SDP_UNIT", 32),
        ("SDP_OP", 116),
        ("PDP_OP", 52),
        ("CDP_OP", 24),
        ("RUBIK_OP", 4),
        ("BDMA_OP", 4),
        ("CONV_SURFACE", 172),
        ("SDP_SURFACE", 160),
        ("TWO_CUBES", 64),
        ("BDMA_SURFACE", 644),
        ("LUT", 700),
        ("EMU_NETWORK", 256),
        ("EMU_OP", 24),
        ("EMU_BUFFER", 256),
        ("EMU_BUFFERS", 512),
    ],
)
def test_descriptor_sizes(name: str, size: int) -> None:
    assert getattr(structs, name).itemsize == size


@pytest.mark.parametrize(
    ("dtype", "field", "offset"),
    # Offsets of the same headers.
    [
        (structs.CONV_OP, "entry_per_slice", 6),
        (structs.CONV_OP, "data_bank", 22),
        (structs.CONV_OP, "post_extension", 28),
        (structs.CONV_OP, "bytes_per_kernel", 48),
        (structs.CONV_OP, "conv_stride_x", 61),
        (structs.CONV_OP, "pad_val", 74),
        (structs.CONV_OP, "in_cvt", 76),
        (structs.SDP_OP, "x1_op", 20),
        (structs.SDP_OP, "x2_op", 52),
        (structs.SDP_OP, "y_op", 84),
        (structs.PDP_OP, "split_num", 12),
        (structs.PDP_OP, "padding_value", 24),
        (structs.COMMON_OP, "fused_parent", 32),
        (structs.CONV_SURFACE, "offset_u", 160),
        (structs.NETWORK, "op_head", 16),
    ],
)
def test_descriptor_offsets(dtype: np.dtype, field: str, offset: int) -> None:
    assert dtype.fields is not None
    assert dtype.fields[field][1] == offset


def small_loadable() -> records.Loadable:
    return records.Loadable(
        version=records.LOADABLE_VERSION,
        tasks=(records.Task(0, 1, -1, (0, 1), (), (0,)),),
        memories=(
            records.Memory(0, 0, 1, 4096, 4096),
            records.Memory(1, 0, 3, 8192, 4096, ("tb-0",), (16,)),
            records.Memory(2, 0, 5, 64, 4096, (), (), 0, 0),
        ),
        addresses=(records.Address(0, 0, 0, 4096), records.Address(1, 1, 0, 8192)),
        events=(records.Event(0, 0, 0, 1, 1),),
        blobs=(records.Blob("tb-0", 0, 0, (0, 0, 0), b"\x01\x02\x03"),),
        tensors=(records.TensorDescriptor("data", 0, 2, 64, 0, 2, 4, 0, 12, 0, 1, 4, 4, 4, (1, 32, 0, 0, 0, 0, 0, 0)),),
        relocations=(records.Relocation(1, 0, 20, 1, 4, 1),),
        submits=(records.Submit(0, (0,)),),
    )


def test_round_trip() -> None:
    loadable = small_loadable()
    assert parse_loadable(serialize_loadable(loadable)) == loadable
    assert [tensor.name for tensor in loadable.inputs] == ["data"]


@given(
    st.lists(st.tuples(st.text(max_size=12), st.binary(max_size=64)), unique_by=lambda blob: blob[0], max_size=6),
    st.lists(st.integers(0, 2**64 - 1), max_size=5),
)
def test_round_trip_of_any_blobs(blobs: list[tuple[str, bytes]], offsets: list[int]) -> None:
    loadable = dataclasses.replace(
        small_loadable(),
        blobs=tuple(
            records.Blob(name, 1, 2, (0, 12, 3), data) for name, data in sorted(blobs, key=lambda blob: blob[0])
        ),
        memories=(records.Memory(7, 0, 3, 2**40, 4096, tuple("x" for _ in offsets), tuple(offsets)),),
    )
    assert parse_loadable(serialize_loadable(loadable)) == loadable


def test_golden_files_round_trip(shared: Path) -> None:
    folders = sorted((shared / "golden" / "loadables").iterdir())
    for folder in folders:
        loadable = read_loadable(folder / "loadable.nvdla")
        assert parse_loadable(serialize_loadable(loadable)) == loadable, folder.name
        assert len(loadable.inputs) == len(loadable.outputs) == 1, folder.name


@settings(max_examples=100)
@given(st.data())
def test_mutated_bytes_end_in_records_or_a_clean_error(data: st.DataObject) -> None:
    raw = bytearray(serialize_loadable(small_loadable()))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for candidate in (bytes(raw), bytes(raw[:cut])):
        with contextlib.suppress(LoadableError):
            parse_loadable(candidate)


def test_wrong_version_is_named() -> None:
    with pytest.raises(LoadableError, match=r"version 0\.6\.0, expected 0\.7\.0"):
        parse_loadable(serialize_loadable(dataclasses.replace(small_loadable(), version=(0, 6, 0))))


def test_two_blobs_of_one_name_are_refused() -> None:
    twice = dataclasses.replace(small_loadable(), blobs=small_loadable().blobs * 2)
    with pytest.raises(LoadableError, match="blob 'tb-0' stands twice"):
        parse_loadable(serialize_loadable(twice))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadableError, match=r"absent\.nvdla: cannot read"):
        read_loadable(tmp_path / "absent.nvdla")


def test_generated_module_is_current(repository: Path, tmp_path: Path) -> None:
    flatc = shutil.which("flatc")
    if flatc is None:
        pytest.skip("flatc is not installed")
    if " 2.0." not in subprocess.run([flatc, "--version"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("the committed module was generated by flatc 2.0")
    folder = repository / "nvdla_quant" / "loadable"
    command = [flatc, "--python", "--gen-onefile", "--gen-object-api", str(folder / "schema.fbs")]
    # In the working folder: with an absolute `-o`, flatc 2.0.8 leaves an __init__.py in the root of the file system.
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "schema_generated.py").read_text() == (folder / "schema_generated.py").read_text()
