"""A task's descriptors as the operations that `nvdla_quant.timing` knows the cost of: nothing is run."""

from collections.abc import Iterator, Mapping

import numpy as np

from nvdla_quant.emulator.decode.fields import ELEMENT_BYTES, PRECISIONS
from nvdla_quant.emulator.pixels import PIXELS
from nvdla_quant.hardware.cbuf import ceil_div, round_up
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.descriptors import DlaTask
from nvdla_quant.loadable.structs import Engine, MemoryType, ProcessorPrecision, SdpMode, SdpType
from nvdla_quant.timing.records import Convolution, Move, Operation, Planar, Point

WINOGRAD_STEPS = 4
"""Steps of a pixel that Winograd takes in the place of nine: a tile of 16 products makes four pixels."""


def together(task: DlaTask, target: Target, of: Mapping[Engine, int]) -> Iterator[Operation]:
    """Yield what units do that run together; a convolution and the SDP behind it are one operation.

    Parameters
    ----------
    task : DlaTask
        The task.
    target : Target
        The hardware.
    of : Mapping[Engine, int]
        Index of each unit's operation in the task.
    """

    def descriptors(unit: Engine) -> tuple[np.void, np.void]:
        return task.operation(of[unit]), task.surface(of[unit])

    behind: Point | None = None
    if Engine.SDP in of:
        behind = point(target, *descriptors(Engine.SDP))
    if Engine.CONV in of:
        assert behind is not None, "a convolution runs with the SDP that takes its results"
        yield convolution(target, *descriptors(Engine.CONV), behind)
    elif behind is not None:
        yield behind
    if Engine.PDP in of:
        yield pooling(target, *descriptors(Engine.PDP))
    if Engine.CDP in of:
        yield normalisation(target, *descriptors(Engine.CDP))
    if Engine.RUBIK in of:
        yield layout(target, *descriptors(Engine.RUBIK))
    if Engine.BDMA in of:
        yield copies(task.surface(of[Engine.BDMA]))


def convolution(target: Target, op: np.void, surface: np.void, behind: Point) -> Convolution:
    """Return a convolution of a loadable, with the SDP that takes its results.

    Parameters
    ----------
    target : Target
        The hardware.
    op, surface : np.void
        Its descriptors.
    behind : Point
        The operation of the SDP.
    """
    size = _element_bytes(op["out_precision"])
    source, output = surface["src_data"], surface["dst_data"]
    image = op["data_format"] != structs.FORMAT_FEATURE
    lines, width = int(source["height"]), int(source["width"])
    if image:
        atoms, loaded = 1, lines * _image_line_bytes(target, int(op["data_format"]), width)
    else:
        atoms = ceil_div(int(source["channel"]) * size, target.feature_atom_bytes)
        loaded = int(op["batch"]) * lines * width * atoms * target.feature_atom_bytes
    pixels = int(output["height"]), int(output["width"])
    return Convolution(
        lines=lines,
        width=width,
        atoms=atoms,
        data_bytes=0 if op["data_reuse"] else loaded,
        weight_bytes=0 if op["weight_reuse"] else int(surface["weight_data"]["size"]),
        room_bytes=int(op["weight_bank"]) * target.cbuf_bank_bytes,
        kernels=int(output["channel"]),
        kernel_bytes=int(op["bytes_per_kernel"]),
        steps=_steps(target, op, image),
        rows=pixels[0] if image else int(op["batch"]),
        row=pixels[1] if image else pixels[0] * pixels[1],
        image=bool(image),
        element_bytes=size,
        behind=behind,
        banks=(int(op["data_bank"]), int(op["weight_bank"])),
        keeps_weights=bool(op["skip_weight_rls"]),
        unmeasured=tuple(_unmeasured(op)),
    )


def _image_line_bytes(target: Target, number: int, width: int) -> int:
    return sum(round_up(width * each, target.feature_atom_bytes) for each in PIXELS[number].plane_bytes)


