"""What stands in registers is what the loadable meant: golden loadables, written into registers and read back."""

from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nvdla_quant.emulator.decode.program import Program, decode
from nvdla_quant.emulator.operations import Cube, Operation, SdpOperation
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, Target
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.tasks import Window
from nvdla_quant.registers import device
from nvdla_quant.registers.memory import TraceMemory
from nvdla_quant.registers.program.build import HardwarePart, build
from nvdla_quant.registers.program.image import Bases, Placement, place_memories
from nvdla_quant.registers.program.steps import Address, AwaitInterrupt, Put
from tests.conftest import REPOSITORY

CASES = {
    "resnets-nv-small-int8-perfilter": NV_SMALL,
    "v-elt-prod-nv-small-int8-perfilter": NV_SMALL,
    "v-dilation-nv-full-int8-perkernel": NV_FULL,
    "v-conv0-nobias-relu-nv-full-fp16": NV_FULL,
}


def placed(placement: Placement, part: Any) -> Any:
    """Return `part` of an operation with its memories at their addresses."""
    if isinstance(part, Cube | Window):
        memory, offset = placement.on_bus(Address(part.memory, part.offset), Bases())
        return replace(part, memory=memory, offset=offset)
    if isinstance(part, tuple):
        return tuple(placed(placement, item) for item in part)
    if is_dataclass(part) and not isinstance(part, type):
        values = {field.name: placed(placement, getattr(part, field.name)) for field in fields(part)}
        return replace(part, **values)
    return part


def read_back(
    loadable: Loadable, target: Target, decoded: Program, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Operation], Placement]:
    """Return the operations that the hardware runs, as registers have them; nothing is computed."""
    found: list[Operation] = []
    monkeypatch.setattr(device, "execute", lambda *_: 0)
    model = device.Device(target, TraceMemory(), on_operation=found.append)
    parts = build(loadable, target)
    placement = place_memories(loadable, parts, decoded)
    for step in (step for part in parts if isinstance(part, HardwarePart) for step in part.steps):
        if isinstance(step, Put):
            model.write(step.register, placement.value(step.value, Bases()), 0)
        elif isinstance(step, AwaitInterrupt):
            assert model.advance() == device.Interrupt(step.source, step.group)
    assert model.advance() is None
    return found, placement


def without_numbers(operation: Operation) -> Operation:
    """Return an operation without what only tells it from others, or says in another way what the firmware writes."""
    if isinstance(operation, SdpOperation):
        source = operation.source
        source = source if isinstance(source, Cube) else replace(source, index=0)
        return replace(operation, index=0, source=source)
    return replace(operation, index=0, **({"reciprocals": None} if hasattr(operation, "reciprocals") else {}))


def check(loadable: Loadable, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = decode(loadable, target)
    found, placement = read_back(loadable, target, decoded, monkeypatch)
    move = partial(placed, placement)
    declared = [move(without_numbers(operation)) for operation in decoded.operations if operation.unit != "EMU"]
    assert len(found) == len(declared) > 0
    for one in declared:
        assert one in [without_numbers(operation) for operation in found]


@pytest.mark.parametrize("case", CASES)
def test_registers_give_the_operations_of_the_loadable(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(REPOSITORY) / "tests" / "data" / "golden" / case
    check(read_loadable(folder / "loadable.nvdla"), CASES[case], monkeypatch)


@pytest.mark.parametrize("case", ["lenet-nv-small-int8-perkernel", "resnets-nv-full-int8-perfilter"])
def test_of_whole_networks(shared: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared / "golden" / "loadables" / case
    check(read_loadable(folder / "loadable.nvdla"), NV_SMALL if "small" in case else NV_FULL, monkeypatch)
