"""Functions of one value that exporters write as several nodes: HardSigmoid, HardSwish, Swish and Gelu.

Each ends in a product. Its factors are gathered whatever their order and grouping, so that ``x * 0.5 * (1 + erf)`` and
``x * (0.5 * erf + 0.5)`` are the same; then they are compared with the definitions of the ONNX operator specification
(HardSigmoid-6, HardSwish-14, Gelu-20, Swish-24).
"""

import math
from dataclasses import dataclass, field

import onnx_ir as ir

from nvdla_quant.network.onnx.values.nodes import constant, shortest

_TOLERANCE = 1e-4
"""Of constants, relative: exporters write a few digits of the square root of 2."""
_DEEPEST = 6
"""Nodes behind one another that belong to one product."""


@dataclass
class _Product:
    """Factors of a value: a number, and values."""

    number: float = 1.0
    values: list[ir.Value] = field(default_factory=list)


def join_functions(graph: ir.Graph) -> None:
    """Write such functions as one node each, in place; their last value keeps its name, the others end unread."""
    for node in list(graph):
        if node.op_type not in ("Mul", "Div") or len(node.outputs) != 1:
            continue
        found = _function(node.outputs[0])
        if found is None:
            continue
        kind, source, attributes = found
        old = node.outputs[0]
        new = ir.Node("", kind, [source], attributes, name=node.name)
        new.outputs[0].shape, new.outputs[0].type = old.shape, old.type
        graph.insert_after(node, new)
        name = old.name
        ir.convenience.replace_all_uses_with(old, new.outputs[0], replace_graph_outputs=True)
        graph.remove(node, safe=True)
        new.outputs[0].name = name


def _function(value: ir.Value) -> tuple[str, ir.Value, list[ir.Attr]] | None:
    """Operator, input and attributes of what writes `value`, where it is one of these functions."""
    product = _factors(value)
    if len(product.values) == 1:
        return _hard_sigmoid(product)
    if len(product.values) != 2:
        return None
    for source, gate in (product.values, product.values[::-1]):
        if found := _gated(source, gate, product.number):
            kind, attributes = found
            return kind, source, attributes
    return None


def _gated(source: ir.Value, gate: ir.Value, number: float) -> tuple[str, list[ir.Attr]] | None:
    """Operator that is `number` times `source` times `gate`."""
    node = gate.producer()
    if node is not None and node.op_type == "Sigmoid" and node.inputs[0] is source and _close(number, 1):
        return "Swish", []
    hard = _as_hard_sigmoid(gate, number)
    if hard is not None and hard[0] is source and _close(hard[1], 1 / 6) and _close(hard[2], 0.5):
        return "HardSwish", []
    share, factor, addend = _linear(gate)
    node = share.producer()
    if node is None or not _close(factor, addend) or not _close(number * addend, 0.5):
        return None
    argument = node.inputs[0]
    if node.op_type == "Erf" and argument is not None and _is_product(argument, math.sqrt(0.5), source):
        return "Gelu", []
    if node.op_type == "Tanh" and argument is not None and _is_cubic(argument, source):
        return "Gelu", [ir.AttrString("approximate", "tanh")]
    return None


def _hard_sigmoid(product: _Product) -> tuple[str, ir.Value, list[ir.Attr]] | None:
    found = _as_hard_sigmoid(product.values[0], product.number)
    node = product.values[0].producer()
    if found is None or (node is not None and node.op_type == "HardSigmoid"):
        return None
    source, alpha, beta = found
    return "HardSigmoid", source, [ir.AttrFloat32("alpha", shortest(alpha)), ir.AttrFloat32("beta", shortest(beta))]


def _as_hard_sigmoid(value: ir.Value, number: float) -> tuple[ir.Value, float, float] | None:
    """(x, alpha, beta) where `number` times `value` is max(0, min(1, alpha * x + beta))."""
    node = value.producer()
    if node is not None and node.op_type == "HardSigmoid" and _close(number, 1) and node.inputs[0] is not None:
        alpha, beta = (node.attributes.get(name) for name in ("alpha", "beta"))
        return node.inputs[0], 0.2 if alpha is None else alpha.as_float(), 0.5 if beta is None else beta.as_float()
    inner, low, high = _bounded(value)
    if low != 0 or high is None or not _close(number * high, 1):
        return None
    source, factor, addend = _linear(inner)
    return source, number * factor, number * addend


def _close(number: float, expected: float) -> bool:
    return math.isclose(number, expected, rel_tol=_TOLERANCE)


