"""A loadable as a program of registers.

Facts: nvdla/sw ``kmd/firmware/*.c``, the functions ``dla_*_set_producer``, ``dla_*_enable`` and ``dla_*_program``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nvdla_quant.emulator.decode import emu
from nvdla_quant.emulator.decode.addresses import placed_tasks
from nvdla_quant.emulator.operations import CpuOperation
from nvdla_quant.errors import TraceError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable.descriptors import DlaTask, read_task
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.structs import Engine
from nvdla_quant.loadable.tasks import static_bytes
from nvdla_quant.registers.device import Interrupt
from nvdla_quant.registers.map import RegisterMap, register_map
from nvdla_quant.registers.program.conv import convolution
from nvdla_quant.registers.program.encode import Resolver
from nvdla_quant.registers.program.moves import copies, layout
from nvdla_quant.registers.program.planar import normalisation, pooling
from nvdla_quant.registers.program.schedule import Action, Enable, Program, Turns, Wait, schedule
from nvdla_quant.registers.program.sdp import point
from nvdla_quant.registers.program.steps import AwaitInterrupt, Poll, Put, Remark, Step

UNITS = {
    Engine.BDMA: (),
    Engine.CONV: ("CACC", "CMAC_A", "CMAC_B", "CSC", "CDMA"),
    Engine.SDP: ("SDP",),
    Engine.PDP: ("PDP",),
    Engine.CDP: ("CDP",),
    Engine.RUBIK: ("RBK",),
}
"""Units of the register map in the order in which the firmware chooses their groups, and enables them."""
READERS = {Engine.SDP: "SDP_RDMA", Engine.PDP: "PDP_RDMA", Engine.CDP: "CDP_RDMA"}
CDMA_FIRST = ("CDMA", "CACC", "CMAC_A", "CMAC_B", "CSC")
"""The order that loses no release of weights (docs/bare-metal.md)."""


@dataclass(frozen=True)
class HardwarePart:
    """What the hardware does, without the processor in between; `operations`: how many."""

    steps: tuple[Step, ...]
    operations: int


@dataclass(frozen=True)
class CpuPart:
    """What the processor computes."""

    operations: tuple[CpuOperation, ...]


Part = HardwarePart | CpuPart


def build(loadable: Loadable, target: Target, cdma_first: bool = False) -> tuple[Part, ...]:
    """Return the parts of a program of registers, in order.

    Parameters
    ----------
    loadable : Loadable
        That `nvdla_quant.emulator.decode.program.decode` takes for the target: what it checks is not checked again.
    target : Target
        The hardware.
    cdma_first : bool
        Enable CDMA before the other units of a convolution, and not last, as the firmware does, and release weights
        that fit their banks with the next convolution: then no release is lost (docs/bare-metal.md, "Lost releases").

    Raises
    ------
    TraceError
        The firmware would wait for ever, or no program without conditions does what it does.
    """
    turns = Turns()
    parts: list[Part] = []
    for task in placed_tasks(loadable, static_bytes(loadable)):
        if task.on_cpu:
            parts.append(CpuPart(tuple(emu.decode_task(task.space, target, task.base))))
        else:
            descriptors = read_task(task.space)
            writer = Writer(descriptors, target, task.base, cdma_first)
            steps = tuple(step for action in schedule(descriptors, turns) for step in writer.steps(action))
            parts.append(HardwarePart(steps, descriptors.count))
    return tuple(parts)


class Writer:
    """Writes the steps of one task: `base` operations come before it."""

    def __init__(self, task: DlaTask, target: Target, base: int, cdma_first: bool = False) -> None:
        self._task = task
        self._target = target
        self._registers: RegisterMap = register_map(target)
        self._resolve = Resolver(task.space)
        self._base = base
        self._cdma_first = cdma_first

    def steps(self, action: Action) -> Iterator[Step]:
        """Yield the steps of one action of the firmware."""
        match action:
            case Program(index, group, reader):
                yield Remark(f"operation {self._base + index} ({self._engine(index).name}), group {group}")
                yield from self._choose(index, group, reader)
                yield from self._program(index)
            case Enable(index, group, reader, reads):
                yield from self._choose(index, group, reader)
                yield from self._enable(index, group, reads)
            case Wait(source, group):
                yield AwaitInterrupt(source, group)
                yield self._put("GLB", "S_INTR_STATUS", Interrupt(source, group).mask)

    def _engine(self, index: int) -> Engine:
        return self._task.engines[index]

    def _put(self, unit: str, name: str, value: int) -> Put:
        return Put(self._registers.register(unit, name), value)

    def _choose(self, index: int, group: int, reader: int) -> Iterator[Put]:
        """Choose the group that the processor sees."""
        engine = self._engine(index)
        for unit in UNITS[engine]:
            yield self._put(unit, "S_POINTER", group)
        if engine in READERS:
            yield self._put(READERS[engine], "S_POINTER", reader)

    def _enable(self, index: int, group: int, reads: bool) -> Iterator[Step]:
        engine = self._engine(index)
        if engine is Engine.BDMA:
            yield self._put("BDMA", f"CFG_LAUNCH{group}", 1)
            return
        units: Sequence[str] = UNITS[engine]
        if engine is Engine.CONV:
            yield Poll(self._registers.register("CDMA", "S_CBUF_FLUSH_STATUS"), 1)
            units = CDMA_FIRST if self._cdma_first else units
        elif reads:
            units = (READERS[engine], *units)
        for unit in units:
            yield self._put(unit, "D_OP_ENABLE", 1)

    def _program(self, index: int) -> Iterator[Step]:
        """Yield the writes of an operation's registers; before all but convolutions the firmware unmasks interrupts."""
        task, registers, resolve = self._task, self._registers, self._resolve
        op, surface, where = task.operation(index), task.surface(index), task.where(index)
        unmask = self._put("GLB", "S_INTR_MASK", 0)
        match self._engine(index):
            case Engine.CONV:
                op = self._keeping_weights(op, surface) if self._cdma_first else op
                yield from convolution(registers, self._target, resolve, op, surface, where)
            case Engine.SDP:
                yield unmask
                yield from point(registers, resolve, op, surface, task.lut, where)
            case Engine.PDP:
                yield unmask
                yield from pooling(registers, resolve, op, surface, where)
            case Engine.CDP:
                yield unmask
                yield from normalisation(registers, resolve, op, surface, task.lut, where)
            case Engine.RUBIK:
                yield unmask
                yield from layout(registers, resolve, op, surface, where)
            case Engine.BDMA:
                if not surface["num_transfers"]:
                    raise TraceError(
                        f"{where}: copies nothing; the firmware ends it with the next interrupt, which no program of "
                        "registers can"
                    )
                yield from copies(registers, resolve, surface, where)
                yield unmask

    def _keeping_weights(self, op: np.void, surface: np.void) -> np.void:
        """Return a convolution that keeps its weights until the next one starts, where they fit its banks."""
        room = int(op["weight_bank"]) * self._target.cbuf_bank_bytes
        if op["weight_reuse"] or int(surface["weight_data"]["size"]) > room:
            return op
        kept = op.copy()
        kept["skip_weight_rls"] = 1
        return kept
