"""What one convolution leaves in the convolution buffer for the next: ``data_reuse`` and ``weight_reuse``.

docs/hardware/buffer.md, "What stays", has the flags.

The firmware copies the four flags to CDMA and CSC (nvdla/sw ``kmd/firmware/conv.c``), which compare the registers of an
operation with those of the one before on the unit (nvdla/hw ``cmod/cdma/NV_NVDLA_cdma.cpp``
``ActDataReadRequestSequenceThread`` and ``WeightReadRequestSequenceThread``, ``cmod/csc/NV_NVDLA_csc.cpp``
``DataLoadSequenceThread`` and ``WeightLoadSequenceThread``; RTL ``vmod/nvdla/cdma/NV_NVDLA_CDMA_{dc,wg,wt}.v``,
``NV_NVDLA_CDMA_IMG_ctrl.v``, ``vmod/nvdla/csc/NV_NVDLA_CSC_sg.v``):

* An operation with ``skip_data_rls`` leaves all rows of its input, any other one those behind its first ``release``
  rows. With ``data_reuse`` the next one finds all of them without reading memory, or reads its own source as the rows
  that follow those left. ``skip_weight_rls`` leaves all weights, and ``weight_reuse`` takes them.
* Where the number of banks of data changes, or the kind of convolution (features, image, Winograd), nothing is left of
  the data; where either number of banks changes, nothing of the weights. The flag then does nothing.
* Weights that were released are no longer there (an invalid configuration for the C-model).
* Where only the banks of weights change (data) or only the kind changes (weights), C-model and RTL disagree.

What is in the buffer was placed there by the registers of the operation before, and is read by those of the next: the
fields in `LAYOUT` and `WEIGHT_LAYOUT` must agree, or other bytes are taken for data.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from nvdla_quant.emulator.decode.fields import refuse
from nvdla_quant.emulator.operations import ConvOperation, Cube, Operation, SdpOperation, cubes_kept, cubes_written
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable import structs

FEATURES, IMAGE, WINOGRAD = "features", "image", "Winograd"
PLACED = ("in_precision", "out_precision", "batch", "input_width_csc", "input_channel_csc", "entry_per_slice", "in_cvt")
PADDED = ("pad_x_left", "pad_x_right", "pad_val")
"""Padding that CDMA writes into the buffer (of images and with Winograd)."""
MEANS = ("mean_format", "mean_ry", "mean_gu", "mean_bv", "mean_ax")
LAYOUT = {
    FEATURES: PLACED,
    IMAGE: (*PLACED, *PADDED, "data_format", "pixel_override", *MEANS),
    WINOGRAD: (*PLACED, *PADDED, "pad_y_top", "pad_y_bottom", "conv_stride_y", "conv_stride_x"),
}
"""Fields of both operations that say how data stand in the buffer, and what was made of them on their way."""
WEIGHT_LAYOUT = ("out_precision", "kernel_width_csc", "kernel_height_csc", "kernel_channel_csc", "post_extension")
"""Fields of both operations that say how weights stand in the buffer."""


@dataclass(frozen=True)
class Predecessor:
    """The convolution before on the unit: its descriptors, and what they mean."""

    op: np.void
    surface: np.void
    operation: ConvOperation

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"operation {self.operation.index}"


def with_kept_data(
    op: np.void, operation: ConvOperation, before: Predecessor | None, warnings: list[str], where: str
) -> ConvOperation:
    """Return `operation` with the source that it finds in the buffer, if it asks for what `before` left there."""
    if not op["data_reuse"]:
        return operation
    before = _known(before, "data_reuse", where)
    if op["data_bank"] != before.op["data_bank"] or _kind(op) != _kind(before.op):
        warnings.append(
            f"{where}: data_reuse does nothing, for data_bank or the kind of convolution is not that of {before.name}"
        )
        return operation
    rows = _rows_left(before, where)
    if rows == 0:
        return operation
    _expect_same(op, before, ("weight_bank", *LAYOUT[_kind(op)]), "data", where)
    if before.op["skip_data_rls"]:
        return _all_data(op, operation, before, warnings, where)
    return _more_data(operation, before, rows, where)


def _rows_left(before: Predecessor, where: str) -> int:
    """Return how many rows of its input `before` left in the buffer: all of them, or the last ones."""
    height, released = int(before.op["input_height_csc"]), int(before.op["release"])
    if before.op["skip_data_rls"]:
        return height
    if before.op["batch"] == 1 and released == height:
        return 0
    if before.op["batch"] != 1 or _kind(before.op) == WINOGRAD:
        expected = "1: with Winograd and multi-batch only all data are reused"
        raise refuse(where, f"skip_data_rls of {before.name}, whose data it reuses", 0, expected)
    if not 1 <= released <= height:
        raise refuse(where, f"release of {before.name}, whose data it reuses", released, f"1 to {height}, its rows")
    return height - released


def _all_data(
    op: np.void, operation: ConvOperation, before: Predecessor, warnings: list[str], where: str
) -> ConvOperation:
    """Return `operation` with the source of `before`, of which it reads nothing."""
    _expect_same(op, before, ("input_height_csc",), "data", where)
    left = before.operation
    if (operation.source, operation.second_plane) != (left.source, left.second_plane):
        warnings.append(f"{where}: data_reuse takes what {before.name} read; its own src_data is not read")
    source, second = left.source, left.second_plane
    return replace(operation, source=source, second_plane=second, kept_rows=source.height)


def _more_data(operation: ConvOperation, before: Predecessor, rows: int, where: str) -> ConvOperation:
    """Return `operation` with the last `rows` of the source of `before`, and its own source behind them."""
    left = before.operation
    second = operation.second_plane
    if left.second_plane is not None and second is not None:
        second = _joined(left.second_plane, second, rows, f"{where} second plane", before.name)
    source = _joined(left.source, operation.source, rows, f"{where} source", before.name)
    return replace(operation, source=source, second_plane=second, kept_rows=rows)


def _joined(left: Cube, own: Cube, rows: int, where: str, name: str) -> Cube:
    """Return the last `rows` of `left` and `own`, which must stand behind them in memory."""
    behind = left.rows(left.height, left.height + own.height)
    if own != behind:
        place, other = (f"byte {cube.offset} of memory {cube.memory}" for cube in (own, behind))
        expected = f"{other}, with the same strides: the rows behind those that {name} left"
        raise refuse(where, "place", f"{place}, with data_reuse", expected)
    return left.rows(left.height - rows, left.height + own.height)


def with_kept_weights(
    op: np.void,
    surface: np.void,
    operation: ConvOperation,
    before: Predecessor | None,
    warnings: list[str],
    where: str,
) -> ConvOperation | None:
    """Return `operation` with the weights that it finds in the buffer; None where it reads its own."""
    if not op["weight_reuse"]:
        return None
    before = _known(before, "weight_reuse", where)
    _expect_same(op, before, ("weight_format",), "weights", where)
    if (op["data_bank"], op["weight_bank"]) != (before.op["data_bank"], before.op["weight_bank"]):
        warnings.append(
            f"{where}: weight_reuse does nothing, for data_bank or weight_bank is not that of {before.name}"
        )
        return None
    if _kind(op) != _kind(before.op):
        raise refuse(where, "weight_reuse", 1, f"0: {before.name} is no convolution of {_kind(op)}, as this one is")
    if not before.op["skip_weight_rls"]:
        raise refuse(where, f"skip_weight_rls of {before.name}", 0, "1, so that weight_reuse finds its weights")
    _expect_same(op, before, WEIGHT_LAYOUT, "weights", where)
    for name, field in (("dst", "channel"), ("weight", "size"), ("wmb", "size")):
        value, left = (int(descriptors[f"{name}_data"][field]) for descriptors in (surface, before.surface))
        if value != left:
            raise refuse(where, f"{name} {field}", value, f"{left}, which {before.name} has, whose weights it reuses")
    own, other = (tuple(s["weight_data"][["address", "offset"]].tolist()) for s in (surface, before.surface))
    if own != other:
        warnings.append(f"{where}: weight_reuse takes the weights of {before.name}; its own weight_data are not read")
    left_weights = before.operation
    return replace(operation, weights=left_weights.weights, compression=left_weights.compression, keeps_weights=True)


def check_left_weights(op: np.void, surface: np.void, target: Target, where: str) -> None:
    """Refuse weights that are to stay in the buffer and do not fit: all of them are waited for."""
    if not op["skip_weight_rls"]:
        return
    # One bank holds the mask of compressed weights.
    for name, banks in (("weight", int(op["weight_bank"])), ("wmb", 1)):
        size, room = int(surface[f"{name}_data"]["size"]), banks * target.cbuf_bank_bytes
        used = name == "weight" or op["weight_format"] == structs.WEIGHT_FORMAT_COMPRESSED
        if used and size > room:
            raise refuse(where, f"{name} size with skip_weight_rls", size, f"at most {room}, what {banks} banks hold")


def check_overwritten(operations: Mapping[int, Operation]) -> None:
    """Refuse a convolution that takes from the buffer what has changed in memory since.

    Parameters
    ----------
    operations : Mapping[int, Operation]
        Operations of a task, in the order of execution.
    """
    kept: Iterable[Cube] = ()
    user = 0
    for operation in reversed(list(operations.values())):
        if any(cube.overlaps(other) for cube in cubes_written(operation) for other in kept):
            raise EmulationError(
                f"operation {user} (CONV): reuses data or weights that operation {operation.index} ({operation.unit}) "
                "has written over since they were read, expected them unchanged; clear data_reuse and weight_reuse, or "
                "write elsewhere"
            )
        if isinstance(operation, SdpOperation) and isinstance(operation.source, ConvOperation):
            kept, user = cubes_kept(operation.source), operation.source.index


def _kind(op: np.void) -> str:
    """Return the kind of a convolution, as CDMA and CSC compare it."""
    if op["conv_mode"] == structs.CONV_MODE_WINOGRAD:
        return WINOGRAD
    return FEATURES if op["data_format"] == structs.FORMAT_FEATURE else IMAGE


def _known(before: Predecessor | None, field: str, where: str) -> Predecessor:
    if before is None:
        expected = "0: it is the first convolution of its task, and what the buffer holds before that is not known"
        raise refuse(where, field, 1, expected)
    return before


def _expect_same(op: np.void, before: Predecessor, fields: Iterable[str], what: str, where: str) -> None:
    for field in fields:
        value, left = op[field].tolist(), before.op[field].tolist()
        if value != left:
            raise refuse(where, field, value, f"{left}, which {before.name} has, whose {what} it reuses")
