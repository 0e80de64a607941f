"""Decode a loadable once into operations in the order in which they can run.

Every address, size, stride and count is checked against the buffers that the loadable declares, so that running the
result needs no further checks. Firmware facts: nvdla/sw ``kmd/firmware`` (``engine.c``, ``scheduler.c``).
"""

import contextlib
import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode import dla, emu
from nvdla_quant.emulator.decode.addresses import placed_tasks
from nvdla_quant.emulator.decode.buffer import weight_order
from nvdla_quant.emulator.decode.races import describe_races
from nvdla_quant.emulator.operations import (
    ConvOperation,
    CpuOperation,
    Cube,
    Operation,
    PdpOperation,
    Port,
    Region,
    arrays_read,
    cubes_read,
    cubes_written,
    weights_read,
)
from nvdla_quant.emulator.pixels import PIXELS
from nvdla_quant.emulator.reuse import check_overwritten
from nvdla_quant.errors import EmulationError, LoadableError, WrongTargetError
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, TARGETS, Precision, Target
from nvdla_quant.loadable.records import (
    DataCategory,
    DataFormat,
    DataType,
    Loadable,
    MemoryFlags,
    PixelFormat,
    TensorDescriptor,
)
from nvdla_quant.loadable.structs import EmuOperation
from nvdla_quant.loadable.tasks import Window, static_bytes

MAX_CUBE_BYTES = 1 << 28
"""Most bytes that one operation may read, and write: overlapping strides could name more than the memory has."""
BYTE_MACS = 32
"""A byte that is read or written outside a matrix product counts as so many multiply-accumulates.

So a limit of 10**8 lets through 3 MB, which take the slowest unit (normalisation, up to 100 ns a byte) 0.3 s.
"""
MAX_WEIGHTS = 1 << 27
"""Most weights of one operation (VGG's largest layer has 102,760,448): few bytes may stand for many, compressed."""


@dataclass(frozen=True)
class Limits:
    """How much an image may ask for; a loadable is untrusted, and what it asks is known before anything runs.

    Attributes
    ----------
    macs : int
        Multiply-accumulates of one image, and what else takes as long; the default is a hundred times ResNet-152.
    memory : int
        Bytes of memory that a loadable may declare for one image (the boards of NVDLA have no more than the default).
    """

    macs: int = 10**12
    memory: int = 1 << 30


DEFAULT_LIMITS = Limits()
LIKELY = (NV_FULL, NV_SMALL)
"""Targets that a loadable is most often for: taken first of those that it fits and that give the same."""