def _steps(target: Target, op: np.void, image: bool) -> int:
    """Return the steps of the MAC array for a pixel and a group of kernels."""
    words = ceil_div(int(op["kernel_channel_csc"]), target.atomic_c)
    if image:
        return ceil_div(int(op["kernel_height_csc"]), 1 << int(op["post_extension"])) * words
    if op["conv_mode"] == structs.CONV_MODE_WINOGRAD:
        return WINOGRAD_STEPS * words
    return int(op["kernel_height_csc"]) * int(op["kernel_width_csc"]) * words


def _unmeasured(op: np.void) -> Iterator[str]:
    if op["conv_mode"] == structs.CONV_MODE_WINOGRAD:
        yield "Winograd was not measured"
    if op["weight_format"] == structs.WEIGHT_FORMAT_COMPRESSED:
        yield "compressed weights were not measured"
    if op["batch"] > 1:
        yield "several images at once were not measured"
    if op["data_reuse"] or op["weight_reuse"]:
        yield "what stays in the buffer was not measured"


def point(target: Target, op: np.void, surface: np.void) -> Point:
    """Return an operation of the SDP."""
    given, written = _element_bytes(op["src_precision"]), _element_bytes(op["dst_precision"])
    source, output = surface["src_data"], surface["dst_data"]
    size = max(given, written)
    channels = round_up(int(source["channel"]), target.feature_atom_bytes // size)
    values = max(1, int(op["batch_num"])) * channels * int(source["height"]) * int(source["width"])
    return Point(
        values=values,
        element_bytes=size,
        source_bytes=0 if source["type"] == MemoryType.ON_THE_FLY else values * given,
        operand_bytes=sum(_operand_bytes(op[f"{name}_op"], channels, values) for name in ("x1", "x2", "y")),
        output_bytes=0 if output["type"] == MemoryType.ON_THE_FLY else values * written,
        uses_y=bool(op["y_op"]["enable"] and target.has_y),
    )


def _operand_bytes(unit: np.void, channels: int, values: int) -> int:
    """Return what one of the SDP's units reads beside the data."""
    if not unit["enable"] or unit["type"] == SdpType.NONE or unit["mode"] == SdpMode.PER_LAYER:
        return 0
    each = (1 if unit["precision"] == 0 else 2) * (2 if unit["type"] == SdpType.BOTH else 1)
    return each * (channels if unit["mode"] == SdpMode.PER_KERNEL else values)


def pooling(target: Target, op: np.void, surface: np.void) -> Planar:
    """Return an operation of the PDP."""
    return _planar(target, surface, _element_bytes(op["precision"]), pools=True)


def normalisation(target: Target, op: np.void, surface: np.void) -> Planar:
    """Return an operation of the CDP."""
    return _planar(target, surface, _element_bytes(op["in_precision"]), pools=False)


def _planar(target: Target, surface: np.void, size: int, pools: bool) -> Planar:
    source, output = (_values(target, surface[name], size) for name in ("src_data", "dst_data"))
    flying = surface["src_data"]["type"] == MemoryType.ON_THE_FLY
    return Planar(0 if flying else source * size, output * size, source, size, pools)


def _values(target: Target, cube: np.void, size: int) -> int:
    """Return the values of a cube in whole atoms."""
    channels = round_up(int(cube["channel"]), target.feature_atom_bytes // size)
    return channels * int(cube["height"]) * int(cube["width"])


def layout(target: Target, op: np.void, surface: np.void) -> Move:
    """Return an operation of Rubik."""
    size = _element_bytes(op["precision"])
    return Move(_values(target, surface["dst_data"], size) * size)


def copies(surface: np.void) -> Move:
    """Return the transfers of a BDMA operation."""
    wanted = surface["transfers"][: int(surface["num_transfers"])]
    return Move(sum(int(one["line_size"]) * int(one["line_repeat"]) * int(one["surface_repeat"]) for one in wanted))


def _element_bytes(number: int) -> int:
    return ELEMENT_BYTES[PRECISIONS[ProcessorPrecision(int(number))]]
