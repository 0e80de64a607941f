"""Pooling and normalisation: PDP and CDP, and what reads their sources from memory."""

from dataclasses import replace

from nvdla_quant.emulator.decode.units import decode_cdp, decode_pdp
from nvdla_quant.emulator.operations import CdpOperation, PdpOperation, SdpOperation
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.structs import PoolMode
from nvdla_quant.registers.decode.lut import lut_of
from nvdla_quant.registers.decode.values import (
    Units,
    check_again,
    cube_fields,
    field,
    gather,
    record,
    refuse_unless_zero,
    space_of,
)
from nvdla_quant.registers.places import (
    CDP,
    CDP_SURFACE,
    PDP,
    PDP_PADDING,
    PDP_SOURCE,
    PDP_SOURCE_SURFACE,
    PDP_SURFACE,
    places,
)

OFF_FLYING = 1
"""What PDP's FLYING_MODE holds where the source is in memory."""


def pools_memory(units: Units) -> bool:
    """Whether the PDP takes its source from memory, and not from the SDP."""
    return units["PDP"].field("D_OPERATION_MODE_CFG", "FLYING_MODE") == OFF_FLYING


def decode_pooling(units: Units, target: Target, index: int, feeder: SdpOperation | None, where: str) -> PdpOperation:
    """Return the pooling that is enabled, of what `feeder` hands over or of memory."""
    op = gather(units, PDP)
    if op["precision"] == structs.ProcessorPrecision.FP16:
        refuse_unless_zero(units, "PDP.D_NAN_FLUSH_TO_ZERO", where, "in fp16")
    surface = gather(units, PDP_SURFACE)
    surface |= cube_fields(
        units, "dst_data", "PDP.D_DST_BASE_ADDR_HIGH", "PDP.D_DST_BASE_ADDR_LOW", "PDP.D_DST_RAM_CFG"
    )
    if feeder is None:
        check_again(units, op, PDP_SOURCE, PDP)
        shape = {name: place for name, place in PDP_SOURCE_SURFACE.items() if name in PDP_SURFACE}
        check_again(units, surface, shape, PDP_SURFACE)
        surface |= gather(units, PDP_SOURCE_SURFACE)
        surface |= cube_fields(
            units, "src_data", "PDP_RDMA.D_SRC_BASE_ADDR_HIGH", "PDP_RDMA.D_SRC_BASE_ADDR_LOW", "PDP_RDMA.D_SRC_RAM_CFG"
        )
    descriptor = record(structs.PDP_OP, op)
    if op["pool_mode"] == PoolMode.AVERAGE:
        descriptor["padding_value"] = [field(units, places(text)[0]) for text in PDP_PADDING]
    surfaces = record(structs.TWO_CUBES, surface)
    operation = decode_pdp(space_of(target), target, descriptor, surfaces, index, feeder, where)
    if operation.mode is not PoolMode.AVERAGE:
        return operation
    # The firmware has a table by window size; registers may hold anything.
    reciprocals = units["PDP"].field("D_RECIP_KERNEL_HEIGHT"), units["PDP"].field("D_RECIP_KERNEL_WIDTH")
    parts = tuple(replace(part, reciprocals=reciprocals) for part in operation.parts)
    return replace(operation, reciprocals=reciprocals, parts=parts)


def decode_normalisation(units: Units, target: Target, index: int, where: str) -> CdpOperation:
    """Return the normalisation that is enabled."""
    op = gather(units, CDP)
    # The descriptor's size is an odd number of channels.
    op["local_size"] = 2 * units["CDP"].field("D_LRN_CFG") + 3
    if op["in_precision"] == structs.ProcessorPrecision.FP16:
        refuse_unless_zero(units, "CDP.D_NAN_FLUSH_TO_ZERO", where, "in fp16")
    surface = gather(units, CDP_SURFACE)
    surface |= cube_fields(
        units, "dst_data", "CDP.D_DST_BASE_ADDR_HIGH", "CDP.D_DST_BASE_ADDR_LOW", "CDP.D_DST_DMA_CFG"
    )
    surface |= cube_fields(
        units, "src_data", "CDP_RDMA.D_SRC_BASE_ADDR_HIGH", "CDP_RDMA.D_SRC_BASE_ADDR_LOW", "CDP_RDMA.D_SRC_DMA_CFG"
    )
    descriptors = record(structs.CDP_OP, op), record(structs.TWO_CUBES, surface)
    read = lambda _: lut_of(units["CDP"])  # noqa: E731
    return decode_cdp(space_of(target), target, *descriptors, index, read, where)
