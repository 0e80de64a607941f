"""Reading registers into descriptors."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from nvdla_quant.emulator.decode.addresses import CubeSpace
from nvdla_quant.errors import TraceError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable.structs import MemoryType
from nvdla_quant.loadable.tasks import Window
from nvdla_quant.registers.memory import ADDRESS_BITS
from nvdla_quant.registers.places import Place, places
from nvdla_quant.registers.traces.statements import PRIMARY, SECONDARY
from nvdla_quant.registers.units import Unit

Units = Mapping[str, Unit]
"""The units of a target by name."""
Fields = dict[str, int]
"""Fields of a descriptor by their names, those of a part behind its name and a dot."""
RAM = {0: SECONDARY, 1: PRIMARY}
"""Memories by what the fields called RAM_TYPE hold."""


class RegisterSpace(CubeSpace):
    """What addresses in registers mean.

    Parameters
    ----------
    bases : tuple[tuple[int, int], ...]
        (memory, address) that each address index of a descriptor stands for.
    unit : int
        Bytes that addresses count in.
    """

    def __init__(self, bases: tuple[tuple[int, int], ...], unit: int) -> None:
        self._bases = bases
        self._unit = unit

    def window(self, index: int, offset: int, size: int, where: str) -> Window:
        """Return a range of a memory."""
        memory, base = self._bases[index]
        start, end = base + offset, base + offset + size
        if start < 0 or end > 1 << ADDRESS_BITS:
            raise TraceError(f"{where}: bytes {start:#x} to {end:#x}, expected addresses of {ADDRESS_BITS} bits")
        if start % self._unit:
            raise TraceError(
                f"{where}: address {start:#x}, expected a multiple of {self._unit}: memory has whole atoms"
            )
        return Window(memory, start, size)


def space_of(target: Target) -> RegisterSpace:
    """Return what addresses mean on a target, whose memories are the address indices."""
    return RegisterSpace(((PRIMARY, 0), (SECONDARY, 0)), target.feature_atom_bytes)


def field(units: Units, place: Place) -> int:
    """Return what a place holds, as its descriptor has it."""
    unit = units[place.unit]
    # A register's only field counts from its lowest bit on, which nv_full's strides, addresses and sizes lack.
    value = unit.field(place.register, place.field) if place.field else unit.scaled(place.register)
    if place.signed:
        bits = unit.bits(place.register, place.field)
        value -= (value >> (bits - 1)) << bits
    return value + place.more


def gather(units: Units, table: Mapping[str, str]) -> Fields:
    """Return the fields of a descriptor; places of one field that disagree are an error."""
    found = {}
    for name, text in table.items():
        first, *others = places(text)
        found[name] = field(units, first)
        for other in others:
            check_same(units, found[name], first, other)
    return found


def check_same(units: Units, value: int, first: Place, other: Place) -> None:
    """Check that `other` holds `value`, as `first` does."""
    again = field(units, other)
    if again != value:
        raise TraceError(f"{other} means {again}, expected {value} as in {first}: both must agree")


def check_again(units: Units, fields: Fields, table: Mapping[str, str], first: Mapping[str, str]) -> None:
    """Check that the places in `table` hold what the fields of the same names are."""
    for name, text in table.items():
        for other in places(text):
            check_same(units, fields[name], places(first[name])[0], other)


def address(units: Units, high: str, low: str) -> int:
    """Return the address that two registers hold."""
    found = field(units, places(high)[0]) << 32 | field(units, places(low)[0])
    if found >> ADDRESS_BITS:
        raise TraceError(f"{high} and {low}: address {found:#x}, expected {ADDRESS_BITS} bits")
    return found


def refuse_unless_zero(units: Units, text: str, where: str, when: str) -> None:
    """Refuse what changes results and is not modelled: the firmware, and NVIDIA's traces, leave it 0."""
    for place in places(text):
        if value := field(units, place):
            raise TraceError(f"{where}: {place} is {value}, expected 0 {when}: others are not modelled")


def cube_fields(units: Units, name: str, high: str, low: str, ram: str) -> Fields:
    """Return memory and address of the cube called `name`."""
    memory = RAM[field(units, places(ram)[0])]
    kind = MemoryType.DRAM if memory == PRIMARY else MemoryType.SRAM
    return {f"{name}.type": kind, f"{name}.address": memory, f"{name}.offset": address(units, high, low)}


@lru_cache(maxsize=16)
def wide(dtype: "np.dtype[np.void]") -> "np.dtype[np.void]":
    """Return a descriptor's type of numbers of 64 bits, since registers hold addresses."""
    return np.dtype([(name, *_wide_field(dtype[name])) for name in dtype.names or ()])


def _wide_field(dtype: "np.dtype[Any]") -> tuple[Any, ...]:
    base, shape = dtype.subdtype if dtype.subdtype is not None else (dtype, ())
    return (wide(base) if base.names else np.dtype(np.int64), shape)


def record(dtype: "np.dtype[np.void]", fields: Mapping[str, int]) -> np.void:
    """Return a descriptor of `dtype`, as wide as it has to be, with `fields`."""
    made = np.zeros((1,), wide(dtype))
    for name, value in fields.items():
        part, _, inner = name.partition(".")
        if inner:
            made[part][inner] = value
        else:
            made[part] = value
    entry: np.void = made[0]
    return entry
