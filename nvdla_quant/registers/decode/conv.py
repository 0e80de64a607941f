"""A convolution: CDMA, CSC, CMAC_A, CMAC_B and CACC."""

from nvdla_quant.emulator.decode.buffer import check_slices
from nvdla_quant.emulator.decode.conv import decode_conv
from nvdla_quant.emulator.pixels import PIXELS
from nvdla_quant.emulator.reuse import Predecessor
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.structs import MemoryType
from nvdla_quant.registers.decode.values import (
    Units,
    address,
    check_again,
    cube_fields,
    field,
    gather,
    record,
    refuse_unless_zero,
    space_of,
)
from nvdla_quant.registers.places import CONV, CONV_SURFACE, DIRECT, EXTENDED, WMB_BYTES, places

PIXEL_OFFSETS = "CDMA.D_PIXEL_OFFSET.PIXEL_X_OFFSET CDMA.D_PIXEL_OFFSET.PIXEL_Y_OFFSET"
IMAGE = 1
"""What D_DATAIN_FORMAT holds for an image."""


def decode_convolution(
    units: Units, target: Target, index: int, before: Predecessor | None, warnings: list[str], where: str
) -> Predecessor:
    """Return the convolution that is enabled, with the descriptors that it stands for.

    Parameters
    ----------
    units : Units
        CDMA, CSC, CMAC_A, CMAC_B and CACC, and others.
    target : Target
        The hardware.
    index : int
        Number of the operation.
    before : Predecessor or None
        The convolution before.
    warnings : list[str]
        Takes what the hardware ignores.
    where : str
        Names the operation in errors.
    """
    op = gather(units, CONV)
    surface = gather(units, CONV_SURFACE)
    op["data_format"] = _format(units)
    if op["data_format"] == structs.FORMAT_FEATURE:
        # Nothing looks at these for features; NVIDIA's traces have random values there.
        op |= dict.fromkeys(("pixel_mapping", "pixel_override", "mean_format", "post_extension"), 0)
    op["out_cvt.scale"] = 1
    if op["conv_mode"] == structs.CONV_MODE_DIRECT:
        check_again(units, op, DIRECT, CONV)
    else:
        check_again(units, op, EXTENDED, CONV)
    surface |= cube_fields(
        units, "src_data", "CDMA.D_DAIN_ADDR_HIGH_0", "CDMA.D_DAIN_ADDR_LOW_0", "CDMA.D_DAIN_RAM_TYPE"
    )
    surface["dst_data.type"] = MemoryType.ON_THE_FLY
    surface |= cube_fields(units, "weight_data", "CDMA.D_WEIGHT_ADDR_HIGH", "CDMA.D_WEIGHT_ADDR_LOW", _WEIGHT_RAM)
    if op["data_format"] in PIXELS and len(PIXELS[op["data_format"]].plane_bytes) > 1:
        second = address(units, "CDMA.D_DAIN_ADDR_HIGH_1", "CDMA.D_DAIN_ADDR_LOW_1")
        surface["offset_u"] = second - surface["src_data.offset"]
    if op["weight_format"] == structs.WEIGHT_FORMAT_COMPRESSED:
        surface |= cube_fields(units, "wmb_data", "CDMA.D_WMB_ADDR_HIGH", "CDMA.D_WMB_ADDR_LOW", _WEIGHT_RAM)
        surface |= cube_fields(units, "wgs_data", "CDMA.D_WGS_ADDR_HIGH", "CDMA.D_WGS_ADDR_LOW", _WEIGHT_RAM)
        surface |= gather(units, {"wmb_data.size": WMB_BYTES})
        # No register says how many sizes of groups there are: the hardware reads one for each group.
        surface["wgs_data.size"] = 4 * surface["dst_data.channel"]
    if op["data_format"] != structs.FORMAT_FEATURE:
        refuse_unless_zero(units, PIXEL_OFFSETS, where, "for an image")
    if op["out_precision"] == structs.ProcessorPrecision.FP16:
        refuse_unless_zero(units, "CDMA.D_NAN_FLUSH_TO_ZERO", where, "in fp16")
    descriptors = record(structs.CONV_OP, op), record(structs.CONV_SURFACE, surface)
    operation = decode_conv(space_of(target), target, *descriptors, index, before, warnings, where)
    check_slices(descriptors[0], operation, target, where)
    return Predecessor(*descriptors, operation)


_WEIGHT_RAM = "CDMA.D_WEIGHT_RAM_TYPE"


def _format(units: Units) -> int:
    if units["CDMA"].field("D_DATAIN_FORMAT", "DATAIN_FORMAT") == IMAGE:
        return field(units, places("CDMA.D_DATAIN_FORMAT.PIXEL_FORMAT")[0])
    return structs.FORMAT_FEATURE
