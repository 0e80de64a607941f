"""The register map: units, registers, fields, and where each target has them.

The tables have a line for each register: offset in its unit, name, then for each field ``NAME:lowest-highest``. ``=``
gives its value after reset where that is not 0; ``!`` marks what only the hardware writes. A register's only field has
no name. Registers that begin with ``D_`` exist twice, in two groups (docs/bare-metal.md).

Sources: the tables' own; places of the units: nvdla/sw ``kmd/firmware/include/opendla_{initial,small}.h``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from nvdla_quant.errors import MissingUnitError, TraceError
from nvdla_quant.hardware.targets import NV_FULL, Target
from nvdla_quant.registers.tables import convolution, planar, point, system

PREFIX, SUFFIX = "NVDLA_", "_0"
"""What NVIDIA's traces put before a unit's name, and behind every register's; neither says anything."""
UNIT_BYTES = 0x1000
"""Each unit has so many bytes of addresses."""
_FIELD = re.compile(r"(\w*):(\d+)(?:-(\d+))?(?:=(\w+))?(!?)")


@dataclass(frozen=True)
class Field:
    """Some bits of a register.

    Attributes
    ----------
    name : str
        "" where it is the register's only one.
    low, bits : int
        Lowest bit, and how many.
    reset : int
        Value after reset.
    writable : bool
        Whether a write changes it.
    """

    name: str
    low: int
    bits: int
    reset: int
    writable: bool

    @property
    def mask(self) -> int:
        """Its bits in the register."""
        return ((1 << self.bits) - 1) << self.low

    def of(self, value: int) -> int:
        """Return what it holds in a register's `value`."""
        return (value & self.mask) >> self.low

    def put(self, value: int) -> int:
        """Return `value` at the field's place in a register; what is too large or negative is an error."""
        if not 0 <= value < 1 << self.bits:
            raise TraceError(f"field {self.name or 'of a register'}: {value}, expected 0 to {(1 << self.bits) - 1}")
        return value << self.low


@dataclass(frozen=True)
class Register:
    """A register of a unit, at `offset` bytes from its beginning."""

    unit: str
    name: str
    offset: int
    fields: tuple[Field, ...]

    def __str__(self) -> str:
        return f"{self.unit}.{self.name}"

    @property
    def grouped(self) -> bool:
        """Whether each of the unit's two groups has one."""
        return self.name.startswith("D_")

    @cached_property
    def write_mask(self) -> int:
        """Bits that a write changes."""
        return sum(field.mask for field in self.fields if field.writable)

    @cached_property
    def read_mask(self) -> int:
        """Bits that are there."""
        return sum(field.mask for field in self.fields)

    @cached_property
    def reset(self) -> int:
        """Value after reset."""
        return sum(field.put(field.reset) for field in self.fields)

    def field(self, name: str = "") -> Field:
        """Return the field called `name`; "" for the only one."""
        return next(field for field in self.fields if field.name == name)

    def value(self, fields: Mapping[str, int]) -> int:
        """Return the value whose fields are `fields`, the others 0."""
        return sum(self.field(name).put(value) for name, value in fields.items())


@dataclass(frozen=True)
class RegisterMap:
    """The registers of a target.

    Attributes
    ----------
    bases : Mapping[str, int]
        Address of each unit, in bytes.
    units : Mapping[str, Mapping[str, Register]]
        Registers of each unit by name.
    """

    bases: Mapping[str, int]
    units: Mapping[str, Mapping[str, Register]]

    def __iter__(self) -> Iterator[Register]:
        return (register for unit in self.units.values() for register in unit.values())

    def register(self, unit: str, name: str) -> Register:
        """Return a register by its unit's name and its own, without NVIDIA's prefix and suffix."""
        if unit not in self.units:
            raise MissingUnitError(f"unit {unit}: outside the register map, which has {', '.join(self.units)}")
        if name not in self.units[unit]:
            raise TraceError(f"register {unit}.{name}: outside the register map")
        return self.units[unit][name]

    def spelled(self, text: str) -> Register:
        """Return a register by NVIDIA's spelling: ``NVDLA_CDMA.D_BANK_0``."""
        unit, dot, name = text.partition(".")
        if not dot:
            raise TraceError(f"register {text}: expected UNIT.REGISTER")
        return self.register(unit.removeprefix(PREFIX), name.removesuffix(SUFFIX))

    def at(self, address: int) -> Register:
        """Return the register at an address in bytes."""
        if address not in self._by_address:
            raise TraceError(f"register address {address:#x}: outside the register map")
        return self._by_address[address]

    def address(self, register: Register) -> int:
        """Return the address of a register, in bytes."""
        return self.bases[register.unit] + register.offset

    @cached_property
    def _by_address(self) -> dict[int, Register]:
        return {self.address(register): register for register in self}


