"""Decode operations of the units behind the SDP and beside it: PDP and CDP.

Facts: nvdla/sw ``kmd/firmware/{pdp,cdp,common}.c``.
"""

from collections.abc import Callable

import numpy as np

from nvdla_quant.emulator.addresses import AddressSpace
from nvdla_quant.emulator.decode_sdp import decode_lut
from nvdla_quant.emulator.fields import ELEMENT_BYTES, precision_of, refuse, signed
from nvdla_quant.emulator.operations import CdpOperation, Converter, Cube, PdpOperation
from nvdla_quant.hardware import MAX_POOLING_WINDOW, Precision, Target
from nvdla_quant.loadable.structs import MemoryType, PoolMode

MAX_POOLING_STRIDE = 8
PADDING_BITS = {
    Precision.INT8: (8, 9, 10, 10, 11, 11, 11),
    Precision.INT16: (16, 17, 18, 18, 19, 19, 19),
    Precision.FP16: (16,) * 7,
}
"""Bits of each padding value (``cmod/pdp/NV_NVDLA_pdp.cpp``: the sign is bit 7, 8, 9, 9, ...); fp16 has only zeros."""
CDP_TABLE_BITS = 38
CDP_INPUT_BITS = {Precision.INT8: 8, Precision.INT16: 16, Precision.FP16: 16}
CDP_OUTPUT_BITS = {Precision.INT8: 25, Precision.INT16: 32, Precision.FP16: 32}
"""Bits of the offsets of the CDP's converters (``cmod/hls/cdp_libs/cdp_icvt.h``, ``cdp_ocvt.h``)."""
CDP_SIZES = (3, 5, 7, 9)


def decode_pdp(
    space: AddressSpace, target: Target, op: np.void, surface: np.void, index: int, where: str
) -> PdpOperation:
    """Decode a pooling (kmd/firmware/pdp.c ``vaildate_pdp_configs``, ``processor_pdp_program``)."""
    for side in ("src_data", "dst_data"):
        if surface[side]["type"] == MemoryType.ON_THE_FLY:
            raise refuse(where, f"{side} type", MemoryType.ON_THE_FLY, "memory; on-the-fly pooling is not modelled yet")
    precision = precision_of(int(op["precision"]), target, where, "precision")
    kernel = int(op["pool_height"]) + 1, int(op["pool_width"]) + 1
    if max(kernel) > MAX_POOLING_WINDOW:
        raise refuse(where, "pool window", kernel, f"at most {MAX_POOLING_WINDOW}, which the firmware demands")
    stride = int(op["stride_y"]), int(op["stride_x"])
    if not 1 <= min(stride) <= max(stride) <= MAX_POOLING_STRIDE:
        raise refuse(where, "stride", stride, f"1 to {MAX_POOLING_STRIDE}, which the firmware demands")
    if op["pool_mode"] not in list(PoolMode):
        raise refuse(where, "pool_mode", int(op["pool_mode"]), f"0 to {max(PoolMode)}")
    if op["split_num"] != 1:
        raise refuse(where, "split_num", int(op["split_num"]), "1; split pooling is not modelled yet")
    element_bytes = ELEMENT_BYTES[precision]
    atom = target.feature_atom_bytes // element_bytes
    source = space.cube(surface["src_data"], atom, element_bytes, f"{where} source")
    destination = space.cube(surface["dst_data"], atom, element_bytes, f"{where} destination")
    if source.channels != destination.channels:
        raise refuse(where, "dst channel", destination.channels, f"the source's {source.channels}")
    bits = PADDING_BITS[precision]
    values = tuple(signed(int(value), width) for value, width in zip(op["padding_value"], bits, strict=True))
    if precision is Precision.FP16 and any(op["padding_value"]):
        raise refuse(where, "padding_value", op["padding_value"].tolist(), "0 for fp16, which the firmware demands")
    return PdpOperation(
        index=index,
        source=source,
        destination=destination,
        mode=PoolMode(op["pool_mode"]),
        kernel=kernel,
        stride=stride,
        pad_top=int(op["pad_top"]) & 7,
        pad_left=int(op["pad_left"]) & 7,
        padding_values=values,
        precision=precision,
    )


def decode_cdp(
    space: AddressSpace,
    target: Target,
    op: np.void,
    surface: np.void,
    index: int,
    read_lut: Callable[[int], np.void],
    where: str,
) -> CdpOperation:
    """Decode a local response normalisation (kmd/firmware/cdp.c ``processor_cdp_program``)."""
    if op["in_precision"] != op["out_precision"]:
        raise refuse(where, "out_precision", int(op["out_precision"]), f"in_precision ({int(op['in_precision'])})")
    precision = precision_of(int(op["in_precision"]), target, where, "in_precision")
    source, destination = _cubes(space, target, surface, precision, where)
    if source.shape != destination.shape:
        raise refuse(where, "dst shape", destination.shape, f"the source's {source.shape}")
    # The firmware halves: an even size is the odd one below it.
    local_size = (int(op["local_size"]) - 1) // 2 * 2 + 1
    if local_size not in CDP_SIZES:
        raise refuse(where, "local_size", int(op["local_size"]), "3 to 10")
    if op["lut_index"] < 0:
        raise refuse(where, "lut_index", int(op["lut_index"]), "a table; one left from before is not modelled")
    return CdpOperation(
        index=index,
        source=source,
        destination=destination,
        lut=decode_lut(read_lut(int(op["lut_index"])), CDP_TABLE_BITS, f"{where} table"),
        local_size=local_size,
        square_sum=not op["bypass_sqsum"],
        multiply=not op["bypass_out_mul"],
        input_converter=_converter(op["in_cvt"], CDP_INPUT_BITS[precision], 5),
        output_converter=_converter(op["out_cvt"], CDP_OUTPUT_BITS[precision], 6),
        precision=precision,
    )


def _cubes(
    space: AddressSpace, target: Target, surface: np.void, precision: Precision, where: str
) -> tuple[Cube, Cube]:
    """Return (source, destination) in memory."""
    element_bytes = ELEMENT_BYTES[precision]
    atom = target.feature_atom_bytes // element_bytes
    for side in ("src_data", "dst_data"):
        if surface[side]["type"] not in (MemoryType.DRAM, MemoryType.SRAM):
            raise refuse(where, f"{side} type", int(surface[side]["type"]), "memory (0 or 1), as the firmware demands")
    return (
        space.cube(surface["src_data"], atom, element_bytes, f"{where} source"),
        space.cube(surface["dst_data"], atom, element_bytes, f"{where} destination"),
    )


def _converter(descriptor: np.void, offset_bits: int, shift_bits: int) -> Converter:
    """Return a converter as the unit's registers hold it."""
    offset = signed(int(descriptor["offset"]), offset_bits)
    return Converter(offset, int(descriptor["scale"]), int(descriptor["truncate"]) & ((1 << shift_bits) - 1))
