"""The SDP's table against a scalar model of the rule, over random tables and the whole range of int32."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nvdla_quant.emulator.integer.lut import look_up
from nvdla_quant.emulator.operations import Lut, TableHalf
from tests.scalar_model import clamp, rnd

int16 = st.integers(-(1 << 15), (1 << 15) - 1)
int32 = st.integers(-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True)
class Outcome:
    value: int
    state: str


def half(x: int, table: TableHalf) -> Outcome:
    """One table (docs/hardware/tables.md): exponential `linear_exp` or linear, 35 fraction bits, linear extension."""
    entries = table.entries.tolist()
    last = len(entries) - 1
    select = table.select

    def outside(end: int, offset: int, slope: tuple[int, int], state: str) -> Outcome:
        scale, shift = slope
        product = (x - offset) * scale
        moved = rnd(product, shift) if shift >= 0 else product << -shift
        return Outcome(clamp(end + clamp(moved, 32), 32), state)

    bias = 1 << select % 32 if table.exponential and select > 0 else 0
    distance = x - table.start
    if distance <= 0:
        return outside(entries[0], table.start + bias, table.underflow, "under")
    if table.exponential:
        exponent = distance.bit_length() - 1
        if exponent < select:
            return outside(entries[0], table.start + bias, table.underflow, "under")
        index, fraction = exponent - select, (distance - (1 << exponent)) << (35 - exponent)
    elif select >= 0:
        low = distance & ((1 << select) - 1)
        index, fraction = distance >> select, low << (35 - select) if select <= 35 else low >> (select - 35)
    else:
        index, fraction = distance << -select, 0
    if index >= last:
        return outside(entries[last], table.end, table.overflow, "over")
    mixed = entries[index] * ((1 << 35) - fraction) + entries[index + 1] * fraction
    return Outcome(rnd(mixed, 35), "hit")


def choose(exp: Outcome, only: Outcome, lut: Lut) -> int:
    states = exp.state, only.state
    if states == ("under", "under"):
        which = lut.underflow_priority
    elif states == ("over", "over"):
        which = lut.overflow_priority
    elif exp.state == "hit" and only.state != "hit":
        which = 0
    elif only.state == "hit" and exp.state != "hit":
        which = 1
    else:
        which = lut.hybrid_priority
    return (exp, only)[which].value


@st.composite
def tables(draw: st.DrawFn, count: int, may_be_exponential: bool) -> TableHalf:
    entries = np.random.default_rng(draw(st.integers(0, 1 << 30))).integers(-(1 << 15), 1 << 15, count)
    exponential = may_be_exponential and draw(st.booleans())
    start = draw(st.one_of(st.integers(-1000, 1000), int32))
    slopes = [(draw(int16), draw(st.integers(-16, 15))) for _ in range(2)]
    select = draw(st.one_of(st.integers(-4, 28), st.integers(-20, 60)))
    return TableHalf(entries, start, draw(st.one_of(st.integers(-1000, 5000), int32)), exponential, select, *slopes)


@settings(max_examples=100, deadline=None)
@given(
    tables(65, True), tables(257, False), st.integers(0, 1), st.integers(0, 1), st.integers(0, 1),
    st.lists(st.one_of(st.integers(-2000, 100000), int32), min_size=1, max_size=20), st.integers(-3, 70000),
)  # fmt: skip
def test_look_up(
    exp: TableHalf, only: TableHalf, hybrid: int, under: int, over: int, numbers: list[int], near: int
) -> None:
    lut = Lut(exp, only, hybrid, under, over)
    numbers += [clamp(exp.start + near, 32), clamp(only.start + near, 32), clamp(exp.start, 32)]
    result = look_up(np.array(numbers, np.int64), lut)
    assert result.tolist() == [choose(half(x, exp), half(x, only), lut) for x in numbers]


def test_linear_interpolation_by_hand() -> None:
    """Entries 0, 10, 20, ... every 4 steps from 100: x = 106 lies half way between entries 1 and 2, so 15."""
    entries = np.arange(257) * 10
    only = TableHalf(entries, 100, 100 + 1024, False, 2, (0, 0), (0, 0))
    never = TableHalf(np.zeros(65, np.int64), 1 << 30, 1 << 30, False, 0, (0, 0), (0, 0))
    lut = Lut(never, only, 1, 1, 1)
    # At and below the start: the first entry; behind the end: the last.
    assert look_up(np.array([106, 100, 50, 1124, 5000]), lut).tolist() == [15, 0, 0, 2560, 2560]
