"""Decode the descriptors of a DLA task as the firmware reads them.

Facts: nvdla/sw ``kmd/firmware/{engine,scheduler,conv}.c``; docs/hardware/firmware.md. What the firmware refuses is an
`EmulationError`, and so is what the emulator does not model; both name operation, field and value.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.addresses import AddressSpace
from nvdla_quant.emulator.decode.buffer import check_buffer
from nvdla_quant.emulator.decode.conv import decode_conv
from nvdla_quant.emulator.decode.races import Link
from nvdla_quant.emulator.decode.sdp import decode_sdp
from nvdla_quant.emulator.decode.units import decode_bdma, decode_cdp, decode_pdp, decode_rubik
from nvdla_quant.emulator.operations import ConvOperation, Operation, SdpOperation
from nvdla_quant.emulator.reuse import Predecessor
from nvdla_quant.errors import EmulationError, LoadableError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable.descriptors import read_task
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
    task = read_task(space)
    common, engines, where = task.common, task.engines, task.where
    convolutions: dict[int, ConvOperation] = {}
    before: Predecessor | None = None
    for index in task.chains.get(Engine.CONV, ()):
        op, surface = task.operation(index), task.surface(index)
        convolution = decode_conv(space, target, op, surface, base + index, before, warnings, where(index))
        check_buffer(op, surface, convolution, target, where(index))
        convolutions[index] = convolution
        before = Predecessor(op, surface, convolution)
    operations: dict[int, Operation] = {}
    feeders: dict[int, SdpOperation] = {}
    fed: list[tuple[int, int]] = []
    # Poolings come last, for they may take what an SDP operation hands over.
    for index, engine in sorted(enumerate(engines), key=lambda item: item[1] is Engine.PDP):
        op, surface = task.operation(index), task.surface(index)
        if engine is Engine.SDP:
            parent = int(common[index]["fused_parent"]["index"])
            flying = int(surface["src_data"]["type"]) == MemoryType.ON_THE_FLY
            if flying and parent not in convolutions:
                raise EmulationError(
                    f"{where(index)}: on-the-fly source, but operation {parent} feeds it no convolution"
                )
            source = convolutions.pop(parent) if flying else None
            decoded = decode_sdp(space, target, op, surface, base + index, source, task.lut, warnings, where(index))
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
            operations[index] = decode_cdp(space, target, op, surface, base + index, task.lut, where(index))
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
    return DecodedTask(task.count, operations, dict(task.chains), consumers, parents, tuple(fed), counts)


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
