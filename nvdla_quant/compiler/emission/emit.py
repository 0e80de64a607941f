"""Emission: the loadable's lists, tasks and blobs (docs/hardware/loadable.md, "How the lists are filled").

Memory 0 is an unused page. Then come the pools and the bindable tensors, each with one address that every task sees
under the same number, then six memories for each task: its network descriptor and lists, and spare pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nvdla_quant.compiler.emission import descriptors
from nvdla_quant.compiler.emission.descriptors import Plan
from nvdla_quant.compiler.emission.memory import PAGE
from nvdla_quant.compiler.lowering.layout import Surface
from nvdla_quant.compiler.lowering.operations import (
    ENGINE_OF,
    CdpOperation,
    ConvOperation,
    CpuOperation,
    PdpOperation,
    SdpOperation,
)
from nvdla_quant.compiler.lowering.schedule import Edges, Schedule, Task
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.loadable import records, structs
from nvdla_quant.loadable.records import (
    Blob,
    DataCategory,
    DataFormat,
    DataType,
    EventOperation,
    Interface,
    Memory,
    MemoryFlags,
    PixelFormat,
    SubInterface,
)
from nvdla_quant.loadable.structs import DependencyEvent, Engine

CONTEXT_ADDRESSES = 6
"""Addresses of a task of its own: the network descriptor before the shared ones, five after them."""
NONE = -1


@dataclass(frozen=True)
class Bindable:
    """A network input or output: its tensor, the name to bind it by, its surface."""

    tensor: str
    name: str
    surface: Surface


@dataclass(frozen=True)
class Shared:
    """Memories that all tasks see, in the order of their addresses 1, 2, ...

    Attributes
    ----------
    memories : tuple[Memory, ...]
        Pools, inputs, outputs.
    tensors : tuple[TensorDescriptor, ...]
        Of the inputs and outputs.
    bound : Mapping[int, str]
        Tensor of each bindable memory, by address.
    """

    memories: tuple[Memory, ...]
    tensors: tuple[records.TensorDescriptor, ...]
    bound: Mapping[int, str]


def share(
    data: tuple[Mapping[str, int], int],
    activations: int,
    inputs: Sequence[Bindable],
    outputs: Sequence[Bindable],
    target: Target,
    precision: Precision,
) -> Shared:
    """Memories of the pools and of the bindable tensors.

    Parameters
    ----------
    data : tuple
        Offset of each blob in the pool that the loadable fills, and the pool's size; no blobs, no pool.
    activations : int
        Size of the pool of activations; 0 for none.
    inputs, outputs : Sequence[Bindable]
        In bind order.
    target, precision : Target, Precision
        What the loadable is for.
    """
    memories = []
    contents, size = data
    if contents:
        flags = MemoryFlags.ALLOC | MemoryFlags.SET
        memories.append(Memory(1, 0, flags, size, PAGE, tuple(contents), tuple(contents.values())))
    if activations:
        memories.append(Memory(len(memories) + 1, 0, MemoryFlags.ALLOC, activations, PAGE))
    tensors: list[records.TensorDescriptor] = []
    bound: dict[int, str] = {}
    for flag, bindables in ((MemoryFlags.INPUT, inputs), (MemoryFlags.OUTPUT, outputs)):
        for bind_id, bindable in enumerate(bindables):
            number, tensor_id = len(memories) + 1, len(tensors)
            flags = MemoryFlags.ALLOC | flag
            memories.append(Memory(number, 0, flags, bindable.surface.size, PAGE, (), (), bind_id, tensor_id))
            tensors.append(_tensor_descriptor(bindable, tensor_id, number, target, precision))
            bound[number] = bindable.tensor
    return Shared(tuple(memories), tuple(tensors), bound)


def _tensor_descriptor(
    bindable: Bindable, tensor_id: int, memory: int, target: Target, precision: Precision
) -> records.TensorDescriptor:
    surface, half = bindable.surface, precision is Precision.FP16
    if surface.image:
        pixel = PixelFormat.A16B16G16R16_F if half else PixelFormat.A8B8G8R8
        layout, category = DataFormat.NHWC, DataCategory.IMAGE
    else:
        pixel = PixelFormat.FEATURE_X8 if target.feature_atom_bytes == 8 else PixelFormat.FEATURE
        layout, category = DataFormat.NCXHWX, DataCategory.FEATURE
    return records.TensorDescriptor(
        name=bindable.name,
        id=tensor_id,
        mem_id=memory,
        size=surface.size,
        offset=0,
        data_format=layout,
        data_type=DataType.HALF if half else DataType.INT8,
        data_category=category,
        pixel_format=pixel,
        pixel_mapping=0,
        n=1,
        c=surface.channels,
        h=surface.height,
        w=surface.width,
        strides=(surface.element_bytes, surface.line_stride, surface.surface_stride, 0, 0, 0, 0, 0),
    )


def emit(schedule: Schedule, plan: Plan, shared: Shared, data: Mapping[str, bytes]) -> records.Loadable:
    """Build the loadable.

    Parameters
    ----------
    schedule : Schedule
        Operations in order.
    plan : Plan
        All that the descriptors are made of.
    shared : Shared
        Memories that all tasks see.
    data : Mapping[str, bytes]
        Contents of the pool that the loadable fills, by blob name.
    """
    blobs = [Blob(name, Interface.NONE, SubInterface.DATA, (0, 0, 0), content) for name, content in data.items()]
    memories = [Memory(0, 0, MemoryFlags.ALLOC, PAGE, PAGE), *shared.memories]
    tasks: list[records.Task] = []
    relocations: list[records.Relocation] = []
    events: list[records.Event] = []
    for number, task in enumerate(schedule.tasks):
        own = (_cpu_blobs if task.cpu else _accelerator_blobs)(schedule, task, plan, len(shared.memories))
        interface = Interface.EMU1 if task.cpu else Interface.DLA1
        version = records.EMU_VERSION if task.cpu else records.DLA_VERSION
        first = len(memories)
        for name, sub_interface, content in own:
            blob = Blob(f"task-{number}-{name}", interface, sub_interface, version, content)
            blobs.append(blob)
            flags = MemoryFlags.ALLOC | MemoryFlags.SET
            memories.append(Memory(len(memories), 0, flags, len(content), PAGE, (blob.name,), (0,)))
        while len(memories) < first + CONTEXT_ADDRESSES:
            memories.append(Memory(len(memories), 0, MemoryFlags.ALLOC, PAGE, PAGE))
        surfaces = next(i for i, (_, sub, _) in enumerate(own) if sub == SubInterface.SURFACES)
        relocations += _relocations(task, own[surfaces][2], first + surfaces, schedule, shared)
        before = [records.Event(len(events), 0, 0, number, EventOperation.WAIT)] if number else []
        after = [records.Event(len(events) + len(before), 0, 0, number + 1, EventOperation.SIGNAL)]
        events += before + after
        addresses = (first, *range(1, len(shared.memories) + 1), *range(first + 1, first + CONTEXT_ADDRESSES))
        tasks.append(
            records.Task(number, interface, -1, addresses, tuple(e.id for e in before), tuple(e.id for e in after))
        )
    return records.Loadable(
        version=records.LOADABLE_VERSION,
        tasks=tuple(tasks),
        memories=tuple(memories),
        addresses=tuple(records.Address(memory.id, memory.id, 0, memory.size) for memory in memories),
        events=tuple(events),
        blobs=tuple(sorted(blobs, key=lambda blob: blob.name)),
        tensors=shared.tensors,
        relocations=tuple(relocations),
        submits=tuple(records.Submit(task.id, (task.id,)) for task in tasks),
    )


_Blobs = tuple[tuple[str, SubInterface, bytes], ...]
"""(name, what it holds, content) of a task's blobs, in the order of its context addresses."""


