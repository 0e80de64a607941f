"""What `describe` and `render` say about loadables, and the emulator behind the runtimes' interface."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import Fp16
from nvdla_quant.errors import EmulationError, LoadableError
from nvdla_quant.hardware.targets import NV_SMALL
from nvdla_quant.images.sets import part_of
from nvdla_quant.loadable.describe import describe, render
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.runtime.base import Runtime, as_arrays
from nvdla_quant.runtime.emulator import EmulatorRuntime, sample_of
from tests.golden import read_golden

RESIDUAL = "resnets-nv-small-int8-perfilter"
HALF = "v-conv0-nobias-relu-nv-full-fp16"


@pytest.fixture(scope="module")
def cases(repository: Path) -> Path:
    return repository / "tests" / "data" / "golden"


def test_residual_network(cases: Path) -> None:
    """Facts of steps.txt: a 3x3 convolution of a 4-component image, pad 1, then bias and scale for each channel."""
    description = describe(read_loadable(cases / RESIDUAL / "loadable.nvdla"))
    json.dumps(description)
    first, second = description["operations"][:2]
    assert (first["unit"], first["input"], first["output"]) == ("CONV", [4, 32, 32], [16, 32, 32])
    assert first["macs"] == 16 * 32 * 32 * 3 * 3 * 4
    assert first["weight_bytes"] == 576
    assert first["chain"] == ["convolution 3x3, stride 1x1, pad 1/1/1/1, image format A8B8G8R8"]
    assert (second["unit"], second["source"]) == ("SDP", "convolution")
    assert "0 op_programmed" in second["waits_for"]
    assert description["operations"][-1]["chain"][0].startswith("softmax")
    assert [task["engine"] for task in description["tasks"]] == ["DLA", "CPU"]
    assert description["inputs"][0]["shape"] == [1, 4, 32, 32]
    assert description["totals"]["operations"] == sum(task["operations"] for task in description["tasks"])


def test_text_has_a_line_for_each_operation(cases: Path) -> None:
    for folder in sorted(path for path in cases.iterdir() if path.is_dir()):
        description = describe(read_loadable(folder / "loadable.nvdla"))
        lines = render(description).splitlines()
        header = next(number for number, line in enumerate(lines) if line.startswith("op  task"))
        operations = lines[header + 1 : header + 1 + len(description["operations"])]
        assert [line.split()[0] for line in operations] == [str(op["index"]) for op in description["operations"]]
        assert lines[0] == "loadable version 0.7.0"


def test_every_golden_loadable_can_be_described(shared: Path) -> None:
    """Units that the emulator lacks (CDP) are described too."""
    for folder in sorted((shared / "golden" / "loadables").iterdir()):
        assert render(describe(read_loadable(folder / "loadable.nvdla")))


def test_damaged_descriptor_is_named(cases: Path) -> None:
    loadable = read_loadable(cases / RESIDUAL / "loadable.nvdla")
    network = loadable.blob_by_name["task-0-addr0"]
    # num_operations, at byte 30: more than the lists hold.
    raw = network.data[:30] + b"\xff\x7f" + network.data[32:]
    blobs = tuple(replace(blob, data=raw) if blob is network else blob for blob in loadable.blobs)
    with pytest.raises(LoadableError, match=r"task 0 .*32767 entries need"):
        describe(replace(loadable, blobs=blobs))


def test_emulator_runtime(cases: Path) -> None:
    """Probabilities as the C-model computed them, and what the Softmax read: one score a class, with fewer zeros."""
    runtime: Runtime = EmulatorRuntime(NV_SMALL, threads=2, batch=1)
    golden = read_golden(cases / RESIDUAL)
    result = runtime.run(cases / RESIDUAL / "loadable.nvdla", golden.inputs)
    assert np.array_equal(result.outputs["prob"], golden.outputs)
    assert result.before_softmax is not None
    assert result.before_softmax.shape == golden.outputs.shape
    assert np.array_equal(result.before_softmax.argmax(axis=1), golden.outputs.argmax(axis=1))
    assert (result.backend, result.exactness[:9]) == ("emulator", "bit-exact")


def test_emulator_runtime_without_softmax(cases: Path) -> None:
    name = "v-conv0-nobias-relu-nv-full-fp16"
    golden = read_golden(cases / name)
    result = EmulatorRuntime().run(cases / name / "loadable.nvdla", golden.inputs)
    assert result.before_softmax is None
    assert result.exactness.startswith("bit-exact")
    assert result.check is None
    for output in result.outputs.values():
        np.testing.assert_array_equal(output, golden.outputs)
    with pytest.raises(EmulationError, match="expected float16"):
        EmulatorRuntime().run(cases / name / "loadable.nvdla", golden.inputs.astype(np.int8))


@pytest.fixture
def halves(cases: Path) -> NDArray[np.float16]:
    """Twelve images for `HALF`."""
    shape = read_golden(cases / HALF).inputs.shape[1:]
    return np.random.default_rng(0).normal(0, 30, (12, *shape)).astype(np.float16)


def test_a_fast_run_is_checked_on_a_sample(cases: Path, halves: NDArray[np.float16]) -> None:
    """Five of the images, first and last among them, are also run exactly; the difference is that of both runs."""
    loadable = cases / HALF / "loadable.nvdla"
    fast = EmulatorRuntime(fp16=Fp16.FAST, sample=(0, 3, 6, 8, 11)).run(loadable, halves)
    exact = EmulatorRuntime(fp16=Fp16.EXACT, sample=(0, 3, 6, 8, 11)).run(loadable, halves)
    assert (fast.exactness[:4], exact.exactness[:9], exact.check) == ("fast", "bit-exact", None)
    assert fast.check is not None
    assert fast.check.positions.tolist() == [0, 3, 6, 8, 11]
    ((name, values),) = fast.outputs.items()
    off = np.abs(values.astype(float) - exact.outputs[name].astype(float)).reshape(12, -1).max(axis=1)
    assert fast.check.output.tolist() == off[fast.check.positions].tolist()
    assert fast.check.output.max() > 0
    assert fast.check.before_softmax is None
    arrays = as_arrays(fast, np.arange(100, 112))
    assert arrays["checked"].tolist() == [100, 103, 106, 108, 111]
    assert "checked_logits" not in arrays
    assert "checked" not in as_arrays(exact, np.arange(12))


@pytest.mark.parametrize("shards", [1, 2, 7, 60])
@pytest.mark.parametrize("count", [20, 1000, 10000])
def test_shards_share_the_sample(count: int, shards: int) -> None:
    """32 images, or all there are, first and last among them: the same for any number of shards."""
    parts = [part_of(count, shard, shards) for shard in range(shards)]
    found = [first + place for first, end in parts for place in sample_of(count, first, end)]
    assert found == list(sample_of(count, 0, count))
    assert (found[0], found[-1], len(found)) == (0, count - 1, min(32, count))


def test_a_shard_without_an_image_of_the_sample(cases: Path, halves: NDArray[np.float16]) -> None:
    """What it says of its check is empty, so that shards have the same arrays and are put together."""
    fast = EmulatorRuntime(fp16=Fp16.FAST, sample=()).run(cases / HALF / "loadable.nvdla", halves)
    arrays = as_arrays(fast, np.arange(12))
    assert (arrays["checked"].shape, arrays["checked_output"].shape) == ((0,), (0,))
