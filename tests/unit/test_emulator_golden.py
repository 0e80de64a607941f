"""The emulator against NVIDIA's C-model: committed cases, and all of the developers' golden data where it is there."""

from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.errors import EmulationError
from tests.golden import read_golden, run_golden

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
NOT_MODELLED = {"v-sigmoid-nv-full-fp16": "look-up tables in fp16"}
RACE = "v-elt-prod-nv-full-fp16"
"""Its second factor is read before it is written: the C-model multiplies by 0, hardware timing would decide."""


def check(folder: Path) -> None:
    golden = read_golden(folder)
    for what, ours, expected in run_golden(golden):
        if expected.dtype == np.int8:
            np.testing.assert_array_equal(ours, expected, what)
        else:
            error = np.abs(ours.astype(np.float64) - expected.astype(np.float64)).max()
            assert error <= FAST_TOLERANCE * np.abs(expected.astype(np.float64)).max(), (what, error)


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_case(repository: Path, name: str) -> None:
    """Int8: every output and every byte of every step is equal. fp16: within the tolerance of the fast mode."""
    check(repository / "tests" / "data" / "golden" / name)


def test_committed_cases_are_all_there(repository: Path) -> None:
    folders = {path.name for path in (repository / "tests" / "data" / "golden").iterdir() if path.is_dir()}
    assert folders == set(COMMITTED)


def test_all_golden_loadables(shared: Path) -> None:
    """All int8 loadables are bit-exact in all steps; fp16 ones are within the fast mode's tolerance."""
    folders = sorted((shared / "golden" / "loadables").iterdir())
    assert len(folders) > 50
    for folder in folders:
        if folder.name not in NOT_MODELLED and folder.name != RACE:
            check(folder)


def test_operations_that_are_not_modelled_are_refused(shared: Path) -> None:
    for name, what in NOT_MODELLED.items():
        with pytest.raises(EmulationError, match=rf"task 0 operation 2 .*{what}"):
            read_golden(shared / "golden" / "loadables" / name)


def test_race_differs_only_behind_the_product(shared: Path) -> None:
    """Up to the product, the racing loadable gives what the C-model gives."""
    pairs = run_golden(read_golden(shared / "golden" / "loadables" / RACE))
    agree = [what for what, ours, expected in pairs if np.allclose(ours, expected, rtol=0.01, atol=0.05)]
    assert {"operation 1", "operation 3"} <= set(agree)
