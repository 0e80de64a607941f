"""Which layout the descriptors of a loadable have: today's, or that of firmware before cubes had offsets.

Blobs of surfaces have the same sizes in both, and versions tell little: ONNC writes the older layout under its own
version, 1.2.0 or 1.3.0. So both are tried, and the one whose cubes are possible is taken: sizes that the hardware has,
at an address that the task has, within it (docs/hardware/loadable.md, "The older layout").
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.loadable import structs
from nvdla_quant.loadable.records import Interface, Loadable, Task
from nvdla_quant.loadable.structs import OLDER_FP16, EmuFormat, Engine, MemoryType

MAX_CUBE = 8192
"""Largest width, height or channel count of a cube (``DCUBE_MAX_*``, kmd/firmware/common.c:276)."""


@dataclass(frozen=True)
class Layouts:
    """Whether the descriptors of the accelerator's and of the CPU's tasks have the older layout."""

    accelerator: bool
    cpu: bool

    def older(self, interface: int) -> bool:
        """Whether those of tasks of `interface` have."""
        return self.cpu if interface == Interface.EMU1 else self.accelerator


def layouts_of(loadable: Loadable, static: Mapping[int, NDArray[np.uint8]]) -> Layouts:
    """Tell the layout of the accelerator's descriptors and of the CPU's.

    The layout with fewer impossible cubes is taken. Where both have as many, the version decides for the accelerator;
    the CPU's blobs say the same version in both layouts, and follow the accelerator.

    Parameters
    ----------
    loadable : Loadable
        What `read_loadable` returned; its contents are not trusted.
    static : Mapping[int, NDArray[np.uint8]]
        What `tasks.static_bytes` returned.
    """
    tasks = [_Tables(loadable, task, static) for task in loadable.tasks]
    accelerator = [task for task in tasks if task.interface == Interface.DLA1]
    cpu = [task for task in tasks if task.interface == Interface.EMU1]
    older = _decide(accelerator, _Tables.surfaces, any(task.says_older for task in accelerator))
    return Layouts(older, _decide(cpu, _Tables.buffers, older))


def possible(cube: np.void) -> bool:
    """Whether the hardware has cubes of this size; what is handed over may say none."""
    sizes = [int(cube[field]) for field in ("width", "height", "channel")]
    return all(1 <= size <= MAX_CUBE for size in sizes) or (is_handed_over(cube) and not any(sizes))


def is_handed_over(cube: np.void) -> bool:
    """Whether one unit of the accelerator passes a cube on to another, and it stands in no memory."""
    return "type" in (cube.dtype.names or ()) and int(cube["type"]) == MemoryType.ON_THE_FLY


def _decide(tasks: list["_Tables"], cubes: Callable[["_Tables", bool], Iterator[np.void]], otherwise: bool) -> bool:
    """Return whether the older layout fits `tasks` better; `otherwise` where both fit as well."""
    today, older = (
        sum(not task.plausible(cube) for task in tasks for cube in cubes(task, layout)) for layout in (False, True)
    )
    return otherwise if today == older else older < today


class _Tables:
    """The descriptors of one task that hold cubes; nothing where they lie outside what the loadable provides."""

    def __init__(self, loadable: Loadable, task: Task, static: Mapping[int, NDArray[np.uint8]]) -> None:
        addresses = {address.id: address for address in loadable.addresses}
        memories = {memory.id: memory for memory in loadable.memories}
        self.interface = task.interface
        self._bytes: list[NDArray[np.uint8] | None] = []
        self._room: list[int] = []
        self.says_older = False
        for id_ in task.address_list:
            address = addresses.get(id_)
            memory = None if address is None else memories.get(address.mem_id)
            self._bytes.append(None if memory is None else static.get(memory.id))
            # ONNC's addresses of the CPU's tensors have the size 0; those of the memories are right.
            self._room.append(0 if address is None or memory is None else memory.size - address.offset)
            if len(self._bytes) == 1 and memory is not None:
                found = [loadable.blob_by_name[name] for name in memory.contents if name in loadable.blob_by_name]
                self.says_older = any((0, 0, 0) < blob.version < structs.FIRST_WITH_OFFSETS for blob in found)

    def surfaces(self, older: bool) -> Iterator[np.void]:
        """Yield source and destination of each operation of the accelerator."""
        for network in self._records(0, structs.NETWORK, 1, False):
            count = int(network["num_operations"])
            engines = self._records(int(network["dependency_graph_index"]), structs.COMMON_OP, count, False)
            tables = {
                engine: self._records(
                    int(network["surface_desc_index"]), structs.SURFACES[engine], count, older, structs.SURFACE_BYTES
                )
                for engine in Engine
                if engine is not Engine.BDMA
            }
            for index, entry in enumerate(engines):
                # The BDMA's surface has no cubes.
                table = tables.get(entry["op_type"], ())
                for side in ("src_data", "dst_data") if index < len(table) else ():
                    yield table[index][side]

    def buffers(self, older: bool) -> Iterator[np.void]:
        """Yield source and destination of each operation of the CPU."""
        for network in self._records(0, structs.EMU_NETWORK, 1, False):
            index, count = int(network["operation_buffer_desc_index"]), int(network["num_operations"])
            for buffers in self._records(index, structs.EMU_BUFFERS, count, older):
                yield buffers["src_data"]
                yield buffers["dst_data"]

    def plausible(self, cube: np.void) -> bool:
        """Whether a cube can be meant."""
        names = cube.dtype.names or ()
        if not possible(cube) or ("type" in names and int(cube["type"]) not in list(MemoryType)):
            return False
        if "format" in names and int(cube["format"]) not in (list(EmuFormat) if "offset" in names else [OLDER_FP16]):
            return False
        index = int(cube["address"])
        if is_handed_over(cube):
            return True
        if not 0 <= index < len(self._room):
            return False
        width, height, line = (int(cube[field]) for field in ("width", "height", "line_stride"))
        last = (int(cube["offset"]) if "offset" in names else 0) + (height - 1) * line
        return (height == 1 or line >= width) and last < self._room[index]

    def _records(
        self, index: int, dtype: np.dtype[np.void], count: int, older: bool, stride: int | None = None
    ) -> NDArray[np.void]:
        layout = structs.OLDER.get(dtype, dtype) if older else dtype
        stride = layout.itemsize if stride is None else stride
        image = self._bytes[index] if 0 <= index < len(self._bytes) else None
        if image is None or count < 1 or (count - 1) * stride + layout.itemsize > len(image):
            return np.zeros(0, layout)
        return np.ndarray((count,), layout, np.ascontiguousarray(image).data, 0, (stride,))
