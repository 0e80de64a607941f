"""A view of memory, with cubes: that of a task, or another."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import Cube
from nvdla_quant.errors import LoadableError
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.layout import MAX_CUBE, layouts_of
from nvdla_quant.loadable.records import Interface, Loadable
from nvdla_quant.loadable.tasks import TaskMemory, Window, tasks_in_order


class CubeSpace(ABC):
    """What the addresses of descriptors mean."""

    @abstractmethod
    def window(self, index: int, offset: int, size: int, where: str) -> Window:
        """Return `size` bytes at `offset` of address `index`, checked to lie inside the address and its memory."""

    def cube(
        self,
        descriptor: np.void,
        atom: int,
        element_bytes: int,
        where: str,
        surface_stride: str = "surf_stride",
        batch: int = 1,
        batch_stride: int = 0,
    ) -> Cube:
        """Return the cube or cubes of a ``dla_data_cube``, checked to lie inside its address.

        `surface_stride` names the field that holds the bytes between groups of `atom` channels.
        """
        width, height, channels = (int(descriptor[field]) for field in ("width", "height", "channel"))
        for field, value in (("width", width), ("height", height), ("channel", channels)):
            if not 1 <= value <= MAX_CUBE:
                raise LoadableError(f"{where}: {field} is {value}, expected 1 to {MAX_CUBE}")
        line, surface = int(descriptor["line_stride"]), int(descriptor[surface_stride])
        return self.checked_cube(
            Cube(
                int(descriptor["address"]),
                int(descriptor["offset"]),
                channels,
                height,
                width,
                atom,
                element_bytes,
                line,
                surface,
                batch,
                batch_stride,
            ),
            where,
        )

    def checked_cube(self, cube: Cube, where: str) -> Cube:
        """Return `cube`, whose `memory` is an address index, at its place in memory."""
        window = self.window(cube.memory, cube.offset, cube.end - cube.offset, where)
        return replace(cube, memory=window.memory, offset=window.offset)


class AddressSpace(TaskMemory, CubeSpace):
    """What the address indices of one task mean."""


_NETWORKS: Mapping[int, np.dtype[np.void]] = MappingProxyType(
    {Interface.DLA1: structs.NETWORK, Interface.EMU1: structs.EMU_NETWORK}
)
"""What says how many operations a task has, by the task's interface."""


@dataclass(frozen=True)
class PlacedTask:
    """A task among the others.

    Attributes
    ----------
    space : AddressSpace
        What its address indices mean.
    base : int
        Number of its first operation in the loadable.
    on_cpu : bool
        Whether the runtime's CPU computes it.
    """

    space: AddressSpace
    base: int
    on_cpu: bool


def placed_tasks(loadable: Loadable, static: Mapping[int, NDArray[np.uint8]]) -> Iterator[PlacedTask]:
    """Yield the tasks of a loadable in the order in which they run; `static` is what `static_bytes` returned.

    Raises
    ------
    LoadableError
        A task is neither the hardware's nor the CPU's, or its descriptors are not there.
    """
    layouts = layouts_of(loadable, static)
    base = 0
    for task in tasks_in_order(loadable):
        space = AddressSpace(loadable, task, static, layouts)
        if task.interface not in _NETWORKS:
            raise LoadableError(f"{space.where}: interface {task.interface} is neither DLA (1) nor EMU (2)")
        yield PlacedTask(space, base, task.interface == Interface.EMU1)
        network = space.records(0, _NETWORKS[task.interface], 1, "network descriptor")[0]
        base += int(network["num_operations"])
