"""Raw dumps: the ``output.dimg`` that `nvdla_runtime` writes for one image, as text (``--rawdump``) and as binary.

Text: the elements in channel, row, column order, each followed by one space; no newline. Integers are signed decimal,
fp16 is what a C++ stream prints by default (6 significant digits, C's ``%g``). Binary: ``DIMG``, a version, seven words
of metadata, then the same elements, unpadded, little endian; ``size`` and the strides are those of the device's buffer.

Values are in the device's domain: integers are quantized, and a dump holds no scale. In both forms the runtime replaces
two fp16 values, see `as_dumped`.

Source: nvdla/sw ``umd/apps/runtime/DlaImage.{h,cpp}``, ``TestUtils.cpp`` (Tensor2DIMG: which formats occur).
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nvdla_quant.errors import DumpError
from nvdla_quant.jobs.files import file_names, write_bytes

_MAGIC = b"DIMG"
_VERSION = 0
_HEADER = struct.Struct("<4sI7I")
"""Magic, version, surface format, width, height, channels, line stride, surface stride, device size."""


@dataclass(frozen=True)
class _SurfaceFormat:
    """One of the four formats that an output can have."""

    code: int
    dtype: np.dtype[Any]
    atom_channels: int


_FORMATS = (
    _SurfaceFormat(code=40, dtype=np.dtype("<i1"), atom_channels=32),
    _SurfaceFormat(code=41, dtype=np.dtype("<i1"), atom_channels=8),
    _SurfaceFormat(code=42, dtype=np.dtype("<i2"), atom_channels=16),
    _SurfaceFormat(code=43, dtype=np.dtype("<f2"), atom_channels=16),
)

_INTEGER = re.compile(rb"-?[0-9]{1,5}")
_FLOAT = re.compile(rb"-?(?:inf|[0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]{2})?)")


def as_dumped(values: NDArray[Any]) -> NDArray[Any]:
    """Return `values` with the replacements that `nvdla_runtime` makes before it writes them.

    It means to unify NaNs and zeros, but assigns and compares numbers where it means bit patterns: NaN becomes
    31744.0 (0x7C00), 32768.0 (0x8000) becomes 0.0, and -0.0 stays. Other types than fp16 are unchanged. So a dumped
    31744 may be a NaN, and an arg max over it is not to be trusted.
    """
    if values.dtype != np.float16:
        return values
    return np.where(np.isnan(values), np.float16(31744), np.where(values == 32768, np.float16(0), values))


def write_dimg_text(path: Path | str, values: NDArray[Any]) -> None:
    """Write `values` as `nvdla_runtime --rawdump` does.

    Parameters
    ----------
    path : Path or str
        Where the file goes.
    values : ndarray
        ``[C, H, W]``, int8, int16 or float16.

    Raises
    ------
    DumpError
        Another type or number of dimensions.
    """
    _check_values(values)
    flat = as_dumped(values).ravel().tolist()
    form = "%g " if values.dtype == np.float16 else "%d "
    write_bytes(path, "".join([form % value for value in flat]).encode("ascii"))


def write_dimg_binary(path: Path | str, values: NDArray[Any], *, atom_bytes: int = 32) -> None:
    """Write `values` as `nvdla_runtime` does without ``--rawdump``.

    Parameters
    ----------
    path : Path or str
        Where the file goes.
    values : ndarray
        ``[C, H, W]``, int8, int16 or float16.
    atom_bytes : int
        Bytes of a feature atom, 32 or 8 (`nv_small`); 2-byte types are always dumped in atoms of 16 channels. It sets
        the format and the strides in the header (device layout, no extra alignment), not the elements.

    Raises
    ------
    DumpError
        Another type, number of dimensions or atom.
    """
    _check_values(values)
    wanted = atom_bytes if values.itemsize == 1 else 16
    matches = [f for f in _FORMATS if f.dtype == values.dtype and f.atom_channels == wanted]
    if not matches:
        raise DumpError(
            f"{path}: no binary dump has atoms of {atom_bytes} bytes, expected 32 or 8; write text, which has none"
        )
    surface = matches[0]
    channels, height, width = values.shape
    line_stride = width * surface.atom_channels * values.itemsize
    surface_stride = height * line_stride
    size = -(-channels // surface.atom_channels) * surface_stride
    header = _HEADER.pack(_MAGIC, _VERSION, surface.code, width, height, channels, line_stride, surface_stride, size)
    write_bytes(path, header + as_dumped(values).astype(surface.dtype).tobytes())


def write_dumps(
    folder: Path, outputs: Mapping[str, NDArray[Any]], *, format: str, images: int, atom_bytes: int
) -> None:
    """Write one dump an image into `folder`: ``000000.dimg`` and so on; ``000000-NAME.dimg`` where outputs are several.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    outputs : Mapping[str, NDArray]
        By name, ``[N, C, H, W]``, int8 or float16, in the device's domain.
    format : {"text", "binary"}
        As nvdla_runtime writes with and without ``--rawdump``.
    images : int
        Of how many, from the first.
    atom_bytes : int
        Bytes of the target's feature atom, for the binary header.
    """
    ends = [""] if len(outputs) == 1 else [f"-{name}" for name in file_names(list(outputs))]
    for end, every in zip(ends, outputs.values(), strict=True):
        for number, values in enumerate(every[:images]):
            path = folder / f"{number:06d}{end}.dimg"
            if format == "text":
                write_dimg_text(path, values)
            else:
                write_dimg_binary(path, values, atom_bytes=atom_bytes)


def read_dimg(
    path: Path | str,
    *,
    shape: tuple[int, int, int] | None = None,
    dtype: DTypeLike | None = None,
    edited: bool = False,
) -> NDArray[Any]:
    """Read a raw dump, text or binary.

    Parameters
    ----------
    path : Path or str
        The dump.
    shape : tuple of int, optional
        Expected ``(C, H, W)``. The text form does not hold it: without it, text gives a vector.
    dtype : dtype, optional
        Expected type: int8, int16 or float16. The text form does not hold it: without it, text gives float64, which
        is exact for each of them as written.
    edited : bool
        Whether the blank that the runtime writes behind the last value may be missing, as editors remove it; without
        it nothing tells a text that was cut within its last value.

    Returns
    -------
    ndarray
        ``[C, H, W]`` of `dtype`, in the device's domain; a text of unknown shape or type as said above.

    Raises
    ------
    DumpError
        No such file, or it is truncated, holds anything else than values of `dtype`, or another number of them.
    """
    path = Path(path)
    expected = None if dtype is None else _known_dtype(path, np.dtype(dtype))
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DumpError(f"{path}: cannot read the raw dump ({reason}); look at the log of the run") from error
    if content.startswith(_MAGIC):
        return _parse_binary(path, content, shape, expected)
    return _parse_text(path, content, shape, expected, edited)


def _parse_binary(
    path: Path, content: bytes, shape: tuple[int, int, int] | None, dtype: np.dtype[Any] | None
) -> NDArray[Any]:
    """Parse the ``DIMG`` form; sizes are checked against the file before anything is read by them."""
    if len(content) < _HEADER.size:
        raise DumpError(f"{path}: truncated raw dump: {len(content)} bytes, the header alone has {_HEADER.size}")
    _, version, code, width, height, channels, *_ = _HEADER.unpack_from(content)
    if version != _VERSION:
        raise DumpError(f"{path}: raw dump of version {version}, expected {_VERSION}")
    surface = next((f for f in _FORMATS if f.code == code), None)
    if surface is None:
        known = ", ".join(f"{f.code} ({f.dtype.name} x{f.atom_channels})" for f in _FORMATS)
        raise DumpError(f"{path}: raw dump of surface format {code}, expected one of {known}")
    if dtype is not None and dtype != surface.dtype:
        raise DumpError(f"{path}: raw dump holds {surface.dtype.name}, expected {dtype.name}")
    found = (channels, height, width)
    if shape is not None and found != tuple(shape):
        raise DumpError(f"{path}: raw dump has shape {found} (C, H, W), expected {tuple(shape)}")
    if 0 in found:
        raise DumpError(f"{path}: raw dump has the empty shape {found} (C, H, W)")
    payload = len(content) - _HEADER.size
    wanted = channels * height * width * surface.dtype.itemsize
    if payload != wanted:
        state = "truncated raw dump" if payload < wanted else "raw dump with extra bytes"
        raise DumpError(f"{path}: {state}: {payload} bytes of elements, expected {wanted} for {found} (C, H, W)")
    values = np.frombuffer(content, surface.dtype, offset=_HEADER.size)
    return values.reshape(found).astype(surface.dtype.newbyteorder("="))


def _parse_text(
    path: Path, content: bytes, shape: tuple[int, int, int] | None, dtype: np.dtype[Any] | None, edited: bool
) -> NDArray[Any]:
    """Parse the ``--rawdump`` form; any ASCII white space separates, since consoles add line ends."""
    tokens = content.split()
    if not tokens:
        raise DumpError(f"{path}: the raw dump is empty; look at the log of the run")
    is_integer = dtype is not None and dtype.kind == "i"
    pattern = _INTEGER if is_integer else _FLOAT
    for index, token in enumerate(tokens):
        if not pattern.fullmatch(token):
            raise DumpError(
                f"{path}: value {index} of the raw dump is {token[:40]!r}, expected "
                f"{'an integer' if is_integer else 'a number'} in decimal as nvdla_runtime prints it"
            )
    if not edited and not content[-1:].isspace():
        raise DumpError(f"{path}: truncated raw dump: no space after the last value {tokens[-1]!r}, it may be cut")
    if shape is not None and len(tokens) != np.prod(shape, dtype=np.int64):
        raise DumpError(
            f"{path}: raw dump has {len(tokens)} values, expected {np.prod(shape, dtype=np.int64)} for {tuple(shape)} "
            "(C, H, W); is it the dump of another loadable?"
        )
    exact = np.array([float(token) for token in tokens])
    if dtype is not None:
        limits = np.iinfo(dtype) if is_integer else np.finfo(dtype)
        outside = np.isfinite(exact) & ((exact < limits.min) | (exact > limits.max))
        if outside.any():
            index = int(np.argmax(outside))
            raise DumpError(
                f"{path}: value {index} of the raw dump is {tokens[index].decode()}, outside of {dtype.name}"
            )
        exact = exact.astype(dtype)
    return exact if shape is None else exact.reshape(shape)


def _known_dtype(path: Path | str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return `dtype` if a dump can hold it."""
    if dtype not in (np.int8, np.int16, np.float16):
        raise DumpError(f"{path}: a raw dump holds int8, int16 or float16, not {dtype.name}")
    return dtype


def _check_values(values: NDArray[Any]) -> None:
    """Refuse what the runtime could not have written."""
    _known_dtype("raw dump", values.dtype)
    if values.ndim != 3 or values.size == 0:
        raise DumpError(f"raw dump: got an array of shape {values.shape}, expected one image (C, H, W)")
