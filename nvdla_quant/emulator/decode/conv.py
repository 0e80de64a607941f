"""Decode a convolution (kmd/firmware/conv.c ``processor_conv_program``)."""

from dataclasses import replace

import numpy as np

from nvdla_quant.emulator.decode.addresses import CubeSpace
from nvdla_quant.emulator.decode.fields import ELEMENT_BYTES, converter_of, precision_of, refuse
from nvdla_quant.emulator.operations import Compression, ConvOperation, Cube, Pixels
from nvdla_quant.emulator.pixels import PIXELS
from nvdla_quant.emulator.reuse import Predecessor, check_left_weights, with_kept_data, with_kept_weights
from nvdla_quant.emulator.weights import WINOGRAD_TILE
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.structs import MemoryType
from nvdla_quant.loadable.tasks import Window

MAX_BATCH = 32
"""Images of one multi-batch convolution: the register has 5 bits (nvdla/hw ``CDMA D_BATCH_NUMBER``)."""
EXTENSION_ELEMENTS = 64
"""Elements that the MAC array takes of all rows that post-extension joins (docs/hardware/weights.md, "Images")."""


FLAGS = ("data_reuse", "weight_reuse", "skip_data_rls", "skip_weight_rls")
"""Fields of one bit in the registers; a larger value would set the bits of others (kmd/firmware/conv.c)."""


def decode_conv(
    space: CubeSpace,
    target: Target,
    op: np.void,
    surface: np.void,
    index: int,
    before: Predecessor | None,
    warnings: list[str],
    where: str,
) -> ConvOperation:
    """Decode a convolution; what the firmware refuses and what is not modelled is an `EmulationError`.

    `before` is the convolution before it on the unit, which may leave something in the buffer.
    """
    for field in FLAGS:
        if op[field] > 1:
            raise refuse(where, field, int(op[field]), "0 or 1, all that the register holds")
    for field, limit in (("conv_mode", 1), ("mean_format", 1), ("pixel_mapping", 0)):
        if op[field] > limit:
            raise refuse(where, field, int(op[field]), f"0 to {limit}, all that the firmware knows")
    winograd = op["conv_mode"] == structs.CONV_MODE_WINOGRAD
    if winograd and not target.has_winograd:
        raise refuse(where, "conv_mode", 1, f"0: {target.name} has no Winograd")
    precision = precision_of(int(op["out_precision"]), target, where, "out_precision")
    if (op["out_cvt"]["scale"], op["out_cvt"]["offset"]) != (1, 0):
        raise refuse(where, "out_cvt", op["out_cvt"].tolist(), "scale 1 and offset 0, which the firmware demands")
    pixels = _pixels(op, where)
    _check_input(op, target, pixels, precision, where)
    if surface["dst_data"]["type"] != MemoryType.ON_THE_FLY:
        raise refuse(where, "dst type", int(surface["dst_data"]["type"]), "2: a convolution hands over to the SDP")
    banks = int(op["data_bank"]), int(op["weight_bank"])
    # The last bank holds the mask of compressed weights.
    free = target.cbuf_banks - int(op["weight_format"] == structs.WEIGHT_FORMAT_COMPRESSED)
    if min(banks) < 1 or sum(banks) > free:
        raise refuse(where, "data_bank and weight_bank", banks, f"at least 1 each and at most {free} together")
    source = _source(space, target, op, surface, pixels, precision, where)
    output = {field: int(surface["dst_data"][field]) for field in ("width", "height", "channel")}
    for field, other in (("width", "input_width_cmac"), ("height", "input_height_cmac")):
        if output[field] != op[other]:
            raise refuse(where, f"dst {field}", output[field], f"{other} ({int(op[other])})")
    strides = int(op["conv_stride_y"]), int(op["conv_stride_x"])
    dilations = _dilations(op, winograd or pixels is not None, warnings, where)
    kernel_width = int(op["kernel_width_csc"])
    if pixels is not None:
        kernel_width = _image_kernel_width(op, len(pixels.components), where)
    kernel_height = int(op["kernel_height_csc"])
    if min(*strides, *dilations, kernel_height, kernel_width, *output.values()) < 1:
        raise refuse(where, "stride, dilation, kernel or output", (strides, dilations, output), "at least 1 each")
    convert = bool(op["in_cvt"]["enable"]) and op["in_precision"] != structs.ProcessorPrecision.FP16
    means = tuple(int(op[f"mean_{component}"]) for component in ("ry", "gu", "bv", "ax"))
    operation = ConvOperation(
        index=index,
        source=source,
        weights=Window(0, 0, 0),
        out_channels=output["channel"],
        out_height=output["height"],
        out_width=output["width"],
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        pixels=pixels,
        post_extension=int(op["post_extension"]) if pixels is not None else 0,
        stride=strides,
        dilation=dilations,
        pad_top=int(op["pad_y_top"]),
        pad_left=int(op["pad_x_left"]),
        pad_value=_pad_value(int(op["pad_val"]), precision),
        precision=precision,
        converter=converter_of(op["in_cvt"]) if convert else None,
        signed=pixels is None or bool(op["pixel_override"]),
        truncate=int(op["out_cvt"]["truncate"]) & 31,
        second_plane=_second_plane(space, surface, source, pixels, where),
        means=means if pixels is not None and op["mean_format"] == 1 else None,
        winograd_shift=int(op["pra_truncate"]) & 3 if winograd else None,
    )
    operation = with_kept_data(op, operation, before, warnings, where)
    _check_kernel(op, operation, where)
    if winograd:
        _check_winograd(op, operation, where)
    check_left_weights(op, surface, target, where)
    kept = with_kept_weights(op, surface, operation, before, warnings, where)
    return _with_weights(space, target, op, surface, operation, where) if kept is None else kept


