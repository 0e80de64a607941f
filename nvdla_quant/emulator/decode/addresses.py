"""A view of memory, with cubes: that of a task, or another."""

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from nvdla_quant.emulator.operations import Cube
from nvdla_quant.errors import LoadableError
from nvdla_quant.loadable.layout import MAX_CUBE
from nvdla_quant.loadable.tasks import TaskMemory, Window


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
