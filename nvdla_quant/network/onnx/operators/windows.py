"""What convolutions and poolings have in common: kernel, stride and padding.

``auto_pad`` as the ONNX operator specification has it (Conv-11, MaxPool-12): SAME makes the output the input's size
divided by the stride, rounded up, and puts an odd row or column after the image (UPPER) or before it (LOWER).
"""

from collections.abc import Sequence

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import Pair
from nvdla_quant.network.onnx.values.nodes import Node

Sides = tuple[Pair, Pair]
"""Padding (before, after) along the height and along the width."""


def check_flat(what: str, values: Sequence[int], count: int) -> None:
    """Check the number of values of a list.

    Raises
    ------
    UnsupportedError
        It is another one than an image of two axes has.
    """
    if len(values) != count:
        raise UnsupportedError(f"{what} has {len(values)} values, expected {count}: an image has height and width")


def pair(node: Node, name: str, default: int) -> Pair:
    """Attribute with one value for the height and one for the width."""
    values = node.integers(name, (default, default))
    check_flat(name, values, 2)
    return values[0], values[1]


def far_of(near: Pair, far: Pair) -> Pair | None:
    """Return padding after the image as operations have it: None where it is that before the image."""
    return None if near == far else far


def sides_of(node: Node, size: Sequence[int], kernel: Pair, stride: Pair, dilation: Pair) -> Sides:
    """Return padding by ``pads`` or ``auto_pad`` of an image of this size.

    Raises
    ------
    NetworkError
        There is no such ``auto_pad``.
    UnsupportedError
        Padding is negative.
    """
    mode = node.text("auto_pad", "NOTSET")
    if mode == "VALID":
        return (0, 0), (0, 0)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        if min(stride) < 1:
            raise NetworkError(f"stride {stride}, expected 1 or more")
        sides = []
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
            total = max(0, (-(n // -s) - 1) * s + d * (k - 1) + 1 - n)
            small, large = total // 2, total - total // 2
            sides.append((small, large) if mode == "SAME_UPPER" else (large, small))
        return sides[0], sides[1]
    if mode != "NOTSET":
        raise NetworkError(f"auto_pad {mode!r}, expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    pads = node.integers("pads", (0, 0, 0, 0))
    check_flat("pads", pads, 4)
    if min(pads) < 0:
        raise UnsupportedError(f"pads {pads}, expected 0 or more: NVDLA cannot crop")
    return (pads[0], pads[2]), (pads[1], pads[3])