def _dilations(op: np.void, ignored: bool, warnings: list[str], where: str) -> tuple[int, int]:
    """Return the dilations (y, x), which the sequencer has for features alone.

    Facts: nvdla/hw ``vmod/nvdla/csc/NV_NVDLA_CSC_dl.v`` (``x_dilate_w`` and ``y_dilate_w`` are 1 for images and with
    Winograd); ``cmod/csc``, whose sequences for both know no dilation.
    """
    dilations = int(op["dilation_y"]), int(op["dilation_x"])
    if not ignored or dilations == (1, 1):
        return dilations
    warnings.append(f"{where}: dilation is {dilations}; the hardware ignores it for images and with Winograd")
    return 1, 1


def _pixels(op: np.void, where: str) -> Pixels | None:
    """Return the format of an image, or None for features."""
    number = int(op["data_format"])
    if number == structs.FORMAT_FEATURE:
        return None
    if number not in PIXELS:
        raise refuse(where, "data_format", number, f"0 to {structs.FORMAT_FEATURE}, all that the firmware knows")
    return PIXELS[number]


def _check_input(op: np.void, target: Target, pixels: Pixels | None, precision: Precision, where: str) -> None:
    """Check the precisions of source and arithmetic: only images may differ, through the input converter."""
    given = precision_of(int(op["in_precision"]), target, where, "in_precision")
    if pixels is None:
        if given is not precision:
            raise refuse(where, "in_precision", given, f"out_precision ({precision}): features are not widened")
        return
    if op["conv_mode"] != structs.CONV_MODE_DIRECT or op["batch"] != 1:
        mode = int(op["conv_mode"]), int(op["batch"])
        raise refuse(where, "(conv_mode, batch) of an image", mode, "(0, 1)")
    if given is not pixels.precision:
        raise refuse(where, "in_precision", given, f"{pixels.precision}, which {pixels.name} has")
    if given is not precision and (given is Precision.FP16 or not op["in_cvt"]["enable"]):
        raise refuse(where, "in_precision", given, f"out_precision ({precision}), or integers and in_cvt enabled")


