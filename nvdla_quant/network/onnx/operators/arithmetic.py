"""Add, Sub, Mul, Div, Pow, Neg, Sum, Max and Min: of tensors, and of a tensor and a constant.

Semantics are those of the ONNX operator specification, with numpy's broadcasting (Add-7, 13, 14 and so on).

Our writer gives what a layer needs within itself names like ``<layer>:<what>``; such nodes become one layer again. A
factor and an addend for each channel behind one another become one Scale whatever their names are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import Clip, Eltwise, Operation, Power, ReLU, Scale, Weights
from nvdla_quant.network.onnx.operators.constants import check_broadcast, is_scalar, one_constant, per_channel, single
from nvdla_quant.network.onnx.operators.poolings import Whole
from nvdla_quant.network.onnx.operators.products import Product, bias_of
from nvdla_quant.network.onnx.values.layouts import View
from nvdla_quant.network.onnx.values.names import is_within
from nvdla_quant.network.onnx.values.nodes import Array, Node, constant, finite, shape_of, shortest
from nvdla_quant.network.onnx.values.reading import Reading

Combination = Literal["sum", "max", "min", "prod"]


@dataclass(frozen=True)
class Factors:
    """A factor for each channel, to which the next node may add something."""

    value: ir.Value
    source: ir.Value
    axis: int
    gamma: Weights

    def emit(self, reading: Reading) -> None:
        """Add it as a Scale without an addend."""
        scale(reading, self.value, self.source, self.axis, self.gamma, None)


@dataclass(frozen=True)
class Steps:
    """(shift + scale * x) ** power, of which the next nodes may do more."""

    value: ir.Value
    source: ir.Value
    operation: Power
    last: str

    def emit(self, reading: Reading) -> None:
        """Add it as a Power."""
        _elementwise(reading, self.value, self.source, self.operation)


@dataclass(frozen=True)
class Multiplied:
    """A product of tensors, to which the next node may add a factor."""

    value: ir.Value
    sources: tuple[ir.Value, ...]

    def emit(self, reading: Reading) -> None:
        """Add it as an element-wise product."""
        combine(reading, self.value, Eltwise("prod"), self.sources)


def scale(reading: Reading, value: ir.Value, source: ir.Value, axis: int, gamma: Weights, beta: Weights | None) -> None:
    """Add a Scale along an axis of `source`."""
    reading.emit(value, Scale(gamma, beta), reading.image(source, axis), axis=axis)


def _elementwise(reading: Reading, value: ir.Value, source: ir.Value, operation: Operation) -> None:
    view = reading.elements(source)
    reading.emit(value, operation, view.source, view=view)


def _step(node: Node, reading: Reading, source: ir.Value, operation: Power, kind: str) -> None:
    """Add a step of a Power, or leave it to the next node where that is of the same layer."""
    before, order = reading.pending(source), ("Mul", "Add", "Pow")
    value = node.output
    if (
        isinstance(before, Steps)
        and order.index(before.last) < order.index(kind)
        and is_within(source.name, value.name)
    ):
        reading.take(source)
        source, first = before.source, before.operation
        operation = Power(
            operation.power, first.scale * operation.scale, first.shift * operation.scale + operation.shift
        )
    steps = Steps(value, source, operation, kind)
    if any(is_within(value.name, user.outputs[0].name) for user in value.consumers()):
        reading.put_off(value, steps)
    else:
        steps.emit(reading)


def add(node: Node, reading: Reading) -> None:
    """Read Add."""
    _add(node, reading, 1.0, 1.0)


def subtract(node: Node, reading: Reading) -> None:
    """Read Sub."""
    _add(node, reading, 1.0, -1.0)


def _add(node: Node, reading: Reading, first: float, second: float) -> None:
    """Read first * input 0 + second * input 1."""
    found = one_constant(node)
    if found is None:
        sources = [node.input(0), node.input(1)]
        _sum(node, reading, sources, () if first == second == 1 else (first, second))
        return
    source, array, is_first = found
    # The sign of the tensor, and that of the constant.
    sign, array = (second, array * first) if is_first else (first, array * second)
    pending, value = reading.pending(source), node.output
    shape = check_broadcast(source, value)
    if isinstance(pending, Product) and sign == 1:
        bias = bias_of(array, pending.weights.shape[1])
        if bias is not None:
            reading.take(source)
            pending.write(reading, value, bias)
            return
    if is_scalar(array, shape):
        shift = _number(array, "the constant")
        _step(node, reading, source, Power(1.0, sign, shift), "Add" if sign == 1 else "Mul")
        return
    axis, beta = per_channel(array, shape, "a constant")
    if isinstance(pending, Factors) and pending.axis == axis:
        reading.take(source)
        scale(reading, value, pending.source, axis, _frozen(sign * pending.gamma), beta)
    else:
        scale(reading, value, source, axis, _frozen(np.full(shape[axis], sign, np.float32)), beta)


def _frozen(array: Weights) -> Weights:
    array.flags.writeable = False
    return array


def _number(array: Array, what: str) -> float:
    """Return the value of a constant, in the fewest digits that say so in float32."""
    return shortest(float(finite(array, what).ravel()[0]))


def multiply(node: Node, reading: Reading) -> None:
    """Read Mul."""
    found = one_constant(node)
    if found is None:
        _product(node, reading)
        return
    source, array, _ = found
    _times(node, reading, source, array)


def _times(node: Node, reading: Reading, source: ir.Value, array: Array) -> None:
    pending, value = reading.pending(source), node.output
    shape = check_broadcast(source, value)
    if isinstance(pending, Whole) and is_within(source.name, value.name) and array.ndim == 2:
        reading.take(source)
        pending.write(reading, value, array)
        return
    if is_scalar(array, shape):
        _step(node, reading, source, Power(1.0, _number(array, "the constant"), 0.0), "Mul")
        return
    axis, gamma = per_channel(array, shape, "a constant")
    factors = Factors(value, source, axis, gamma)
    if any(user.op_type in ("Add", "Sub") and _has_constant(user) for user in value.consumers()):
        reading.put_off(value, factors)
    else:
        factors.emit(reading)


def _has_constant(node: ir.Node) -> bool:
    return any(constant(value) is not None for value in node.inputs)


def divide(node: Node, reading: Reading) -> None:
    """Read Div by a constant."""
    found = one_constant(node)
    if found is None:
        raise UnsupportedError("divides by a tensor that the network computes; NVDLA multiplies and adds only")
    source, array, is_first = found
    if is_first:
        raise UnsupportedError("divides a constant by a tensor; NVDLA multiplies and adds only")
    if not np.all(array):
        raise NetworkError(f"divides by a constant ({node.input(1).name!r}) that holds 0")
    _times(node, reading, source, np.asarray(1 / array.astype(np.float64)))


def negate(node: Node, reading: Reading) -> None:
    """Read Neg."""
    _elementwise(reading, node.output, node.input(), Power(1.0, -1.0, 0.0))


def power(node: Node, reading: Reading) -> None:
    """Read Pow with a constant exponent."""
    array = node.constant(1)
    exponent = None if array is None else single(array)
    if array is None or exponent is None:
        raise UnsupportedError("has several exponents, expected one for all values")
    check_broadcast(node.input(), node.output)
    _step(node, reading, node.input(), Power(_number(array, "the exponent"), 1.0, 0.0), "Pow")


def total(node: Node, reading: Reading) -> None:
    """Read Sum of tensors."""
    _sum(node, reading, [value for value in node.node.inputs if value is not None], ())


def _sum(node: Node, reading: Reading, sources: Sequence[ir.Value], coefficients: tuple[float, ...]) -> None:
    parts = [reading.pending(source) for source in sources]
    weighted = [
        part
        for part, source in zip(parts, sources, strict=True)
        if isinstance(part, Steps)
        and part.last == "Mul"
        and not part.operation.shift
        and is_within(source.name, node.output.name)
    ]
    if len(weighted) == len(sources) and not coefficients:
        for source in sources:
            reading.take(source)
        sources, coefficients = [part.source for part in weighted], tuple(part.operation.scale for part in weighted)
    if len(sources) == 1:
        reading.show(node.output, reading.view(sources[0]))
        return
    combine(reading, node.output, Eltwise("sum", coefficients), sources)


def _product(node: Node, reading: Reading) -> None:
    """Multiply tensors; what our writer has cut into products of two becomes one again."""
    value, (first, second) = node.output, (node.input(0), node.input(1))
    sources: tuple[ir.Value, ...] = (first, second)
    before = reading.pending(first)
    if isinstance(before, Multiplied) and is_within(first.name, value.name):
        reading.take(first)
        sources = (*before.sources, second)
    multiplied = Multiplied(value, sources)
    if any(user.op_type == "Mul" and is_within(value.name, user.outputs[0].name) for user in value.consumers()):
        reading.put_off(value, multiplied)
    else:
        multiplied.emit(reading)


def extreme(kind: Literal["max", "min"], node: Node, reading: Reading) -> None:
    """Read Max or Min: of tensors, or a bound for one."""
    sources = [value for value in node.node.inputs if value is not None]
    bounds = [array for value in sources if (array := constant(value)) is not None]
    tensors = [value for value in sources if constant(value) is None]
    if not bounds:
        if len(tensors) == 1:
            reading.show(node.output, reading.view(tensors[0]))
        else:
            combine(reading, node.output, Eltwise(kind), tensors)
        return
    numbers = [single(array) for array in bounds]
    if len(tensors) != 1 or any(number is None for number in numbers):
        raise UnsupportedError("compares with constants that differ between values, expected one tensor and one number")
    check_broadcast(tensors[0], node.output)
    known = [number for number in numbers if number is not None]
    low, high = (max(known), None) if kind == "max" else (None, min(known))
    clip_between(reading, node.output, tensors[0], low, high)


def clip_between(reading: Reading, value: ir.Value, source: ir.Value, low: float | None, high: float | None) -> None:
    """Bound a tensor; from 0 on alone it is a ReLU."""
    low, high = (None if bound is None or abs(bound) > _BOUNDLESS else shortest(bound) for bound in (low, high))
    if low is None and high is None:
        reading.show(value, reading.view(source))
        return
    _elementwise(reading, value, source, ReLU() if low == 0 and high is None else Clip(low, high))


_BOUNDLESS = 3.4e38
"""A bound beyond this bounds no float32; the specification's defaults are the last of them."""


