"""Write a loadable: records to the flatbuffer, byte for byte the same for the same records."""

import flatbuffers
import numpy as np

from nvdla_quant.loadable import records
from nvdla_quant.loadable import schema_generated as schema


def _version(version: tuple[int, int, int]) -> schema.VersionT:
    built = schema.VersionT()
    built.major, built.minor, built.subMinor = version
    return built


def _blob(blob: records.Blob) -> schema.BlobT:
    built = schema.BlobT()
    built.name = blob.name
    built.size = len(blob.data)
    built.interface = blob.interface
    built.subInterface = blob.sub_interface
    built.version = _version(blob.version)
    built.data = np.frombuffer(blob.data, np.uint8)
    return built


def _memory(memory: records.Memory) -> schema.MemoryListEntryT:
    built = schema.MemoryListEntryT()
    built.id = memory.id
    built.domain = memory.domain
    built.flags = memory.flags
    built.size = memory.size
    built.alignment = memory.alignment
    built.contents = list(memory.contents)
    built.offsets = list(memory.offsets)
    built.bindId = memory.bind_id
    built.tensorDescId = memory.tensor_desc_id
    return built


def _task(task: records.Task) -> schema.TaskListEntryT:
    built = schema.TaskListEntryT()
    built.id = task.id
    built.interface = task.interface
    built.instance = task.instance
    built.addressList = list(task.address_list)
    built.preActions = list(task.pre_actions)
    built.postActions = list(task.post_actions)
    return built


def _address(address: records.Address) -> schema.AddressListEntryT:
    built = schema.AddressListEntryT()
    built.id = address.id
    built.memId = address.mem_id
    built.offset = address.offset
    built.size = address.size
    return built


def _event(event: records.Event) -> schema.EventListEntryT:
    built = schema.EventListEntryT()
    built.id = event.id
    built.type = event.type
    built.target = event.target
    built.val = event.value
    built.op = event.operation
    return built


def _tensor(tensor: records.TensorDescriptor) -> schema.TensorDescListEntryT:
    built = schema.TensorDescListEntryT()
    built.name = tensor.name
    built.id = tensor.id
    built.memId = tensor.mem_id
    built.size = tensor.size
    built.offset = tensor.offset
    built.dataFormat = tensor.data_format
    built.dataType = tensor.data_type
    built.dataCategory = tensor.data_category
    built.pixelFormat = tensor.pixel_format
    built.pixelMapping = tensor.pixel_mapping
    built.n, built.c, built.h, built.w = tensor.n, tensor.c, tensor.h, tensor.w
    for i, stride in enumerate(tensor.strides):
        setattr(built, f"stride{i}", stride)
    return built


def _relocation(relocation: records.Relocation) -> schema.RelocListEntryT:
    built = schema.RelocListEntryT()
    built.addressId = relocation.address_id
    built.writeId = relocation.write_id
    built.offset = relocation.offset
    built.interface = relocation.interface
    built.subInterface = relocation.sub_interface
    built.relocType = relocation.type
    return built


def _submit(submit: records.Submit) -> schema.SubmitListEntryT:
    built = schema.SubmitListEntryT()
    built.id = submit.id
    built.taskId = list(submit.task_ids)
    return built


def serialize_loadable(loadable: records.Loadable) -> bytes:
    """Return the bytes of the `.nvdla` file for `loadable`."""
    built = schema.LoadableT()
    built.version = _version(loadable.version)
    built.taskList = [_task(task) for task in loadable.tasks]
    built.memoryList = [_memory(memory) for memory in loadable.memories]
    built.addressList = [_address(address) for address in loadable.addresses]
    built.eventList = [_event(event) for event in loadable.events]
    # NVIDIA's runtime looks blobs up by name; its compiler stores them sorted.
    built.blobs = [_blob(blob) for blob in sorted(loadable.blobs, key=lambda blob: blob.name)]
    built.tensorDescList = [_tensor(tensor) for tensor in loadable.tensors]
    built.relocList = [_relocation(relocation) for relocation in loadable.relocations]
    built.submitList = [_submit(submit) for submit in loadable.submits]
    size = sum(len(blob.data) for blob in loadable.blobs)
    builder = flatbuffers.Builder(size + (1 << 16))
    builder.Finish(built.Pack(builder))
    return bytes(builder.Output())
