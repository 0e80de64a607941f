"""What a program of registers consists of."""

from dataclasses import dataclass

from nvdla_quant.emulator.operations import Cube
from nvdla_quant.registers.map import Register


@dataclass(frozen=True)
class Address:
    """Byte `offset` of memory `memory` of the loadable, wherever that will stand."""

    memory: int
    offset: int


def address_of(cube: Cube) -> Address:
    """Return where a cube begins."""
    return Address(cube.memory, cube.offset)


@dataclass(frozen=True)
class Half:
    """32 bits of an address: the lower ones, or the `high` ones."""

    address: Address
    high: bool


Value = int | Half
"""What a register gets: a number, or part of an address that is known when the program is placed."""


@dataclass(frozen=True)
class Put:
    """Write `value` to a register."""

    register: Register
    value: Value


@dataclass(frozen=True)
class Poll:
    """Read a register until it holds `value`."""

    register: Register
    value: int


@dataclass(frozen=True)
class AwaitInterrupt:
    """Wait for the interrupt of group `group` of `source`."""

    source: str
    group: int


@dataclass(frozen=True)
class Remark:
    """What the steps behind do, for people."""

    text: str


Step = Put | Poll | AwaitInterrupt | Remark
