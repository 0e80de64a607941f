"""What a convolution's descriptor says of the convolution buffer, held to that of the target.

``entry_per_slice`` counts entries of the buffer, and the size of the weights is rounded up to one
(docs/hardware/buffer.md, "Entries"). Hardware with other entries takes the data of one row, or the weights behind
these, for others and gives wrong bytes: seen on RTL for nv_full's loadables on nv_large.
"""

import numpy as np

from nvdla_quant.emulator.decode.fields import ELEMENT_BYTES
from nvdla_quant.emulator.operations import ConvOperation
from nvdla_quant.errors import WrongTargetError
from nvdla_quant.hardware.cbuf import IMAGE_CHANNELS, feature_entries, image_entries, round_up
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable import structs


def check_buffer(op: np.void, surface: np.void, operation: ConvOperation, target: Target, where: str) -> None:
    """Refuse a convolution that counts in other entries than those of `target`.

    Parameters
    ----------
    op, surface : np.void
        Its descriptors.
    operation : ConvOperation
        What they say.
    target : Target
        What it is to run on.
    where : str
        Names it.

    Raises
    ------
    WrongTargetError
        A field differs; it names the field, what stands there and what the target expects.
    """
    check_slices(op, operation, target, where)
    if surplus_weights(surface, operation, target):
        exact = _weight_bytes(operation)
        found, expected = int(surface["weight_data"]["size"]), round_up(exact, target.cbuf_entry_bytes)
        raise WrongTargetError(
            f"{where}: weight size is {found}, expected {expected}, which is {exact} in whole entries: {_entry(target)}"
        )


def check_slices(op: np.void, operation: ConvOperation, target: Target, where: str) -> None:
    """Refuse a convolution whose ``entry_per_slice`` counts in other entries; see `check_buffer`."""
    expected, found = _entries(op, operation, target), int(op["entry_per_slice"])
    if expected is not None and found != expected:
        raise WrongTargetError(f"{where}: entry_per_slice is {found}, expected {expected}: {_entry(target)}")


def surplus_weights(surface: np.void, operation: ConvOperation, target: Target) -> int:
    """Return the bytes of weights that a convolution fetches beyond the entries that its kernels take."""
    if operation.compression is not None or operation.keeps_weights:
        return 0
    return int(surface["weight_data"]["size"]) - round_up(_weight_bytes(operation), target.cbuf_entry_bytes)


def _weight_bytes(operation: ConvOperation) -> int:
    return operation.weight_count * ELEMENT_BYTES[operation.precision]


def _entry(target: Target) -> str:
    return f"an entry of {target.name}'s buffer has {target.cbuf_entry_bytes} bytes"


def _entries(op: np.void, operation: ConvOperation, target: Target) -> int | None:
    """Return the entries of one row; None where they are not held to anything.

    Winograd and multi-batch are nv_full's alone, and no configuration differs from it in entries alone. Images of other
    than four components, or that the converter widens, count by rules that were never seen in a loadable.
    """
    if op["conv_mode"] != structs.CONV_MODE_DIRECT or op["batch"] != 1:
        return None
    size, width = ELEMENT_BYTES[operation.precision], operation.source.width
    if operation.pixels is None:
        return feature_entries(target, operation.source.channels, width, size)
    components, planes = operation.pixels.components, operation.pixels.plane_bytes
    if planes != (IMAGE_CHANNELS * size,) or len(components) != IMAGE_CHANNELS:
        return None
    return image_entries(target, width, int(op["pad_x_left"]) + int(op["pad_x_right"]), size)


def weight_order(operation: ConvOperation, target: Target) -> tuple[int, int]:
    """Return what the order of a convolution's weights depends on: targets with the same take them alike."""
    group = target.kernels_per_group(ELEMENT_BYTES[operation.precision])
    vector = operation.channels * (1 if operation.pixels is None else operation.kernel_width)
    return min(group, operation.out_channels), min(target.atomic_c, vector)
