"""What a task of a loadable names by address: windows of memory, and the descriptors and constants that stand there.

Nothing here is trusted: whatever leaves the buffers that the loadable declares is a `LoadableError`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import LoadableError
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.layout import Layouts
from nvdla_quant.loadable.records import Loadable, MemoryFlags, Task
from nvdla_quant.loadable.structs import EmuFormat


@dataclass(frozen=True)
class Window:
    """A byte range of a memory."""

    memory: int
    offset: int
    size: int


def static_bytes(loadable: Loadable) -> dict[int, NDArray[np.uint8]]:
    """Return the bytes of each memory that the loadable fills, by memory id.

    Raises
    ------
    LoadableError
        A content does not exist or does not fit.
    """
    static = {}
    for memory in loadable.memories:
        if not memory.flags & MemoryFlags.SET:
            continue
        if len(memory.contents) != len(memory.offsets):
            raise LoadableError(
                f"memory {memory.id}: {len(memory.contents)} contents with {len(memory.offsets)} offsets"
            )
        image = np.zeros(memory.size, np.uint8)
        for name, offset in zip(memory.contents, memory.offsets, strict=True):
            blob = loadable.blob_by_name.get(name)
            if blob is None:
                raise LoadableError(f"memory {memory.id}: content {name!r} does not exist")
            if offset + len(blob.data) > memory.size:
                raise LoadableError(
                    f"memory {memory.id}: content {name!r} ends at byte {offset + len(blob.data)} of {memory.size}"
                )
            image[offset : offset + len(blob.data)] = np.frombuffer(blob.data, np.uint8)
        static[memory.id] = image
    return static


def tasks_in_order(loadable: Loadable) -> list[Task]:
    """Return the tasks of a loadable in the order in which they run.

    Raises
    ------
    LoadableError
        A submit names a task that does not exist, or none names any.
    """
    tasks = {task.id: task for task in loadable.tasks}
    order: list[Task] = []
    for submit in sorted(loadable.submits, key=lambda submit: submit.id):
        for id_ in submit.task_ids:
            if id_ not in tasks:
                raise LoadableError(f"loadable: submit {submit.id} names task {id_}, which does not exist")
            order.append(tasks.pop(id_))
    if not order:
        raise LoadableError("loadable: no submit names any task, so nothing would run")
    return order


class TaskMemory:
    """What the address indices of one task mean.

    Parameters
    ----------
    loadable : Loadable
        The loadable.
    task : Task
        One of its tasks.
    static : Mapping[int, NDArray[np.uint8]]
        What `static_bytes` returned.
    layouts : Layouts
        What `layouts_of` returned.
    """

    def __init__(
        self, loadable: Loadable, task: Task, static: Mapping[int, NDArray[np.uint8]], layouts: Layouts
    ) -> None:
        self.where = f"task {task.id}"
        self._older = layouts.older(task.interface)
        self._static = static
        self._memories = {memory.id: memory for memory in loadable.memories}
        addresses = {address.id: address for address in loadable.addresses}
        missing = [id_ for id_ in task.address_list if id_ not in addresses]
        if missing:
            raise LoadableError(f"{self.where}: address {missing[0]} does not exist")
        self._addresses = [addresses[id_] for id_ in task.address_list]

    def window(self, index: int, offset: int, size: int, where: str) -> Window:
        """Return `size` bytes at `offset` of address `index`, checked to lie inside the address and its memory."""
        if not 0 <= index < len(self._addresses):
            raise LoadableError(f"{where}: address index {index}, the task has {len(self._addresses)} addresses")
        address = self._addresses[index]
        memory = self._memories.get(address.mem_id)
        if memory is None:
            raise LoadableError(f"{where}: address {address.id} names memory {address.mem_id}, which does not exist")
        available = min(address.size, memory.size - address.offset)
        if offset < 0 or size < 0 or offset + size > available:
            raise LoadableError(
                f"{where}: bytes {offset} to {offset + size} of address {address.id}, which has {max(available, 0)}"
            )
        return Window(memory.id, address.offset + offset, size)

    def constants(self, window: Window, where: str) -> NDArray[np.uint8]:
        """Return the bytes that the loadable puts into `window`."""
        image = self._static.get(window.memory)
        if image is None:
            raise LoadableError(f"{where}: memory {window.memory} holds nothing that the loadable provides")
        return image[window.offset : window.offset + window.size]

    def records(
        self, index: int, dtype: np.dtype[np.void], count: int, what: str, stride: int | None = None
    ) -> NDArray[np.void]:
        """Return `count` descriptors, one each `stride` bytes (default: packed), from the memory of address `index`.

        The firmware reads descriptors from the start of the memory, whatever the address's own offset
        (``dla_data_read``, kmd/port/linux/nvdla_core_callbacks.c). Those of an earlier layout become today's, with 0 in
        the fields that they lack.
        """
        where = f"{self.where} {what}"
        memory_id = self.window(index, 0, 0, where).memory
        layout = structs.OLDER.get(dtype, dtype) if self._older else dtype
        stride = layout.itemsize if stride is None else stride
        size = (count - 1) * stride + layout.itemsize if count else 0
        image = self._static.get(memory_id)
        if image is None or size > len(image):
            have = 0 if image is None else len(image)
            raise LoadableError(f"{where}: {count} entries need {size} bytes, memory {memory_id} holds {have}")
        found = np.ndarray((count,), layout, np.ascontiguousarray(image).data, 0, (stride,))
        return found if layout == dtype else _today(found, dtype)


def _today(older: NDArray[np.void], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Return records of `dtype` with the same contents, and 0 in the fields that `older` lacks."""
    from numpy.lib.recfunctions import assign_fields_by_name  # Here: old loadables are rare, and it is slow to import.

    records = np.zeros(older.shape, dtype)
    assign_fields_by_name(records, older)
    if dtype == structs.EMU_BUFFERS:
        for side in ("src_data", "dst_data"):
            known = older[side]["format"] == structs.OLDER_FP16
            records[side]["format"] = np.where(known, EmuFormat.FP16, 0xFFFF)
    return records
