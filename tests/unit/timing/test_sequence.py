"""Stripes and credits: by hand, and beside a sequencer and an accumulator that go cycle by cycle."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.hardware.targets import NV_LARGE, NV_MEDIUM_512, NV_SMALL, NV_SMALL_256, TARGETS, Target
from nvdla_quant.timing.sequence import Sequencer, State, repeated, sequencer


def lengths(target: Target, pixels: int, image: bool = False) -> list[int]:
    found = sequencer(target, 1, 1, image).stripes(pixels)
    return [length for length, count in found for _ in range(count)]


@pytest.mark.parametrize(
    ("target", "pixels", "image", "expected"),
    [
        # What is left after 16 and 16 is 17: less than two whole stripes, so 8 of the shortest, then 9.
        (NV_SMALL, 49, False, [16, 16, 8, 9]),
        # 33 are two whole stripes and one pixel: after 16, 17 are left.
        (NV_SMALL, 33, False, [16, 8, 9]),
        (NV_SMALL, 32, False, [16, 16]),
        (NV_SMALL, 1, False, [1]),
        # 49 and 33 are less than two of 32 and more than one: the shortest, twice.
        (NV_MEDIUM_512, 49, False, [16, 16, 17]),
        (NV_LARGE, 49, False, [49]),
        # An image's stripes are as long as the accumulator has room for, and all but the last are whole.
        (NV_SMALL_256, 49, True, [32, 17]),
        (NV_SMALL, 49, True, [16, 16, 16, 1]),
    ],
)
def test_stripes_by_hand(target: Target, pixels: int, image: bool, expected: list[int]) -> None:
    """The rule: nvdla/hw ``vmod/nvdla/csc/NV_NVDLA_CSC_sg.v``, ``cur_stripe``."""
    assert lengths(target, pixels, image) == expected


@given(st.sampled_from(list(TARGETS.values())), st.integers(1, 5000), st.booleans())
def test_stripes_cover_all_pixels(target: Target, pixels: int, image: bool) -> None:
    found, over = lengths(target, pixels, image), sequencer(target, 1, 1, image)
    assert sum(found) == pixels
    assert all(over.shortest <= length <= over.longest for length in found[:-1])
    assert found[-1] <= over.longest


@pytest.mark.parametrize(
    ("target", "room", "each"),
    [(NV_SMALL, 16, 9.0), (NV_SMALL_256, 32, 9.0), (NV_MEDIUM_512, 32, 5.0), (NV_LARGE, 64, 3.0)],
)
def test_room_and_pace_of_the_four_that_were_measured(target: Target, room: int, each: float) -> None:
    """Room: ``NVDLA_CC_CREDIT_SIZE``; a pixel takes its kernels over the SDP's throughput, and one cycle more."""
    over = sequencer(target, 1, 1, False)
    assert (over.room, over.each) == (room, each)


def cycle_by_cycle(over: Sequencer, ready: list[int], rows: int, row: int) -> tuple[list[int], int]:
    """Return when the sequencer is done with each group, which may begin at `ready`, and the accumulator with all."""
    now = free = busy = waiting = 0
    credits, returned = over.room, deque[int]()
    groups, steps = deque(ready), deque[tuple[int, bool]]()
    stripes = [length for length, count in over.stripes(row) for _ in range(count)] * rows
    frees = []
    while groups or steps or waiting:
        if not steps and groups:
            free = max(free, groups.popleft())
            steps.extend((length, step == over.steps - 1) for length in stripes for step in range(over.steps))
        while returned and returned[0] <= now:
            credits += 1
            returned.popleft()
        if steps and now >= free and (credits >= steps[0][0] or not steps[0][1]):
            length, last = steps.popleft()
            free = now + max(length, over.least)
            if last:
                credits, waiting = credits - length, waiting + length
            if not steps:
                frees.append(free)
        if waiting and now >= busy:
            waiting -= 1
            busy = now + int(over.each)
            returned.append(busy + over.credit)
        now += 1
    return frees, busy


sequencers = st.builds(
    lambda kernels, ratio, image, steps, each, credit: Sequencer(
        kernels * ratio if image else kernels,
        kernels * ratio if image else 2 * kernels,
        kernels * ratio,
        kernels,
        steps,
        float(each),
        credit,
    ),
    st.sampled_from([2, 4, 8]),
    st.sampled_from([2, 4]),
    st.booleans(),
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(0, 60),
)


@given(sequencers, st.integers(1, 4), st.integers(1, 120), st.lists(st.integers(0, 3000), min_size=1, max_size=4))
def test_groups_go_as_they_do_cycle_by_cycle(over: Sequencer, rows: int, row: int, gaps: list[int]) -> None:
    """With the jump over rows and stripes that are alike."""
    ready = [sum(gaps[: number + 1]) for number in range(len(gaps))]
    state = State(0.0, 0.0)
    frees = []
    for start in ready:
        state = over.group(State(max(state.free, start), state.delivered, state.recent), rows, row)
        frees.append(state.free)
    assert (frees, state.delivered) == cycle_by_cycle(over, ready, rows, row)


@given(sequencers, st.integers(1, 200), st.integers(1, 300))
def test_the_jump_changes_nothing(over: Sequencer, rows: int, row: int) -> None:
    """`repeated` beside as many single steps."""
    stripes = [length for length, count in over.stripes(row) for _ in range(count)]
    state = State(0.0, 0.0)
    for _ in range(rows):
        for length in stripes:
            state = over._stripe(state, length)
    found = over.group(State(0.0, 0.0), rows, row)
    assert (found.free, found.delivered) == (state.free, state.delivered)


def test_what_never_settles_is_done_in_full() -> None:
    """A step whose state keeps its shape never again is done as often as asked."""
    calls = []

    def step(state: State) -> State:
        calls.append(state)
        return State(state.free + 1, state.delivered + 2)

    assert repeated(step, State(0.0, 0.0), 7) == State(7.0, 14.0)
    assert len(calls) == 7