def _accelerator_blobs(schedule: Schedule, task: Task, plan: Plan, shared: int) -> _Blobs:
    operations, surfaces, dependencies = [], [], []
    luts: list[bytes] = []
    heads = [NONE] * structs.ENGINES
    for index in range(task.first, task.end):
        operation = schedule.operations[index]
        engine = ENGINE_OF[type(operation)]
        filled = np.zeros(1, structs.OPERATIONS[engine]), np.zeros(1, structs.SURFACES[engine])
        targets = filled[0][0], filled[1][0]
        if isinstance(operation, ConvOperation):
            following = schedule.operations[index + 1]
            assert isinstance(following, SdpOperation)
            descriptors.convolution(operation, following, plan, targets)
        elif isinstance(operation, SdpOperation):
            lut = plan.programs[operation.step].table
            descriptors.point(operation, plan, targets, None if lut is None else len(luts))
            luts += [] if lut is None else [lut.tobytes()]
        elif isinstance(operation, CdpOperation):
            descriptors.normalisation(operation, plan, targets, len(luts))
            luts.append(plan.normalisations[operation.step].table.tobytes())
        else:
            assert isinstance(operation, PdpOperation)
            descriptors.pooling(operation, plan, targets)
        operations.append(filled[0].tobytes().ljust(structs.OPERATION_BYTES, b"\0"))
        surfaces.append(filled[1].tobytes().ljust(structs.SURFACE_BYTES, b"\0"))
        dependencies.append(_dependency(schedule.edges[index], index - task.first, engine, task.first))
        if heads[engine] == NONE:
            heads[engine] = index - task.first
    network = np.zeros(1, structs.NETWORK)
    for name, value in {
        "dependency_graph_index": shared + 1,
        "operation_desc_index": shared + 2,
        "surface_desc_index": shared + 3,
        "lut_data_index": shared + 4,
        "roi_array_index": NONE,
        "surface_index": NONE,
        "stat_list_index": NONE,
        "op_head": heads,
        "num_rois": 1,
        "num_operations": len(operations),
        "num_luts": len(luts),
        "num_addresses": shared + CONTEXT_ADDRESSES,
    }.items():
        network[name] = value
    return (
        ("addr0", SubInterface.NETWORK, network.tobytes()),
        ("dep_graph", SubInterface.DEPENDENCY_GRAPH, b"".join(dependencies)),
        ("op_list", SubInterface.OPERATIONS, b"".join(operations)),
        ("surf_list", SubInterface.SURFACES, b"".join(surfaces)),
        # One LUT is always there, used or not.
        ("lut_list", SubInterface.LUTS, b"".join(luts) or bytes(structs.LUT.itemsize)),
    )


