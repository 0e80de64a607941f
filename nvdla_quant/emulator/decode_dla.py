"""Decode the descriptors of a DLA task as the firmware reads them.

Facts: nvdla/sw ``kmd/firmware/{engine,scheduler,conv,sdp,pdp,common}.c``. What the firmware refuses is an
`EmulationError`, and so is what the emulator does not model; both name operation, field and value.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nvdla_quant.emulator.addresses import AddressSpace
from nvdla_quant.emulator.decode_conv import decode_conv
from nvdla_quant.emulator.decode_sdp import decode_sdp
from nvdla_quant.emulator.fields import ELEMENT_BYTES, precision_of, refuse
from nvdla_quant.emulator.operations import Operation, PdpOperation
from nvdla_quant.emulator.races import Link
from nvdla_quant.errors import EmulationError, LoadableError
from nvdla_quant.hardware import MAX_POOLING_WINDOW, Precision, Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.structs import Engine, MemoryType, PoolMode

MAX_POOLING_STRIDE = 8
PADDING_BITS = (8, 9, 10, 10, 11, 11, 11)
"""Width of each pooling padding value (arithmetic notes, section 5: sign bits 7, 8, 9, 9, 10, 10, 10).

The third is i = 2 and has its sign in bit 9.
"""


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
        (SDP, convolution, event): the convolution waits until the SDP operation that takes its output is enabled.
    dependency_counts : tuple[int, ...]
        How many events each operation waits for.
    """

    count: int
    operations: dict[int, Operation]
    engines: tuple[Engine, ...]
    consumers: tuple[Link, ...]
    parents: tuple[Link, ...]
    dependency_counts: tuple[int, ...]


def decode_task(space: AddressSpace, target: Target, base: int, warnings: list[str]) -> DecodedTask:
    """Decode every operation of a task; `base` is the number of the first one in the program."""
    network = space.records(0, structs.NETWORK, 1, structs.NETWORK.itemsize, "network descriptor")[0]
    count = int(network["num_operations"])
    if count == 0:
        raise LoadableError(f"{space.where}: network descriptor has no operations")

    def table(field: str, dtype: np.dtype[np.void], stride: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        return space.records(int(network[field]), dtype, count, stride, field)

    common = table("dependency_graph_index", structs.COMMON_OP, structs.COMMON_OP.itemsize)
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
    operations: dict[int, Operation] = {}
    for index, engine in enumerate(engines):
        op, surface = views[engine][index], surfaces[engine][index]
        if engine is Engine.SDP:
            parent = int(common[index]["fused_parent"]["index"])
            flying = int(surface["src_data"]["type"]) == MemoryType.ON_THE_FLY
            if flying and parent not in convolutions:
                raise EmulationError(
                    f"{where(index)}: on-the-fly source, but operation {parent} feeds it no convolution"
                )
            source = convolutions.pop(parent) if flying else None
            luts = _lut_reader(space, network)
            operations[index] = decode_sdp(
                space, target, op, surface, base + index, source, luts, warnings, where(index)
            )
        elif engine is Engine.PDP:
            operations[index] = decode_pdp(space, target, op, surface, base + index, where(index))
        elif engine is not Engine.CONV:
            raise EmulationError(f"{where(index)}: this unit is not modelled yet")
    if convolutions:
        raise EmulationError(f"{where(min(convolutions))}: no SDP operation takes its output; it would hang")
    counts = tuple(int(entry["dependency_count"]) for entry in common)
    consumers, parents = (_links(space.where, common, field) for field in ("consumers", "fused_parent"))
    return DecodedTask(count, operations, tuple(engines), consumers, parents, counts)


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
        luts = space.records(int(network["lut_data_index"]), structs.LUT, count, structs.LUT.itemsize, "lut_data_index")
        entry: np.void = luts[index]
        return entry

    return read


def _links(where: str, common: np.ndarray[tuple[int], np.dtype[np.void]], field: str) -> tuple[Link, ...]:
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


def decode_pdp(
    space: AddressSpace, target: Target, op: np.void, surface: np.void, index: int, where: str
) -> PdpOperation:
    """Decode a pooling (kmd/firmware/pdp.c ``vaildate_pdp_configs``, ``processor_pdp_program``)."""
    for side in ("src_data", "dst_data"):
        if surface[side]["type"] == MemoryType.ON_THE_FLY:
            raise refuse(where, f"{side} type", MemoryType.ON_THE_FLY, "memory; on-the-fly pooling is not modelled yet")
    precision = precision_of(int(op["precision"]), target, where, "precision")
    if precision is Precision.INT16:
        raise refuse(where, "precision", precision, "int8 or fp16; pooling in int16 is not modelled yet")
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
    values = tuple(
        _sign_extend(int(value), bits) for value, bits in zip(op["padding_value"], PADDING_BITS, strict=True)
    )
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


def _sign_extend(value: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half
