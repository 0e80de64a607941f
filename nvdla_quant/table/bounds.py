"""Scales of layers that a rewrite made: what their values can be, where those of the layers around them are known.

Writing a network in Caffe says one layer by several: min(x, 6) is 6 - ReLU(6 - x). No calibration has seen what stands
between them, but it follows from their arithmetic.
"""

from collections.abc import Mapping
from math import inf

import numpy as np

from nvdla_quant.errors import TableError
from nvdla_quant.network.graph import (
    Convolution,
    Deconvolution,
    Eltwise,
    Layer,
    Network,
    Operation,
    Pooling,
    Power,
    ReLU,
    Scale,
    Sigmoid,
    TanH,
)
from nvdla_quant.network.passes import affine_of
from nvdla_quant.network.views import MOVES, VIEWS

STEPS = 127
"""int8 steps from 0 to the largest magnitude."""

_Range = tuple[float, float]


def scale_of(network: Network, name: str, scales: Mapping[str, float]) -> float:
    """Return the scale that holds all values which a layer that a rewrite made can pass on.

    Values that are cut off behind it do not count: below zero, where a ReLU alone reads it, and beyond what the scale
    of the layer behind holds.

    Parameters
    ----------
    network : Network
        The network after the rewrite.
    name : str
        The layer.
    scales : Mapping[str, float]
        Scales of the original layers, by name.

    Raises
    ------
    TableError
        Nothing bounds its values.
    """
    low, high = _values(network, name, scales)
    least, most = _wanted(network, name, scales)
    bound = max(abs(min(max(low, least), most)), abs(min(max(high, least), most)))
    if not 0 < bound < inf:
        raise TableError(
            f"layer {name!r} ({network.by_name[name].kind}): made by a rewrite, and nothing says how large its values "
            "are; a table for this form of the network cannot be made"
        )
    return bound / STEPS


def _values(network: Network, name: str, scales: Mapping[str, float]) -> _Range:
    """Return the least and the largest value of a tensor: by its scale, else by what writes it."""
    layer = network.by_name.get(name)
    if name in scales:
        limit = STEPS * scales[name]
        return (0.0 if layer is not None and isinstance(layer.operation, ReLU | Sigmoid) else -limit), limit
    if layer is None:
        return -inf, inf
    return _of(layer, [_values(network, source, scales) for source in layer.inputs])


def _of(layer: Layer, given: list[_Range]) -> _Range:
    """Return the values of a layer that reads such values."""
    (low, high), operation = given[0], layer.operation
    match operation:
        case Scale() | Power(power=1.0):
            ends = [factor * value + offset for factor, offset in _lines(operation) for value in (low, high)]
            return min(ends), max(ends)
        case Power(power=3.0, scale=1.0, shift=0.0):
            return low**3, high**3
        case ReLU(negative_slope=0.0):
            return max(low, 0.0), max(high, 0.0)
        case Sigmoid():
            return 0.0, 1.0
        case TanH():
            return -1.0, 1.0
        case Eltwise(operation="sum"):
            factors = operation.coefficients or (1.0,) * len(given)
            ends_of = [sorted((factor * a, factor * b)) for factor, (a, b) in zip(factors, given, strict=True)]
            return sum(ends[0] for ends in ends_of), sum(ends[1] for ends in ends_of)
        case Eltwise(operation="max"):
            return max(a for a, _ in given), max(b for _, b in given)
        case Pooling() | Convolution() | Deconvolution():
            # Rewrites make these to average, to copy and to crop; zeros may come in as padding.
            return min(low, 0.0), max(high, 0.0)
        case _:
            return given[0] if isinstance(operation, (*VIEWS, *MOVES)) else (-inf, inf)


def _lines(operation: Operation) -> set[tuple[float, float]]:
    """Return factor and offset of every channel."""
    affine = affine_of(operation)
    assert affine is not None
    return set(zip(*(part.tolist() for part in np.broadcast_arrays(*affine)), strict=True))


def _wanted(network: Network, name: str, scales: Mapping[str, float]) -> _Range:
    """Return the range of a tensor beyond which its values make no difference."""
    readers = network.consumers[name]
    if len(readers) != 1:
        return -inf, inf
    (reader,) = readers
    limit = STEPS * scales[reader.name] if reader.name in scales else inf
    least, most = _wanted(network, reader.name, scales) if limit == inf else (-limit, limit)
    match reader.operation:
        case ReLU(negative_slope=0.0):
            return max(least, 0.0), most
        case Scale() | Power(power=1.0):
            ends = [
                (end - offset) / factor
                for factor, offset in _lines(reader.operation)
                if factor
                for end in (least, most)
            ]
            return (min(ends), max(ends)) if ends else (-inf, inf)
        case _:
            return -inf, inf
