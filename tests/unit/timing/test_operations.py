"""What costs do when one thing changes, at their ends, and what they say that no measurement stands behind."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.errors import LoadableError
from nvdla_quant.hardware.targets import (
    NV_FULL,
    NV_LARGE,
    NV_MEDIUM_512,
    NV_SMALL,
    NV_SMALL_256,
    NV_SMALL_256_FULL,
    TARGETS,
    Target,
)
from nvdla_quant.timing.cost import cost, cost_together, unmeasured_setting
from nvdla_quant.timing.loading import early_bytes
from nvdla_quant.timing.memory import Memory, memory_of
from nvdla_quant.timing.rates import operand_queue, queue, read_rate
from nvdla_quant.timing.records import Bound, Convolution, Move, Operation, Planar, Point
from nvdla_quant.timing.sequence import throughput


def convolution_of(
    target: Target, channels: int, kernels: int, size: int, side: int, image: bool = False
) -> Convolution:
    """A convolution that keeps its input's size, with all of its weights in the buffer."""
    atom = target.feature_atom_bytes
    atoms = -(-channels // atom)
    weights = kernels * size * size * channels
    written = -(-kernels // atom) * atom * side * side
    behind = Point(written, 1, 0, 4 * kernels, written)
    return Convolution(
        lines=side,
        width=side,
        atoms=1 if image else atoms,
        data_bytes=4 * side * side if image else atoms * atom * side * side,
        weight_bytes=weights,
        room_bytes=max(weights, 1 << 15),
        kernels=kernels,
        kernel_bytes=size * size * channels,
        steps=size * size * -(-channels // target.atomic_c),
        rows=side if image else 1,
        row=side if image else side * side,
        image=image,
        element_bytes=1,
        behind=behind,
    )


targets = st.sampled_from(list(TARGETS.values()))


@st.composite
def works(draw: st.DrawFn) -> tuple[Target, Operation]:
    target = draw(targets)
    match draw(st.sampled_from(["convolution", "image", "point", "pooling", "normalisation", "move"])):
        case "convolution" | "image" as kind:
            channels, kernels, side = draw(st.integers(1, 80)), draw(st.integers(1, 80)), draw(st.integers(1, 24))
            return target, convolution_of(target, channels, kernels, draw(st.integers(1, 5)), side, kind == "image")
        case "point":
            values = draw(st.integers(1, 5000)) * target.feature_atom_bytes
            return target, Point(values, 1, values, draw(st.integers(0, 2)) * values, values)
        case "move":
            return target, Move(draw(st.integers(1, 100_000)))
        case kind:
            values = draw(st.integers(1, 5000)) * target.feature_atom_bytes
            return target, Planar(values, -(-values // 4), values, 1, kind == "pooling")


latencies = st.integers(0, 5000)
shares = st.floats(0.001, 1.0)


@given(works(), latencies, shares, st.booleans(), st.none() | st.integers(1, 300))
def test_shares_add_up(
    work: tuple[Target, Operation], latency: int, share: float, shared: bool, outstanding: int | None
) -> None:
    target, one = work
    bandwidth = share * target.memory.bits / 8
    found = cost(
        target, memory_of(target, latency=latency, bandwidth=bandwidth, shared=shared, outstanding=outstanding), one
    )
    assert math.isclose(sum(found.shares.values()), found.cycles)
    assert found.cycles > 0
    assert all(cycles >= -1e-6 for cycles in found.shares.values())
    assert found.shares[found.bound] == max(found.shares.values())


@given(works(), latencies, latencies, shares, shares)
def test_a_worse_memory_is_never_faster(
    work: tuple[Target, Operation], latency: int, later: int, share: float, more: float
) -> None:
    target, one = work
    width = target.memory.bits / 8
    slow, fast = sorted([share, more])
    early, late = sorted([latency, later])
    better = cost(target, memory_of(target, latency=early, bandwidth=fast * width), one).cycles
    assert cost(target, memory_of(target, latency=late, bandwidth=fast * width), one).cycles >= better - 1e-6
    assert cost(target, memory_of(target, latency=early, bandwidth=slow * width), one).cycles >= better - 1e-6
    assert (
        cost(target, memory_of(target, latency=early, bandwidth=fast * width, outstanding=4), one).cycles
        >= better - 1e-6
    )


@given(targets, *[st.integers(1, 60)] * 3, st.integers(1, 4), st.integers(1, 20), latencies, shares, st.booleans())
def test_more_kernels_are_never_faster(
    target: Target,
    channels: int,
    kernels: int,
    more: int,
    size: int,
    side: int,
    latency: int,
    share: float,
    image: bool,
) -> None:
    memory = memory_of(target, latency=latency, bandwidth=share * target.memory.bits / 8)
    few = cost(target, memory, convolution_of(target, channels, kernels, size, side, image))
    many = cost(target, memory, convolution_of(target, channels, kernels + more, size, side, image))
    # But for the part of a cycle that other divisions of the weights average to.
    assert many.cycles >= few.cycles - 1


@pytest.mark.parametrize(
    ("target", "depths"),
    [
        (NV_SMALL, (8, 16, 8, 8)),
        (NV_SMALL_256, (8, 16, 8, 8)),
        (NV_MEDIUM_512, (64, 64, 32, 32)),
        (NV_LARGE, (256,) * 4),
    ],
)
def test_depths_of_the_queues(target: Target, depths: tuple[int, ...]) -> None:
    """Of the SDP, its operands, the PDP and the CDP: what nvdla/hw's ``spec/defs/projects.spec`` makes of the spec."""
    rates = target.rates
    pooled, normalised = queue(target, rates.pooling), queue(target, rates.normalisation)
    assert (queue(target, throughput(target)), operand_queue(target), pooled, normalised) == depths


def test_a_pooling_by_hand() -> None:
    """4,096 values of nv_small, one a cycle: eight a beat, behind two latencies of 40 and 56 cycles.

    Its queue holds 8 reads, of which each takes 55 cycles: 6.9 a beat, less than the 8 of computing. At a latency of
    100 they are 115 / 8 a beat, which binds, and behind them the queue's 40 cycles stand in the place of one latency.
    """
    work = Planar(4096, 1024, 4096, 1, pools=True)
    assert cost(NV_SMALL, memory_of(NV_SMALL), work).cycles == 4096 + 40 + 40 + 56
    slow = cost(NV_SMALL, memory_of(NV_SMALL, latency=100), work)
    assert (slow.cycles, slow.bound) == (512 * 115 / 8 + 100 + 40 + 56, Bound.LATENCY)


def test_where_a_queue_begins_to_bind_nothing_is_faster() -> None:
    """Few values: those that wait in a queue take over from those that are computed, at some latency."""
    work = Planar(32, 8, 32, 1, pools=True)
    times = [cost(NV_SMALL, memory_of(NV_SMALL, latency=latency), work).cycles for latency in range(1500)]
    assert times == sorted(times)


def test_a_convolution_by_hand() -> None:
    """One kernel of one step on one pixel of nv_small, at a latency of 40.

    Data: 40 + 45 and one beat, which it has every second cycle; the kernel's weights take one more cycle. The step
    takes 8, and its pixel goes 9 on; behind it 40 and 26 cycles and the answer of the memory.
    """
    work = convolution_of(NV_SMALL, 8, 1, 1, 1)
    loaded = 40 + 45 + 2
    assert cost(NV_SMALL, memory_of(NV_SMALL), work).cycles == loaded + 1 + 9 + 40 + 26 + 40


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
@pytest.mark.parametrize(("latency", "bandwidth"), [(0, None), (10**7, None), (40, 1e-6), (0, 1e9)])
def test_memories_at_their_ends(target: Target, latency: int, bandwidth: float | None) -> None:
    memory = memory_of(target, latency=latency, bandwidth=bandwidth)
    for work in (convolution_of(target, 3, 1, 1, 1), convolution_of(target, 64, 64, 3, 8), Move(32)):
        assert 0 < cost(target, memory, work).cycles < 1e13


def test_all_reads_under_way_are_as_fast_as_latency_lets_them() -> None:
    """16 of them at a latency of 40 and 1.3: 0.387 beats a cycle; one at none: its own 1.3 cycles."""
    assert read_rate(NV_SMALL, memory_of(NV_SMALL, outstanding=16)) == pytest.approx(16 / 41.3)
    assert read_rate(NV_SMALL, memory_of(NV_SMALL, latency=0, outstanding=1)) == pytest.approx(1 / 1.3)


def test_more_weights_than_room_stream_and_a_group_without_room_never_comes() -> None:
    work = convolution_of(NV_SMALL, 64, 32, 3, 4)
    memory = memory_of(NV_SMALL)
    group = 8 * work.kernel_bytes
    whole, streamed = cost(NV_SMALL, memory, work), cost(NV_SMALL, memory, replace(work, room_bytes=2 * group))
    assert streamed.cycles >= whole.cycles
    assert streamed.weights_loaded > whole.weights_loaded
    with pytest.raises(LoadableError, match=r"group 0 .* wait for ever"):
        cost(NV_SMALL, memory, replace(work, room_bytes=group - 8))


def test_what_stays_in_the_buffer_does_not_load() -> None:
    work = convolution_of(NV_SMALL, 64, 32, 3, 8)
    memory = memory_of(NV_SMALL)
    first = cost(NV_SMALL, memory, work)
    changes: tuple[dict[str, int], ...] = ({"data_bytes": 0}, {"weight_bytes": 0}, {"data_bytes": 0, "weight_bytes": 0})
    times = [cost(NV_SMALL, memory, replace(work, **change)) for change in changes]
    assert all(found.cycles < first.cycles for found in times)
    assert (times[0].data_loaded, times[1].weights_loaded) == (0, 0)
    assert (times[2].traffic.data, times[2].traffic.weights) == (0, 0)


def test_weights_load_early_where_the_one_before_leaves_room() -> None:
    """Of 16 kernels of 64 bytes in 1,024 bytes the last 8 stay to the end: 512 are free for the next."""
    work = replace(convolution_of(NV_SMALL, 64, 16, 1, 8), room_bytes=1024, banks=(4, 1))
    memory = memory_of(NV_SMALL)
    assert early_bytes(NV_SMALL, memory, work, work, 1e6) == 512
    assert early_bytes(NV_SMALL, memory, work, work, 10) == 80
    assert early_bytes(NV_SMALL, memory, work, replace(work, banks=(3, 1)), 1e6) == 0
    assert early_bytes(NV_SMALL, memory, replace(work, keeps_weights=True), work, 1e6) == 0
    early, late = (cost(NV_SMALL, memory, replace(work, early_bytes=taken)) for taken in (512, 0))
    assert early.cycles < late.cycles
    assert early.traffic == late.traffic


def test_what_hands_over_takes_as_long_as_the_longest() -> None:
    memory = memory_of(NV_SMALL)
    values = 8 * 8 * 32
    work = convolution_of(NV_SMALL, 32, 32, 3, 8)
    handing = replace(work, behind=replace(work.behind, output_bytes=0))
    pooled = Planar(0, values // 4, values, 1, pools=True)
    both = cost_together(NV_SMALL, memory, [handing, pooled])
    alone = [cost(NV_SMALL, memory, one) for one in (handing, pooled)]
    assert both.cycles == max(one.cycles for one in alone) + NV_SMALL.timing.pooling
    assert sum(both.shares.values()) == pytest.approx(both.cycles)
    assert both.traffic.output == values // 4
    assert "results that the PDP takes" in both.extrapolated


def test_measured_settings_are_not_extrapolated() -> None:
    for target in (NV_SMALL, NV_SMALL_256, NV_MEDIUM_512, NV_LARGE):
        memory = memory_of(target)
        for work in (convolution_of(target, 8, 8, 3, 8), Point(256, 1, 256, 0, 256), Planar(256, 64, 256, 1, True)):
            assert cost(target, memory, work).extrapolated == ()
        # A specification with the same values is the same hardware.
        assert unmeasured_setting(replace(target, name="mine"), memory) == ()


def _memory(**values: object) -> Callable[[Target], Memory]:
    return lambda target: memory_of(target, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "memory", "says"),
    [
        (NV_FULL, _memory(), "nv_full was not measured"),
        (NV_SMALL_256_FULL, _memory(), "nv_small_256_full was not measured"),
        (replace(NV_SMALL, cbuf_banks=16), _memory(), "nv_small was not measured"),
        (NV_SMALL, _memory(latency=19), "a latency of 19 cycles; measured: 20 to 200"),
        (NV_SMALL_256, _memory(latency=201), "a latency of 201 cycles; measured: 40 to 200"),
        (NV_LARGE, _memory(latency=101), "a latency of 101 cycles; measured: 40 to 100"),
        (NV_SMALL, _memory(bandwidth=3.9), "3.9 bytes a cycle; measured: 4 to 8"),
        (NV_MEDIUM_512, _memory(bandwidth=15.0), "15 bytes a cycle; measured: 16 to 16"),
        (NV_LARGE, _memory(bandwidth=7.0), "7 bytes a cycle; measured: 8 to 32"),
        (NV_SMALL_256, _memory(shared=True), "reads and writes that share their rate"),
        (NV_SMALL, _memory(outstanding=15), "15 reads under way"),
        (NV_LARGE, _memory(outstanding=16), "16 reads under way"),
        (NV_SMALL, _memory(host_gap=101), "101 cycles between accesses to registers; measured: up to 100"),
    ],
)
def test_what_was_not_measured_is_said(target: Target, memory: Callable[[Target], Memory], says: str) -> None:
    assert unmeasured_setting(target, memory(target)) == (says,)


@pytest.mark.parametrize(
    "memory",
    [
        _memory(latency=20),
        _memory(latency=200, bandwidth=4.0),
        _memory(shared=True),
        _memory(outstanding=16),
        _memory(host_gap=100),
    ],
)
def test_the_ends_of_what_was_measured_are_measured(memory: Callable[[Target], Memory]) -> None:
    assert unmeasured_setting(NV_SMALL, memory(NV_SMALL)) == ()


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (Move(32), "copies were not measured"),
        (Point(64, 2, 128, 0, 128), "types of two bytes were not measured"),
        (Planar(128, 128, 64, 2, True), "types of two bytes were not measured"),
        (Point(64, 1, 64, 0, 0), "results that the PDP takes"),
        (
            replace(convolution_of(NV_LARGE, 8, 8, 1, 8), unmeasured=("Winograd was not measured",)),
            "Winograd was not measured",
        ),
    ],
)
def test_operations_that_were_not_measured_are_said(work: Operation, says: str) -> None:
    assert says in cost(NV_LARGE, memory_of(NV_LARGE), work).extrapolated