def _source(
    space: CubeSpace,
    target: Target,
    op: np.void,
    surface: np.void,
    pixels: Pixels | None,
    precision: Precision,
    where: str,
) -> Cube:
    """Return the source: features, or an image's first plane as a cube of one atom to a pixel."""
    descriptor = surface["src_data"]
    if pixels is None:
        size, batch = ELEMENT_BYTES[precision], int(op["batch"])
        if not 1 <= batch <= MAX_BATCH:
            raise refuse(where, "batch", batch, f"1 to {MAX_BATCH}")
        if batch > 1 and not target.has_batch:
            raise refuse(where, "batch", batch, f"1: {target.name} takes one image at a time")
        atom, stride = target.feature_atom_bytes // size, int(op["batch_stride"])
        apart = stride if batch > 1 else 0
        cube = space.cube(descriptor, atom, size, f"{where} source", batch=batch, batch_stride=apart)
        # Winograd takes whole atoms, whatever stands behind the last channel.
        whole = op["conv_mode"] == structs.CONV_MODE_WINOGRAD
        return replace(cube, channels=cube.surfaces * atom) if whole else cube
    components = len(pixels.components)
    if descriptor["channel"] != components or op["input_channel_csc"] != components:
        found = int(descriptor["channel"]), int(op["input_channel_csc"])
        raise refuse(where, "source channel and input_channel_csc", found, f"{components} each, as {pixels.name} has")
    size = 2 if pixels.components[0].bytes == 2 else 1
    elements = pixels.plane_bytes[0] // size
    plane = descriptor.copy()
    plane["channel"] = elements
    return space.cube(plane, elements, size, f"{where} source")


def _second_plane(space: CubeSpace, surface: np.void, source: Cube, pixels: Pixels | None, where: str) -> Cube | None:
    """Return the second plane of an image, at ``offset_u`` behind the first, with a stride of its own."""
    if pixels is None or len(pixels.plane_bytes) == 1:
        return None
    descriptor = surface["src_data"]
    elements = pixels.plane_bytes[1] // source.element_bytes
    plane = replace(
        source,
        memory=int(descriptor["address"]),
        offset=int(descriptor["offset"]) + int(surface["offset_u"]),
        channels=elements,
        atom=elements,
        line_stride=int(surface["in_line_uv_stride"]),
    )
    return space.checked_cube(plane, f"{where} second plane")


def _pad_value(value: int, precision: Precision) -> float:
    """Return what stands outside the source: the register's low bits in the precision of the arithmetic."""
    if precision is Precision.FP16:
        return float(np.array(value & 0xFFFF, np.uint16).view(np.float16))
    bits = 8 if precision is Precision.INT8 else 16
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


def _image_kernel_width(op: np.void, components: int, where: str) -> int:
    """Return the network's kernel width: an image's kernel rows are channel vectors of width * components + c."""
    channels, width = int(op["kernel_channel_csc"]), int(op["kernel_width_csc"])
    if width != 1 or channels % components != 0:
        expected = f"width 1 and a multiple of {components} channels"
        raise refuse(where, "kernel of an image", (width, channels), expected)
    if op["post_extension"] > 2:
        raise refuse(where, "post_extension", int(op["post_extension"]), "0 to 2")
    joined = 1 << int(op["post_extension"])
    if joined > 1 and channels * joined > EXTENSION_ELEMENTS:
        raise refuse(
            where, "kernel_channel_csc", channels, f"at most {EXTENSION_ELEMENTS // joined} for post_extension"
        )
    return channels // components