@dataclass(frozen=True, eq=False)
class Program:
    """A loadable, decoded.

    Attributes
    ----------
    target : Target
        Hardware that it runs on.
    operations : tuple[Operation, ...]
        In the order of execution; each writes one cube.
    regions : Mapping[int, Region]
        Memory regions by memory id.
    inputs, outputs : tuple[Port, ...]
        Bindable tensors in bind order.
    warnings : tuple[str, ...]
        What the hardware ignores although the loadable asks for it.
    computed : frozenset[int]
        Numbers of the operations whose weights or arrays of operands inputs or other operations write.
    """

    target: Target
    operations: tuple[Operation, ...]
    regions: Mapping[int, Region]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    warnings: tuple[str, ...]
    computed: frozenset[int] = frozenset()

    def constant(self, window: Window) -> NDArray[np.uint8]:
        """Return the bytes of `window`, which holds constants that the loadable provides."""
        memory = self.regions[window.memory].initial
        assert memory is not None, "decode checks that the loadable provides the constants"
        return memory[window.offset : window.offset + window.size]

    @property
    def output_names(self) -> list[str]:
        """What the loadable calls its outputs, in bind order."""
        return [port.name for port in self.outputs]

    @property
    def image_bytes(self) -> int:
        """Bytes of memory that each image needs, the copies that its largest operation makes included."""
        largest = max(sum(cube.size for cube in (*cubes_read(o), *cubes_written(o))) for o in self.operations)
        return largest + sum(region.size for region in self.regions.values() if region.written)

    @property
    def precision(self) -> Precision:
        """Precision of the arithmetic: fp16 where any operation is, else int16 where any is."""
        found = {getattr(operation, "precision", None) for operation in self.operations}
        return next((wide for wide in (Precision.FP16, Precision.INT16) if wide in found), Precision.INT8)

    @property
    def before_softmax(self) -> tuple[Operation, ...]:
        """Operations whose results the Softmax reads that ends the program, in the order of its channels.

        None where no Softmax ends it. Most int8 probabilities are 0, so top-k is also taken from those results. Memory
        may have held another tensor before, so the last ones count. Of several pixels, each with a Softmax of its own,
        it is the one operation that wrote all of them, or none.
        """
        pixels = self._last_softmaxes()
        if not pixels:
            return ()
        if len(pixels) > 1:
            return self._before_pixels(pixels)
        source, found = pixels[0].source, dict[int, Operation]()
        for operation in reversed(self.operations[:-1]):
            cube = operation.destination
            if (cube.memory, cube.shape[1:]) != (source.memory, source.shape[1:]):
                continue
            # The channels of one pixel stand side by side, atom by atom; more pixels come from one operation.
            first = (cube.offset - source.offset) // source.element_bytes
            if first == 0 or (0 < first < source.channels and source.shape[1:] == (1, 1)):
                found.setdefault(first, operation)
            if sum(one.destination.channels for one in found.values()) >= source.channels:
                return tuple(operation for _, operation in sorted(found.items()))
        return ()

    def _last_softmaxes(self) -> tuple[CpuOperation, ...]:
        """Return the operations of the Softmax that ends the program: one, or one for each pixel of what it writes."""
        found: list[CpuOperation] = []
        for operation in reversed(self.operations):
            if not isinstance(operation, CpuOperation) or operation.kind is not EmuOperation.SOFTMAX:
                break
            cube = operation.destination
            if found:
                following = found[-1].destination
                if (cube.memory, cube.offset + self.target.feature_atom_bytes) != (following.memory, following.offset):
                    break
            found.append(operation)
        return tuple(reversed(found))

    def _before_pixels(self, pixels: Sequence[CpuOperation]) -> tuple[Operation, ...]:
        """Return the one operation that wrote what these read; none where it was several."""
        first = pixels[0].source
        for operation in reversed(self.operations[: -len(pixels)]):
            cube = operation.destination
            if (cube.memory, cube.offset) == (first.memory, first.offset):
                whole = cube.channels == first.channels and cube.height * cube.width == len(pixels)
                return (operation,) if whole else ()
        return ()


def fitting_targets(loadable: Loadable, limits: Limits = DEFAULT_LIMITS) -> tuple[Program, ...]:
    """Return what a loadable is on each of the shipped targets that it can have been made for, likely ones first.

    The format has no field for the target. What tells them apart are the atoms, the entries of the buffer and what
    units and precisions an operation needs.
    """
    atom, found = _atom_bytes(loadable), list[Program]()
    # Tensors of some compilers do not show the atoms: the others come where none of these fits.
    for same in (True, False):
        for target in sorted(TARGETS.values(), key=lambda one: one not in LIKELY):
            if (target.feature_atom_bytes == atom) == same:
                with contextlib.suppress(EmulationError, LoadableError):
                    found.append(_decoded(loadable, target, limits))
        if found:
            break
    return tuple(found)


def default_target(loadable: Loadable, limits: Limits = DEFAULT_LIMITS) -> Target:
    """Return the target that a loadable was made for, or one that gives the same results.

    Raises
    ------
    EmulationError
        It fits several that would give other results.
    """
    programs = fitting_targets(loadable, limits)
    if not programs:
        # Decoding it says what is wrong.
        return NV_SMALL if _atom_bytes(loadable) == NV_SMALL.feature_atom_bytes else NV_FULL
    if any(_results_depend_on(program) != _results_depend_on(programs[0]) for program in programs):
        names = ", ".join(program.target.name for program in programs)
        raise EmulationError(
            f"loadable: fits {names}, which would give other results, and says nowhere which it is for; give "
            "--configtarget (compile.json has the target)"
        )
    return programs[0].target


def _atom_bytes(loadable: Loadable) -> int:
    """Return the bytes of the atoms that the tensors of a loadable have; 32 where none shows it."""
    for tensor in loadable.tensors:
        if tensor.data_format == DataFormat.NCXHWX:
            if tensor.pixel_format == PixelFormat.FEATURE_X8:
                return NV_SMALL.feature_atom_bytes
            atom, rest = divmod(tensor.strides[1], max(tensor.w, 1)) if len(tensor.strides) > 1 else (0, 0)
            if not rest and any(target.feature_atom_bytes == atom > 8 for target in TARGETS.values()):
                return atom
    return NV_FULL.feature_atom_bytes


