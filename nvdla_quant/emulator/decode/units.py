"""Decode operations of the units behind the SDP and beside it: PDP, CDP, Rubik and BDMA.

Facts: nvdla/sw ``kmd/firmware/{pdp,cdp,rubik,bdma,common}.c``; docs/hardware/firmware.md, "What it refuses".
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from nvdla_quant.emulator.decode.addresses import CubeSpace
from nvdla_quant.emulator.decode.fields import ELEMENT_BYTES, precision_of, refuse, shape_of, signed
from nvdla_quant.emulator.decode.sdp import decode_lut
from nvdla_quant.emulator.operations import (
    BdmaOperation,
    CdpOperation,
    Converter,
    Cube,
    PdpOperation,
    RubikOperation,
    SdpOperation,
)
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import MAX_POOLING_WINDOW, Precision, Target
from nvdla_quant.loadable.structs import MemoryType, PoolMode, RubikMode

MAX_POOLING_STRIDE = 8
MAX_SPLITS = 64
"""Parts of a pooling (``MAX_SPLIT_NUM``, kmd/firmware/pdp.c:38)."""
MAX_PART = 1024
"""``PDP_D_PARTIAL_WIDTH_IN_0`` and ``..._OUT_0`` have 10 bits for each width."""
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
MAX_DECONVOLUTION_STRIDE = 32
"""``RBK_D_DECONV_STRIDE_0`` has 5 bits for each."""
BDMA_BYTES = 32
"""Addresses, strides and sizes of copies count in these."""
MAX_BDMA_REPEAT = 8192


def decode_pdp(
    space: CubeSpace,
    target: Target,
    op: np.void,
    surface: np.void,
    index: int,
    feeder: SdpOperation | None,
    where: str,
) -> PdpOperation:
    """Decode a pooling, of what `feeder` hands over or, where that is None, of a cube in memory.

    (kmd/firmware/pdp.c ``vaildate_pdp_configs``, ``processor_pdp_program``.)
    """
    if not target.has_pdp:
        raise EmulationError(f"{where}: {target.name} has no PDP")
    precision = precision_of(int(op["precision"]), target, where, "precision")
    kernel = int(op["pool_height"]) + 1, int(op["pool_width"]) + 1
    if max(kernel) > MAX_POOLING_WINDOW:
        raise refuse(where, "pool window", kernel, f"at most {MAX_POOLING_WINDOW}, which the firmware demands")
    stride = int(op["stride_y"]), int(op["stride_x"])
    if not 1 <= min(stride) <= max(stride) <= MAX_POOLING_STRIDE:
        raise refuse(where, "stride", stride, f"1 to {MAX_POOLING_STRIDE}, which the firmware demands")
    if op["pool_mode"] not in list(PoolMode):
        raise refuse(where, "pool_mode", int(op["pool_mode"]), f"0 to {max(PoolMode)}")
    if precision is Precision.FP16 and any(op["padding_value"]):
        raise refuse(where, "padding_value", op["padding_value"].tolist(), "0 for fp16, which the firmware demands")
    if surface["dst_data"]["type"] == MemoryType.ON_THE_FLY:
        raise refuse(where, "dst_data type", MemoryType.ON_THE_FLY, "memory (0 or 1), as the firmware demands")
    element_bytes = ELEMENT_BYTES[precision]
    atom = target.feature_atom_bytes // element_bytes
    destination = space.cube(surface["dst_data"], atom, element_bytes, f"{where} destination")
    if feeder is None:
        source = space.cube(surface["src_data"], atom, element_bytes, f"{where} source")
    else:
        source = feeder.destination
        if (shape := shape_of(surface["src_data"])) != source.shape:
            raise refuse(where, "src shape", shape, f"what operation {feeder.index} hands over, {source.shape}")
        if feeder.output is not precision:
            raise refuse(where, "precision", precision, f"that of operation {feeder.index}, {feeder.output}")
    if source.channels != destination.channels:
        raise refuse(where, "dst channel", destination.channels, f"the source's {source.channels}")
    bits = PADDING_BITS[precision]
    operation = PdpOperation(
        index=index,
        source=source,
        destination=destination,
        mode=PoolMode(op["pool_mode"]),
        kernel=kernel,
        stride=stride,
        pad_top=int(op["pad_top"]) & 7,
        pad_left=int(op["pad_left"]) & 7,
        padding_values=tuple(signed(int(v), width) for v, width in zip(op["padding_value"], bits, strict=True)),
        precision=precision,
    )
    count = int(op["split_num"])
    if count == 1:
        return operation
    if feeder is not None or not 1 <= count <= MAX_SPLITS:
        limit = "1 on the fly" if feeder is not None else f"1 to {MAX_SPLITS}"
        raise refuse(where, "split_num", count, f"{limit}, which the firmware demands")
    return replace(operation, parts=tuple(_parts(operation, op, count, where)))


def _parts(operation: PdpOperation, op: np.void, count: int, where: str) -> Iterator[PdpOperation]:
    """Yield the poolings of the parts (``cmod/pdp/NV_NVDLA_pdp.cpp``, `PoolingStage0SequenceThread`).

    A part behind the first also takes the columns that its first window shares with the part before.
    """
    places = ["first", *["mid"] * (count - 2), "last"]
    # The firmware writes one less than the width and makes nothing of a width of 0, which is then one column.
    inputs = [max(int(op[f"partial_in_width_{place}"]), 1) for place in places]
    outputs = [max(int(op[f"partial_width_{place}"]), 1) for place in places]
    if max(inputs + outputs) > MAX_PART:
        raise refuse(where, "a partial width", max(inputs + outputs), f"at most {MAX_PART}")
    if sum(outputs) != operation.destination.width:
        raise refuse(where, "partial widths of the output", outputs, f"a sum of {operation.destination.width}")
    shared = operation.kernel[1] - operation.stride[1]
    for number in range(count):
        start, width = sum(inputs[:number]), inputs[number]
        pad_left = operation.pad_left if number == 0 else 0
        pad_right = int(op["pad_right"]) & 7 if number == count - 1 else 0
        if number > 0:
            start, width = start - shared, width + shared
        if start < 0 or width < 1 or start + width > operation.source.width:
            raise refuse(where, f"columns of part {number}", (start, start + width), f"0 to {operation.source.width}")
        windows = (pad_left + width + pad_right - operation.kernel[1]) // operation.stride[1] + 1
        if windows != outputs[number]:
            raise refuse(where, f"outputs of part {number}", outputs[number], f"{windows}; it would hang")
        yield replace(
            operation,
            source=_columns(operation.source, start, width),
            destination=_columns(operation.destination, sum(outputs[:number]), outputs[number]),
            pad_left=pad_left,
        )


def _columns(cube: Cube, start: int, width: int) -> Cube:
    return replace(cube, offset=cube.offset + start * cube.atom * cube.element_bytes, width=width)


def decode_cdp(
    space: CubeSpace,
    target: Target,
    op: np.void,
    surface: np.void,
    index: int,
    read_lut: Callable[[int], np.void],
    where: str,
) -> CdpOperation:
    """Decode a local response normalisation (kmd/firmware/cdp.c ``processor_cdp_program``)."""
    if not target.has_cdp:
        raise EmulationError(f"{where}: {target.name} has no CDP")
    if op["in_precision"] != op["out_precision"]:
        raise refuse(where, "out_precision", int(op["out_precision"]), f"in_precision ({int(op['in_precision'])})")
    precision = precision_of(int(op["in_precision"]), target, where, "in_precision")
    source, destination = (
        _cube(space, target, surface, side, ELEMENT_BYTES[precision], where) for side in ("src_data", "dst_data")
    )
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


def decode_rubik(
    space: CubeSpace, target: Target, op: np.void, surface: np.void, index: int, where: str
) -> RubikOperation:
    """Decode a change of layout (kmd/firmware/rubik.c ``processor_rubik_program``)."""
    if not target.has_rubik:
        raise EmulationError(f"{where}: {target.name} has no Rubik unit, so the firmware refuses this")
    if op["mode"] not in list(RubikMode):
        raise refuse(where, "mode", int(op["mode"]), f"0 to {max(RubikMode)}")
    mode = RubikMode(op["mode"])
    precision = precision_of(int(op["precision"]), target, where, "precision")
    stride = (int(op["stride_y"]), int(op["stride_x"])) if mode is RubikMode.CONTRACT else (1, 1)
    if not 1 <= min(stride) <= max(stride) <= MAX_DECONVOLUTION_STRIDE:
        raise refuse(where, "stride", stride, f"1 to {MAX_DECONVOLUTION_STRIDE}")
    element_bytes = ELEMENT_BYTES[precision]
    source = _cube(space, target, surface, "src_data", element_bytes, where, planes=mode is RubikMode.MERGE)
    destination = _cube(space, target, surface, "dst_data", element_bytes, where, planes=mode is RubikMode.SPLIT)
    if mode is RubikMode.MERGE and source.surface_stride == 0:
        raise refuse(where, "src_data plane_stride", 0, "another one, which the firmware demands")
    if mode is RubikMode.CONTRACT:
        groups = stride[0] * stride[1]
        whole = groups * destination.surfaces * destination.atom
        if source.channels not in (whole, groups * destination.channels):
            raise refuse(where, "src channel", source.channels, f"{whole} for {groups} groups of the destination's")
        source = space.checked_cube(replace(_at_index(source, surface["src_data"]), channels=whole), f"{where} source")
    shape = destination.channels, source.height * stride[0], source.width * stride[1]
    if shape != destination.shape or (mode is not RubikMode.CONTRACT and source.channels != destination.channels):
        raise refuse(where, "dst shape", destination.shape, f"{shape} for a source of {source.shape}")
    operation = RubikOperation(index, source, destination, mode, stride, precision)
    space.checked_cube(_at_index(operation.written, surface["dst_data"]), f"{where} destination")
    return operation


def _at_index(cube: Cube, descriptor: np.void) -> Cube:
    """Return `cube` as `AddressSpace.checked_cube` takes it: at an address index and an offset."""
    return replace(cube, memory=int(descriptor["address"]), offset=int(descriptor["offset"]))


def decode_bdma(space: CubeSpace, target: Target, surface: np.void, index: int, where: str) -> BdmaOperation | None:
    """Decode copies (kmd/firmware/bdma.c ``processor_bdma_program_slot``); None where there are none."""
    if not target.has_bdma:
        raise EmulationError(f"{where}: {target.name} has no BDMA unit, so the firmware refuses this")
    count = int(surface["num_transfers"])
    if count > len(surface["transfers"]):
        raise refuse(where, "num_transfers", count, f"at most {len(surface['transfers'])}")
    for field in ("source_type", "destination_type"):
        if surface[field] not in (MemoryType.DRAM, MemoryType.SRAM):
            raise refuse(where, field, int(surface[field]), "0 or 1")
    transfers = [
        decode_transfer(space, transfer, f"{where} transfer {place}")
        for place, transfer in enumerate(surface["transfers"][:count])
    ]
    return BdmaOperation(index, tuple(transfers)) if transfers else None


def decode_transfer(space: CubeSpace, transfer: np.void, where: str) -> tuple[Cube, Cube]:
    """Decode one copy: its source and its destination, of bytes."""
    size, lines, surfaces = (int(transfer[field]) for field in ("line_size", "line_repeat", "surface_repeat"))
    if size == 0 or size % BDMA_BYTES:
        raise refuse(where, "line_size", size, f"a positive multiple of {BDMA_BYTES}")
    for field, repeat in (("line_repeat", lines), ("surface_repeat", surfaces)):
        if not 1 <= repeat <= MAX_BDMA_REPEAT:
            raise refuse(where, field, repeat, f"1 to {MAX_BDMA_REPEAT}")

    def side(name: str) -> Cube:
        line, surface = int(transfer[f"{name}_line"]), int(transfer[f"{name}_surface"])
        for field, stride, least in (("line", line, size), ("surface", surface, line * lines)):
            if stride < least:
                raise refuse(where, f"{name}_{field}", stride, f"{least} or more, which the firmware demands")
        cube = Cube(
            memory=int(transfer[f"{name}_address"]),
            offset=0,
            channels=surfaces * BDMA_BYTES,
            height=lines,
            width=size // BDMA_BYTES,
            atom=BDMA_BYTES,
            element_bytes=1,
            line_stride=line,
            surface_stride=surface,
        )
        return _aligned(space.checked_cube(cube, f"{where} {name}"), BDMA_BYTES, f"{where} {name}")

    return side("source"), side("destination")


def _cube(
    space: CubeSpace,
    target: Target,
    surface: np.void,
    side: str,
    element_bytes: int,
    where: str,
    planes: bool = False,
) -> Cube:
    """Return the cube `side` of `surface`, which is in memory; planes are cubes with one channel to an atom."""
    descriptor = surface[side]
    if descriptor["type"] not in (MemoryType.DRAM, MemoryType.SRAM):
        raise refuse(where, f"{side} type", int(descriptor["type"]), "memory (0 or 1), as the firmware demands")
    atom = 1 if planes else target.feature_atom_bytes // element_bytes
    surface_stride = "plane_stride" if planes else "surf_stride"
    cube = space.cube(descriptor, atom, element_bytes, f"{where} {side}", surface_stride)
    return _aligned(cube, target.feature_atom_bytes, f"{where} {side}")


def _aligned(cube: Cube, unit: int, where: str) -> Cube:
    """Return `cube`, whose address and strides registers hold in units of so many bytes."""
    for field in ("offset", "line_stride", "surface_stride"):
        if getattr(cube, field) % unit:
            raise refuse(where, field, getattr(cube, field), f"a multiple of {unit}; registers hold no others")
    return cube


def _converter(descriptor: np.void, offset_bits: int, shift_bits: int) -> Converter:
    """Return a converter as the unit's registers hold it."""
    offset = signed(int(descriptor["offset"]), offset_bits)
    return Converter(offset, int(descriptor["scale"]), int(descriptor["truncate"]) & ((1 << shift_bits) - 1))