def _dependency(edges: Edges, index: int, engine: Engine, first: int) -> bytes:
    """Describe what an operation waits for and who waits for it; numbers count from the task's `first` operation."""
    record = np.zeros(1, structs.COMMON_OP)
    record["index"], record["op_type"], record["dependency_count"] = index, engine, edges.dependencies
    for unit in Engine:
        consumer, event = edges.consumers.get(unit, (first + NONE, DependencyEvent.OP_COMPLETED))
        record["consumers"][0, unit] = (consumer - first, event, 0)
    fused = edges.fused_parent is not None
    parent = first + NONE if edges.fused_parent is None else edges.fused_parent
    event = DependencyEvent.OP_ENABLED if fused else DependencyEvent.OP_COMPLETED
    record["fused_parent"][0] = (parent - first, event, 0)
    return record.tobytes()


def _cpu_blobs(schedule: Schedule, task: Task, plan: Plan, shared: int) -> _Blobs:
    count = task.end - task.first
    operations, buffers = np.zeros(count, structs.EMU_OP), np.zeros(count, structs.EMU_BUFFERS)
    for row, index in enumerate(range(task.first, task.end)):
        operation = schedule.operations[index]
        assert isinstance(operation, CpuOperation)
        descriptors.cpu(operation, plan, (operations[row], buffers[row]))
    network = np.zeros(1, structs.EMU_NETWORK)
    network["operation_desc_index"] = shared + 1
    network["operation_buffer_desc_index"] = shared + 2
    network["num_operations"] = count
    return (
        ("addr0", SubInterface.NETWORK, network.tobytes()),
        ("op_list", SubInterface.OPERATIONS, operations.tobytes()),
        ("op_buf_list", SubInterface.SURFACES, buffers.tobytes()),
    )


def _relocations(
    task: Task, content: bytes, memory: int, schedule: Schedule, shared: Shared
) -> list[records.Relocation]:
    """Where the strides of bindable tensors stand in a task's surfaces."""
    interface = Interface.EMU1 if task.cpu else Interface.DLA1
    found = []
    for row, index in enumerate(range(task.first, task.end)):
        if task.cpu:
            layout, cube, start = structs.EMU_BUFFERS, structs.EMU_BUFFER, row * structs.EMU_BUFFERS.itemsize
        else:
            engine = ENGINE_OF[type(schedule.operations[index])]
            layout, cube, start = structs.SURFACES[engine], structs.CUBE, row * structs.SURFACE_BYTES
        record = np.frombuffer(content, layout, count=1, offset=start)[0]
        for name in layout.names or ():
            if layout[name] != cube or record[name]["address"] not in shared.bound:
                continue
            if not task.cpu and record[name]["type"] != structs.MemoryType.DRAM:
                continue
            assert layout.fields is not None
            assert cube.fields is not None
            for kind, stride in ((1, "line_stride"), (2, "surf_stride")):
                offset = start + layout.fields[name][1] + cube.fields[stride][1]
                address = int(record[name]["address"])
                found.append(records.Relocation(address, memory, offset, interface, SubInterface.SURFACES, kind))
    return found
