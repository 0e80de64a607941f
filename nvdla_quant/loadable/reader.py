"""Read a loadable. The file is untrusted: whatever it holds ends in records or in a `LoadableError`."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from nvdla_quant.errors import LoadableError
from nvdla_quant.loadable import records

_Record = TypeVar("_Record")


class _Budget:
    """Counts elements read: entries that point at shared data must not amplify a small file into a large one."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def take(self, count: int, what: str) -> int:
        self.left -= count
        if self.left < 0:
            raise LoadableError(f"loadable: {what} claims {count} elements, more than the file can hold")
        return count


def _scalars(entry: Any, field: str, budget: _Budget) -> tuple[int, ...]:
    length = budget.take(getattr(entry, field + "Length")(), field)
    get = getattr(entry, field)
    return tuple(get(i) for i in range(length))


def _text(value: bytes | None, what: str) -> str:
    if value is None:
        raise LoadableError(f"loadable: {what} has no name")
    return value.decode("utf-8")


def _version(version: Any) -> tuple[int, int, int]:
    return (version.Major(), version.Minor(), version.SubMinor()) if version is not None else (0, 0, 0)


def _blob(entry: Any, budget: _Budget) -> records.Blob:
    name = _text(entry.Name(), "a blob")
    budget.take(entry.DataLength(), f"blob {name}")
    data = b"" if entry.DataIsNone() else entry.DataAsNumpy().tobytes()
    if entry.Size() != len(data):
        raise LoadableError(f"loadable: blob {name}: size says {entry.Size()} bytes, the data has {len(data)}")
    return records.Blob(name, entry.Interface(), entry.SubInterface(), _version(entry.Version()), data)


def _memory(entry: Any, budget: _Budget) -> records.Memory:
    contents = tuple(
        _text(entry.Contents(i), "a memory's content")
        for i in range(budget.take(entry.ContentsLength(), "memory contents"))
    )
    return records.Memory(
        id=entry.Id(),
        domain=entry.Domain(),
        flags=entry.Flags(),
        size=entry.Size(),
        alignment=entry.Alignment(),
        contents=contents,
        offsets=_scalars(entry, "Offsets", budget),
        bind_id=entry.BindId(),
        tensor_desc_id=entry.TensorDescId(),
    )


def _task(entry: Any, budget: _Budget) -> records.Task:
    return records.Task(
        id=entry.Id(),
        interface=entry.Interface(),
        instance=entry.Instance(),
        address_list=_scalars(entry, "AddressList", budget),
        pre_actions=_scalars(entry, "PreActions", budget),
        post_actions=_scalars(entry, "PostActions", budget),
    )


def _tensor(entry: Any, budget: _Budget) -> records.TensorDescriptor:
    return records.TensorDescriptor(
        name=_text(entry.Name(), "a tensor"),
        id=entry.Id(),
        mem_id=entry.MemId(),
        size=entry.Size(),
        offset=entry.Offset(),
        data_format=entry.DataFormat(),
        data_type=entry.DataType(),
        data_category=entry.DataCategory(),
        pixel_format=entry.PixelFormat(),
        pixel_mapping=entry.PixelMapping(),
        n=entry.N(),
        c=entry.C(),
        h=entry.H(),
        w=entry.W(),
        strides=tuple(getattr(entry, f"Stride{i}")() for i in range(8)),
    )


def _address(entry: Any, _: _Budget) -> records.Address:
    return records.Address(entry.Id(), entry.MemId(), entry.Offset(), entry.Size())


def _event(entry: Any, _: _Budget) -> records.Event:
    return records.Event(entry.Id(), entry.Type(), entry.Target(), entry.Val(), entry.Op())


def _submit(entry: Any, budget: _Budget) -> records.Submit:
    return records.Submit(entry.Id(), _scalars(entry, "TaskId", budget))


def _relocation(entry: Any, _: _Budget) -> records.Relocation:
    return records.Relocation(
        entry.AddressId(),
        entry.WriteId(),
        entry.Offset(),
        entry.Interface(),
        entry.SubInterface(),
        entry.RelocType(),
    )


def parse_loadable(data: bytes) -> records.Loadable:
    """Parse a loadable.

    Parameters
    ----------
    data : bytes
        The whole file.

    Raises
    ------
    LoadableError
        Not a loadable, of another version, truncated, or with two entries of one name or id.
    """
    from nvdla_quant.loadable import schema_generated as schema  # Here: it is slow to import.

    def table(root: Any, field: str, convert: Callable[[Any, _Budget], _Record]) -> tuple[_Record, ...]:
        length = budget.take(getattr(root, field + "Length")(), field)
        get = getattr(root, field)
        return tuple(convert(get(i), budget) for i in range(length))

    if len(data) < 8:
        raise LoadableError(f"loadable: {len(data)} bytes are too few for a flatbuffer")
    budget = _Budget(len(data))
    try:
        root = schema.Loadable.GetRootAs(data, 0)
        version = _version(root.Version())
        if version != records.LOADABLE_VERSION:
            found, expected = (".".join(map(str, v)) for v in (version, records.LOADABLE_VERSION))
            raise LoadableError(f"loadable: version {found}, expected {expected}; is this a .nvdla file?")
        loadable = records.Loadable(
            version=version,
            tasks=table(root, "TaskList", _task),
            memories=table(root, "MemoryList", _memory),
            addresses=table(root, "AddressList", _address),
            events=table(root, "EventList", _event),
            blobs=table(root, "Blobs", _blob),
            tensors=table(root, "TensorDescList", _tensor),
            relocations=table(root, "RelocList", _relocation),
            submits=table(root, "SubmitList", _submit),
        )
    except (struct.error, IndexError, TypeError, ValueError, OverflowError) as error:
        # flatbuffers' Python runtime has no verifier: offsets that leave the buffer surface as one of these.
        raise LoadableError(f"loadable: malformed flatbuffer ({error})") from error
    _check_unique("blob", [blob.name for blob in loadable.blobs])
    _check_unique("memory id", [memory.id for memory in loadable.memories])
    _check_unique("address id", [address.id for address in loadable.addresses])
    _check_unique("task id", [task.id for task in loadable.tasks])
    _check_unique("tensor id", [tensor.id for tensor in loadable.tensors])
    return loadable


def _check_unique(what: str, values: list[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise LoadableError(f"loadable: {what} {value!r} stands twice")
        seen.add(value)


def read_loadable(path: Path) -> records.Loadable:
    """Read the loadable at `path`; errors name the file. See `parse_loadable`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LoadableError(f"{path}: cannot read the loadable: {error.strerror}") from error
    try:
        return parse_loadable(data)
    except LoadableError as error:
        raise LoadableError(f"{path}: {error}") from error
