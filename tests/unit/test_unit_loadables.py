"""Loadables of single operations: they run, describe themselves, keep their steps, and survive the file format."""

import json
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.emulator.program import decode
from nvdla_quant.emulator.run import run, write_steps
from nvdla_quant.hardware import NV_FULL
from nvdla_quant.loadable.describe import describe, render
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.loadable.structs import FIRST_WITH_OFFSETS
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
    write_steps(program, inputs, tmp_path)
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