def combine(reading: Reading, value: ir.Value, operation: Eltwise, sources: Sequence[ir.Value]) -> None:
    """Combine tensors element by element; a product may spread one pixel over images.

    Raises
    ------
    UnsupportedError
        They broadcast otherwise, or have different orders of axes.
    """
    shape = shape_of(value)
    shapes = [shape_of(source) for source in sources]
    pixels = [source_shape != shape for source_shape in shapes]
    if any(len(source_shape) != len(shape) for source_shape in shapes) or (
        any(pixels) and (operation.operation != "prod" or all(pixels))
    ):
        raise UnsupportedError(
            f"combines tensors of the shapes {', '.join(map(str, shapes))}, expected equal ones, or in a product one "
            "value a channel"
        )
    for source, is_pixel in zip(sources, pixels, strict=True):
        if not is_pixel:
            reading.settle(source)
    views = [reading.view(source) for source in sources]
    if len({(view.axes, reading.shape(view.source)) for view in views}) == 1:
        reading.emit(value, operation, *(view.source for view in views), view=_like(views))
        return
    for axis in dict.fromkeys((1, len(shape) - 1)):
        fits = all(
            not is_pixel or sizes == tuple(n if i in (0, axis) else 1 for i, n in enumerate(shape))
            for sizes, is_pixel in zip(shapes, pixels, strict=True)
        )
        if fits and all(reading.has_image(source, axis) for source in sources):
            tensors = [
                reading.image(source, axis, vectors=is_pixel) for source, is_pixel in zip(sources, pixels, strict=True)
            ]
            reading.emit(value, operation, *tensors, axis=axis)
            return
    raise UnsupportedError(
        f"combines tensors of the shapes {', '.join(map(str, shapes))} whose elements lie in different orders of axes, "
        "or spreads values over channels; expected one value a channel"
    )


def _like(views: Sequence[View]) -> View:
    return replace(views[0], moved=any(view.moved for view in views))
