"""A node of an ONNX graph as the operators' readers see it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError, UnsupportedError

Array = NDArray[Any]
MOST_ELEMENTS = 2**28
"""Values of one tensor: 1 GiB in fp32, far beyond what fits beside NVDLA."""


def constant(value: ir.Value | None) -> Array | None:
    """Return what a value always is, None where it depends on an input of the network, or is not there."""
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    # Types that numpy lacks (bfloat16) and half precision: our networks compute in float32.
    return array.astype(np.float32) if array.dtype.kind not in "iub" else array


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """Return the shape of a value, its batch first.

    Raises
    ------
    UnsupportedError
        It is not known.
    """
    shape = value.shape
    sizes = () if shape is None else tuple(dim for dim in shape if isinstance(dim, int))
    if shape is None or len(sizes) != len(shape):
        told = "unknown" if shape is None else f"({', '.join(map(str, shape))})"
        raise UnsupportedError(
            f"the shape of {value.name!r} is {told}, expected one that follows from the input's; export the network "
            "with fixed sizes"
        )
    return sizes


def check_sizes(values: Iterable[ir.Value]) -> None:
    """Check that values are not larger than any that could run.

    Raises
    ------
    UnsupportedError
        One is.
    """
    for value in values:
        sizes = [dim for dim in value.shape or () if isinstance(dim, int)]
        if prod(sizes) > MOST_ELEMENTS:
            raise UnsupportedError(f"writes {value.name!r} of shape {tuple(sizes)}, more than {MOST_ELEMENTS} values")


@dataclass(frozen=True)
class Node:
    """One node; `opset` is the version of the operators that it is of."""

    node: ir.Node
    opset: int

    @property
    def kind(self) -> str:
        """The operator, with its domain where that is not ONNX's."""
        domain = self.node.domain
        return self.node.op_type if domain in ("", "ai.onnx") else f"{domain}::{self.node.op_type}"

    @property
    def name(self) -> str:
        """Name of the node, or of its first result where it has none."""
        return self.node.name or next((value.name or "" for value in self.node.outputs), "")

    @property
    def output(self) -> ir.Value:
        """The first result."""
        return self.node.outputs[0]

    def given(self, index: int) -> ir.Value | None:
        """Input `index`, None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def input(self, index: int = 0) -> ir.Value:
        """Input `index`.

        Raises
        ------
        NetworkError
            It is left out.
        """
        value = self.given(index)
        if value is None:
            raise NetworkError(f"input {index} is missing")
        return value

    def constant(self, index: int) -> Array | None:
        """Value of input `index` where it is a constant; None where it is left out.

        Raises
        ------
        UnsupportedError
            The network computes it.
        """
        value = self.given(index)
        if value is None:
            return None
        array = constant(value)
        if array is None:
            raise UnsupportedError(
                f"input {index} ({value.name!r}) is computed by the network, expected a constant: NVDLA's weights and "
                "shapes are fixed"
            )
        return array

    def weights(self, index: int, rank: int) -> NDArray[np.float32]:
        """Constant input `index`, of `rank` axes, as float32.

        Raises
        ------
        NetworkError
            It is left out, empty or not finite.
        UnsupportedError
            It has another number of axes, or the network computes it.
        """
        array = self.constant(index)
        if array is None or not array.size:
            raise NetworkError(f"input {index} is {'missing' if array is None else 'empty'}")
        if array.ndim != rank:
            raise UnsupportedError(
                f"input {index} has the shape {array.shape}, expected {rank} axes: images have height and width"
                if rank == 4
                else f"input {index} has the shape {array.shape}, expected {rank} axes"
            )
        return finite(array, f"input {index} ({self.input(index).name!r})")

    def integers(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """Attribute of several whole numbers."""
        attribute = self.node.attributes.get(name)
        return tuple(default) if attribute is None else tuple(attribute.as_ints())

    def integer(self, name: str, default: int) -> int:
        """Attribute of one whole number."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def number(self, name: str, default: float) -> float:
        """Attribute of one number, as the float32 that it is, in the fewest digits that say so."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else shortest(attribute.as_float())

    def text(self, name: str, default: str) -> str:
        """Attribute of text."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_string()

    def integers_of(self, name: str, index: int) -> tuple[int, ...] | None:
        """Whole numbers that are an attribute in older opsets and an input in newer ones; None where not given."""
        if name in self.node.attributes:
            return self.integers(name)
        array = self.constant(index)
        return None if array is None else tuple(int(number) for number in array.ravel())


def shortest(number: float) -> float:
    """Return the number of fewest digits that is the same float32: 0.1, not 0.10000000149."""
    return float(str(np.float32(number)))


def finite(array: Array, what: str) -> NDArray[np.float32]:
    """Return `array` as float32 that nobody writes to.

    Raises
    ------
    NetworkError
        It holds NaN or infinity.
    """
    with np.errstate(over="ignore"):  # Reported just below.
        result = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(result).all():
        raise NetworkError(f"{what} holds NaN or infinity; the training diverged")
    if result.flags.writeable:
        result = result.copy() if result.base is not None else result
        result.flags.writeable = False
    return result
