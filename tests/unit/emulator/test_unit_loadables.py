"""Loadables of single operations: they run, describe themselves, keep their steps, and survive the file format."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.run import run, write_steps
from nvdla_quant.errors import LoadableError
from nvdla_quant.hardware.targets import NV_FULL
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.describe import describe, render
from nvdla_quant.loadable.layout import layouts_of
from nvdla_quant.loadable.reader import parse_loadable, read_loadable
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.structs import FIRST_WITH_OFFSETS
from nvdla_quant.loadable.tasks import static_bytes
from nvdla_quant.loadable.writer import serialize_loadable
from tests.unit_loadables import unit_loadables

CHAINS = {
    "cdp-int8": ["local response normalisation over 5 channels"],
    "cdp-int16": ["local response normalisation over 5 channels"],
    "cdp-fp16": ["local response normalisation over 5 channels"],
    "rubik-contract": ["contract, stride 2x3"],
    "rubik-split": ["split"],
    "rubik-merge": ["merge"],
    "bdma": ["2 copies, 768 bytes"],
    "pdp-parts": ["average pooling 3x3, stride 2x2, pad 1/0/1/0, in 3 parts"],
    "pdp-int16": ["average pooling 3x3, stride 2x2, pad 1/0/1/0"],
    "pdp-fly": ["copy", "average pooling 3x3, stride 2x2, pad 1/0/1/0, on the fly"],
    "conv-twice": [
        "convolution 1x1, stride 1x1",
        "C: * 3 >> 4",
        "convolution 1x1, stride 1x1, data from the buffer, weights from the buffer",
        "C: * 3 >> 4",
    ],
    "older": ["average pooling 3x3, stride 2x2, pad 1/0/1/0"],
}


def test_all_are_described() -> None:
    assert set(CHAINS) == set(unit_loadables())


@pytest.mark.parametrize("name", sorted(CHAINS))
def test_loadable(name: str, tmp_path: Path) -> None:
    loadable = unit_loadables()[name]
    read = parse_loadable(serialize_loadable(loadable))
    description = describe(read)
    assert [text for operation in description["operations"] for text in operation["chain"]] == CHAINS[name]
    assert all(text in render(description) for text in CHAINS[name])
    program = decode(read, NV_FULL)
    assert program.warnings == ()
    (port,) = program.inputs
    inputs = np.random.default_rng(0).integers(-128, 128, (3, *port.shape)).astype(np.int8)
    result = run(program, inputs)
    assert result.any()
    np.testing.assert_array_equal(run(program, inputs, batch=1, threads=2), result)
    write_steps(program, {program.inputs[0].name: inputs}, tmp_path)
    steps = json.loads((tmp_path / "steps.json").read_text())
    assert [step["unit"] for step in steps] == [operation.unit for operation in program.operations]
    for step, operation in zip(steps, program.operations, strict=True):
        values = np.load(tmp_path / step["file"])
        assert values.dtype == operation.dtype == np.dtype(step["type"])
        assert list(values.shape[1:]) == step["shape"]


def test_the_older_layout_gives_what_todays_gives() -> None:
    """The same pooling without offsets in its cubes; behind the 40 channels of 9 pixels stands nothing of interest."""
    older = unit_loadables()["older"]
    program = decode(older, NV_FULL)
    inputs = np.random.default_rng(0).integers(-128, 128, (1, *program.inputs[0].shape)).astype(np.int8)
    flying = decode(unit_loadables()["pdp-fly"], NV_FULL)
    assert older.blobs[0].version < FIRST_WITH_OFFSETS
    older_result, todays = run(program, inputs), run(flying, inputs)
    assert older_result[..., :9].any()
    np.testing.assert_array_equal(older_result[..., :9], todays[..., :9])
    np.testing.assert_array_equal(older_result[:, :8, :, 9:18], todays[:, :8, :, 9:18])


def of_version(loadable: Loadable, version: tuple[int, int, int]) -> Loadable:
    return replace(loadable, blobs=tuple(replace(blob, version=version) for blob in loadable.blobs))


@pytest.mark.parametrize("version", [(0, 11, 0), (0, 12, 3), (1, 2, 0), (1, 3, 0)])
def test_the_layout_is_told_by_its_cubes_whatever_the_version(version: tuple[int, int, int], repository: Path) -> None:
    """ONNC writes cubes without offset and says its own version, 1.2.0 or 1.3.0."""
    older = unit_loadables()["older"]
    assert describe(of_version(older, version)) == describe(older)
    assert decode(of_version(older, version)).operations == decode(older).operations
    for path in sorted((repository / "tests" / "data" / "golden").glob("*/loadable.nvdla")):
        golden = read_loadable(path)
        assert describe(of_version(golden, version)) == describe(golden)


def test_the_version_decides_where_both_layouts_are_possible() -> None:
    """Copies of the BDMA have no cubes."""
    copy = unit_loadables()["bdma"]
    static = static_bytes(copy)
    assert not layouts_of(of_version(copy, (0, 12, 3)), static).accelerator
    assert layouts_of(of_version(copy, (0, 11, 0)), static).accelerator


def test_the_cpu_s_layout_is_told_by_its_buffers(repository: Path) -> None:
    """The CPU's blobs of a golden loadable, written as earlier runtimes had them: no scales, no offsets, fp16 alone."""
    golden = read_loadable(
        repository / "tests" / "data" / "golden" / "resnets-nv-small-int8-perfilter" / "loadable.nvdla"
    )
    assert not layouts_of(golden, static_bytes(golden)).cpu
    (place,) = (i for i, blob in enumerate(golden.blobs) if blob.interface == 2 and len(blob.data) == 512)
    buffers = np.frombuffer(golden.blobs[place].data, structs.EMU_BUFFERS)
    older = np.zeros(len(buffers), structs.OLDER[structs.EMU_BUFFERS])
    for side in ("src_data", "dst_data"):
        for field in older.dtype[side].names or ():
            older[side][field] = structs.OLDER_FP16 if field == "format" else buffers[side][field]
    blobs = [*golden.blobs]
    blobs[place] = replace(blobs[place], data=older.tobytes())
    changed = replace(golden, blobs=tuple(blobs))
    layouts = layouts_of(changed, static_bytes(changed))
    assert (layouts.accelerator, layouts.cpu) == (False, True)


def test_impossible_cubes_are_an_error_and_not_printed() -> None:
    older = unit_loadables()["older"]
    (place,) = (i for i, blob in enumerate(older.blobs) if len(blob.data) == structs.SURFACE_BYTES)
    for damaged in (bytes(structs.SURFACE_BYTES), b"\xff" * structs.SURFACE_BYTES):
        blobs = [*older.blobs]
        blobs[place] = replace(blobs[place], data=damaged)
        with pytest.raises(LoadableError, match=r"task 0 operation 0 \(PDP\) source: .*expected 1 to 8192 each"):
            describe(replace(older, blobs=tuple(blobs)))


def test_loadables_of_onnc(shared: Path) -> None:
    """One copy by the SDP in the older layout; only the version of the blobs differs (cases/07 says what is right)."""
    folder = shared / "cases" / "07-onnc-older-layout"
    images = np.load(folder / "x.npy")
    results = []
    for name in ("older-0.11.0", "older-1.3.0"):
        loadable = read_loadable(folder / f"{name}.nvdla")
        (operation,) = describe(loadable)["operations"]
        assert (operation["input"], operation["output"]) == ([32, 4, 4], [32, 4, 4])
        results.append(run(decode(loadable), images))
    np.testing.assert_array_equal(results[0], images)
    np.testing.assert_array_equal(results[1], images)
