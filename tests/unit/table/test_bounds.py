"""Scales of the layers that a network has in Caffe alone."""

import numpy as np
import pytest

from nvdla_quant.errors import TableError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.execution.simulated import Simulation
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.network.caffe.rewrites import for_caffe
from nvdla_quant.network.graph import Clip, Convolution, Layer, Network, Operation, Pooling, Swish, Tensor
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.bounds import scale_of
from nvdla_quant.table.cache import CalibrationCache
from nvdla_quant.table.fix import fix_table

RNG = np.random.default_rng(0)


def network_of(operation: Operation) -> Network:
    weights = RNG.normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    layers = (Layer("conv", Convolution(weights, None), ("data",)), Layer("it", operation, ("conv",)))
    return assemble("net", [Tensor("data", (3, 8, 8), "data")], layers)


def in_steps(**limits: float) -> dict[str, float]:
    """Scales of tensors whose largest magnitudes are these."""
    return {name: limit / 127 for name, limit in limits.items()}


@pytest.mark.parametrize(
    ("operation", "conv", "limits"),
    [
        (Clip(0.0, 6.0), 20.0, {"it_low": 6, "it_below": 6, "it_high": 6}),
        (Clip(0.0, 6.0), 2.0, {"it_low": 2, "it_below": 6, "it_high": 6}),
        (Clip(None, 1.0), 20.0, {"it_below": 2, "it_high": 2}),
        (Clip(-1.0, None), 5.0, {"it_above": 2, "it_low": 2}),
        (Clip(-1.0, 3.0), 5.0, {"it_above": 4, "it_low": 4, "it_below": 4, "it_high": 4}),
        (Swish(), 5.0, {"it_gate": 1}),
    ],
)
def test_what_is_cut_off_behind_does_not_count(operation: Operation, conv: float, limits: dict[str, float]) -> None:
    """The clip's result is calibrated with a largest magnitude of its bound, 1 where it has but one."""
    bound = max(
        abs(bound) for bound in (getattr(operation, "low", None), getattr(operation, "high", None), 1.0) if bound
    )
    rewritten = for_caffe(network_of(operation))
    scales = in_steps(data=1, conv=conv, it=bound)
    found = {name: scale_of(rewritten, name, scales) * 127 for name in rewritten.tensors if name not in scales}
    assert found == pytest.approx(limits)


def test_a_table_for_caffe_s_form_has_an_entry_for_each_layer() -> None:
    """And the network in int8 steps is as close to fp32 with them as it is with the clip in one."""
    network = network_of(Clip(0.0, 6.0))
    rewritten = for_caffe(network)
    images = RNG.normal(0, 1, (8, 3, 8, 8)).astype(np.float32)
    values = Reference(network, list(network.tensors)).run(images)
    entries = tuple((name, float(np.abs(values[name]).max()) / 127) for name in network.tensors)
    cache = CalibrationCache("nvdla-quant-test", entries)
    table, changes = fix_table(network, rewritten, cache)
    assert set(table.scales) == set(rewritten.tensors)
    assert [change.name for change in changes if change.rule == "rewrite"] == ["it_low", "it_below", "it_high"]
    got = Simulation(rewritten, table, QuantizationMode.PER_FILTER, ["it"]).run(images)["it"]
    assert np.abs(got - values["it"]).max() < 8 * table["it"]


def test_a_layer_without_a_bound_is_refused() -> None:
    average = Pooling("average", (3, 3), (1, 1), (1, 1), "down", area="image")
    rewritten = for_caffe(network_of(average))
    with pytest.raises(TableError, match=r"'it_factor' \(Power\): made by a rewrite, and nothing says how large"):
        scale_of(rewritten, "it_factor", in_steps(data=1, conv=1, it=1))
