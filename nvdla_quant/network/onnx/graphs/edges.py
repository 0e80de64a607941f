"""The edge of a graph: whether its images have their channels last."""

from collections import deque

import onnx_ir as ir

_PASSING = frozenset({"Add", "Cast", "Clip", "Div", "Dropout", "Identity", "Mul", "Pad", "Sub"})
"""Operators of a network's own preprocessing, which leave the axes as they are."""
_MOST = 64
"""Nodes to look at: preprocessing is short."""


def takes_channels_last(value: ir.Value) -> bool:
    """Whether a network moves the last axis of its input to the front before anything else looks at axes.

    That is what tf2onnx leaves of TensorFlow's NHWC. Of one channel it may be a Reshape. A network that flattens its
    input at once takes either; its input is what looks like an image.
    """
    waiting, seen = deque([value]), 0
    while waiting:
        current = waiting.popleft()
        for node in current.consumers():
            seen += 1
            if seen > _MOST:
                return False
            if node.op_type == "Transpose":
                order = node.attributes.get("perm")
                return order is not None and tuple(order.as_ints()) == (0, 3, 1, 2)
            if node.op_type == "Reshape" and _moves_one_channel(current, node.outputs[0]):
                return True
            if node.op_type in ("Flatten", "Reshape"):
                return _has_colours_last(current)
            if node.op_type == "MatMul":
                return True
            if node.op_type not in _PASSING:
                return False
            waiting.append(node.outputs[0])
    return False


def _has_colours_last(value: ir.Value) -> bool:
    """Whether the last axis has 1 or 3 elements, as gray and colour images have channels, and the first has not."""
    return value.shape is not None and value.shape[-1] in (1, 3) and value.shape[1] not in (1, 3)


def _moves_one_channel(before: ir.Value, after: ir.Value) -> bool:
    if before.shape is None or after.shape is None or len(before.shape) != 4 or len(after.shape) != 4:
        return False
    batch, height, width, channels = before.shape
    return channels == 1 and tuple(after.shape) == (batch, 1, height, width) and (height, width) != (1, 1)
