"""How a convolution shares the convolution buffer (CBUF): entries, banks, and the runs that it takes.

The buffer is `cbuf_banks` banks of `cbuf_bank_entries` entries. Input rows stand in whole entries in the data banks,
kernels in the weight banks. The formulas are those of NVIDIA's compiler (docs/hardware/buffer.md, "Entries" and
"Banks"), checked against every convolution of its loadables.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from nvdla_quant.hardware.targets import Target

IMAGE_CHANNELS = 4
"""Components of a pixel in the image formats that the compiler uses; absent channels are zero."""


def ceil_div(value: int, by: int) -> int:
    """Quotient rounded up."""
    return -(-value // by)


def round_up(value: int, to: int) -> int:
    """`value` rounded up to a multiple of `to`."""
    return ceil_div(value, to) * to


def image_entries(target: Target, width: int, pad: int, element_bytes: int) -> int:
    """Entries of one row of an image of `width` pixels and `pad` columns of padding, left and right together."""
    return ceil_div((width + pad) * IMAGE_CHANNELS * element_bytes, target.cbuf_entry_bytes)


def feature_entries(target: Target, channels: int, width: int, element_bytes: int) -> int:
    """Entries of one row of a feature cube: whole entries of channels, then the atoms that are left.

    Three atoms left in entries of four take as much room as four.
    """
    atoms = ceil_div(channels * element_bytes, target.feature_atom_bytes)
    atoms_per_entry = target.cbuf_entry_bytes // target.feature_atom_bytes
    whole, rest = divmod(atoms, atoms_per_entry)
    return whole * width + (width if rest == 3 else ceil_div(rest * width, atoms_per_entry))


def weight_banks(target: Target, weight_bytes: int) -> int:
    """Banks that `weight_bytes` of kernels take."""
    return ceil_div(round_up(weight_bytes, target.cbuf_entry_bytes), target.cbuf_bank_bytes)


Pair = tuple[int, int]
"""(vertical, horizontal)."""
MAX_KERNEL_BYTES = 1 << 18
"""Bytes of one kernel: 18 bits, minus one (NVDLA_CDMA_D_WEIGHT_SIZE_0)."""
MAX_ENTRIES = 1 << 12
"""CBUF entries of one input row: 12 bits (NVDLA_CDMA_D_ENTRY_PER_SLICE)."""
MAX_PAD, MAX_FAR_PAD = 31, 63
"""Padding on the left and above: 5 bits; on the right and below: 6 (NVDLA_CDMA_D_ZERO_PADDING)."""
MOST_CHUNKS = 64
"""Most parts that the channels are cut into."""


@dataclass(frozen=True)
class Work:
    """What a convolution asks of the buffer.

    Attributes
    ----------
    kernels, channels : int
        Outputs; inputs as the hardware sees them, four for an image.
    kernel, extent : Pair
        Taps, and the pixels that they span (dilation included).
    stride : Pair
        Steps.
    pad : Pair
        Rows and columns above and on the left; negative where the first windows start inside.
    source, output : Pair
        Height and width.
    element_bytes : int
        1 or 2.
    image : bool
        Whether the source is an image.
    """

    kernels: int
    channels: int
    kernel: Pair
    extent: Pair
    stride: Pair
    pad: Pair
    source: Pair
    output: Pair
    element_bytes: int
    image: bool = False

    @property
    def kernel_bytes(self) -> int:
        """Bytes of one kernel."""
        return self.channels * self.kernel[0] * self.kernel[1] * self.element_bytes

    @property
    def padding(self) -> tuple[Pair, Pair]:
        """Most rows and columns of padding before and after, where outputs are computed in as few runs as can be."""
        down, across = (spans(self, axis, self.source[axis], self.output[axis]) for axis in (0, 1))
        before, after = (
            (max(getattr(span, side) for span in down), max(getattr(span, side) for span in across))
            for side in ("before", "after")
        )
        return before, after

    def entries(self, target: Target, columns: int) -> int:
        """Entries of one row of `columns` input pixels."""
        if self.image:
            (_, left), (_, right) = self.padding
            return image_entries(target, columns, left + right, self.element_bytes)
        return feature_entries(target, self.channels, columns, self.element_bytes)


@dataclass(frozen=True)
class Span:
    """Outputs along one axis that one run computes, and the inputs that it reads for them.

    Attributes
    ----------
    first, count : int
        Outputs.
    start, inputs : int
        Inputs inside of the cube.
    before, after : int
        Padding.
    """

    first: int
    count: int
    start: int
    inputs: int
    before: int
    after: int


def spans(work: Work, axis: int, fit: int, most: int) -> tuple[Span, ...]:
    """Cut the outputs along `axis` into runs that read at most `fit` inputs and write at most `most` outputs."""
    size, outputs = work.source[axis], work.output[axis]
    extent, stride, pad = work.extent[axis], work.stride[axis], work.pad[axis]
    found = []
    first = 0
    while first < outputs:
        top = first * stride - pad
        start = max(top, 0)
        left = min(outputs - first, most)
        count = left if size - start <= fit else min(left, (start + fit - extent - top) // stride + 1)
        bottom = top + (count - 1) * stride + extent
        after = max(bottom - size, 0)
        if count == outputs and size <= fit and pad >= 0 and outputs == (size + 2 * pad - extent) // stride + 1:
            # One run: the cube as it is, padded alike on both sides.
            found.append(Span(0, count, 0, size, pad, pad))
        elif start >= size:
            # The windows lie in the padding behind altogether. One line of the cube has to be there to be padded, and
            # no first window can start behind it: so they lie in padding before it.
            count = max(1, min(left, (MAX_PAD - extent) // stride + 1))
            found.append(Span(first, count, size - 1, 1, (count - 1) * stride + extent, 0))
        elif bottom <= 0:
            found.append(Span(first, count, 0, 1, -top, 0))
        else:
            found.append(Span(first, count, start, min(bottom, size) - start, start - top, after))
        first += count
    return tuple(found)


@dataclass(frozen=True)
class Division:
    """How one convolution shares the buffer.

    Attributes
    ----------
    data, weights : int
        Banks for the input and for the kernels.
    mode : str
        ``full``: all kernels of a run stay in the buffer; ``ping-pong``: one kernel group computes while the next ones
        load; ``minimum``: one group at a time.
    rows, columns : tuple[Span, ...]
        Runs along the height and the width.
    kernels : int
        Kernels of one run; fewer than all only where one kernel group does not fit.
    channels : int
        Input channels of one run; fewer than all only where one kernel does not fit: partial sums are added.
    bytes : int
        DRAM bytes that all runs read, and write and read again between them.
    """

    data: int
    weights: int
    mode: Literal["full", "ping-pong", "minimum"]
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    kernels: int
    channels: int
    bytes: int


@dataclass(frozen=True)
class Shortage:
    """No division of the buffer serves; `message` says by how much."""

    message: str


Price = Callable[[Target, Work, Division], float]
"""What a division of the buffer costs; the least is taken."""


def moved_bytes(_: Target, __: Work, division: Division) -> float:
    """Return the DRAM bytes that a division moves."""
    return float(division.bytes)


def divide(target: Target, work: Work, price: Price = moved_bytes) -> Division | Shortage:
    """Divide the buffer for `work` at the least price.

    Considered, and taken in this order where price and bytes are equal: all kernels in the buffer, two groups, one
    group, as many groups as the input leaves room for; each with the rows that the other banks hold; with the columns
    halved as often as it takes; with fewer kernels a run than a group. All these compute the same. Only where none
    serves, the channels are cut too.

    Parameters
    ----------
    target : Target
        The hardware.
    work : Work
        The convolution.
    price : Price
        What is to be least: the DRAM bytes that are moved, or what the caller estimates.
    """
    found = _cheapest(target, work, price)
    if found is not None:
        return found
    atom = target.feature_atom_bytes // work.element_bytes
    if not work.image:
        for chunks in range(2, MOST_CHUNKS + 1):
            channels = round_up(ceil_div(work.channels, chunks), atom)
            if channels >= work.channels:
                continue
            part = _cheapest(target, replace(work, channels=channels), price)
            if part is not None and part.kernels == work.kernels:
                # Each part is computed twice in int8, for the high and the low half of its sum.
                passes = ceil_div(work.channels, channels) * (2 if work.element_bytes == 1 else 1)
                return replace(part, channels=channels, bytes=part.bytes * passes)
    rows = min(work.source[0], work.extent[0])
    entries = work.entries(target, work.source[1])
    return Shortage(
        f"{target.name} has {target.cbuf_banks} CBUF banks of {target.cbuf_bank_bytes} bytes; one kernel of "
        f"{work.kernel_bytes} bytes takes {weight_banks(target, work.kernel_bytes)} and the {rows} input rows of one "
        f"output row take {ceil_div(entries * rows, target.cbuf_bank_entries)}, also in parts of the channels"
    )


def _cheapest(target: Target, work: Work, price: Price) -> Division | None:
    found = _divisions(target, work)
    return min(found, key=lambda division: (price(target, work, division), division.bytes), default=None)


def _divisions(target: Target, work: Work) -> Iterator[Division]:
    group = min(work.kernels, target.kernels_per_group(work.element_bytes))
    if work.kernel_bytes > MAX_KERNEL_BYTES:
        return
    # More than a group at once is streamed group by group, so only fewer than a group may fit where all do not.
    for kernels in (work.kernels, *range(min(work.kernels, group) - 1, 0, -1)):
        columns = work.output[1]
        while True:
            found = list(_modes(target, work, kernels, min(group, kernels), columns))
            yield from found
            if found:
                return
            if columns == 1 or work.image:
                break
            columns = ceil_div(columns, 2)


def _modes(target: Target, work: Work, kernels: int, group: int, columns: int) -> Iterator[Division]:
    across = spans(work, 1, work.source[1], columns)
    widest = max(span.inputs for span in across)
    entries = work.entries(target, widest)
    if entries > MAX_ENTRIES:
        return
    everything, one = (weight_banks(target, count * work.kernel_bytes) for count in (kernels, group))
    needed = ceil_div(entries * work.source[0], target.cbuf_bank_entries)
    modes: dict[int, Literal["full", "ping-pong", "minimum"]] = {one: "minimum"}
    modes[min(2 * one, everything)] = "ping-pong"
    modes[everything] = "full"
    # More than two groups at a time cost no byte less, so this comes behind the others.
    room = min(target.cbuf_banks - needed, everything)
    more: list[tuple[int, Literal["full", "ping-pong", "minimum"]]] = []
    if room > 2 * one and room not in modes:
        more.append((room, "ping-pong"))
    for weights, mode in (*sorted(modes.items(), reverse=True), *more):
        data = min(target.cbuf_banks - weights, needed)
        rows = data * target.cbuf_bank_entries // entries if data > 0 else 0
        if rows < min(work.source[0], work.extent[0]):
            continue
        down = spans(work, 0, min(rows, work.source[0]), work.output[0])
        runs = ceil_div(work.kernels, kernels)
        pixels = sum(span.inputs for span in down) * sum(span.inputs for span in across)
        read = runs * pixels * work.channels * work.element_bytes
        read += len(down) * len(across) * work.kernels * work.kernel_bytes
        if runs > 1:
            # Each run fills atoms of its own, which are written and read once more to be put together.
            read += 2 * runs * target.feature_atom_bytes * work.output[0] * work.output[1]
        yield Division(data, weights, mode, down, across, kernels, work.channels, read)
