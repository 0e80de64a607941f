"""How a convolution shares the convolution buffer (CBUF): entries, banks, and the rows that fit at once.

The buffer is `cbuf_banks` banks of `cbuf_bank_entries` entries. Input rows stand in whole entries in the data banks,
kernels in the weight banks. The formulas are those of the real compiler (nvdla-compiler.md, section 6, CBUF),
checked there against every convolution of its loadables.
"""

from dataclasses import dataclass

from nvdla_quant.hardware import Target

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


@dataclass(frozen=True)
class Banks:
    """A division of the buffer.

    Attributes
    ----------
    data, weights : int
        Banks for the input and for the kernels.
    rows : int
        Input rows that the data banks hold.
    """

    data: int
    weights: int
    rows: int


@dataclass(frozen=True)
class Shortage:
    """No division of the buffer serves; `message` says by how much."""

    message: str


def divide(
    target: Target, entries: int, height: int, kernel_rows: int, weight_bytes: int, group_bytes: int
) -> Banks | Shortage:
    """Divide the buffer between the input and the kernels of one convolution.

    The first that fits of: all rows and all kernels; all rows and two kernel groups (one computes while the next
    loads); all rows and one group; some rows, at least the kernel's height, and two groups; the same and one group.

    Parameters
    ----------
    target : Target
        The hardware.
    entries : int
        Entries of one input row.
    height : int
        Input rows.
    kernel_rows : int
        Input rows that one output row reads (dilation included), at most `height`.
    weight_bytes, group_bytes : int
        Bytes of all kernels, and of one kernel group.
    """
    everything, group = weight_banks(target, weight_bytes), weight_banks(target, group_bytes)
    data = ceil_div(entries * height, target.cbuf_bank_entries)
    choices = [everything, min(2 * group, everything), group]
    for weights in choices:
        if data + weights <= target.cbuf_banks:
            return Banks(data, weights, height)
    for weights in choices[-2:]:
        left = target.cbuf_banks - weights
        rows = left * target.cbuf_bank_entries // entries
        if left > 0 and rows >= kernel_rows:
            return Banks(left, weights, rows)
    needed = ceil_div(entries * kernel_rows, target.cbuf_bank_entries)
    return Shortage(
        f"{target.name} has {target.cbuf_banks} CBUF banks of {target.cbuf_bank_bytes} bytes; one kernel group of "
        f"{group_bytes} bytes takes {group} and the {kernel_rows} input rows of one output row take {needed}"
    )
