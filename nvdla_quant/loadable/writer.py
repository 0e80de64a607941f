"""Write a loadable: records to the flatbuffer, byte for byte the same for the same records."""

from dataclasses import fields
from typing import Any

import flatbuffers
import numpy as np

from nvdla_quant.loadable import records

SCHEMA_NAMES = {
    (records.Event, "value"): "val",
    (records.Event, "operation"): "op",
    (records.Submit, "task_ids"): "taskId",
    (records.Relocation, "type"): "relocType",
}
"""Fields that the schema calls otherwise; all others differ only in the case of their words."""


def _built(kind: type, record: Any) -> Any:
    """Return the flatbuffers object of type `kind` with the fields of `record`."""
    built = kind()
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name == "strides":
            for i, stride in enumerate(value):
                setattr(built, f"stride{i}", stride)
        elif field.name == "version":
            built.version = _version(value)
        elif field.name == "data":
            built.data, built.size = np.frombuffer(value, np.uint8), len(value)
        else:
            name = SCHEMA_NAMES.get((type(record), field.name), _camel_case(field.name))
            setattr(built, name, list(value) if isinstance(value, tuple) else value)
    return built


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _version(version: tuple[int, int, int]) -> Any:
    from nvdla_quant.loadable.schema_generated import VersionT

    built = VersionT()
    built.major, built.minor, built.subMinor = version
    return built


def serialize_loadable(loadable: records.Loadable) -> bytes:
    """Return the bytes of the `.nvdla` file for `loadable`."""
    from nvdla_quant.loadable import schema_generated as schema  # Here: it is slow to import.

    built = schema.LoadableT()
    built.version = _version(loadable.version)
    built.taskList = [_built(schema.TaskListEntryT, task) for task in loadable.tasks]
    built.memoryList = [_built(schema.MemoryListEntryT, memory) for memory in loadable.memories]
    built.addressList = [_built(schema.AddressListEntryT, address) for address in loadable.addresses]
    built.eventList = [_built(schema.EventListEntryT, event) for event in loadable.events]
    # NVIDIA's runtime looks blobs up by name; its compiler stores them sorted.
    built.blobs = [_built(schema.BlobT, blob) for blob in sorted(loadable.blobs, key=lambda blob: blob.name)]
    built.tensorDescList = [_built(schema.TensorDescListEntryT, tensor) for tensor in loadable.tensors]
    built.relocList = [_built(schema.RelocListEntryT, relocation) for relocation in loadable.relocations]
    built.submitList = [_built(schema.SubmitListEntryT, submit) for submit in loadable.submits]
    size = sum(len(blob.data) for blob in loadable.blobs)
    builder = flatbuffers.Builder(size + (1 << 16))
    builder.Finish(built.Pack(builder))
    return bytes(builder.Output())
