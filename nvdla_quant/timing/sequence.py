"""When the MAC array is done with each group of kernels, and the accumulator with handing it over.

The sequencer goes over the output in *stripes* of pixels. A stripe takes one step for each tap and word of channels,
and each step as many cycles as the stripe has pixels. Before the last step it needs room for all of them in the
accumulator's output buffer; a pixel's room is free again some cycles after it went to the SDP, which takes
`kernels / throughput` cycles a pixel, and one for the buffer.

Source: nvdla/hw, branch master, ``vmod/nvdla/csc/NV_NVDLA_CSC_sg.v`` (``cur_stripe``, ``dat_max_cycles``,
``credit_ready``) and ``NV_NVDLA_CSC.h`` (``CSC_IMG_STRIPE``, ``CSC_MIN_STRIPE``, ``NVDLA_CC_CREDIT_SIZE``),
``vmod/nvdla/cacc/NV_NVDLA_CACC_delivery_buffer.v`` (``data_left_mask``). All of it but `Timing.credit` is exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from nvdla_quant.hardware.targets import Target

Delivery = tuple[float, int]
"""When a stripe's first pixel goes to the SDP, and its pixels."""


@dataclass(frozen=True)
class State:
    """Where sequencer and accumulator stand.

    Attributes
    ----------
    free : float
        When the sequencer may begin its next step.
    delivered : float
        When the accumulator has handed over all that it has.
    recent : tuple[Delivery, ...]
        The last stripes, the latest first, as many as the room holds.
    """

    free: float
    delivered: float
    recent: tuple[Delivery, ...] = ()

    def shifted(self, by: float) -> "State":
        """Return the state `by` cycles later."""
        recent = tuple((start + by, pixels) for start, pixels in self.recent)
        return State(self.free + by, self.delivered + by, recent)

    @property
    def shape(self) -> tuple[float, tuple[Delivery, ...]]:
        """What stands, seen from `free`: two states of one shape go on alike."""
        recent = tuple((round(start - self.free, 6), pixels) for start, pixels in self.recent)
        return round(self.delivered - self.free, 6), recent


@dataclass(frozen=True)
class Sequencer:
    """How a target goes over the output of one convolution.

    Attributes
    ----------
    shortest, longest : int
        Pixels of a stripe; one that is last may have fewer.
    room : int
        Pixels that the accumulator's output buffer holds.
    least : int
        Fewest cycles of a step: those in which the MAC array takes its weights.
    steps : int
        Of a stripe.
    each : float
        Cycles in which the accumulator hands over a pixel.
    credit : int
        From there until the sequencer knows that its room is free.
    """

    shortest: int
    longest: int
    room: int
    least: int
    steps: int
    each: float
    credit: int

    def stripes(self, pixels: int) -> list[tuple[int, int]]:
        """Return the stripes of a row of pixels: how long, and how many of them in a row."""
        whole = pixels // self.longest
        if whole and pixels % self.longest:
            # What is left with one whole stripe is more than one, less than two: that one is cut short.
            whole -= 1
        found = [(self.longest, whole)] if whole else []
        left = pixels - whole * self.longest
        while left > 0:
            length = left if left <= self.longest else self.shortest
            found.append((length, 1))
            left -= length
        return found

    def group_cycles(self, rows: int, row: int) -> int:
        """Cycles of the MAC array for one group of kernels."""
        return rows * sum(count * self.steps * max(length, self.least) for length, count in self.stripes(row))

    def group(self, state: State, rows: int, row: int) -> State:
        """Return the state behind one group of kernels."""
        stripes = self.stripes(row)

        def one_row(state: State) -> State:
            for length, count in stripes:
                state = repeated(partial(self._stripe, pixels=length), state, count)
            return state

        return repeated(one_row, state, rows)

    def _stripe(self, state: State, pixels: int) -> State:
        cycles = max(pixels, self.least)
        last = state.free + (self.steps - 1) * cycles
        freed = self._freed(state.recent, self.room - pixels)
        if freed is not None:
            last = max(last, freed + self.credit)
        start = max(state.delivered, last)
        return State(last + cycles, start + pixels * self.each, self._kept(((start, pixels), *state.recent)))

    def _freed(self, recent: Sequence[Delivery], held: int) -> float | None:
        """Return when all but the last `held` pixels were handed over; None where there are no more."""
        for start, pixels in recent:
            if held < pixels:
                return start + (pixels - held) * self.each
            held -= pixels
        return None

    def _kept(self, recent: tuple[Delivery, ...]) -> tuple[Delivery, ...]:
        """Return as many of the last stripes as the room may hold."""
        total = 0
        for number, (_, pixels) in enumerate(recent, 1):
            total += pixels
            if total > self.room:
                return recent[:number]
        return recent


def repeated(step: Callable[[State], State], state: State, count: int) -> State:
    """Do a step `count` times; once it only shifts a state, the rest are taken at once."""
    for done in range(1, count + 1):
        after = step(state)
        if after.shape == state.shape:
            return after.shifted((count - done) * (after.free - state.free))
        state = after
    return state


def sequencer(target: Target, steps: int, element_bytes: int, image: bool) -> Sequencer:
    """Return how `target` goes over a convolution of `steps` steps for each stripe.

    Parameters
    ----------
    target : Target
        The hardware.
    steps : int
        Steps of a stripe.
    element_bytes : int
        1 or 2.
    image : bool
        Whether the input is an image.
    """
    kernels = target.atomic_k
    room = kernels * (4 if target.atomic_c == 4 * kernels else 2)
    longest = room if image else 2 * kernels
    each = target.kernels_per_group(element_bytes) / throughput(target) + 1
    return Sequencer(longest if image else kernels, longest, room, kernels, steps, each, target.timing.credit)


def throughput(target: Target) -> int:
    """Values that the accumulator hands to the SDP in a cycle (nvdla/hw ``NVDLA_SDP_MAX_THROUGHPUT``)."""
    return max(target.rates.x1, target.rates.x2, target.rates.y)
