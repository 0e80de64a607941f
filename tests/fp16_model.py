"""NVDLA's fp16 arithmetic, one value at a time in Python's unbounded integers and fractions: a second opinion.

Written from the rules alone (docs/hardware/fp16.md; nvdla/hw ``cmod/cmac``, ``cmod/cacc``,
``cmod/hls/include/nvdla_float.h``), with nothing of the emulator's code. Numbers are bit patterns of a `Format`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Format:
    """Exponent and mantissa bits; `subnormals`: whether small exponents lose the implied one, as in IEEE 754."""

    exponents: int
    mantissas: int
    subnormals: bool = False

    @property
    def top(self) -> int:
        return (1 << self.exponents) - 1

    @property
    def bias(self) -> int:
        return self.top >> 1

    @property
    def sign_bit(self) -> int:
        return 1 << (self.exponents + self.mantissas)

    @property
    def largest(self) -> int:
        """Bits of the largest finite number, which stands for all beyond."""
        return (self.top << self.mantissas) - 1

    def split(self, bits: int) -> tuple[bool, int, int]:
        """Return (negative, exponent field, mantissa field)."""
        magnitude = bits % self.sign_bit
        return bits >= self.sign_bit, magnitude >> self.mantissas, magnitude % (1 << self.mantissas)

    def is_nan(self, bits: int) -> bool:
        _, exponent, mantissa = self.split(bits)
        return exponent == self.top and mantissa != 0

    def magnitude(self, bits: int) -> Fraction:
        """Return what a pattern stands for; all exponents count as they are, the highest included."""
        _, exponent, mantissa = self.split(bits)
        if exponent == 0 and mantissa == 0:
            return Fraction(0)
        if exponent == 0 and self.subnormals:
            return Fraction(mantissa) * two(1 - self.bias - self.mantissas)
        return (mantissa + (1 << self.mantissas)) * two(exponent - self.bias - self.mantissas)

    def signed(self, negative: bool, magnitude: int) -> int:
        return magnitude + self.sign_bit * negative


HALF, FP17, SINGLE = Format(5, 10, subnormals=True), Format(6, 10), Format(8, 23)


def two(exponent: int) -> Fraction:
    """Return 2**exponent."""
    return Fraction(2) ** exponent


def to_even(value: Fraction) -> int:
    """Round to the nearest integer, ties to even (Python's own rule for fractions)."""
    return round(value)


def log2(value: Fraction) -> int:
    """Return the exponent of the highest bit of a positive number."""
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if two(guess) <= value else guess - 1


def add(fmt: Format, a: int, b: int) -> int:
    """Return a + b.

    The operand of smaller magnitude loses what lies more than ``2 * m + 2`` bits below the larger one's highest. The
    rest is exact, rounded once; a sum below the smallest normal number is zero before it is rounded.
    """
    for operand in (a, b):
        if fmt.is_nan(operand):
            return operand
    if a % fmt.sign_bit < b % fmt.sign_bit:
        a, b = b, a
    negative, exponent, _ = fmt.split(a)
    unit = two(exponent - fmt.bias - 2 * fmt.mantissas - 2)
    small = math.floor(fmt.magnitude(b) / unit) * unit
    total = fmt.magnitude(a) + (small if fmt.split(b)[0] == negative else -small)
    if total == 0:
        return fmt.signed(negative, 0)
    field = log2(total) + fmt.bias
    if field <= 0:
        return fmt.signed(negative, 0)
    if field > exponent >= fmt.top - 1:
        return fmt.signed(negative, fmt.largest)
    mantissa = to_even(total / two(field - fmt.bias - fmt.mantissas))
    if mantissa == 2 << fmt.mantissas:
        if field >= fmt.top - 1:
            return fmt.signed(negative, fmt.largest)
        field, mantissa = field + 1, 1 << fmt.mantissas
    return fmt.signed(negative, (field << fmt.mantissas) + mantissa - (1 << fmt.mantissas))


def multiply(fmt: Format, a: int, b: int) -> int:
    """Return a * b; the sum of the exponents, before the product is normalised, decides on zero and overflow."""
    for operand in (a, b):
        if fmt.is_nan(operand):
            return operand
    negative = fmt.split(a)[0] != fmt.split(b)[0]
    product = fmt.magnitude(a) * fmt.magnitude(b)
    field = fmt.split(a)[1] + fmt.split(b)[1] - fmt.bias
    if product == 0 or field < 0:
        return fmt.signed(negative, 0)
    if field >= fmt.top:
        return fmt.signed(negative, fmt.largest)
    if log2(product) + fmt.bias > field:
        field += 1
    if field == fmt.top:
        return fmt.signed(negative, fmt.largest)
    mantissa = to_even(product / two(field - fmt.bias - fmt.mantissas))
    if mantissa == 2 << fmt.mantissas:
        field, mantissa = field + 1, 1 << fmt.mantissas
    if field == 0:
        return fmt.signed(negative, 0)
    return fmt.signed(negative, min((field << fmt.mantissas) + mantissa - (1 << fmt.mantissas), fmt.largest))


def compare(fmt: Format, a: int, b: int, maximum: bool) -> int:
    """Return the larger or smaller number; the first NaN wins, and -0 is below +0."""
    for operand in (a, b):
        if fmt.is_nan(operand):
            return operand

    def key(bits: int) -> int:
        return -1 - bits % fmt.sign_bit if bits >= fmt.sign_bit else bits

    return (max if maximum else min)(a, b, key=key)


def convert(source: Format, target: Format, bits: int) -> int:
    """Return a number in another format: to nearest even, clamped; NaN keeps the low bits of its mantissa."""
    negative, exponent, mantissa = source.split(bits)
    if source.is_nan(bits):
        return target.signed(negative, (target.top << target.mantissas) + mantissa % (1 << target.mantissas))
    if exponent == source.top:
        return target.signed(negative, target.largest)
    value = source.magnitude(bits)
    if value == 0:
        return target.signed(negative, 0)
    field = max(log2(value) + target.bias, 1)
    units = to_even(value / two(field - target.bias - target.mantissas))
    if units < 1 << target.mantissas:
        return target.signed(negative, units if target.subnormals else 0)
    # Rounding up to the next power of two carries into the exponent.
    return target.signed(negative, min((field - 1 << target.mantissas) + units, target.largest))


def fraction(numerator: int, width: int) -> int:
    """Return ``numerator / 2**width``, below 1, in fp17."""
    if numerator == 0:
        return 0
    value = Fraction(numerator, 1 << width)
    field = log2(value) + FP17.bias
    mantissa = to_even(value / two(field - FP17.bias - FP17.mantissas))
    return 0 if field <= 0 else (field - 1 << FP17.mantissas) + mantissa


# ---- MAC array and accumulator


def shifted(bits: int) -> tuple[int, int]:
    """Return the mantissa of a half, shifted by the low two bits of its exponent, and the other three."""
    _, exponent, mantissa = HALF.split(bits)
    return (mantissa << 1, 0) if exponent == 0 else ((mantissa + 1024) << exponent % 4, exponent // 4)


def carry_save(words: Sequence[int]) -> list[int]:
    """Reduce words of 32 bits to two, three at a time from the front: a sum without and one with the carries."""
    words = list(words)
    while len(words) > 2:
        whole = len(words) // 3 * 3
        reduced = []
        for i in range(0, whole, 3):
            a, b, c = words[i : i + 3]
            reduced += [a ^ b ^ c, ((a & b | b & c | a & c) << 1) % (1 << 32)]
        words = reduced + words[whole:]
    return words


def product(weight: int, data: int, down: int) -> int:
    """Return the product of two shifted mantissas, shifted right by `down`, as the Booth multiplier has it.

    `weight` is recoded into eight digits from -2 to 2, lowest first. A digit's word holds 0x10000 and the multiple, or,
    where it is negative, the complement of the multiple in 16 bits, to which the next word adds one.
    """
    if down >= 32:
        return 0
    negative, weight = weight < 0, abs(weight)
    words, ones = [], []
    for place in range(8):
        three = (weight << 1 >> 2 * place) % 8
        digit = (three % 2) + (three >> 1) % 2 - 2 * (three >> 2)
        digit = -digit if negative else digit
        words.append(0x10000 + digit * data if digit >= 0 else 0xFFFF - -digit * data)
        ones.append(int(digit < 0))
    rows = [word << 2 * place for place, word in enumerate(words)]
    for place in (1, 2, 3, 5, 6, 7):
        rows[place] |= ones[place - 1] << 2 * (place - 1)
    low, high = carry_save([*rows[:4], ones[3] << 6]), carry_save([*rows[4:], ones[7] << 14])
    total = sum(word % (1 << 32) >> down for word in carry_save(low + high))
    # 0x10000 of each word stands for a sign; together they are taken off again, shifted like the words.
    total = (total - (0x55550000 >> down)) % (1 << 32)
    return total - (1 << 32) if total >> 31 else total


def products(weights: Sequence[int], data: Sequence[int]) -> tuple[list[int], int] | int:
    """Return the aligned products of a step of the MAC array and their exponent, or the half that is NaN."""
    for bits in (*weights, *data):
        if HALF.is_nan(bits):
            return bits
    pairs = list(zip(weights, data, strict=True))
    scales = [shifted(w)[1] + shifted(d)[1] if w % 0x8000 and d % 0x8000 else None for w, d in pairs]
    top = max((scale for scale in scales if scale is not None), default=0)
    aligned = []
    for (w, d), scale in zip(pairs, scales, strict=True):
        weight = -shifted(w)[0] if (w ^ d) >> 15 else shifted(w)[0]
        aligned.append(0 if scale is None else product(weight, shifted(d)[0], 4 * (top - scale)))
    return aligned, 4 * top


def step(weights: Sequence[int], data: Sequence[int]) -> tuple[int, int] | int:
    """Return (m, e) of a step of the MAC array, worth ``m * 2**(e - 50)``, or the half that is NaN."""
    found = products(weights, data)
    return found if isinstance(found, int) else (sum(found[0]), found[1])


def winograd_step(weights: Sequence[int], data: Sequence[int]) -> list[tuple[int, int] | int]:
    """Return what a Winograd step hands to each of its four accumulators: 16 points of 4 channels, rows first."""
    found = products(weights, data)
    if isinstance(found, int):
        return [found] * 4
    points = [sum(found[0][4 * point : 4 * point + 4]) for point in range(16)]
    rows = [[points[x] + points[4 + x] + points[8 + x] for x in range(4)]]
    rows.append([points[4 + x] - points[8 + x] - points[12 + x] for x in range(4)])
    return [(value, found[1]) for a, b, c, d in rows for value in (a + b + c, b - c - d)]


def winograd_input(tile: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the transform of 4 x 4 halves: columns of four, then rows of four, each sum rounded to fp17."""

    def four(a: int, b: int, c: int, d: int) -> tuple[int, int, int, int]:
        minus = [negative_of(FP17, bits) for bits in (b, c, d)]
        return add(FP17, a, minus[1]), add(FP17, b, c), add(FP17, c, minus[0]), add(FP17, b, minus[2])

    wide = [[convert(HALF, FP17, bits) for bits in row] for row in tile]
    columns = [four(*column) for column in zip(*wide, strict=True)]
    return [[convert(FP17, HALF, bits) for bits in four(*row)] for row in zip(*columns, strict=True)]


def normalised(value: Fraction) -> int:
    """Return e so that ``value = m * 2**(e - 101)`` with m in ``[2**38, 2**39)`` or ``[-2**39, -2**38)``."""
    if value > 0:
        return log2(value) - 38 + 101
    places = log2(-value)
    return (places - 1 if -value == two(places) else places) - 38 + 101


@dataclass(frozen=True)
class Accumulator:
    """``mantissa * 2**(exponent - 101)``, or NaN: the half that it came from."""

    mantissa: int = 0
    exponent: int = 0
    nan: int | None = None

    @property
    def value(self) -> Fraction:
        return self.mantissa * two(self.exponent - 101)

    def plus(self, result: tuple[int, int] | int) -> "Accumulator":
        """Add a step: exact but that a far smaller operand is dropped; rounded to nearest, ties away from zero."""
        if self.nan is not None:
            return self
        if isinstance(result, int):
            return Accumulator(nan=result)
        if result[0] == 0:
            return self
        added = result[0] * two(result[1] - 50)
        exponent = normalised(added)
        total = self.value + added
        if self.mantissa == 0 or exponent - self.exponent > 40:
            total = added
        elif self.exponent - exponent > 40:
            total = self.value
        if total == 0:
            return Accumulator()
        exponent = normalised(total)
        units = math.floor(abs(total) / two(exponent - 101) + Fraction(1, 2))
        mantissa = units if total > 0 else -units
        if abs(mantissa) == 1 << 39 and total != mantissa * two(exponent - 101):
            return Accumulator(mantissa // 2, exponent + 1) if total > 0 else Accumulator(mantissa, exponent)
        return Accumulator(mantissa, exponent)

    def single(self) -> int:
        """Return the fp32 bits: to nearest, ties away from zero."""
        if self.nan is not None:
            return (self.nan >> 15 << 31) | 0x7F800000 | self.nan % 1024
        if self.mantissa == 0:
            return 0
        size = abs(self.value)
        field = log2(size) + SINGLE.bias
        units = math.floor(size / two(field - SINGLE.bias - 23) + Fraction(1, 2))
        return SINGLE.signed(self.mantissa < 0, (field - 1 << 23) + units)


def accumulate(steps: Iterable[tuple[Sequence[int], Sequence[int]]]) -> int:
    """Return the fp32 bits of a convolution's steps, each (weights, data)."""
    accumulator = Accumulator()
    for weights, data in steps:
        accumulator = accumulator.plus(step(weights, data))
    return accumulator.single()


# ---- tables


@dataclass(frozen=True)
class Table:
    """Entries and slopes are halves, start and end fp32."""

    entries: Sequence[int]
    start: int
    end: int
    exponential: bool
    select: int
    below: int
    above: int


def negative_of(fmt: Format, bits: int) -> int:
    """Return the number with its other sign."""
    return bits ^ fmt.sign_bit


def place_in(table: Table, x: int, width: int) -> tuple[str, int, int]:
    """Return ("under", "over" or "hit", index, fraction of `width` bits); what is below the fraction is cut off."""
    distance = add(SINGLE, x, negative_of(SINGLE, table.start))
    if SINGLE.is_nan(distance) or distance >= SINGLE.sign_bit or distance == 0:
        return "under", 0, 0
    value = SINGLE.magnitude(distance)
    if table.exponential:
        exponent = distance >> 23
        index, part = exponent - 127 - table.select, value / two(exponent - 127) - 1
    else:
        place = value / two(table.select)
        index, part = math.floor(place), place - math.floor(place)
    if index < 0:
        return "under", 0, 0
    if index >= len(table.entries) - 1:
        return "over", 0, 0
    return "hit", index, math.floor(part * (1 << width))


def outside(table: Table, x: int, under: bool) -> tuple[int, int]:
    """Return the end of a table, and what its straight continuation adds to that, both in fp17."""
    origin = table.start if under else table.end
    if under and table.exponential:
        origin = add(SINGLE, origin, SINGLE.bias + table.select << 23)
    distance = convert(SINGLE, FP17, add(SINGLE, x, negative_of(SINGLE, origin)))
    rise = multiply(FP17, distance, convert(HALF, FP17, table.below if under else table.above))
    return convert(HALF, FP17, table.entries[0 if under else -1]), rise


def sdp_entry(table: Table, x: int) -> tuple[str, int]:
    """Return what a table of the SDP makes of fp32 `x`: both neighbours weighted and added in fp17."""
    state, index, part = place_in(table, x, 35)
    if state != "hit":
        return state, add(FP17, *outside(table, x, state == "under"))
    rest = fraction((1 << 35) - part, 35) if part else FP17.bias << 10
    first, second = (convert(HALF, FP17, table.entries[index + i]) for i in range(2))
    return state, add(FP17, multiply(FP17, rest, first), multiply(FP17, fraction(part, 35), second))


def cdp_entry(table: Table, x: int) -> tuple[str, int]:
    """Return what a table of the CDP makes of fp32 `x`: the difference of the neighbours, scaled, and the first."""
    state, index, part = place_in(table, x, 16)
    if state != "hit":
        end, rise = outside(table, x, state == "under")
        return state, add(FP17, rise, end)
    first, second = table.entries[index : index + 2]
    rise = add(SINGLE, convert(HALF, SINGLE, second), negative_of(SINGLE, convert(HALF, SINGLE, first)))
    scaled = multiply(FP17, convert(SINGLE, FP17, rise), fraction(part, 16))
    return state, add(FP17, scaled, convert(HALF, FP17, first))


def choose(exp: tuple[str, int], only: tuple[str, int], under: int, over: int, hybrid: int) -> int:
    """Return the value of the table that counts: the one that hits, else by the priority of the case."""
    states = exp[0], only[0]
    if states.count("hit") == 1:
        which = states.index("hit")
    else:
        which = {("under", "under"): under, ("over", "over"): over}.get(states, hybrid)
    return (exp, only)[which][1]