def spelling(register: Register) -> str:
    """Return how NVIDIA's traces call a register."""
    return f"{PREFIX}{register.unit}.{register.name}{SUFFIX}"


TABLES = {
    "GLB": system.GLB,
    "MCIF": system.MCIF,
    "CVIF": system.CVIF,
    "BDMA": system.BDMA,
    "CDMA": convolution.CDMA,
    "CSC": convolution.CSC,
    "CMAC_A": convolution.CMAC_A,
    "CMAC_B": convolution.CMAC_B,
    "CACC": convolution.CACC,
    "SDP_RDMA": point.SDP_RDMA,
    "SDP": point.SDP,
    "PDP_RDMA": planar.PDP_RDMA,
    "PDP": planar.PDP,
    "CDP_RDMA": planar.CDP_RDMA,
    "CDP": planar.CDP,
    "RBK": system.RBK,
}
_FULL_PAGES = {"GLB": 0, "MCIF": 2, "CVIF": 3, "BDMA": 4, "CDMA": 5, "CSC": 6, "CMAC_A": 7, "CMAC_B": 8, "CACC": 9}
_FULL_PAGES |= {"SDP_RDMA": 10, "SDP": 11, "PDP_RDMA": 12, "PDP": 13, "CDP_RDMA": 14, "CDP": 15, "RBK": 16}
_PAGES = {"GLB": 1, "MCIF": 2, "CDMA": 3, "CSC": 4, "CMAC_A": 5, "CMAC_B": 6, "CACC": 7, "SDP_RDMA": 8, "SDP": 9}
_PAGES |= {"PDP_RDMA": 10, "PDP": 11, "CDP_RDMA": 12, "CDP": 13, "CVIF": 15, "BDMA": 16, "RBK": 17}
_SCALED = re.compile(
    r"D_.*(ADDR_LOW|LINE_STRIDE|UV_STRIDE|SURF_STRIDE|SURFACE_STRIDE|BATCH_STRIDE|ADDR_LOW_\d|DATAOUT_ADDR)"
)
"""Registers of nv_full without the lowest 5 bits: addresses and strides in units of 32 bytes."""
_NARROW = {"D_WEIGHT_BYTES": (7, 25), "D_WMB_BYTES": (7, 21), "D_ENTRY_PER_SLICE": (0, 12)}
"""(lowest bit, bits) of others that are narrower on nv_full."""
_NOT_BYPASSED = re.compile(r"D_[BNE]RDMA_CFG|D_DP_\w+_CFG")
"""Registers of the SDP's parts, which nv_full has not switched off after reset."""


@lru_cache(maxsize=16)
def register_map(target: Target) -> RegisterMap:
    """Return the registers of a target: those of branch nvdlav1 for nv_full, those of master for others."""
    full = target.name == NV_FULL.name
    has = {"BDMA": target.has_bdma, "RBK": target.has_rubik}
    pages = _FULL_PAGES if full else _PAGES
    units = {
        unit: {register.name: _narrowed(register) if full else register for register in _read(unit, table)}
        for unit, table in TABLES.items()
        if has.get(unit, True)
    }
    return RegisterMap({unit: pages[unit] * UNIT_BYTES for unit in units}, units)


def _read(unit: str, table: str) -> Iterator[Register]:
    """Yield the registers of a table."""
    for line in table.replace("\n    ", " ").strip().splitlines():
        offset, name, *fields = line.split()
        yield Register(unit, name, int(offset, 16), tuple(map(_field, fields)))


def _field(text: str) -> Field:
    match = _FIELD.fullmatch(text)
    assert match, f"{text!r} is no field"
    name, low, high, reset, fixed = match.groups()
    return Field(name, int(low), int(high or low) - int(low) + 1, int(reset or "0", 16), not fixed)


def _narrowed(register: Register) -> Register:
    """Return a register as nv_full has it."""
    if register.name == "D_BANK":
        return replace(register, fields=tuple(replace(field, bits=4) for field in register.fields))
    if register.name in _NARROW:
        low, bits = _NARROW[register.name]
        return replace(register, fields=(replace(register.fields[0], low=low, bits=bits),))
    if _NOT_BYPASSED.fullmatch(register.name):
        return replace(register, fields=tuple(replace(field, reset=0) for field in register.fields))
    field = register.fields[0]
    if _SCALED.fullmatch(register.name) and field.low == 0:
        return replace(register, fields=(replace(field, low=5, bits=field.bits - 5),))
    return register
