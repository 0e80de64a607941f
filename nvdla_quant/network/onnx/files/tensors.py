"""Tensors of an ONNX file: they hold what they claim to, and external ones lie within the model's folder."""

import os
import stat
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnx import ModelProto, TensorProto

from nvdla_quant.errors import NetworkError, UnsupportedError

MOST_BYTES = 2**31 - 1
"""Of a file, and of all external data: what a protobuf message can have, and more than NVDLA can address."""

_BITS = {
    TensorProto.FLOAT: 32,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.BFLOAT16: 16,
}
"""Bits of one value, of the types that are read."""
_FIELDS = {
    "float_data": {TensorProto.FLOAT},
    "int32_data": {
        *(TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16, TensorProto.INT32),
        *(TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.BFLOAT16),
    },
    "int64_data": {TensorProto.INT64},
    "double_data": {TensorProto.DOUBLE},
    "uint64_data": {TensorProto.UINT32, TensorProto.UINT64},
}
"""Where values stand that are not in `raw_data`, by type (TensorProto of the ONNX specification)."""


@dataclass
class Folder:
    """The folder of a model, and what was read of it.

    Attributes
    ----------
    path : Path
        The folder.
    read : list[Path]
        Files with external data that were read, each once.
    bytes : int
        Read of them so far.
    """

    path: Path
    read: list[Path] = field(default_factory=list)
    bytes: int = 0


def value_names(model: ModelProto) -> frozenset[str]:
    """Names of all tensors of a model's graph: inputs, weights and what nodes write."""
    graph = model.graph
    written = (name for node in graph.node for name in node.output if name)
    return frozenset((*(value.name for value in (*graph.input, *graph.initializer)), *written))


def check_tensor(where: str, tensor: TensorProto) -> None:
    """Check that a tensor is of a type that is read and that it holds as many values as its shape says.

    Raises
    ------
    NetworkError
        Its shape and its values disagree.
    UnsupportedError
        Its type is not read.
    """
    if tensor.data_type not in _BITS:
        raise UnsupportedError(f"{where} is of type {_type_name(tensor)}, expected numbers of 8 bits or more")
    if tensor.HasField("segment"):
        raise UnsupportedError(f"{where} is cut into segments; store it whole")
    dims = tuple(tensor.dims)
    if min(dims, default=1) < 0:
        raise NetworkError(f"{where} has the shape {dims}, expected sizes of 0 or more")
    if size_of(tensor) > MOST_BYTES:
        raise NetworkError(f"{where} claims the shape {dims}, {size_of(tensor)} bytes, expected at most {MOST_BYTES}")
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    if tensor.HasField("raw_data"):
        held, expected, unit = len(tensor.raw_data), size_of(tensor), "bytes"
    else:
        name = next(name for name, types in _FIELDS.items() if tensor.data_type in types)
        held, expected, unit = len(getattr(tensor, name)), prod(dims), "values"
    if held != expected:
        raise NetworkError(
            f"{where} claims the shape {dims}, {expected} {unit}, and holds {held}; the file is damaged, or its "
            "weights were taken out: export it again"
        )


def size_of(tensor: TensorProto) -> int:
    """Return the bytes that a tensor of this shape and type has."""
    bits: int = prod(tensor.dims) * _BITS[tensor.data_type]
    return bits // 8


def _type_name(tensor: TensorProto) -> str:
    if tensor.data_type in TensorProto.DataType.values():
        return str(TensorProto.DataType.Name(tensor.data_type))
    return str(tensor.data_type)


def read_external(where: str, tensor: TensorProto, folder: Folder) -> None:
    """Bring what a tensor stores in another file into the tensor itself.

    The place is checked here, before onnx sees it: it is a file below the model's own folder, by its name and by
    where links lead, and holds as much as the tensor's shape says.

    Raises
    ------
    NetworkError
        It lies elsewhere, cannot be read, or holds less.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        return
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path = _place(where, location, folder.path)
    offset, length = (_number(where, key, entries.get(key)) for key in ("offset", "length"))
    expected = size_of(tensor)
    if length not in (None, expected):
        raise NetworkError(
            f"{where} has {length} bytes of external data, expected {expected} for the shape {tuple(tensor.dims)}"
        )
    folder.bytes += expected
    if folder.bytes > MOST_BYTES:
        raise UnsupportedError(f"external data of more than {MOST_BYTES} bytes; nothing of that size runs on NVDLA")
    content = _read(where, path, offset or 0, expected)
    if path not in folder.read:
        folder.read.append(path)
    tensor.raw_data = content
    del tensor.external_data[:]
    tensor.ClearField("data_location")


def _place(where: str, location: str, folder: Path) -> Path:
    """Return the file of external data, checked."""
    parts = PurePosixPath(location).parts
    windows = PureWindowsPath(location)
    if not location or not location.isprintable() or windows.drive or windows.root or ".." in (*parts, *windows.parts):
        raise NetworkError(
            f"{where} has its data in {location!r}, expected a file in the model's own folder, named relative to it; "
            "save the model again with external data beside it"
        )
    path = folder / location
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # Links in a circle, for one.
        raise NetworkError(f"{where} has its data in {location!r}, which cannot be found: {error}") from error
    if not inside:
        raise NetworkError(
            f"{where} has its data in {location!r}, a link that leads out of the model's folder; copy the file there"
        )
    return path


def _number(where: str, key: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise NetworkError(f"{where}: {key} of its external data is {text[:40]!r}, expected a number of bytes")
    return int(text)


def _read(where: str, path: Path, offset: int, length: int) -> bytes:
    """Return a piece of a regular file; opening waits for nothing."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise NetworkError(
            f"{where} has its data in {path.name!r} beside the model, which cannot be read "
            f"({getattr(error, 'strerror', None) or error}); keep the files of the export together"
        ) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise NetworkError(f"{where} has its data in {path.name!r}, which is no regular file")
        if offset + length > status.st_size:
            raise NetworkError(
                f"{where} has its data in {path.name!r}, bytes {offset} to {offset + length}, and the file has "
                f"{status.st_size}; the file is cut off or of another model"
            )
        with os.fdopen(handle, "rb", closefd=False) as file:
            file.seek(offset)
            return file.read(length)
    finally:
        os.close(handle)
