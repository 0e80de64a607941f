"""Build loadables of a few operations from the fields of their descriptors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.loadable import structs
from nvdla_quant.loadable.records import (
    Address,
    Blob,
    DataCategory,
    DataFormat,
    DataType,
    Interface,
    Loadable,
    Memory,
    MemoryFlags,
    PixelFormat,
    SubInterface,
    Submit,
    Task,
    TensorDescriptor,
)
from nvdla_quant.loadable.structs import DependencyEvent, Engine, MemoryType

Fields = Mapping[str, Any]
FLYING = {"type": int(MemoryType.ON_THE_FLY), "address": -1}
"""A cube that is handed over between units."""


def fill(record: np.void, fields: Fields) -> None:
    """Set fields; a mapping sets the fields of a nested record."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            fill(record[name], value)
        else:
            record[name] = value


def cube(
    address: int, shape: tuple[int, int, int], atom: int, element_bytes: int, offset: int = 0, size: int | None = None
) -> dict[str, int]:
    """Return a ``dla_data_cube`` without gaps of (channels, height, width)."""
    channels, height, width = shape
    line = width * atom * element_bytes
    surfaces = -(-channels // atom)
    return {
        "address": address,
        "offset": offset,
        "size": line * height * surfaces if size is None else size,
        "channel": channels,
        "height": height,
        "width": width,
        "line_stride": line,
        "surf_stride": line * height,
    }


def tensor(
    name: str, memory: int, shape: tuple[int, int, int], atom: int, dtype: np.dtype[Any], size: int, **more: Any
) -> TensorDescriptor:
    """Return a bindable tensor; `atom` equal to the channels makes it an image."""
    channels, height, width = shape
    types = {"int8": DataType.INT8, "int16": DataType.INT16, "float16": DataType.HALF}
    line = width * atom * dtype.itemsize
    image = more.pop("image", False)
    values = {
        "data_format": DataFormat.NHWC if image else DataFormat.NCXHWX,
        "data_type": types[str(dtype)],
        "data_category": DataCategory.IMAGE if image else DataCategory.FEATURE,
        "pixel_format": PixelFormat.FEATURE_X8 if atom == 8 and dtype.itemsize == 1 else PixelFormat.FEATURE,
        "pixel_mapping": 0,
        "n": 1,
        "strides": (dtype.itemsize, line, line * height, 0, 0, 0, 0, 0),
    } | more
    return TensorDescriptor(name, memory, memory, size, 0, c=channels, h=height, w=width, **values)


def give_to_units(common: NDArray[np.void]) -> list[int]:
    """Link the operations of each unit in list order, as the firmware goes from each to the next; return the heads."""
    heads = [-1] * structs.ENGINES
    last: dict[int, int] = {}
    for index, entry in enumerate(common):
        engine = int(entry["op_type"])
        if engine not in last:
            heads[engine] = index
        elif common[last[engine]]["consumers"][engine]["index"] != index:
            common[last[engine]]["consumers"][engine] = (index, DependencyEvent.OP_PROGRAMMED, 0)
            entry["dependency_count"] += 1
        last[engine] = index
    return heads


def loadable_of(
    operations: Sequence[tuple[Engine, Fields, Fields]],
    memories: Mapping[int, NDArray[np.uint8] | int],
    inputs: Sequence[TensorDescriptor],
    outputs: Sequence[TensorDescriptor],
    ordered: bool = True,
) -> Loadable:
    """Return a loadable of one task; an SDP operation with a flying source takes the convolution in front of it.

    Parameters
    ----------
    operations : Sequence[tuple[Engine, Fields, Fields]]
        Unit, fields of the operation and of its surfaces. Each waits for the one that wrote before it.
    memories : Mapping[int, NDArray[np.uint8] or int]
        Contents, or the size of what starts as zeros, by number from 1; addresses have the same numbers.
    inputs, outputs : Sequence[TensorDescriptor]
        Bindable tensors.
    ordered : bool
        False: no operation waits for what is written before it.
    """
    count = len(operations)
    network = np.zeros((), structs.NETWORK)
    base = max(memories) + 1
    places = {
        "dependency_graph_index": base,
        "operation_desc_index": base + 1,
        "surface_desc_index": base + 2,
    }
    fill(network, {**places, "num_operations": count, "num_addresses": base + 3, "num_rois": 1, "stat_list_index": -1})
    common = np.zeros(count, structs.COMMON_OP)
    common["index"] = np.arange(count)
    common["consumers"]["index"] = common["fused_parent"]["index"] = -1
    ops = np.zeros((count, structs.OPERATION_BYTES), np.uint8)
    surfaces = np.zeros((count, structs.SURFACE_BYTES), np.uint8)
    written: int | None = None
    for index, (engine, fields, surface) in enumerate(operations):
        common[index]["op_type"] = engine
        fill(np.ndarray((), structs.OPERATIONS[engine], ops[index].data), fields)  # type: ignore[arg-type]
        fill(np.ndarray((), structs.SURFACES[engine], surfaces[index].data), surface)  # type: ignore[arg-type]
        fed = engine is Engine.SDP and surface["src_data"].get("type") == MemoryType.ON_THE_FLY
        if fed:
            common[index]["fused_parent"] = (index - 1, DependencyEvent.OP_ENABLED, 0)
            common[index - 1]["dependency_count"] += 1
        elif ordered and written is not None:
            common[written]["consumers"][engine] = (index, DependencyEvent.OP_COMPLETED, 0)
            common[index]["dependency_count"] += 1
        written = index if engine is not Engine.CONV else written
    network["op_head"] = give_to_units(common)
    blobs = {0: network.tobytes(), base: common.tobytes(), base + 1: ops.tobytes(), base + 2: surfaces.tobytes()}
    blobs |= {number: raw.tobytes() for number, raw in memories.items() if not isinstance(raw, int)}
    sizes = {number: len(data) for number, data in blobs.items()}
    sizes |= {number: raw for number, raw in memories.items() if isinstance(raw, int)}
    flags = {number: MemoryFlags.ALLOC | (MemoryFlags.SET if number in blobs else 0) for number in sizes}
    for bound, flag in ((inputs, MemoryFlags.INPUT), (outputs, MemoryFlags.OUTPUT)):
        for entry in bound:
            flags[entry.mem_id] |= flag
    return Loadable(
        version=(0, 7, 0),
        tasks=(Task(0, Interface.DLA1, -1, tuple(range(base + 3)), (), ()),),
        memories=tuple(
            Memory(
                number,
                0,
                flags[number],
                sizes[number],
                4096,
                (str(number),) if number in blobs else (),
                (0,) if number in blobs else (),
                number,
                number,
            )
            for number in sorted(sizes)
        ),
        addresses=tuple(Address(number, number, 0, sizes[number]) for number in sorted(sizes)),
        events=(),
        blobs=tuple(
            Blob(str(number), Interface.NONE, SubInterface.DATA, (0, 0, 0), data) for number, data in blobs.items()
        ),
        tensors=(*inputs, *outputs),
        relocations=(),
        submits=(Submit(0, (0,)),),
    )