def _results_depend_on(program: Program) -> object:
    """Return what of a target decides what a decoded loadable computes there."""
    convolutions = [one.source for one in program.operations if isinstance(one.source, ConvOperation)]
    ignored = [warning.replace(program.target.name, "") for warning in program.warnings]
    return ignored, [weight_order(convolution, program.target) for convolution in convolutions]


def decode(loadable: Loadable, target: Target | None = None, limits: Limits = DEFAULT_LIMITS) -> Program:
    """Decode a loadable into a program.

    Parameters
    ----------
    loadable : Loadable
        What `read_loadable` returned; its contents are not trusted.
    target : Target, optional
        Hardware; see `default_target`.
    limits : Limits
        How much an image may ask for.

    Raises
    ------
    LoadableError
        An entry points outside what the loadable declares, or the operations can never all run.
    WrongTargetError
        It was made for another target; the message names the field, and the targets that it fits.
    EmulationError
        An operation that the firmware refuses or that this emulator does not model, or more work or memory than the
        limits allow; the message names it.
    """
    if target is None:
        target = default_target(loadable, limits)
    try:
        return _decoded(loadable, target, limits)
    except (EmulationError, LoadableError) as error:
        if not isinstance(error, WrongTargetError) and target.feature_atom_bytes == _atom_bytes(loadable):
            raise
        fits = ", ".join(program.target.name for program in fitting_targets(loadable, limits))
        advice = f"it fits {fits}; compile it for {target.name}, or name the target that it is for"
        nothing = "none of the shipped targets has such entries: it is damaged, or for a target of one's own"
        if not fits and not isinstance(error, WrongTargetError):
            raise
        raise WrongTargetError(f"{error}. It was made for another target: {advice if fits else nothing}") from error


def _check_atoms(loadable: Loadable, target: Target) -> None:
    """Refuse tensors in atoms of 8 bytes on a target of others: only these have a format of their own."""
    for tensor in loadable.tensors:
        small = tensor.data_format == DataFormat.NCXHWX and tensor.pixel_format == PixelFormat.FEATURE_X8
        if small and target.feature_atom_bytes != NV_SMALL.feature_atom_bytes:
            raise WrongTargetError(
                f"tensor {tensor.name!r}: pixel_format is FEATURE_X8, atoms of 8 bytes, expected FEATURE: "
                f"{target.name} has atoms of {target.feature_atom_bytes}"
            )


def _decoded(loadable: Loadable, target: Target, limits: Limits) -> Program:
    _check_atoms(loadable, target)
    _check_memory(loadable, [], limits)
    static = static_bytes(loadable)
    operations: list[Operation] = []
    warnings: list[str] = []
    for task in placed_tasks(loadable, static):
        if task.on_cpu:
            operations += emu.decode_task(task.space, target, task.base)
            continue
        decoded = dla.decode_task(task.space, target, task.base, warnings)
        order = _in_order(decoded, task.space.where)
        check_overwritten(order)
        operations += order.values()
        links = (*decoded.consumers, *decoded.parents)
        warnings += describe_races(order, decoded.chains, links, task.base)
    if not operations:
        raise LoadableError("loadable: no task has any operation")
    inputs = tuple(_port(loadable, tensor, target) for tensor in loadable.inputs)
    outputs = tuple(_port(loadable, tensor, target) for tensor in loadable.outputs)
    if not outputs:
        raise LoadableError("loadable: no outputs, expected at least one")
    regions = _regions(operations, (*inputs, *outputs), static)
    _check_memory(loadable, operations, limits)
    computed = _computed(operations, inputs, static)
    check_work(operations, limits)
    return Program(target, tuple(operations), MappingProxyType(regions), inputs, outputs, tuple(warnings), computed)


def _feeders(operations: list[Operation]) -> list[Operation]:
    """Return the operations that hand over to another; the emulator keeps what they hand over in memory."""
    return [operation for operation in operations if operation.destination.is_handed_over]