def _number(value: ir.Value | None) -> float | None:
    """Return the number that a value always is, None where it is several or none."""
    array = constant(value)
    return float(array.ravel()[0]) if array is not None and array.size == 1 else None


def _factors(value: ir.Value, depth: int = 0) -> _Product:
    """Return the factors of a value; a product within is taken apart where nothing else reads it."""
    node, number = value.producer(), _number(value)
    if number is not None:
        return _Product(number)
    if node is None or depth > _DEEPEST or (depth and (len(value.uses()) > 1 or value.is_graph_output())):
        return _Product(1.0, [value])
    match node.op_type, list(node.inputs):
        case "Mul", [ir.Value() as first, ir.Value() as second]:
            left, right = _factors(first, depth + 1), _factors(second, depth + 1)
            return _Product(left.number * right.number, left.values + right.values)
        case "Div", [ir.Value() as first, ir.Value() as second] if _number(second):
            left = _factors(first, depth + 1)
            return _Product(left.number / (_number(second) or 1), left.values)
        case "Pow", [ir.Value() as first, ir.Value() as second] if _number(second) in (2, 3):
            return _Product(1.0, [first] * int(_number(second) or 1))
    return _Product(1.0, [value])


def _linear(value: ir.Value) -> tuple[ir.Value, float, float]:
    """(x, factor, addend) of a value that is factor * x + addend; the value itself, 1 and 0 where it is no sum."""
    node, addend = value.producer(), 0.0
    if node is not None and node.op_type in ("Add", "Sub"):
        first, second = node.inputs
        sign = 1.0 if node.op_type == "Add" else -1.0
        if first is not None and (number := _number(second)) is not None:
            value, addend = first, sign * number
        elif node.op_type == "Add" and second is not None and (number := _number(first)) is not None:
            value, addend = second, number
    product = _factors(value, 1)
    if len(product.values) == 1:
        return product.values[0], product.number, addend
    return value, 1.0, addend


def _is_product(value: ir.Value, number: float, *sources: ir.Value) -> bool:
    """Whether a value is the product of this number and these values."""
    product = _factors(value, 1)
    return _close(product.number, number) and _same(product.values, sources)


def _same(values: list[ir.Value], expected: tuple[ir.Value, ...]) -> bool:
    return sorted(map(id, values)) == sorted(map(id, expected))


def _is_cubic(value: ir.Value, x: ir.Value) -> bool:
    """Whether a value is sqrt(2 / pi) * (x + 0.044715 * x**3), x before the brackets or within them."""
    product = _factors(value, 1)
    if not _close(product.number, math.sqrt(2 / math.pi)):
        return False
    if len(product.values) == 1:
        node = product.values[0].producer()
        if node is None or node.op_type != "Add":
            return False
        first, second = node.inputs
        return any(
            one is x and other is not None and _is_product(other, 0.044715, x, x, x)
            for one, other in ((first, second), (second, first))
        )
    if len(product.values) == 2 and any(one is x for one in product.values):
        other = product.values[1] if product.values[0] is x else product.values[0]
        node = other.producer()
        if node is None or node.op_type != "Add":
            return False
        first, second = node.inputs
        return any(
            _number(one) == 1 and rest is not None and _is_product(rest, 0.044715, x, x)
            for one, rest in ((first, second), (second, first))
        )
    return False


def _bounded(value: ir.Value) -> tuple[ir.Value, float | None, float | None]:
    """(x, low, high) of a value that is x between bounds, written as one node or two."""
    low: float | None = None
    high: float | None = None
    for _ in range(2):
        node = value.producer()
        if node is None or not node.inputs or node.inputs[0] is None:
            break
        match node.op_type:
            case "Clip":
                given = [
                    node.attributes[name].as_float() if name in node.attributes else None for name in ("min", "max")
                ]
                for index in (1, 2):
                    if index < len(node.inputs) and node.inputs[index] is not None:
                        given[index - 1] = _number(node.inputs[index])
                below, above = given
            case "Relu":
                below, above = 0.0, None
            case "Max" | "Min" if len(node.inputs) == 2 and (number := _number(node.inputs[1])) is not None:
                below, above = (number, None) if node.op_type == "Max" else (None, number)
            case _:
                break
        if (below is not None and low is not None) or (above is not None and high is not None):
            break
        low, high = (low if below is None else below), (high if above is None else above)
        value = node.inputs[0]
    return value, low, high
