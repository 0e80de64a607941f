"""What QuantizeLinear says of a value: the range of an activation, the scales of weights."""

import numpy as np
import onnx_ir as ir

from nvdla_quant.network.graph import Weights
from nvdla_quant.network.quantized import Range

RANGES = "nvdla_quant.ranges"
"""Key of a value's `meta`: the ranges that it is quantized to, as `Range`."""
SCALES = "nvdla_quant.scales"
"""Key of the `meta` of weights: their scales, in a shape that broadcasts to them."""
REFUSED = "nvdla_quant.refused"
"""Key of a node's `meta`: why it could not be taken out of the graph."""


def ranges_of(value: ir.Value) -> tuple[Range, ...]:
    """Return the ranges that a value is quantized to, each once."""
    return tuple(dict.fromkeys(value.meta.get(RANGES, ())))


def scales_along(value: ir.Value, axis: int) -> Weights | None:
    """Return the scales of weights, one for each index of an axis.

    None where they did not come quantized, or have other scales along another axis, which no hardware has.
    """
    scales = value.meta.get(SCALES)
    shape = value.shape
    if scales is None or shape is None:
        return None
    count = shape[axis]
    if not isinstance(count, int) or scales.size != scales.shape[axis]:
        return None
    found = np.ascontiguousarray(np.broadcast_to(scales.ravel(), (count,)), np.float32)
    found.flags.writeable = False
    return found
