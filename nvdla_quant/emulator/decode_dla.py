"""Decode the descriptors of a DLA task as the firmware reads them.

Facts: nvdla/sw ``kmd/firmware/{engine,scheduler,conv}.c``. What the firmware refuses is an
`EmulationError`, and so is what the emulator does not model; both name operation, field and value.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.addresses import AddressSpace
from nvdla_quant.emulator.decode_sdp import decode_sdp
from nvdla_quant.emulator.decode_units import decode_bdma, decode_cdp, decode_pdp, decode_rubik
from nvdla_quant.emulator.fields import ELEMENT_BYTES, converter_of, precision_of, refuse
from nvdla_quant.emulator.operations import ConvOperation, Operation, SdpOperation
from nvdla_quant.emulator.races import Link
from nvdla_quant.errors import EmulationError, LoadableError
from nvdla_quant.hardware import Precision, Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.structs import Engine, MemoryType

IMAGE_FORMATS = {structs.FORMAT_A8B8G8R8: Precision.INT8, structs.FORMAT_A16B16G16R16_F: Precision.FP16}
IMAGE_COMPONENTS = 4


@dataclass(frozen=True)
class DecodedTask:
    """Operations of one DLA task.

    Attributes
    ----------
    count : int
        Descriptors in the task.
    operations : dict[int, Operation]
        What writes memory, by index in the task.
    engines : tuple[Engine, ...]
        Unit of each descriptor.
    consumers : tuple[Link, ...]
        (before, after, event): the second waits for that event of the first.
    parents : tuple[Link, ...]
        (SDP, convolution, event): the convolution waits until the SDP operation that takes its output is enabled; so
        does an SDP operation for a pooling.
    fed : tuple[tuple[int, int], ...]
        (SDP, pooling): the pooling takes what the SDP operation hands over.
    dependency_counts : tuple[int, ...]
        How many events each operation waits for.
    """

    count: int
    operations: dict[int, Operation]
    engines: tuple[Engine, ...]
    consumers: tuple[Link, ...]
    parents: tuple[Link, ...]
    fed: tuple[tuple[int, int], ...]
    dependency_counts: tuple[int, ...]


def decode_task(space: AddressSpace, target: Target, base: int, warnings: list[str]) -> DecodedTask:
    """Decode every operation of a task; `base` is the number of the first one in the program."""
    network = space.records(0, structs.NETWORK, 1, "network descriptor")[0]
    count = int(network["num_operations"])
    if count == 0:
        raise LoadableError(f"{space.where}: network descriptor has no operations")

    def table(field: str, dtype: np.dtype[np.void], stride: int | None = None) -> NDArray[np.void]:
        return space.records(int(network[field]), dtype, count, field, stride)

    common = table("dependency_graph_index", structs.COMMON_OP)
    engines = [_engine(space.where, index, int(entry["op_type"])) for index, entry in enumerate(common)]
    views = {
        engine: table("operation_desc_index", structs.OPERATIONS[engine], structs.OPERATION_BYTES)
        for engine in set(engines)
    }
    surfaces = {
        engine: table("surface_desc_index", structs.SURFACES[engine], structs.SURFACE_BYTES) for engine in set(engines)
    }

    def where(index: int) -> str:
        return f"{space.where} operation {index} ({engines[index].name})"

    convolutions = {
        index: decode_conv(space, target, views[engine][index], surfaces[engine][index], base + index, where(index))
        for index, engine in enumerate(engines)
        if engine is Engine.CONV
    }
    luts = _lut_reader(space, network)
    operations: dict[int, Operation] = {}
    feeders: dict[int, SdpOperation] = {}
    fed: list[tuple[int, int]] = []
    # Poolings come last, for they may take what an SDP operation hands over.
    for index, engine in sorted(enumerate(engines), key=lambda item: item[1] is Engine.PDP):
        op, surface = views[engine][index], surfaces[engine][index]
        if engine is Engine.SDP:
            parent = int(common[index]["fused_parent"]["index"])
            flying = int(surface["src_data"]["type"]) == MemoryType.ON_THE_FLY
            if flying and parent not in convolutions:
                raise EmulationError(
                    f"{where(index)}: on-the-fly source, but operation {parent} feeds it no convolution"
                )
            source = convolutions.pop(parent) if flying else None
            decoded = decode_sdp(space, target, op, surface, base + index, source, luts, warnings, where(index))
            operations[index] = decoded
            if decoded.destination.is_handed_over:
                feeders[index] = decoded
        elif engine is Engine.PDP:
            parent = int(common[index]["fused_parent"]["index"])
            flying = int(surface["src_data"]["type"]) == MemoryType.ON_THE_FLY
            if flying and parent not in feeders:
                raise EmulationError(
                    f"{where(index)}: on-the-fly source, but operation {parent} is no SDP operation that feeds it alone"
                )
            feeder = feeders.pop(parent) if flying else None
            fed += [(parent, index)] if flying else []
            operations[index] = decode_pdp(space, target, op, surface, base + index, feeder, where(index))
        elif engine is Engine.CDP:
            operations[index] = decode_cdp(space, target, op, surface, base + index, luts, where(index))
        elif engine is Engine.RUBIK:
            operations[index] = decode_rubik(space, target, op, surface, base + index, where(index))
        elif engine is Engine.BDMA and (copies := decode_bdma(space, target, surface, base + index, where(index))):
            operations[index] = copies
    if feeders:
        raise EmulationError(f"{where(min(feeders))}: on-the-fly destination, but no pooling takes it; it would hang")
    if convolutions:
        raise EmulationError(f"{where(min(convolutions))}: no SDP operation takes its output; it would hang")
    counts = tuple(int(entry["dependency_count"]) for entry in common)
    consumers, parents = (_links(space.where, common, field) for field in ("consumers", "fused_parent"))
    return DecodedTask(count, operations, tuple(engines), consumers, parents, tuple(fed), counts)


def _engine(where: str, index: int, value: int) -> Engine:
    try:
        return Engine(value)
    except ValueError:
        raise LoadableError(f"{where} operation {index}: op_type {value}, expected 0 to {max(Engine)}") from None


def _lut_reader(space: AddressSpace, network: np.void) -> Callable[[int], np.void]:
    def read(index: int) -> np.void:
        count = int(network["num_luts"])
        if not 0 <= index < count:
            raise LoadableError(f"{space.where}: lut_index {index}, the task has {count} tables")
        luts = space.records(int(network["lut_data_index"]), structs.LUT, count, "lut_data_index")
        entry: np.void = luts[index]
        return entry

    return read


def _links(where: str, common: NDArray[np.void], field: str) -> tuple[Link, ...]:
    """Return (operation, other, event) for each entry of `field` ("consumers" or "fused_parent") that names another."""
    links = []
    for index, entry in enumerate(common):
        for other, event, _ in np.atleast_1d(entry[field]).tolist():
            if other == -1:
                continue
            if not 0 <= other < len(common):
                raise LoadableError(f"{where} operation {index}: names operation {other}, the task has {len(common)}")
            links.append((index, other, event))
    return tuple(links)


def decode_conv(
    space: AddressSpace, target: Target, op: np.void, surface: np.void, index: int, where: str
) -> ConvOperation:
    """Decode a convolution (kmd/firmware/conv.c ``processor_conv_program``)."""
    for field in ("conv_mode", "data_reuse", "weight_reuse", "weight_format", "mean_format"):
        if op[field] != 0:
            raise refuse(where, field, int(op[field]), "0; anything else is not modelled yet")
    if op["batch"] != 1:
        raise refuse(where, "batch", int(op["batch"]), "1; multi-batch is not modelled yet")
    if op["in_precision"] != op["out_precision"]:
        raise refuse(where, "in_precision", int(op["in_precision"]), f"out_precision ({int(op['out_precision'])})")
    precision = precision_of(int(op["in_precision"]), target, where, "in_precision")
    if precision is Precision.INT16:
        raise refuse(where, "in_precision", precision, "int8 or fp16; int16 is not modelled in this unit")
    if (op["out_cvt"]["scale"], op["out_cvt"]["offset"]) != (1, 0):
        raise refuse(where, "out_cvt", op["out_cvt"].tolist(), "scale 1 and offset 0, which the firmware demands")
    data_format = int(op["data_format"])
    image = data_format in IMAGE_FORMATS
    if not image and data_format != structs.FORMAT_FEATURE:
        raise refuse(where, "data_format", data_format, "FEATURE (36) or A8B8G8R8 (12) or A16B16G16R16_F (8)")
    if image and IMAGE_FORMATS[data_format] is not precision:
        raise refuse(where, "data_format", data_format, f"a format of {precision}")
    if surface["dst_data"]["type"] != MemoryType.ON_THE_FLY:
        raise refuse(where, "dst type", int(surface["dst_data"]["type"]), "2: a convolution hands over to the SDP")
    element_bytes = ELEMENT_BYTES[precision]
    atom = IMAGE_COMPONENTS if image else target.feature_atom_bytes // element_bytes
    source = space.cube(surface["src_data"], atom, element_bytes, f"{where} source")
    channels, kernel_width = _kernel_shape(op, image, where)
    if channels != source.channels or op["input_channel_csc"] != source.channels:
        raise refuse(where, "kernel channels", channels, f"the source's {source.channels}")
    for field, axis in (("input_width_csc", source.width), ("input_height_csc", source.height)):
        if op[field] != axis:
            raise refuse(where, field, int(op[field]), f"the source's {axis}")
    output = {field: int(surface["dst_data"][field]) for field in ("width", "height", "channel")}
    for field, limit in (("width", "input_width_cmac"), ("height", "input_height_cmac")):
        if output[field] != op[limit]:
            raise refuse(where, f"dst {field}", output[field], f"{limit} ({int(op[limit])})")
    strides = int(op["conv_stride_y"]), int(op["conv_stride_x"])
    dilations = int(op["dilation_y"]), int(op["dilation_x"])
    kernel_height = int(op["kernel_height_csc"])
    if min(*strides, *dilations, kernel_height, kernel_width, *output.values()) < 1:
        raise refuse(where, "stride, dilation, kernel or output", (strides, dilations, output), "at least 1 each")
    pad_value = int(op["pad_val"])
    if precision is Precision.INT8:
        pad_value = (pad_value & 0xFF ^ 0x80) - 0x80
    elif pad_value != 0:
        raise refuse(where, "pad_val", pad_value, "0 for fp16")
    convert = precision is Precision.INT8 and bool(op["in_cvt"]["enable"])
    weight = surface["weight_data"]
    size = output["channel"] * kernel_height * kernel_width * channels * element_bytes
    return ConvOperation(
        index=index,
        source=source,
        weights=space.window(int(weight["address"]), int(weight["offset"]), size, f"{where} weights"),
        out_channels=output["channel"],
        out_height=output["height"],
        out_width=output["width"],
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        image=image,
        post_extension=int(op["post_extension"]) if image else 0,
        stride=strides,
        dilation=dilations,
        pad_top=int(op["pad_y_top"]),
        pad_left=int(op["pad_x_left"]),
        pad_value=pad_value,
        precision=precision,
        converter=converter_of(op["in_cvt"]) if convert else None,
        signed=not image or bool(op["pixel_override"]),
        truncate=int(op["out_cvt"]["truncate"]) & 31,
    )


def _kernel_shape(op: np.void, image: bool, where: str) -> tuple[int, int]:
    """Return (channels, width) of the network's kernel; an image's rows are channel vectors of width * 4 + c."""
    channels, width = int(op["kernel_channel_csc"]), int(op["kernel_width_csc"])
    if not image:
        return channels, width
    if width != 1 or channels % IMAGE_COMPONENTS != 0:
        raise refuse(where, "kernel of an image", (width, channels), "width 1 and a multiple of 4 channels")
    if op["post_extension"] > 2:
        raise refuse(where, "post_extension", int(op["post_extension"]), "0 to 2")
    if (op["dilation_x"], op["dilation_y"]) != (1, 1):
        raise refuse(where, "dilation of an image", (int(op["dilation_x"]), int(op["dilation_y"])), "1")
    return IMAGE_COMPONENTS, channels // IMAGE_COMPONENTS
