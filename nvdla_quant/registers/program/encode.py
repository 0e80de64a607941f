"""Fields of descriptors into registers: the way back of `nvdla_quant.registers.decode.values`."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nvdla_quant.errors import TraceError
from nvdla_quant.loadable.structs import MemoryType
from nvdla_quant.loadable.tasks import TaskMemory
from nvdla_quant.registers.decode.values import RAM
from nvdla_quant.registers.map import Register, RegisterMap
from nvdla_quant.registers.places import places
from nvdla_quant.registers.program.steps import Address, Half, Put, Value
from nvdla_quant.registers.traces.statements import PRIMARY, SECONDARY

Values = dict[str, Value]
"""What fields of registers get, by their places: ``UNIT.REGISTER.FIELD``, or ``UNIT.REGISTER``."""
RAM_TYPES = {memory: kind for kind, memory in RAM.items()}
"""What the fields called RAM_TYPE hold, by memory."""


class Resolver:
    """The addresses of a task.

    Parameters
    ----------
    space : TaskMemory
        The task's.
    """

    def __init__(self, space: TaskMemory) -> None:
        self._space = space

    def __call__(self, cube: np.void, where: str) -> Address:
        """Return where a cube begins."""
        return self.at(int(cube["address"]), int(cube["offset"]), where)

    def at(self, index: int, offset: int, where: str) -> Address:
        """Return byte `offset` of address `index`."""
        window = self._space.window(index, offset, 0, where)
        return Address(window.memory, window.offset)

    def or_zero(self, cube: np.void, where: str) -> Address | int:
        """Return where a cube begins; 0, as the firmware has it, for one that names no address."""
        return 0 if cube["address"] == -1 else self(cube, where)


def flat(descriptor: np.void) -> dict[str, int]:
    """Return the numbers of a descriptor by their names, those of a part behind its name and a dot; no arrays."""
    found: dict[str, int] = {}
    for name in descriptor.dtype.names or ():
        part: Any = descriptor[name]
        if isinstance(part, np.void):
            found |= {f"{name}.{inner}": value for inner, value in flat(part).items()}
        elif np.ndim(part) == 0:
            found[name] = int(part)
    return found


def encoded(table: Mapping[str, str], fields: Mapping[str, int]) -> Values:
    """Return where the fields of a descriptor go, and as what; a field that is missing makes its registers 0."""
    return {
        str(place): fields.get(name, place.more) - place.more for name, text in table.items() for place in places(text)
    }


def addressed(high: str, low: str, address: Address | int) -> Values:
    """Return what the two registers of an address get."""
    if isinstance(address, int):
        return {high: address >> 32, low: address & 0xFFFFFFFF}
    return {high: Half(address, high=True), low: Half(address, high=False)}


def ram_type(kind: int) -> int:
    """Return what a field called RAM_TYPE gets for a descriptor's type of memory; what is in none counts as SRAM.

    nvdla/sw ``kmd/firmware/*.c``: the tables of two entries called ``map_ram``. For data that are in no memory the
    firmware reads behind the ends of these; nothing looks at the field then.
    """
    return RAM_TYPES[PRIMARY if kind == MemoryType.DRAM else SECONDARY]


def puts(registers: RegisterMap, order: str, values: Values) -> Iterator[Put]:
    """Yield the writes of `values`, whole registers, in an order: lines of a unit and its registers.

    Registers of which no field is given are left out.
    """
    whole: dict[Register, Value] = {}
    for name, value in values.items():
        register, bits = _bits(registers, name, value)
        held = whole.get(register, 0)
        whole[register] = bits if isinstance(bits, Half) else bits | (0 if isinstance(held, Half) else held)
    for line in order.split(";"):
        unit, *names = line.split()
        for name in names:
            register = registers.register(unit, name)
            if register in whole:
                yield Put(register, whole.pop(register))
    assert not whole, f"{', '.join(map(str, whole))}: not in the order of writes"


def _bits(registers: RegisterMap, name: str, value: Value) -> tuple[Register, Value]:
    """Return the register of a place, and its bits there."""
    unit, register_name, *rest = name.split(".")
    register = registers.register(unit, register_name)
    if isinstance(value, Half):
        return register, value
    declared = register.field(*rest)
    if rest:
        return register, declared.put(value & ((1 << declared.bits) - 1))
    # A register's only field counts from bit 0, whichever of its bits are there.
    kept = value & declared.mask
    if value >= 0 and value != kept:
        raise TraceError(
            f"{name}: {value:#x}, expected bits {declared.low} to {declared.low + declared.bits - 1} alone"
        )
    return register, kept
