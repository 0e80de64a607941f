"""The device's memory for a batch of images, and feature cubes in it.

Each memory region is one array: ``(n, bytes)`` where an inference writes it, ``(1, bytes)`` where it holds constants.
"""

from collections.abc import Mapping
from copy import copy
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import Cube, ElementType, Region

Values = NDArray[np.int8] | NDArray[np.int16] | NDArray[np.float16]
"""Contents of a tensor in the device's domain."""
_Element = TypeVar("_Element", bound=np.generic)


def images_of(memory: NDArray[_Element], first: int, images: int) -> NDArray[_Element]:
    """Return the rows of some images; a memory that all images share has one row, which stands for each."""
    return memory[first : first + images] if len(memory) > 1 else memory


def cube_view(memory: NDArray[np.int8], cube: Cube, dtype: np.dtype[_Element]) -> NDArray[_Element]:
    """Return `cube` in place in ``(n, bytes)`` as ``(n, surfaces, height, width, atom)``."""
    shape = len(memory), cube.surfaces, cube.height, cube.width, cube.atom
    pixel = cube.atom * cube.element_bytes
    strides = memory.strides[0], cube.surface_stride, cube.line_stride, pixel, cube.element_bytes
    return np.ndarray(shape, dtype, memory.data, cube.offset, strides)


class DeviceMemory:
    """Memory regions of `images` images.

    Parameters
    ----------
    regions : Mapping[int, Region]
        Regions by memory id.
    images : int
        Images that run together.
    """

    def __init__(self, regions: Mapping[int, Region], images: int) -> None:
        self.images = images
        self._regions = regions
        self._bytes = {
            id_: np.zeros((images, region.size), np.int8)
            if region.written or region.initial is None
            else region.initial.view(np.int8)[None]
            for id_, region in regions.items()
        }

    def reset(self) -> None:
        """Bring every region to its state before an inference: declared contents, else zeros."""
        for id_, region in self._regions.items():
            if region.written:
                self._bytes[id_][:] = 0 if region.initial is None else region.initial.view(np.int8)

    def one(self, image: int) -> "DeviceMemory":
        """Return the memory of one of the images, not a copy."""
        part = copy(self)
        part.images = 1
        part._bytes = {id_: images_of(raw, image, 1) for id_, raw in self._bytes.items()}
        return part

    def bytes_of(self, memory: int) -> NDArray[np.int8]:
        """Return the raw bytes of a region, ``(n or 1, size)``."""
        return self._bytes[memory]

    def view(self, cube: Cube, dtype: np.dtype[_Element]) -> NDArray[_Element]:
        """Return `cube` in place as ``(n, surfaces, height, width, atom)``; writing to it writes the memory."""
        return cube_view(self._bytes[cube.memory], cube, dtype)

    def gather(self, cube: Cube, dtype: ElementType) -> Values:
        """Copy `cube`, whose elements are of type `dtype`, as ``(n * batch, channels, height, width)``."""
        values: Values = np.empty((len(self._bytes[cube.memory]), cube.batch, *cube.shape), dtype)
        for number, part in enumerate(cube.parts):
            atoms: NDArray[Any] = cube_view(self._bytes[cube.memory], part, dtype).transpose(0, 1, 4, 2, 3)
            values[:, number] = atoms.reshape(len(atoms), -1, cube.height, cube.width)[:, : cube.channels]
        return values.reshape(-1, *cube.shape)

    def scatter(self, cube: Cube, values: NDArray[np.generic]) -> None:
        """Write ``(n * batch, channels, height, width)`` into `cube`; unused channels of the last atom become 0."""
        whole = cube.channels // cube.atom
        for number, part in enumerate(cube.parts):
            view, images = self.view(part, values.dtype), values[number :: cube.batch]
            shape = (len(images), whole, cube.atom, cube.height, cube.width)
            view[:, :whole] = images[:, : whole * cube.atom].reshape(shape).transpose(0, 1, 3, 4, 2)
            if whole < cube.surfaces:
                rest = cube.channels - whole * cube.atom
                view[:, whole, :, :, :rest] = images[:, whole * cube.atom :].transpose(0, 2, 3, 1)
                view[:, whole, :, :, rest:] = 0
