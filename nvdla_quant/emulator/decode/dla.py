"""Decode the descriptors of a DLA task as the firmware reads them.

Facts: nvdla/sw ``kmd/firmware/{engine,scheduler,conv}.c``; docs/hardware/firmware.md. What the firmware refuses is an
`EmulationError`, and so is what the emulator does not model; both name operation, field and value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.addresses import AddressSpace
from nvdla_quant.emulator.decode.conv import decode_conv
from nvdla_quant.emulator.decode.races import Link
from nvdla_quant.emulator.decode.sdp import decode_sdp
from nvdla_quant.emulator.decode.units import decode_bdma, decode_cdp, decode_pdp, decode_rubik
from nvdla_quant.emulator.operations import ConvOperation, Operation, SdpOperation
from nvdla_quant.emulator.reuse import Predecessor
from nvdla_quant.errors import EmulationError, LoadableError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.structs import Engine, MemoryType


@dataclass(frozen=True)
class DecodedTask:
    """Operations of one DLA task.

    Attributes
    ----------
    count : int
        Descriptors in the task.
    operations : dict[int, Operation]
        What writes memory, by index in the task.
    chains : dict[Engine, tuple[int, ...]]
        Operations of each unit, in the order in which the firmware gives them to it.
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
    chains: dict[Engine, tuple[int, ...]]
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

    chains = _chains(network, common, engines, space.where)
    convolutions: dict[int, ConvOperation] = {}
    before: Predecessor | None = None
    for index in chains.get(Engine.CONV, ()):
        op, surface = views[Engine.CONV][index], surfaces[Engine.CONV][index]
        convolution = decode_conv(space, target, op, surface, base + index, before, warnings, where(index))
        convolutions[index] = convolution
        before = Predecessor(op, surface, convolution)
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
    return DecodedTask(count, operations, chains, consumers, parents, tuple(fed), counts)


def _engine(where: str, index: int, value: int) -> Engine:
    try:
        return Engine(value)
    except ValueError:
        raise LoadableError(f"{where} operation {index}: op_type {value}, expected 0 to {max(Engine)}") from None


def _chains(
    network: np.void, common: NDArray[np.void], engines: Sequence[Engine], where: str
) -> dict[Engine, tuple[int, ...]]:
    """Return the operations of each unit in the order of the firmware: from ``op_head`` along the unit's consumers.

    Each operation names the next one of its unit among its consumers, and what is not reached so is never given to the
    unit (nvdla/sw ``kmd/firmware/scheduler.c``, ``dla_initiate_processors`` and ``dla_dequeue_operation``).
    """
    chains = {}
    for engine in Engine:
        chain: dict[int, None] = {}
        index = int(network["op_head"][engine])
        while index != -1:
            if not 0 <= index < len(engines) or engines[index] is not engine or index in chain:
                raise LoadableError(
                    f"{where}: the operations of {engine.name}, from op_head along its consumers, are "
                    f"{[*chain, index]}; expected each once, of that unit"
                )
            chain[index] = None
            index = int(common[index]["consumers"][engine]["index"])
        missing = [index for index, other in enumerate(engines) if other is engine and index not in chain]
        if missing:
            raise LoadableError(
                f"{where} operation {missing[0]} ({engine.name}): neither op_head nor a consumer of its unit names it; "
                "the firmware would never run it"
            )
        if chain:
            chains[engine] = tuple(chain)
    return chains


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
