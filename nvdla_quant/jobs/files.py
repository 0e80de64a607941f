"""Writing files whole or not at all, and the same bytes for the same content."""

import json
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nvdla_quant.errors import DumpError

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Earliest time that a zip entry can hold: archives must not depend on when they were written."""


@contextmanager
def atomic_path(path: Path | str, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it onto `path` on success, remove it on failure.

    The temporary file exists and is empty, keeps the suffix of `path` (writers that choose a format by suffix work),
    and ends with the permissions that a plain ``open`` would have given. Readers see the old file or the whole new one.

    Parameters
    ----------
    path : Path or str
        Where the file goes; its folder is created where it is missing.
    sync : bool
        Force the content to the disk before the move; for files that must survive a power failure.

    Raises
    ------
    OSError
        The folder cannot be written, or the file cannot be moved; `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem[:32]}.", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _umask() -> int:
    """Return the process's umask; the only portable way to read it is to set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write `content` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` atomically as UTF-8 with the line ends as they are in `text`."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, content: object, *, sort_keys: bool = False) -> None:
    """Write `content` atomically as indented UTF-8 JSON with a final newline.

    Floats are written as ``repr`` and read back exactly; NaN and infinities, which JSON lacks, are a `ValueError`.

    Parameters
    ----------
    path : Path or str
        Where the file goes.
    content : object
        What `json` can write.
    sort_keys : bool
        Sort the keys of objects; else they keep the order given.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, sort_keys=sort_keys) + "\n")


def format_records(records: Iterable[Any], kind: type[Any]) -> str:
    """Return records of one `kind`, a dataclass, as tab-separated lines under a line of their fields' names.

    Floats read back exactly; what separates cells and lines becomes a blank.
    """
    rows = [[field.name for field in fields(kind)]]
    rows += [[_cell(value) for value in astuple(record)] for record in records]
    return "".join("\t".join(row) + "\n" for row in rows)


def _cell(value: object) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    return " ".join(text.splitlines()).replace("\t", " ")


def write_npz(path: Path | str, arrays: Mapping[str, ArrayLike], *, compress: bool = True) -> None:
    """Write `arrays` atomically as an ``.npz``; equal arrays in equal order give equal bytes.

    ``numpy.savez`` stamps each entry with the time of writing; this does not.

    Parameters
    ----------
    path : Path or str
        Where the file goes.
    arrays : Mapping[str, ArrayLike]
        Arrays by name, written in C order. Arrays of Python objects are a `ValueError`.
    compress : bool
        Deflate the entries; the bytes then also depend on the version of zlib.
    """
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", method) as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH)
            entry.compress_type = method
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            # force_zip64: the size is unknown when the entry is opened, and it may pass 2 GiB.
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(values, order="C"), version=(1, 0), allow_pickle=False)


def read_npz(*paths: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of one or several ``.npz`` files; those of several are joined along the first axis, by name.

    Raises
    ------
    DumpError
        A file is missing or damaged, or the files hold arrays of other names or shapes.
    """
    parts: list[dict[str, NDArray[Any]]] = []
    for path in paths:
        try:
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise DumpError(f"{path}: one array as .npy, expected an archive of arrays, .npz")
            with loaded as archive:
                parts.append({name: archive[name] for name in archive.files})
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise DumpError(f"{path}: not a readable npz file ({error}); remove it and run again") from error
        if parts[-1].keys() != parts[0].keys():
            raise DumpError(f"{path}: holds {', '.join(parts[-1])}, but {paths[0]} holds {', '.join(parts[0])}")
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except ValueError as error:
        raise DumpError(f"{', '.join(map(str, paths))}: arrays that do not fit together ({error})") from error


def folder_of_one(place: Path, folder: Path) -> Path:
    """Return `folder`, which has a link to `place` under its name; made where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / place.name
    if link.resolve() != place.resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(place.resolve(), target_is_directory=True)
    return folder


def file_names(names: Sequence[str]) -> list[str]:
    """Return names as they can be called as files, each once.

    Other characters than letters, digits, ``.``, ``_`` and ``-`` become ``_``, and so does a point in front; what is
    then called as one before (capitals count for nothing, as on some file systems) gets ``-`` and its number behind it.
    """
    found: dict[str, None] = {}
    for number, name in enumerate(names):
        plain = re.sub(r"^\.|[^A-Za-z0-9._-]", "_", name, flags=re.ASCII) or "_"
        while plain.casefold() in map(str.casefold, found):
            plain = f"{plain}-{number}"
        found[plain] = None
    return list(found)
