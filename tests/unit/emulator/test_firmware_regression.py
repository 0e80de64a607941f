"""The firmware's own regression data, where they are beside the checkout; see ``tests/firmware_regression.py``."""

from pathlib import Path

import pytest

from tests.firmware_regression import Comparison, compare

EXACT = ("BDMA_L0_0", "CDP_L0_0", "CDP_L0_0_large", "CDP_L0_0_small", "CONV_D_L0_0_large", "CONV_D_L0_0_small",
         "PDP_L0_0", "PDP_L0_0_large", "PDP_L0_0_small", "RBK_L0_0", "SDP_X1_L0_0_large",
         "SDP_X1_L0_0_small")  # fmt: skip


def test_every_case_that_runs_is_good(shared: Path) -> None:
    regression = shared / "regression"
    if not regression.is_dir():
        pytest.skip("the folder `regression` of nvdla/sw is not in ../shared")
    found = {result.name: result for result in compare(regression) if isinstance(result, Comparison)}
    assert all(result.good for result in found.values()), found
    assert not any(found[name].differ for name in EXACT)
    assert found["NN_L0_0"].units == ("EMU", "SDP", "PDP", "SDP", "PDP", "SDP", "SDP", "SDP", "EMU")
