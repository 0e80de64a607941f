"""The emulator against NVIDIA's C-model: committed cases, and all of the developers' golden data where it is there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.emulator import tiles
from nvdla_quant.emulator.integer.kernels import Kernel, possible_kernels
from nvdla_quant.emulator.operations import Fp16, Operand, SdpOperation
from tests.golden import read_golden, run_golden
from tests.kernels import using

COMMITTED = (
    "resnets-nv-small-int8-perfilter",
    "v-conv0-nobias-relu-nv-full-fp16",
    "v-conv0-nobias-relu-nv-small-int8-perkernel",
    "v-dilation-nv-full-int8-perkernel",
    "v-elt-prod-nv-small-int8-perfilter",
    "v-sigmoid-nv-full-int8-perfilter",
)
FAST_TOLERANCE = 0.005
"""Largest error of fast fp16, as a share of the largest golden value."""
RACE = "v-elt-prod-nv-full-fp16"
"""Its second factor is read before it is written: the C-model multiplies by 0, hardware timing would decide."""


def check(folder: Path, batch: int | None = None, threads: int = 1) -> None:
    for what, ours, expected in run_golden(read_golden(folder), batch=batch, threads=threads):
        integers = np.dtype(f"u{expected.itemsize}")
        np.testing.assert_array_equal(ours.view(integers), expected.view(integers), f"{folder.name}: {what}")


def check_fast(folder: Path) -> None:
    for what, ours, expected in run_golden(read_golden(folder), Fp16.FAST):
        error = np.abs(ours.astype(np.float64) - expected.astype(np.float64)).max()
        assert error <= FAST_TOLERANCE * np.abs(expected.astype(np.float64)).max(), (folder.name, what, error)


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_case(repository: Path, name: str) -> None:
    """Every output and every step has the same bits."""
    check(repository / "tests" / "data" / "golden" / name)


def test_committed_cases_are_all_there(repository: Path) -> None:
    folders = {path.name for path in (repository / "tests" / "data" / "golden").iterdir() if path.is_dir()}
    assert folders == set(COMMITTED)


def test_all_golden_loadables(shared: Path) -> None:
    """All loadables are bit-exact in all steps; the one that races has a test of its own."""
    folders = sorted((shared / "golden" / "loadables").iterdir())
    assert len(folders) > 50
    for folder in folders:
        if folder.name != RACE:
            check(folder)


@pytest.mark.parametrize("kernel", possible_kernels())
def test_kernels_agree_on_the_committed_cases(repository: Path, kernel: Kernel) -> None:
    """However convolutions are computed, every step has the same bits."""
    with using(kernel):
        for name in COMMITTED:
            if "int8" in name:
                check(repository / "tests" / "data" / "golden" / name)


@pytest.mark.parametrize("kernel", possible_kernels())
def test_kernels_agree_on_all_golden_loadables(shared: Path, kernel: Kernel) -> None:
    folders = sorted((shared / "golden" / "loadables").glob("*int8*"))
    assert len(folders) > 35
    with using(kernel):
        for folder in folders:
            check(folder)


def test_results_depend_on_no_block_batch_or_thread(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All golden data again: tiles of a few pixels, three images at once, two threads."""
    monkeypatch.setattr(tiles, "MIN_TILE_PIXELS", 5)
    monkeypatch.setattr(tiles, "MAX_TILE_PIXELS", 40)
    for folder in sorted((shared / "golden" / "loadables").iterdir()):
        if folder.name != RACE:
            check(folder, batch=3, threads=2)


def test_fast_fp16_of_the_committed_case(repository: Path) -> None:
    check_fast(repository / "tests" / "data" / "golden" / "v-conv0-nobias-relu-nv-full-fp16")


def test_fast_fp16_of_all_golden_loadables(shared: Path) -> None:
    folders = sorted((shared / "golden" / "loadables").glob("*fp16*"))
    assert len(folders) == 14
    for folder in folders:
        if folder.name != RACE:
            check_fast(folder)


def test_race(shared: Path) -> None:
    """All is exact up to the product, and behind it too where the second factor is 0, which the C-model read."""
    golden = read_golden(shared / "golden" / "loadables" / RACE)
    differ = {what for what, ours, expected in run_golden(golden) if not np.array_equal(ours, expected)}
    assert differ == {"operation 5", "operation 7", "output"}
    racing = next(operation for operation in golden.program.operations if operation.index == 5)
    assert isinstance(racing, SdpOperation)
    units = tuple(
        replace(unit, mul_operand=Operand(register=np.float16(0))) if unit.mul_operand is not None else unit
        for unit in racing.units
    )
    operations = tuple(replace(o, units=units) if o is racing else o for o in golden.program.operations)
    golden = replace(golden, program=replace(golden.program, operations=operations))
    for what, ours, expected in run_golden(golden):
        np.testing.assert_array_equal(ours.view(np.uint16), expected.view(np.uint16), what)
