"""What the buffer is divided by: estimated cycles, or bytes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.compiler.lowering.price import PRICES, Objective, estimated_cycles
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.run import run
from nvdla_quant.estimation.estimate import estimate
from nvdla_quant.hardware.cbuf import Division, Work, divide
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, SHIPPED, Precision, QuantizationMode, Target
from nvdla_quant.network.graph import Convolution, Layer, Network, ReLU, Tensor
from nvdla_quant.network.shapes import assemble
from nvdla_quant.timing.memory import memory_of
from tests.verified import minmax_table, smooth_images


@st.composite
def works(draw: st.DrawFn) -> Work:
    """Convolutions of odd sizes, many of which do not fit the buffer at once."""
    kernel = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    source = draw(st.integers(kernel[0], 60)), draw(st.integers(kernel[1], 60))
    return Work(
        kernels=draw(st.integers(1, 600)),
        channels=draw(st.integers(1, 600)),
        kernel=kernel,
        extent=kernel,
        stride=(1, 1),
        pad=(0, 0),
        source=source,
        output=(source[0] - kernel[0] + 1, source[1] - kernel[1] + 1),
        element_bytes=1,
    )


@given(works(), st.sampled_from(SHIPPED))
def test_cycles_are_never_more_than_by_bytes(work: Work, target: Target) -> None:
    by_bytes, by_cycles = (divide(target, work, PRICES[objective]) for objective in (Objective.BYTES, Objective.CYCLES))
    assert isinstance(by_bytes, Division) == isinstance(by_cycles, Division)
    if isinstance(by_bytes, Division) and isinstance(by_cycles, Division):
        # Parts of the channels are partial sums, which both have to add.
        part = replace(work, channels=by_bytes.channels)
        if by_bytes.channels == by_cycles.channels:
            assert estimated_cycles(target, part, by_cycles) <= estimated_cycles(target, part, by_bytes)
            assert by_bytes.bytes <= by_cycles.bytes


def test_bytes_alone_take_no_more_than_two_groups() -> None:
    """512 kernels of 512 bytes: two groups at a time move as few bytes as more do, and come first."""
    work = Work(512, 512, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1), (1, 1), 1)
    by_bytes, by_cycles = divide(NV_SMALL, work), divide(NV_SMALL, work, PRICES[Objective.CYCLES])
    assert isinstance(by_bytes, Division)
    assert isinstance(by_cycles, Division)
    assert (by_bytes.weights, by_bytes.mode) == (2, "ping-pong")
    # All banks but the one of the data: no group waits for room (docs/timing.md).
    assert (by_cycles.weights, by_cycles.mode, by_cycles.bytes) == (31, "ping-pong", by_bytes.bytes)


@pytest.mark.parametrize("target", [NV_SMALL, NV_FULL], ids=lambda target: target.name)
def test_results_are_the_same(target: Target) -> None:
    """Divided otherwise, and faster; the outputs are the same bytes."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.05, (1024, 1024, 1, 1)).astype(np.float32)
    layers = [Layer("c", Convolution(weights, None), ("data",)), Layer("r", ReLU(), ("c",))]
    network: Network = assemble("wide", [Tensor("data", (1024, 1, 1), "data")], layers)
    images = smooth_images(network.only_input.chw, 2)
    table = minmax_table(network, images)
    steps = np.clip(np.rint(images / table["data"]), -128, 127).astype(np.int8)
    outputs, cycles, data = [], [], []
    for objective in (Objective.BYTES, Objective.CYCLES):
        made = compile_network(network, table, target, Precision.INT8, QuantizationMode.PER_FILTER, objective=objective)
        outputs.append(run(decode(made.loadable, target), steps))
        cycles.append(estimate(made.loadable, target, memory_of(target)).cycles)
        data.append(made.data)
    assert data[0] != data[1]
    assert cycles[1] < cycles[0]
    np.testing.assert_array_equal(*outputs)
