"""A program of registers with the memory that it runs in: where all stands, what it starts from, what it leaves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import DEFAULT_LIMITS, Limits, Program, decode
from nvdla_quant.emulator.memory import DeviceMemory, Values
from nvdla_quant.emulator.operations import CpuOperation, Cube, Operation, Port, Region
from nvdla_quant.emulator.run import run_tensors
from nvdla_quant.errors import EmulationError, TraceError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.tasks import static_bytes
from nvdla_quant.registers.device import Device, Interrupt
from nvdla_quant.registers.execute import execute
from nvdla_quant.registers.memory import TraceMemory
from nvdla_quant.registers.program.build import CpuPart, HardwarePart, Part, build
from nvdla_quant.registers.program.steps import Address, AwaitInterrupt, Half, Poll, Put, Value, address_of
from nvdla_quant.registers.traces.statements import MEMORY_NAMES, PRIMARY, SECONDARY
from nvdla_quant.registers.traces.txn import DRAM, SRAM

ALIGNMENT = 4096
"""Bytes that each memory begins at a multiple of: more than any unit asks for, a page of Linux."""


@dataclass(frozen=True)
class Place:
    """Where a memory of the loadable stands: `offset` bytes behind the beginning of `memory`, PRIMARY or SECONDARY."""

    memory: int
    offset: int
    size: int


@dataclass(frozen=True)
class Bases:
    """Bus addresses at which the two memories begin."""

    primary: int = DRAM
    secondary: int = SRAM

    def of(self, memory: int) -> int:
        """Return where a memory begins."""
        return self.primary if memory == PRIMARY else self.secondary


@dataclass(frozen=True)
class Placement:
    """Where the memories of a loadable stand: those that the hardware sees, by their numbers."""

    places: Mapping[int, Place]

    @property
    def sizes(self) -> Mapping[int, int]:
        """Bytes that each memory (PRIMARY, SECONDARY) needs, by memory."""
        ends: dict[int, int] = {}
        for place in self.places.values():
            ends[place.memory] = max(ends.get(place.memory, 0), place.offset + place.size)
        return ends

    def place(self, address: Address) -> tuple[int, int]:
        """Return the memory (PRIMARY, SECONDARY), and how many bytes behind its beginning, an address stands."""
        place = self.places[address.memory]
        return place.memory, place.offset + address.offset

    def on_bus(self, address: Address, bases: Bases) -> tuple[int, int]:
        """Return the memory, and where an address stands on the bus."""
        memory, offset = self.place(address)
        return memory, bases.of(memory) + offset

    def value(self, value: Value, bases: Bases) -> int:
        """Return what a register gets."""
        if isinstance(value, int):
            return value
        _, address = self.on_bus(value.address, bases)
        return address >> 32 if value.high else address & 0xFFFFFFFF


@dataclass(frozen=True)
class Result:
    """Bytes that the program leaves: `expected` from the first byte of `cube` to its last one, in whole atoms."""

    cube: Cube
    expected: NDArray[np.uint8] = field(repr=False)

    @property
    def address(self) -> Address:
        """Where they begin."""
        return address_of(self.cube)


@dataclass(frozen=True, eq=False)
class RegisterProgram:
    """A loadable for one image, as a program of registers.

    Attributes
    ----------
    target : Target
        The hardware.
    parts : tuple[Part, ...]
        What hardware and processor do, in turn.
    placement : Placement
        Where the memories of the loadable stand.
    contents : Mapping[int, NDArray[np.uint8]]
        What they hold before, by memory; of others the first value does not count.
    results : tuple[Result, ...]
        What the last part of the hardware leaves for the processor, or as the output.
    input, output : Port
        The loadable's.
    values : Values
        Its values, (channels, height, width), behind what the processor computes.
    """

    target: Target
    parts: tuple[Part, ...]
    placement: Placement
    contents: Mapping[int, NDArray[np.uint8]]
    results: tuple[Result, ...]
    input: Port
    output: Port
    values: Values = field(repr=False)

    @property
    def operations(self) -> int:
        """Operations of the hardware."""
        return sum(part.operations for part in self.parts if isinstance(part, HardwarePart))

    @property
    def interrupts(self) -> int:
        """How often it waits for the hardware."""
        steps = (step for part in self.parts if isinstance(part, HardwarePart) for step in part.steps)
        return sum(isinstance(step, AwaitInterrupt) for step in steps)


def make_program(
    loadable: Loadable,
    image: Values,
    target: Target | None = None,
    *,
    cdma_first: bool = False,
    bases: Bases = Bases(),
    limits: Limits = DEFAULT_LIMITS,
    on_operation: Callable[[Operation], None] | None = None,
) -> RegisterProgram:
    """Return a loadable as a program of registers, with what it computes of an image.

    What it leaves is computed twice, by the loadable's operations and by the registers; both must be the same.

    Parameters
    ----------
    loadable : Loadable
        What `read_loadable` returned.
    image : Values
        (channels, height, width), in the device's domain.
    target : Target, optional
        Hardware; see `default_target`.
    cdma_first : bool
        See `build`.
    bases : Bases
        Where the memories shall begin.
    limits : Limits
        How much the loadable may ask for.
    on_operation : callable, optional
        Called with each operation that has run.

    Raises
    ------
    TraceError
        No program of registers does what the loadable does, or the memories overlap.
    EmulationError, LoadableError
        See `decode`.
    """
    decoded = decode(loadable, target, limits)
    for kind, ports in (("inputs", decoded.inputs), ("outputs", decoded.outputs)):
        if len(ports) != 1:
            names = ", ".join(port.name for port in ports)
            raise TraceError(
                f"loadable: {len(ports)} {kind} ({names}), expected one of each; "
                "compile the network up to one of its outputs (--cut-at)"
            )
    (fed,), (output,) = decoded.inputs, decoded.outputs
    parts = build(loadable, decoded.target, cdma_first)
    placement = place_memories(loadable, parts, decoded)
    contents = {memory: held for memory, held in static_bytes(loadable).items() if memory in placement.places}
    contents[fed.cube.memory] = _input(fed, placement.places[fed.cube.memory].size, image)
    _check_bases(placement, bases, decoded.target)
    played = _Run(decoded.target, placement, bases, limits, on_operation)
    results, values = played.results(parts, contents, output)
    expected = run_tensors(decoded, {fed.name: image[None]})[output.name][0]
    if not np.array_equal(values, expected):
        raise EmulationError("the registers give other bytes than the loadable: please report it with the loadable")
    return RegisterProgram(decoded.target, parts, placement, contents, results, fed, output, values)


def place_memories(loadable: Loadable, parts: Sequence[Part], decoded: Program) -> Placement:
    """Give each memory that registers, tensors or the processor name a place, in the order of their numbers."""
    used = {port.cube.memory for port in (*decoded.inputs, *decoded.outputs)}
    for part in parts:
        if isinstance(part, CpuPart):
            used |= {cube.memory for one in part.operations for cube in (one.source, one.destination)}
        else:
            halves = (step.value for step in part.steps if isinstance(step, Put) and isinstance(step.value, Half))
            used |= {half.address.memory for half in halves}
    ends, places = {PRIMARY: 0, SECONDARY: 0}, {}
    for memory in sorted(loadable.memories, key=lambda one: one.id):
        if memory.id in used:
            where = SECONDARY if memory.domain == SECONDARY else PRIMARY
            places[memory.id] = Place(where, ends[where], memory.size)
            ends[where] += -(-memory.size // ALIGNMENT) * ALIGNMENT
    return Placement(places)


def _check_bases(placement: Placement, bases: Bases, target: Target) -> None:
    spans = []
    bits = target.address_bits
    for memory, size in placement.sizes.items():
        start = bases.of(memory)
        if start % ALIGNMENT:
            raise TraceError(f"{MEMORY_NAMES[memory]} at {start:#x}: expected a multiple of {ALIGNMENT}")
        if start + size > 1 << bits:
            raise TraceError(
                f"{MEMORY_NAMES[memory]} at {start:#x} needs {size} bytes, which end behind the {bits} bits of an "
                f"address of {target.name}"
            )
        spans.append((start, start + size, memory))
    if len(spans) == 2 and spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]:
        ends = ", ".join(f"{MEMORY_NAMES[memory]} {start:#x} to {end:#x}" for start, end, memory in spans)
        raise TraceError(f"the memories overlap: {ends}")


def _input(port: Port, size: int, image: Values) -> NDArray[np.uint8]:
    """Return the memory of the input with an image in it."""
    if image.shape != port.shape or image.dtype != port.dtype:
        raise TraceError(
            f"image: {image.dtype} of shape {image.shape}, expected {np.dtype(port.dtype).name} of shape {port.shape} "
            "(channels, height, width), in the device's domain"
        )
    memory = DeviceMemory({port.cube.memory: Region(size, True, None)}, 1)
    memory.scatter(port.cube, image[None])
    content: NDArray[np.uint8] = memory.bytes_of(port.cube.memory)[0].view(np.uint8)
    return content


class _Run:
    """A program that is run once, to learn what it leaves."""

    def __init__(
        self,
        target: Target,
        placement: Placement,
        bases: Bases,
        limits: Limits,
        on_operation: Callable[[Operation], None] | None,
    ) -> None:
        self._target = target
        self._placement = placement
        self._bases = bases
        self._memory = TraceMemory(limits.memory)
        self._limits = limits
        self._device = Device(target, self._memory, limits, on_operation)

    def results(
        self, parts: Sequence[Part], contents: Mapping[int, NDArray[np.uint8]], output: Port
    ) -> tuple[tuple[Result, ...], Values]:
        """Return what the last part of the hardware leaves, and the output."""
        for memory, content in contents.items():
            self._memory.write(*self._placement.on_bus(Address(memory, 0), self._bases), content)
        left: tuple[Result, ...] = ()
        for number, part in enumerate(parts):
            if isinstance(part, HardwarePart):
                self._run(part)
                left = tuple(self._result(cube) for cube in _cubes_left(parts[number + 1 :], output))
            else:
                moved = [self._moved(operation) for operation in part.operations]
                execute(moved, self._target, self._memory, self._limits)
        last = self._result(output.cube)
        held = DeviceMemory({0: Region(len(last.expected), False, last.expected)}, 1)
        values = held.gather(replace(output.cube, memory=0, offset=0), output.dtype)
        return left, values[0]

    def _run(self, part: HardwarePart) -> None:
        for number, step in enumerate(part.steps):
            match step:
                case Put(register, value):
                    self._device.write(register, self._placement.value(value, self._bases), number)
                case Poll():
                    self._device.settle()
                case AwaitInterrupt(source, group):
                    found = self._device.advance()
                    if found != Interrupt(source, group):
                        raise EmulationError(f"step {number} waits for {source}_{group}, and {found} comes")

    def _result(self, cube: Cube) -> Result:
        """Return what stands from the first byte of a cube to its last one, in whole atoms, as hardware writes them."""
        atom = self._target.feature_atom_bytes
        room = self._placement.places[cube.memory].size - cube.offset
        size = min(-(-(cube.end - cube.offset) // atom) * atom, room)
        return Result(cube, self._memory.read(*self._bus(cube), size)[0])

    def _bus(self, cube: Cube) -> tuple[int, int]:
        return self._placement.on_bus(address_of(cube), self._bases)

    def _moved(self, operation: CpuOperation) -> CpuOperation:
        cubes = {}
        for side in ("source", "destination"):
            where, address = self._bus(getattr(operation, side))
            cubes[side] = replace(getattr(operation, side), memory=where, offset=address)
        return replace(operation, **cubes)


def _cubes_left(behind: Sequence[Part], output: Port) -> Iterator[Cube]:
    """Yield what the parts behind a part of the hardware take of it: the processor's sources, else the output."""
    operations = [one for part in behind if isinstance(part, CpuPart) for one in part.operations]
    written = {(one.destination.memory, one.destination.offset) for one in operations}
    sources = [one.source for one in operations if (one.source.memory, one.source.offset) not in written]
    yield from sources or [output.cube]
