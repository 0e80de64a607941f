"""The loadable as frozen records: what the flatbuffer says, with nothing interpreted.

Field names and values follow the format (nvdla/sw ``ILoadable.h`` and ``IType.h``): docs/hardware/loadable.md, "The
flatbuffer".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import cached_property

LOADABLE_VERSION = (0, 7, 0)
DLA_VERSION = (0, 12, 3)
"""Firmware interface version that nvdla/sw's compiler stamps on its DLA blobs."""
EMU_VERSION = (0, 0, 1)
"""Version that nvdla/sw's compiler stamps on its EMU blobs."""


class Interface(IntEnum):
    """Who executes a task, or reads a blob."""

    NONE = 0
    DLA1 = 1
    EMU1 = 2


class SubInterface(IntEnum):
    """What a blob of a task holds (`DlaSub`, `EmuSub` numbers coincide where both exist)."""

    DATA = 0
    NETWORK = 1
    DEPENDENCY_GRAPH = 2
    OPERATIONS = 3
    SURFACES = 4
    LUTS = 5


class MemoryFlags(IntFlag):
    """How a memory region comes to be."""

    NONE = 0
    ALLOC = 1
    SET = 2
    INPUT = 4
    OUTPUT = 8


class EventOperation(IntEnum):
    """What a task does with an event."""

    WAIT = 0
    SIGNAL = 1


class DataFormat(IntEnum):
    """Layout of a bindable tensor."""

    UNKNOWN = 0
    NCHW = 1
    NHWC = 2
    NCXHWX = 3


class DataType(IntEnum):
    """Element type of a bindable tensor."""

    UNKNOWN = 0
    FLOAT = 1
    HALF = 2
    INT16 = 3
    INT8 = 4


class DataCategory(IntEnum):
    """Kind of a bindable tensor."""

    IMAGE = 0
    WEIGHT = 1
    FEATURE = 2
    PLANAR = 3
    BIAS = 4


class PixelFormat(IntEnum):
    """Pixel formats that the compiler writes for bindable tensors; the hardware has more (see `structs`)."""

    A16B16G16R16_F = 8
    A8B8G8R8 = 12
    FEATURE = 36
    FEATURE_X8 = 37


@dataclass(frozen=True)
class Blob:
    """Named bytes: descriptors of a task, or contents of a memory."""

    name: str
    interface: int
    sub_interface: int
    version: tuple[int, int, int]
    data: bytes


@dataclass(frozen=True)
class Memory:
    """A region of memory; where `MemoryFlags.SET`, blob `contents[i]` stands at byte `offsets[i]`."""

    id: int
    domain: int
    flags: int
    size: int
    alignment: int
    contents: tuple[str, ...] = ()
    offsets: tuple[int, ...] = ()
    bind_id: int = 0
    tensor_desc_id: int = 0


@dataclass(frozen=True)
class Address:
    """A window of a memory that tasks may name."""

    id: int
    mem_id: int
    offset: int
    size: int


@dataclass(frozen=True)
class Event:
    """One point of an event chain `target`."""

    id: int
    type: int
    target: int
    value: int
    operation: int


@dataclass(frozen=True)
class Task:
    """A piece of work for one engine; `address_list` holds address ids, the first is its network descriptor."""

    id: int
    interface: int
    instance: int
    address_list: tuple[int, ...]
    pre_actions: tuple[int, ...]
    post_actions: tuple[int, ...]


@dataclass(frozen=True)
class Submit:
    """Tasks that are submitted together; submits run in id order."""

    id: int
    task_ids: tuple[int, ...]


@dataclass(frozen=True)
class TensorDescriptor:
    """A bindable input or output; `strides` are bytes per element, per line, per surface, then zeros."""

    name: str
    id: int
    mem_id: int
    size: int
    offset: int
    data_format: int
    data_type: int
    data_category: int
    pixel_format: int
    pixel_mapping: int
    n: int
    c: int
    h: int
    w: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Relocation:
    """Where a stride of a bindable tensor stands, should an application change it."""

    address_id: int
    write_id: int
    offset: int
    interface: int
    sub_interface: int
    type: int


@dataclass(frozen=True)
class Loadable:
    """A whole loadable."""

    version: tuple[int, int, int]
    tasks: tuple[Task, ...]
    memories: tuple[Memory, ...]
    addresses: tuple[Address, ...]
    events: tuple[Event, ...]
    blobs: tuple[Blob, ...]
    tensors: tuple[TensorDescriptor, ...]
    relocations: tuple[Relocation, ...]
    submits: tuple[Submit, ...]

    @cached_property
    def blob_by_name(self) -> Mapping[str, Blob]:
        """Blobs by name."""
        return {blob.name: blob for blob in self.blobs}

    def _bound(self, flag: MemoryFlags) -> tuple[TensorDescriptor, ...]:
        tensors = {tensor.id: tensor for tensor in self.tensors}
        bound = sorted((m for m in self.memories if m.flags & flag), key=lambda memory: memory.bind_id)
        return tuple(tensors[memory.tensor_desc_id] for memory in bound if memory.tensor_desc_id in tensors)

    @property
    def inputs(self) -> tuple[TensorDescriptor, ...]:
        """Bindable inputs in bind order."""
        return self._bound(MemoryFlags.INPUT)

    @property
    def outputs(self) -> tuple[TensorDescriptor, ...]:
        """Bindable outputs in bind order."""
        return self._bound(MemoryFlags.OUTPUT)