def _check_memory(loadable: Loadable, operations: list[Operation], limits: Limits) -> None:
    total = sum(memory.size for memory in loadable.memories)
    total += sum(operation.destination.end for operation in _feeders(operations))
    if total > limits.memory:
        raise EmulationError(
            f"loadable: declares {total} bytes of memory for an image, the limit is {limits.memory}; raise --max-memory"
        )


def check_work(operations: Sequence[Operation], limits: Limits) -> int:
    """Refuse what would not end: strides of zero let a small file ask for any amount of work.

    Return how many multiply-accumulates take as long, roughly and at most.
    """
    work = 0
    for operation in operations:
        for verb, cubes in (("reads", cubes_read(operation)), ("writes", cubes_written(operation))):
            size = sum(cube.size for cube in cubes)
            if size > MAX_CUBE_BYTES:
                where = f"operation {operation.index} ({operation.unit})"
                raise EmulationError(f"{where}: {verb} {size} bytes, the limit is {MAX_CUBE_BYTES}")
        weights = operation.source.weight_count if isinstance(operation.source, ConvOperation) else 0
        if weights > MAX_WEIGHTS:
            raise EmulationError(
                f"operation {operation.index} ({operation.unit}): has {weights} weights, the limit is {MAX_WEIGHTS}"
            )
        work += _work(operation)
    if work > limits.macs:
        raise EmulationError(
            f"an image takes the time of {work} multiply-accumulates, the limit is {limits.macs}; raise --max-macs"
        )
    return work


def _work(operation: Operation) -> int:
    """Return how many multiply-accumulates take as long as `operation`, roughly and at most."""
    work = BYTE_MACS * sum(cube.size for cube in (*cubes_read(operation), *cubes_written(operation)))
    if isinstance(operation.source, ConvOperation):
        work += operation.source.multiplications
    if isinstance(operation, PdpOperation):
        # Rows are reduced over the whole width of the source, whatever the pooling makes of them.
        rows = operation.destination.height * operation.source.size // operation.source.height
        work += operation.kernel[0] * (rows + operation.kernel[1] * operation.destination.size)
    return work


def _in_order(decoded: dla.DecodedTask, where: str) -> dict[int, Operation]:
    """Order operations, by index in the task, so that each comes after all that it waits for, lowest index first.

    The firmware counts `dependency_count` down with each event; an operation whose count never reaches zero hangs it.
    """
    followers: dict[int, list[int]] = {index: [] for index in range(decoded.count)}
    waiting = [0] * decoded.count
    for before, after, _ in decoded.consumers:
        followers[before].append(after)
        waiting[after] += 1
    parents = Counter(parent for _, parent, _ in decoded.parents)
    for index, declared in enumerate(decoded.dependency_counts):
        found = waiting[index] + parents[index]
        if found != declared:
            raise LoadableError(
                f"{where} operation {index}: dependency_count is {declared}, but {found} operations signal it"
            )
    for feeder, pooling in decoded.fed:
        followers[feeder].append(pooling)
        waiting[pooling] += 1
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for follower in followers[index]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, follower)
    if len(order) != decoded.count:
        stuck = next(index for index, count in enumerate(waiting) if count > 0)
        raise LoadableError(f"{where} operation {stuck}: waits for itself through its dependencies; it would hang")
    return {index: decoded.operations[index] for index in order if index in decoded.operations}


