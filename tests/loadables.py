"""Build loadables of a few operations, descriptor by descriptor, and run them from bytes to bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.operations import Cube
from nvdla_quant.emulator.run import run
from nvdla_quant.hardware.targets import NV_FULL, Target
from nvdla_quant.loadable import records, structs
from nvdla_quant.loadable.records import Address, Blob, Loadable, Memory, MemoryFlags, Submit, Task, TensorDescriptor
from nvdla_quant.loadable.structs import Engine
from tests.descriptors import give_to_units

Fields = Mapping[str, object]
"""Values of a descriptor by ``a.b``."""
NETWORK, DEPENDENCIES, OPERATIONS, SURFACES, TABLES, SOURCE, RESULT, SCRATCH = range(8)
"""Addresses of the task, which here are also memories: descriptors, input, output, room between operations."""
OLDER_VERSION = (0, 11, 0)
NOBODY = (-1, 0, 0)
ATOM = 32


@dataclass(frozen=True)
class Descriptor:
    """An operation: unit, fields of its two descriptors, (other, event) of its consumers and of its fused parent."""

    engine: Engine
    operation: Fields
    surface: Fields
    consumers: tuple[tuple[int, int], ...] = ()
    parent: tuple[int, int] | None = None


def cube_fields(name: str, cube: Cube) -> dict[str, object]:
    """Return the fields of a ``dla_data_cube`` called `name`; `cube.memory` is an address index."""
    values = {
        "address": cube.memory, "offset": cube.offset, "size": cube.end - cube.offset,
        "width": cube.width, "height": cube.height, "channel": cube.channels,
        "line_stride": cube.line_stride, "surf_stride": cube.surface_stride, "plane_stride": cube.surface_stride,
    }  # fmt: skip
    return {f"{name}.{field}": value for field, value in values.items()}


def filled(dtype: np.dtype[np.void], values: Fields) -> NDArray[np.void]:
    """Return a record of `dtype`, zero but for `values`; a field that it lacks must be 0."""
    record = np.zeros((), dtype)
    for path, value in values.items():
        place = record
        *outer, last = path.split(".")
        for part in outer:
            place = place[int(part)] if part.isdigit() else place[part]
        if place.dtype.names is None or last in place.dtype.names:
            place[last] = value
        else:
            assert value == 0, path
    return record


def loadable_of(
    descriptors: Sequence[Descriptor],
    source: int,
    result: int,
    tables: Sequence[Fields] = (),
    scratch: int = 0,
    older: bool = False,
) -> Loadable:
    """Return a loadable of one task.

    Its input and its output are the `source` and `result` bytes (multiples of 32) of two memories, as int8 features.
    """
    waiting = [0] * len(descriptors)
    common = np.zeros(len(descriptors), structs.COMMON_OP)
    operations, surfaces = bytearray(), bytearray()
    for index, descriptor in enumerate(descriptors):
        consumers = [NOBODY] * structs.ENGINES
        for other, event in descriptor.consumers:
            consumers[descriptors[other].engine] = (other, event, 0)
            waiting[other] += 1
        if descriptor.parent is not None:
            waiting[descriptor.parent[0]] += 1
        common[index]["index"], common[index]["op_type"] = index, descriptor.engine
        common[index]["consumers"] = consumers
        common[index]["fused_parent"] = NOBODY if descriptor.parent is None else (*descriptor.parent, 0)
        surface = structs.SURFACES[descriptor.engine]
        layout = structs.OLDER.get(surface, surface) if older else surface
        operation = filled(structs.OPERATIONS[descriptor.engine], descriptor.operation)
        operations += operation.tobytes().ljust(structs.OPERATION_BYTES, b"\0")
        surfaces += filled(layout, descriptor.surface).tobytes().ljust(structs.SURFACE_BYTES, b"\0")
    common["dependency_count"] = waiting
    network: dict[str, object] = {
        "operation_desc_index": OPERATIONS, "surface_desc_index": SURFACES, "dependency_graph_index": DEPENDENCIES,
        "lut_data_index": TABLES, "num_operations": len(descriptors), "num_luts": len(tables), "num_rois": 1,
        "op_head": give_to_units(common),
    }  # fmt: skip
    contents = (
        filled(structs.NETWORK, network).tobytes(),
        common.tobytes(),
        bytes(operations),
        bytes(surfaces),
        b"".join(filled(structs.LUT, table).tobytes() for table in tables),
    )
    version = OLDER_VERSION if older else records.DLA_VERSION
    return _task_of(records.Interface.DLA1, version, contents, source, result, scratch)


def cpu_loadable(operation: Fields, source: Fields, result: Fields, sizes: tuple[int, int]) -> Loadable:
    """Return a loadable of one operation of the CPU; see `loadable_of`."""
    buffers = {f"src_data.{name}": value for name, value in ({"address": SOURCE} | dict(source)).items()}
    buffers |= {f"dst_data.{name}": value for name, value in ({"address": RESULT} | dict(result)).items()}
    network = {"operation_desc_index": 1, "operation_buffer_desc_index": 2, "num_operations": 1}
    contents = (
        filled(structs.EMU_NETWORK, network).tobytes(),
        filled(structs.EMU_OP, operation).tobytes(),
        filled(structs.EMU_BUFFERS, buffers).tobytes(),
    )
    return _task_of(records.Interface.EMU1, records.EMU_VERSION, (*contents, b"", b""), *sizes, 0)


def _task_of(
    interface: int, version: tuple[int, int, int], contents: tuple[bytes, ...], source: int, result: int, scratch: int
) -> Loadable:
    sizes = [*map(len, contents), source, result, scratch]
    blobs = [Blob(f"task-0-{place}", interface, place + 1, version, data) for place, data in enumerate(contents)]
    memories = [_memory(place, size) for place, size in enumerate(sizes)]
    addresses = [Address(place, place, 0, size) for place, size in enumerate(sizes)]
    tensors = _tensor("in", 0, SOURCE, source), _tensor("out", 1, RESULT, result)
    task = Task(0, interface, -1, tuple(range(len(sizes))), (), ())
    lists = (task,), tuple(memories), tuple(addresses), (), tuple(blobs), tensors, ()
    return Loadable(records.LOADABLE_VERSION, *lists, (Submit(0, (0,)),))


def _memory(place: int, size: int) -> Memory:
    flags = {SOURCE: MemoryFlags.INPUT, RESULT: MemoryFlags.OUTPUT, SCRATCH: MemoryFlags.NONE}
    kind = MemoryFlags.ALLOC | flags.get(place, MemoryFlags.SET)
    contents, offsets = ((), ()) if place in flags else ((f"task-0-{place}",), (0,))
    return Memory(place, 0, int(kind), size, 4096, contents, offsets, tensor_desc_id=int(place == RESULT))


def _tensor(name: str, id_: int, memory: int, size: int) -> TensorDescriptor:
    return TensorDescriptor(
        name=name,
        id=id_,
        mem_id=memory,
        size=size,
        offset=0,
        data_format=records.DataFormat.NCXHWX,
        data_type=records.DataType.INT8,
        data_category=records.DataCategory.FEATURE,
        pixel_format=records.PixelFormat.FEATURE,
        pixel_mapping=0,
        n=1,
        c=ATOM,
        h=1,
        w=size // ATOM,
        strides=(1, size, size, 0, 0, 0, 0, 0),
    )


def run_bytes(loadable: Loadable, data: NDArray[np.uint8], target: Target = NV_FULL) -> NDArray[np.uint8]:
    """Run a loadable of `loadable_of` on the bytes of its input and return those of its output."""
    pixels = data.view(np.int8).reshape(1, -1, ATOM).transpose(0, 2, 1)[:, :, None]
    output = run(decode(loadable, target), np.ascontiguousarray(pixels))
    return np.ascontiguousarray(output[0, :, 0].T).view(np.uint8).ravel()


def rounded(size: int) -> int:
    """Return `size`, rounded up to a multiple of 32."""
    return -(-size // ATOM) * ATOM