def _check_kernel(op: np.void, operation: ConvOperation, where: str) -> None:
    """Check the sizes that the sequencer is given against those of source and kernel."""
    source, pixels = operation.source, operation.pixels
    channels = int(op["kernel_channel_csc"])
    if pixels is None and (channels != op["input_channel_csc"] or channels != operation.channels):
        expected = f"input_channel_csc ({int(op['input_channel_csc'])}) and the source's {operation.channels}"
        raise refuse(where, "kernel_channel_csc", channels, expected)
    pads = int(op["pad_x_left"]) + int(op["pad_x_right"]), int(op["pad_y_top"]) + int(op["pad_y_bottom"])
    width, height = source.width, source.height
    if operation.winograd_shift is not None:
        width, height = (width + pads[0]) // operation.stride[1], (height + pads[1]) // operation.stride[0]
    for field, size in (("input_width_csc", width), ("input_height_csc", height)):
        if op[field] != size:
            raise refuse(where, field, int(op[field]), f"the source's {size}")
    read = (operation.out_width - 1) * operation.stride[1] + operation.kernel_width
    if pixels is not None and read > width + pads[0]:
        raise refuse(where, "columns that an image's kernels read", read, f"at most {width + pads[0]}, with padding")


def _check_winograd(op: np.void, operation: ConvOperation, where: str) -> None:
    """Check what nvdla/hw ``cmod/{cdma,csc}`` demand of Winograd."""
    if operation.converter is not None and not operation.converter.is_identity:
        raise refuse(where, "in_cvt", op["in_cvt"].tolist(), "off: Winograd's input goes around the converter")
    if op["batch"] != 1:
        raise refuse(where, "batch", int(op["batch"]), "1 with Winograd")
    kernel = operation.kernel_height, operation.kernel_width
    if kernel != (WINOGRAD_TILE, WINOGRAD_TILE):
        raise refuse(where, "kernel", kernel, f"{WINOGRAD_TILE} each: Winograd's kernels are stored transformed")
    pads = int(op["pad_y_top"]) + int(op["pad_y_bottom"]), int(op["pad_x_left"]) + int(op["pad_x_right"])
    sizes = operation.source.height + pads[0], operation.source.width + pads[1]
    outputs = operation.out_height, operation.out_width
    for size, stride, output in zip(sizes, operation.stride, outputs, strict=True):
        if size % (4 * stride) or output % 4 or output > size // stride - 2:
            expected = "padded sizes of whole tiles of 4, outputs of whole tiles of 4 that they hold"
            raise refuse(where, "sizes with Winograd", (sizes, operation.stride, outputs), expected)


def _with_weights(
    space: CubeSpace, target: Target, op: np.void, surface: np.void, operation: ConvOperation, where: str
) -> ConvOperation:
    """Return `operation` with the windows of its weights."""

    def window(name: str, size: int, available: int | None = None) -> Window:
        descriptor = surface[f"{name}_data"]
        if size > descriptor["size"]:
            raise refuse(where, f"{name} size", int(descriptor["size"]), f"at least {size}: the hardware would wait")
        place = int(descriptor["address"]), int(descriptor["offset"])
        return space.window(*place, size if available is None else available, f"{where} {name}s")

    element_bytes = ELEMENT_BYTES[operation.precision]
    elements = operation.weight_count
    if op["weight_format"] == structs.WEIGHT_FORMAT_UNCOMPRESSED:
        return replace(operation, weights=window("weight", elements * element_bytes))
    if op["weight_format"] != structs.WEIGHT_FORMAT_COMPRESSED:
        raise refuse(where, "weight_format", int(op["weight_format"]), "0 or 1, all that the firmware knows")
    if not target.has_weight_compression:
        raise refuse(where, "weight_format", 1, f"0: {target.name} has no weight compression, so the firmware refuses")
    groups = -(-operation.out_channels // target.kernels_per_group(element_bytes))
    return replace(
        operation,
        weights=window("weight", 0, int(surface["weight_data"]["size"])),
        compression=Compression(window("wmb", -(-elements // 8)), window("wgs", 4 * groups)),
    )
