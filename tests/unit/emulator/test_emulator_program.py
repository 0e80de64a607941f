"""Decoding: what is refused and how it says so, and that no damaged loadable gets past it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import decode, default_target
from nvdla_quant.emulator.operations import ConvOperation, Fp16, SdpOperation
from nvdla_quant.emulator.run import run, run_tensors, write_steps
from nvdla_quant.errors import EmulationError, LoadableError, NvdlaQuantError
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.records import Loadable
from tests.golden import read_golden

Edit = Callable[[NDArray[np.void]], None]
SMALL = "v-conv0-nobias-relu-nv-small-int8-perkernel"
RESIDUAL = "resnets-nv-small-int8-perfilter"
SIGMOID = "v-sigmoid-nv-full-int8-perfilter"


@pytest.fixture(scope="module")
def cases(repository: Path) -> Path:
    return repository / "tests" / "data" / "golden"


@pytest.fixture(scope="module")
def small(cases: Path) -> Loadable:
    return read_loadable(cases / SMALL / "loadable.nvdla")


def edited(loadable: Loadable, blob: str, dtype: np.dtype[np.void], stride: int, index: int, edit: Edit) -> Loadable:
    """Return the loadable with one descriptor of `blob` changed."""

    def change(data: bytes) -> bytes:
        raw = bytearray(data)
        edit(np.ndarray((), dtype, raw, index * stride))
        return bytes(raw)

    blobs = (replace(entry, data=change(entry.data)) if entry.name == blob else entry for entry in loadable.blobs)
    return replace(loadable, blobs=tuple(blobs))


def operation(loadable: Loadable, index: int, engine: structs.Engine, edit: Edit) -> Loadable:
    dtype = structs.OPERATIONS[engine]
    return edited(loadable, "task-0-op_list", dtype, structs.OPERATION_BYTES, index, edit)


def surface(loadable: Loadable, index: int, engine: structs.Engine, edit: Edit) -> Loadable:
    return edited(loadable, "task-0-surf_list", structs.SURFACES[engine], structs.SURFACE_BYTES, index, edit)


def setter(path: str, value: int) -> Edit:
    """Return an edit that sets ``a.b`` to `value`."""

    def edit(record: NDArray[np.void]) -> None:
        *outer, last = path.split(".")
        for field in outer:
            record = record[field]
        record[last] = value

    return edit


def test_target_follows_the_atoms(cases: Path, small: Loadable) -> None:
    assert default_target(small) is NV_SMALL
    assert default_target(read_loadable(cases / SIGMOID / "loadable.nvdla")) is NV_FULL


def test_order_and_shapes(small: Loadable) -> None:
    """conv + SDP with ReLU, then the inner product: two operations write memory."""
    program = decode(small)
    assert [operation.index for operation in program.operations] == [1, 3]
    first, second = program.operations
    assert isinstance(first, SdpOperation)
    assert isinstance(first.source, ConvOperation)
    assert (first.source.kernel_height, first.source.kernel_width, first.source.source.shape) == (3, 3, (4, 16, 16))
    assert second.destination.shape == (10, 1, 1)
    assert program.inputs[0].shape == (4, 16, 16)
    assert program.before_softmax == ()


def test_before_softmax(cases: Path) -> None:
    """The inner product in front of the Softmax, the last but one operation."""
    program = decode(read_loadable(cases / RESIDUAL / "loadable.nvdla"))
    assert program.before_softmax == program.operations[-2:-1]


def test_missing_unit_warns(cases: Path) -> None:
    """A table on a target without Y unit does nothing, as on the hardware; nv_full has it."""
    loadable = read_loadable(cases / SIGMOID / "loadable.nvdla")
    assert decode(loadable, NV_FULL).warnings == ()
    (warning,) = decode(loadable, replace(NV_FULL, has_y=False)).warnings
    assert "operation 2 (SDP)" in warning
    assert "no Y unit" in warning


@pytest.mark.parametrize(
    ("index", "engine", "path", "value", "message"),
    [
        (0, "CONV", "conv_mode", 1, r"operation 0 \(CONV\): conv_mode is 1"),
        (0, "CONV", "weight_format", 1, r"weight_format is 1"),
        (0, "CONV", "data_format", 3, r"in_precision is int8, expected int16, which R16 has"),
        (0, "CONV", "in_precision", 1, r"in_precision is int16, which nv_small does not have"),
        (0, "CONV", "out_cvt.scale", 2, r"out_cvt .* which the firmware demands"),
        (0, "CONV", "conv_stride_x", 0, r"at least 1"),
        (1, "SDP", "x1_op.type", 9, r"operation 1 \(SDP\) x1: type is 9, expected 0 to 3"),
        (1, "SDP", "src_precision", 1, r"src_precision is int16, which nv_small does not have"),
        (1, "SDP", "batch_num", 2, r"batch_num"),
    ],
)
def test_refused_fields(small: Loadable, index: int, engine: str, path: str, value: int, message: str) -> None:
    with pytest.raises(EmulationError, match=message):
        decode(operation(small, index, structs.Engine[engine], setter(path, value)))


@pytest.mark.parametrize(
    ("index", "engine", "path", "value", "message"),
    [
        (0, "CONV", "src_data.address", 99, r"address index 99"),
        (0, "CONV", "src_data.line_stride", 1 << 20, r"operation 0 \(CONV\) source: bytes 0 to \d+ of address"),
        (0, "CONV", "weight_data.offset", 1 << 24, r"weights: bytes"),
        (1, "SDP", "dst_data.surf_stride", 1 << 30, r"operation 1 \(SDP\) destination"),
        (1, "SDP", "dst_data.width", 9000, r"width is 9000, expected 1 to 8192"),
    ],
)
def test_addresses_are_checked(small: Loadable, index: int, engine: str, path: str, value: int, message: str) -> None:
    with pytest.raises(LoadableError, match=message):
        decode(surface(small, index, structs.Engine[engine], setter(path, value)))


def test_operations_that_would_hang(small: Loadable) -> None:
    dtype = structs.COMMON_OP
    broken = edited(small, "task-0-dep_graph", dtype, dtype.itemsize, 2, setter("dependency_count", 7))
    with pytest.raises(LoadableError, match=r"operation 2: dependency_count is 7"):
        decode(broken)


@pytest.mark.parametrize(
    ("index", "consumer", "message"),
    [
        (0, -1, r"operation 2 \(CONV\): neither op_head nor a consumer of its unit names it; the firmware would never"),
        (0, 0, r"the operations of CONV, from op_head along its consumers, are \[0, 0\]; expected each once"),
        (2, 3, r"the operations of CONV, .* are \[0, 2, 3\]; expected each once, of that unit"),
        (2, -2, r"the operations of CONV, .* are \[0, 2, -2\]; expected each once, of that unit"),
    ],
)
def test_each_unit_must_reach_its_operations(small: Loadable, index: int, consumer: int, message: str) -> None:
    """The firmware goes from ``op_head`` along the consumers of the unit, and from nowhere else."""

    def edit(record: NDArray[np.void]) -> None:
        record["consumers"][structs.Engine.CONV]["index"] = consumer

    dtype = structs.COMMON_OP
    with pytest.raises(LoadableError, match=message):
        decode(edited(small, "task-0-dep_graph", dtype, dtype.itemsize, index, edit))


def test_written_weights_are_computed(small: Loadable) -> None:
    """An operation that writes over weights: those of the operations there are unpacked for each image."""

    def onto_weights(record: NDArray[np.void]) -> None:
        record["dst_data"]["address"], record["dst_data"]["offset"] = 1, 0

    assert decode(small).computed == frozenset()
    assert decode(surface(small, 3, structs.Engine.SDP, onto_weights)).computed


def test_huge_memory_is_refused(small: Loadable) -> None:
    memories = (replace(small.memories[0], size=1 << 40), *small.memories[1:])
    with pytest.raises(EmulationError, match=r"declares 10995\d+ bytes of memory for an image"):
        decode(replace(small, memories=memories))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_descriptors(cases: Path, data: st.DataObject) -> None:
    """Whatever stands in the descriptors: a clean error, or a program that runs within its buffers."""
    name = data.draw(st.sampled_from([SMALL, RESIDUAL, SIGMOID]))
    loadable = read_loadable(cases / name / "loadable.nvdla")
    blobs = [blob.name for blob in loadable.blobs if not blob.name.startswith("tb-")]
    target = data.draw(st.sampled_from(blobs))
    blob = loadable.blob_by_name[target]
    raw = bytearray(blob.data)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    damaged = replace(blob, data=bytes(raw))
    try:
        program = decode(replace(loadable, blobs=tuple(damaged if b.name == target else b for b in loadable.blobs)))
        run(program, np.zeros((2, *program.inputs[0].shape), program.inputs[0].dtype))
    except NvdlaQuantError:
        pass


def test_results_do_not_depend_on_batch_and_threads(cases: Path) -> None:
    golden = read_golden(cases / RESIDUAL)
    inputs = np.random.default_rng(0).integers(-128, 128, (7, *golden.program.inputs[0].shape)).astype(np.int8)
    before = golden.program.operations[-2].index

    def scores(**options: int) -> NDArray[np.generic]:
        parts: dict[int, NDArray[np.generic]] = {}
        run(golden.program, inputs, on_step=lambda _, v, first: parts.update({first: v}), steps={before}, **options)
        return np.concatenate([parts[first] for first in sorted(parts)])

    expected = scores()
    assert len(np.unique(expected)) > 10
    for options in ({"batch": 1}, {"batch": 3}, {"batch": 2, "threads": 2}):
        assert np.array_equal(scores(**options), expected)


@pytest.mark.parametrize("mode", Fp16)
def test_fp16_does_not_depend_on_batch(cases: Path, mode: Fp16) -> None:
    golden = read_golden(cases / "v-conv0-nobias-relu-nv-full-fp16")
    shape = 9, *golden.program.inputs[0].shape
    inputs = np.random.default_rng(0).normal(0, 30, shape).astype(np.float16)
    assert np.array_equal(run(golden.program, inputs, fp16=mode, batch=2), run(golden.program, inputs, fp16=mode))


def test_inputs_are_checked(small: Loadable) -> None:
    program = decode(small)
    with pytest.raises(EmulationError, match=r"int8 of shape \(1, 3, 16, 16\), expected int8 of \(n, 4, 16, 16\)"):
        run(program, np.zeros((1, 3, 16, 16), np.int8))
    with pytest.raises(EmulationError, match="float16"):
        run(program, np.zeros((1, 4, 16, 16), np.float16))
    with pytest.raises(EmulationError, match="no images"):
        run(program, np.zeros((0, 4, 16, 16), np.int8))
    with pytest.raises(EmulationError, match="inputs"):
        run_tensors(program, {"other": np.zeros((1, 4, 16, 16), np.int8)})


def test_written_steps(cases: Path, tmp_path: Path) -> None:
    golden = read_golden(cases / SMALL)
    write_steps(
        golden.program, {golden.program.inputs[0].name: golden.inputs}, tmp_path, layers={1: ("conv1", 0.25)}, batch=3
    )
    entries = json.loads((tmp_path / "steps.json").read_text())
    assert [(e["name"], e["unit"], e["layer"], e["scale"]) for e in entries] == [
        ("op001_dst", "SDP", "conv1", 0.25),
        ("op003_dst", "SDP", None, None),
    ]
    last = np.load(tmp_path / entries[-1]["file"])
    assert np.array_equal(last, golden.outputs)
    assert np.load(tmp_path / "op001_dst.npy").shape == (len(golden.inputs), *entries[0]["shape"])


def test_progress_counts_images(small: Loadable) -> None:
    seen: list[tuple[int, int]] = []
    inputs = np.zeros((5, 4, 16, 16), np.int8)
    run(decode(small), inputs, batch=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]
