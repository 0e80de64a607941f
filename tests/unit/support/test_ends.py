"""Where a network could end so that a target runs what is left."""

import pytest

from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, TARGETS, Target
from nvdla_quant.network.cutting import cut
from nvdla_quant.network.graph import LRN, Network, Operation, Sigmoid
from nvdla_quant.support.check import check
from nvdla_quant.support.ends import compilable_ends, proposal
from tests.networks.builder import Builder
from tests.networks.dense import labeller

WIDE: Operation = LRN(11, 1e-4, 0.75, 1.0)
"""Over 11 channels; the CDP has 3 to 9."""


def decoder() -> Network:
    """Two heads, one behind a Sigmoid, which needs a table, the other of a normalisation over too many channels."""
    builder = Builder("decoder", (3, 8, 8))
    stem = builder.conv_relu("stem", "data", 8, 3)
    last = builder.conv("middle", stem, 8, 3)
    gate = builder.add("gate", Sigmoid(), builder.conv("scores", last, 4, 1))
    builder.conv("decoded", gate, 4, 1)
    builder.add("normal", WIDE, builder.conv("labels", stem, 4, 1))
    return builder.build()


def test_all_that_a_target_cannot_run_is_left_out() -> None:
    """The normalisation no target runs, the Sigmoid nv_small does not."""
    network = decoder()
    assert compilable_ends(network, NV_FULL, "int8") == ["decoded", "labels"]
    assert compilable_ends(network, NV_SMALL, "int8") == ["scores", "labels"]
    for target in TARGETS.values():
        left = cut(network, compilable_ends(network, target, "int8"))
        assert not [finding for finding in check(left, target, "int8") if finding.severity == "error"]


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_what_no_target_runs_is_a_tail(target: Target) -> None:
    network = labeller()
    assert compilable_ends(network, target, "int8") == []
    builder = Builder("labels", (3, 8, 8))
    builder.add("normal", WIDE, builder.conv("scores", builder.conv_relu("stem", "data", 8, 3), 4, 1))
    assert compilable_ends(builder.build(), target, "int8") == ["scores"]


def test_no_tail_is_to_blame() -> None:
    """Neither for a precision that a target lacks, nor for what stands before most of the convolutions."""
    builder = Builder("early", (3, 8, 8))
    builder.conv("last", builder.add("gate", Sigmoid(), builder.conv("first", "data", 8, 3)), 8, 3)
    network = builder.build()
    assert compilable_ends(network, NV_SMALL, "int8") == []
    assert compilable_ends(network, NV_FULL, "int8") == []
    assert compilable_ends(decoder(), NV_SMALL, "fp16") == []
    assert proposal([]) == ()