def _port(loadable: Loadable, tensor: TensorDescriptor, target: Target) -> Port:
    where = f"tensor {tensor.name!r}"
    types = {DataType.INT8: Precision.INT8, DataType.INT16: Precision.INT16, DataType.HALF: Precision.FP16}
    if tensor.data_type not in types:
        raise EmulationError(f"{where}: data_type {tensor.data_type}, expected INT8 (4), INT16 (3) or HALF (2)")
    precision = types[DataType(tensor.data_type)]
    element_bytes = 1 if precision is Precision.INT8 else 2
    if tensor.data_format == DataFormat.NHWC and tensor.data_category == DataCategory.IMAGE:
        atom = tensor.c
    elif tensor.data_format == DataFormat.NCXHWX:
        small = tensor.pixel_format == PixelFormat.FEATURE_X8
        atom = (NV_SMALL.feature_atom_bytes if small else target.port_atom_bytes) // element_bytes
    elif tensor.data_format == DataFormat.NCHW and tensor.data_category == DataCategory.FEATURE:
        # So loadables call it that were made to test the firmware; it is a cube of the target.
        atom = target.feature_atom_bytes // element_bytes
    else:
        raise EmulationError(
            f"{where}: data_format {tensor.data_format} with category {tensor.data_category} is not modelled, "
            "expected an NHWC image or NCxHWx features"
        )
    memory = next((memory for memory in loadable.memories if memory.id == tensor.mem_id), None)
    if memory is None:
        raise LoadableError(f"{where}: memory {tensor.mem_id} does not exist")
    if not memory.flags & (MemoryFlags.INPUT | MemoryFlags.OUTPUT):
        raise LoadableError(f"{where}: memory {tensor.mem_id} is neither an input nor an output")
    if min(tensor.c, tensor.h, tensor.w) < 1:
        raise LoadableError(f"{where}: shape {tensor.c}x{tensor.h}x{tensor.w} is empty")
    if tensor.n < 1:
        raise LoadableError(f"{where}: batch {tensor.n}, expected at least 1")
    line, surface, apart = (*tensor.strides[1:], 0, 0, 0)[:3]
    apart = (apart or tensor.size // tensor.n) if tensor.n > 1 else 0
    pixels = PIXELS.get(tensor.pixel_format)
    if pixels is not None and (len(pixels.plane_bytes) > 1 or pixels.components[0].bytes == 4):
        # Components that are no elements, or stand in two planes: the tensor is given as its bytes.
        precision, size = Precision.INT8, tensor.size // tensor.n
        cube = Cube(memory.id, tensor.offset, 1, 1, max(size, 1), 1, 1, size, size, tensor.n, apart)
    else:
        form = tensor.c, tensor.h, tensor.w, atom, element_bytes, line, surface
        cube = Cube(memory.id, tensor.offset, *form, tensor.n, apart)
    if cube.end > memory.size:
        raise LoadableError(f"{where}: ends at byte {cube.end} of memory {memory.id}, which has {memory.size}")
    if cube.size > cube.end - cube.offset:
        # Strides that are too small would let a small loadable ask for inputs and outputs of any size.
        raise LoadableError(
            f"{where}: {cube.batch} x {cube.channels}x{cube.height}x{cube.width} in {cube.end - cube.offset} bytes of "
            f"memory {memory.id}, expected at least the {cube.size} bytes that its elements take"
        )
    return Port(tensor.name, cube, precision)


def _regions(
    operations: list[Operation], ports: tuple[Port, ...], static: Mapping[int, NDArray[np.uint8]]
) -> dict[int, Region]:
    """Keep what operations and tensors use of the memories; one that nobody writes is shared by all images."""
    writes = [cube for operation in operations for cube in cubes_written(operation)] + [port.cube for port in ports]
    reads = [cube for operation in operations for cube in cubes_read(operation)]
    uses = [(cube.memory, cube.end) for cube in (*writes, *reads)]
    uses += [(w.memory, w.offset + w.size) for operation in operations for w in _constants(operation)]
    sizes: dict[int, int] = {}
    for memory, end in uses:
        sizes[memory] = max(sizes.get(memory, 0), end)
    written = {cube.memory for cube in writes}
    regions = {}
    for id_, size in sorted(sizes.items()):
        initial = static[id_][:size] if id_ in static else None
        if initial is None and id_ not in written:
            initial = np.zeros(size, np.uint8)
        regions[id_] = Region(size, id_ in written, initial)
    return regions


def _constants(operation: Operation) -> tuple[Window, ...]:
    return *weights_read(operation), *arrays_read(operation)


def _computed(
    operations: list[Operation], inputs: tuple[Port, ...], static: Mapping[int, NDArray[np.uint8]]
) -> frozenset[int]:
    """Return the operations whose constants are written by inputs or operations: those are unpacked for each image."""
    writes = [port.cube for port in inputs]
    writes += [cube for operation in operations for cube in cubes_written(operation)]
    computed = set()
    for operation in operations:
        for window in _constants(operation):
            end = window.offset + window.size
            if any(w.memory == window.memory and w.offset < end and window.offset < w.end for w in writes):
                computed.add(operation.index)
            elif window.memory not in static:
                raise LoadableError(
                    f"operation {operation.index} ({operation.unit}): its constants stand in memory {window.memory}, "
                    "which holds nothing that the loadable provides"
                )
    return frozenset(computed)
