"""NVDLA's integer arithmetic, one value at a time in Python's unbounded integers: a second opinion on the emulator.

Written from the rules alone (docs/hardware), with nothing of the emulator's code.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.hardware.targets import Target


def clamp(value: int, bits: int) -> int:
    """Saturate to signed `bits`."""
    return max(-(1 << bits - 1), min((1 << bits - 1) - 1, value))


def rnd(value: int, shift: int) -> int:
    """Divide by 2**shift, to nearest, ties away from zero."""
    if shift == 0:
        return value
    half = 1 << shift - 1
    return value + half >> shift if value >= 0 else -(-value + half >> shift)


@dataclass(frozen=True)
class XUnit:
    """X1 or X2; `alu` and `mul` are None where the part is bypassed."""

    alu: Literal["max", "min", "sum", "eql"] | None
    alu_operand: int
    alu_shift: int
    mul_operand: int | None
    truncate: int
    act: Literal["none", "relu", "prelu"]


def x_unit(value: int, unit: XUnit) -> int:
    """ALU (operand shifted left and saturated), multiplier, shift, ReLU; all in one order for every value."""
    operand = clamp(unit.alu_operand << unit.alu_shift, 32)
    if unit.alu == "max":
        value = max(value, operand)
    elif unit.alu == "min":
        value = min(value, operand)
    elif unit.alu is not None:
        value += operand
    if unit.act == "prelu" and unit.mul_operand is not None and value >= 0:
        return (value + (1 << 31)) % (1 << 32) - (1 << 31)
    product = value if unit.mul_operand is None else value * unit.mul_operand
    result = clamp(rnd(product, unit.truncate), 32)
    return max(result, 0) if unit.act == "relu" else result


@dataclass(frozen=True)
class Cvt:
    """A converter."""

    offset: int
    scale: int
    shift: int


@dataclass(frozen=True)
class YUnit:
    """Y without its table; operand converters are None where they are off."""

    alu: Literal["max", "min", "sum", "eql"] | None
    alu_operand: int
    mul_operand: int | None
    truncate: int
    prelu: bool
    alu_cvt: Cvt | None
    mul_cvt: Cvt | None


def convert_operand(value: int, cvt: Cvt | None) -> int:
    """Operand converter of Y."""
    return value if cvt is None else clamp(rnd((value - cvt.offset) * cvt.scale, cvt.shift), 32)


def y_unit(value: int, unit: YUnit) -> int:
    """Multiplier first, then ALU."""
    if unit.mul_operand is not None and not (unit.prelu and value >= 0):
        value = clamp(rnd(value * convert_operand(unit.mul_operand, unit.mul_cvt), unit.truncate), 32)
    operand = convert_operand(unit.alu_operand, unit.alu_cvt)
    if unit.alu == "max":
        return max(value, operand)
    if unit.alu == "min":
        return min(value, operand)
    if unit.alu == "eql":
        return int(value != operand)
    return clamp(value + operand, 32) if unit.alu == "sum" else value


def out_converter(value: int, cvt: Cvt, bits: int = 8) -> int:
    """Converter C to int8 or int16: one rounding, two saturations. The input converter is the same."""
    return clamp(clamp(rnd((value - cvt.offset) * cvt.scale, cvt.shift), 17), bits)


def half_of(value: int) -> float:
    """An integer of 17 bits as the nearest half, ties to even; the largest half where that would be infinite."""
    magnitude = abs(value)
    step = 1 << max(magnitude.bit_length() - 11, 0)
    low, rest = magnitude // step, magnitude % step
    rounded = (low + (rest * 2 > step or (rest * 2 == step and low % 2 == 1))) * step
    return float(min(rounded, 65504)) * (-1 if value < 0 else 1)


def components(name: str) -> list[tuple[str, int, int, int]]:
    """Return (letter, plane, lowest bit, bits) of a pixel format's components, from its name alone.

    Components stand in the name from the highest bits of a pixel down; ``___`` parts two planes.
    """
    found = []
    planes = name.removesuffix("_N444").removesuffix("_F").removesuffix("_I").split("___")
    for plane, part in enumerate(planes):
        place = 0
        for letter, bits in reversed(re.findall(r"([A-Z])(\d+)", part)):
            found.append((letter, plane, place, int(bits)))
            # Ten and twelve bits that are not packed with two of A take a word each.
            place += int(bits) if "A2" in name else -(-int(bits) // 8) * 8
    order = {letter: number for number, letters in enumerate(("RY", "GU", "BV", "AX")) for letter in letters}
    return sorted(found, key=lambda entry: order[entry[0]])


RECIPROCALS = {1: 65536, 2: 32768, 3: 21845, 4: 16384, 5: 13107, 6: 10922, 7: 9362, 8: 8192}
"""65536 / k, truncated (kmd/firmware/pdp.c:73)."""


def pool(
    rows: Mapping[tuple[int, int], int],
    corner: tuple[int, int],
    kernel: tuple[int, int],
    mode: Literal["average", "max", "min"],
    padding: tuple[int, ...],
    bits: int = 8,
) -> int:
    """Pool one window of one channel; `rows` holds the real cells by (y, x)."""
    ys = [corner[0] + i for i in range(kernel[0])]
    xs = [corner[1] + i for i in range(kernel[1])]
    cells = [rows[y, x] for y in ys for x in xs if (y, x) in rows]
    if mode == "max":
        return max(cells)
    if mode == "min":
        return min(cells)
    real_ys = [y for y in ys if any((y, x) in rows for x in xs)]
    total = sum(cells)
    for y in real_ys:
        padded = sum((y, x) not in rows for x in xs)
        total += padding[padded - 1] if padded else 0
    padded_rows = len(ys) - len(real_ys)
    total += padding[padded_rows - 1] * kernel[1] if padded_rows else 0
    once = rnd(total * RECIPROCALS[kernel[1]], 16)
    twice = rnd(once * RECIPROCALS[kernel[0]], 16)
    return (twice + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


@dataclass(frozen=True)
class Table:
    """One of the CDP's tables; `select` is a logarithm's offset where `exponential`, else a right shift."""

    entries: tuple[int, ...]
    start: int
    end: int
    exponential: bool
    select: int
    below: tuple[int, int]
    above: tuple[int, int]


def cdp_table(total: int, table: Table) -> tuple[int, Literal["under", "over", "hit"]]:
    """Look `total` up: 16 fraction bits, the surplus cut off; beyond the table, along a slope; 16 bits."""
    last = len(table.entries) - 1

    def outside(entry: int, distance: int, slope: tuple[int, int]) -> int:
        scale, shift = slope
        return clamp(entry + (rnd(distance * scale, shift) if shift >= 0 else distance * scale << -shift), 16)

    distance = total - table.start
    bias = 1 << table.select if table.exponential and table.select >= 0 else 0
    under = outside(table.entries[0], distance - bias, table.below)
    if distance <= 0:
        return under, "under"
    if table.exponential:
        power = distance.bit_length() - 1
        if power < table.select:
            return under, "under"
        index, fraction = power - table.select, (distance - (1 << power) << 16) >> power
    elif table.select >= 0:
        index, fraction = distance >> table.select, ((distance << 16) >> table.select) & 0xFFFF
    else:
        index, fraction = distance << -table.select, 0
    if index >= last:
        return outside(table.entries[last], total - table.end, table.above), "over"
    first, second = table.entries[index], table.entries[index + 1]
    return clamp(first + rnd((second - first) * fraction, 16), 16), "hit"


@dataclass(frozen=True)
class Lrn:
    """Local response normalisation; priorities are 0 for `exp` and 1 for `only`, in the order under, over, hybrid."""

    size: int
    square_sum: bool
    multiply: bool
    before: Cvt
    after: Cvt
    exp: Table
    only: Table
    priorities: tuple[int, int, int]
    bits: Literal[8, 16]


def normalise(values: list[int], channel: int, lrn: Lrn) -> int:
    """Normalise one channel of a pixel whose channels are `values`."""
    converted = [
        clamp(rnd((value - lrn.before.offset) * lrn.before.scale, lrn.before.shift), lrn.bits + 1) for value in values
    ]
    total = converted[channel]
    if lrn.square_sum:
        reach = lrn.size // 2
        total = sum(value * value for value in converted[max(channel - reach, 0) : channel + reach + 1])
    exp, exp_state = cdp_table(total, lrn.exp)
    only, only_state = cdp_table(total, lrn.only)
    under, over, hybrid = lrn.priorities
    states = exp_state, only_state
    if states == ("under", "under"):
        choice = under
    elif states == ("over", "over"):
        choice = over
    elif states.count("hit") == 1:
        choice = states.index("hit")
    else:
        choice = hybrid
    value = (exp, only)[choice]
    if lrn.multiply:
        value *= converted[channel]
    return clamp(rnd((value - lrn.after.offset) * lrn.after.scale, lrn.after.shift), lrn.bits)


def half(value: float) -> float:
    """Round to float16, ties away from zero; what does not fit is infinite."""
    if not math.isfinite(value) or value == 0:
        return value
    step = 2.0 ** max(math.frexp(value)[1] - 11, -24)
    rounded = math.copysign(math.floor(abs(value) / step + 0.5) * step, value)
    return math.copysign(math.inf, value) if abs(rounded) > 65504 else rounded


def as_int8(value: float) -> int:
    """Clamp, then truncate; what is no number is 0."""
    return 0 if math.isnan(value) else math.trunc(max(-128.0, min(127.0, value)))


def cpu_power(value: float, power: float, scale: float, shift: float) -> float:
    """``powf(shift + scale * value, power)``, each step rounded to float32."""
    with np.errstate(all="ignore"):
        base = np.float32(shift) + np.float32(scale) * np.float32(value)
        return float(np.float32(np.power(np.float64(base), np.float64(np.float32(power)))))


def cpu_softmax(values: list[float]) -> list[float]:
    """Softmax in float32, summed from the first value on."""
    exponentials = [np.float32(math.exp(np.float32(value) - np.float32(max(values)))) for value in values]
    total = np.float32(0)
    for exponential in exponentials:
        total = np.float32(total + exponential)
    return [float(np.float32(exponential / total)) for exponential in exponentials]


def stream(
    weights: NDArray[np.int8] | NDArray[np.int16] | NDArray[np.float16],
    target: Target,
    image: bool,
    post_extension: int,
) -> NDArray[np.uint8]:
    """Pack (kernels, height, width, channels) element by element, in the order in which the sequencer takes them.

    docs/hardware/weights.md, "Direct" and "Images": kernel groups; in each, blocks of `atomic_c` channels; rows (joined
    by post-extension), columns; then kernels, then rows of the join, then channels. An image's columns are part of its
    channels.
    """
    if image:
        weights = weights.reshape(*weights.shape[:2], 1, -1)
    kernels, height, width, channels = weights.shape
    joined = 1 << post_extension
    # Two-byte elements: half as many kernels in a group.
    group = target.atomic_k // weights.dtype.itemsize

    def order() -> Iterator[np.generic]:
        for k0 in range(0, kernels, group):
            for c0 in range(0, channels, target.atomic_c):
                for r0 in range(0, height, joined):
                    for x in range(width):
                        for k in range(k0, min(k0 + group, kernels)):
                            for r in range(r0, min(r0 + joined, height)):
                                for c in range(c0, min(c0 + target.atomic_c, channels)):
                                    yield weights[k, r, x, c]

    return np.array(list(order()), weights.dtype).view(np.uint8)


def accumulators(
    x: NDArray[np.int64], w: NDArray[np.int8] | NDArray[np.int16], size: tuple[int, int], stride: tuple[int, int],
    dilation: tuple[int, int], pad: tuple[int, int], pad_value: int,
) -> NDArray[np.int64]:  # fmt: skip
    """Convolve (n, c, h, w) with (k, kh, kw, c), tap by tap; whatever lies outside is `pad_value` in every channel."""
    result = np.zeros((len(x), len(w), *size), np.int64)
    for oy, ox, ky, kx in np.ndindex(*size, *w.shape[1:3]):
        y, xx = oy * stride[0] + ky * dilation[0] - pad[0], ox * stride[1] + kx * dilation[1] - pad[1]
        inside = 0 <= y < x.shape[2] and 0 <= xx < x.shape[3]
        column = x[:, :, y, xx] if inside else np.full(x.shape[:2], pad_value)
        result[:, :, oy, ox] += column @ w[:, ky, kx].astype(np.int64).T
    return result
