"""Which images a folder holds: by a list with labels, by one without, or all of them."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import DatasetError
from nvdla_quant.images.decoding import SUFFIXES

Labels = NDArray[np.int64]


def read_label_list(path: Path) -> tuple[tuple[str, ...], Labels]:
    """Names and labels of a list with ``relative/path label`` on each line; blank lines do not count."""
    labels: dict[str, int] = {}
    for number, line in _lines(path, "labels"):
        match = re.fullmatch(r"(.*\S)\s+([0-9]{1,9})", line.strip())
        if match is None:
            raise DatasetError(
                f"{path} (key labels), line {number}: {line!r}, expected 'relative/path label'; a list without labels, "
                "for calibration, goes under the key list"
            )
        name, label = match.groups()
        _check_name(name, labels, f"{path} (key labels), line {number}")
        labels[name] = int(label)
    return tuple(labels), np.array(list(labels.values()), np.int64)


def read_name_list(path: Path) -> tuple[str, ...]:
    """Names of a list with ``relative/path`` on each line, which is the whole line; blank lines do not count."""
    names: dict[str, None] = {}
    for number, line in _lines(path, "list"):
        name = line.strip()
        _check_name(name, names, f"{path} (key list), line {number}")
        names[name] = None
    if not names:
        raise DatasetError(f"{path} (key list): lists no image, expected 'relative/path' on each line")
    return tuple(names)


def images_below(folder: Path) -> tuple[str, ...]:
    """Names of all images in a folder and below it, in the order of their names' code points on every machine.

    An image is what ends in one of `SUFFIXES`; files and folders whose names begin with a point are hidden, and none.

    Raises
    ------
    DatasetError
        There is none.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = (name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in images]
    if not found:
        raise DatasetError(
            f"{folder} (key images): no image in it or below it, expected files that end in {', '.join(SUFFIXES)}; "
            "other names need a list (key labels or list)"
        )
    return tuple(sorted(found))


def existing(folder: Path, listed: Sequence[str], source: Path, key: str) -> tuple[str, ...]:
    """Names of the files of a list below `folder`, all of which must be there.

    A backslash separates folders where there is no file of that name, as in lists that were written on Windows. Each
    folder is looked through once, which also for 50,000 images takes a fraction of a second.
    """
    contents: dict[Path, frozenset[str]] = {}

    def exists(name: str) -> bool:
        path = folder / name
        if path.parent not in contents:
            found = os.listdir(path.parent) if path.parent.is_dir() else ()
            contents[path.parent] = frozenset(found)
        return path.name in contents[path.parent] or path.exists()  # Where case means nothing, names may differ in it.

    names = []
    missing = []
    for name in listed:
        forms = [name, name.replace("\\", "/")] if "\\" in name else [name]
        there = next((form for form in forms if exists(form)), None)
        names.append(there or name)
        if there is None:
            missing.append(name)
    if missing:
        tried = ", nor with / for each backslash" if "\\" in missing[0] else ""
        raise DatasetError(
            f"{folder / missing[0]}: listed in the {key}, but there is no such file{tried} ({len(missing)} of the "
            f"{len(listed)} images that {source} lists are missing below {folder}, key images)"
        )
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise DatasetError(f"{source} (key {key}): {twice} is listed twice, once with backslashes")
    return tuple(names)


def _lines(path: Path, key: str) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    return [(number, line) for number, line in enumerate(read_text(path, key).splitlines(), 1) if line.strip()]


def _check_name(name: str, before: Mapping[str, object], where: str) -> None:
    """Refuse a name that is no place below the folder, or is among those `before`."""
    if Path(name).is_absolute() or PureWindowsPath(name).is_absolute():
        raise DatasetError(f"{where}: {name} must be relative to the images' folder")
    if name in before:
        raise DatasetError(f"{where}: {name} is listed twice")


def require_file(path: Path, key: str) -> None:
    """Refuse a file that is not there."""
    if not path.is_file():
        raise DatasetError(f"{path} (key {key}): no such file")


def read_file(path: Path, key: str) -> bytes:
    """Content of a file, which the configuration's `key` names."""
    require_file(path, key)
    return path.read_bytes()


def read_text(path: Path, key: str) -> str:
    """Text of a file in UTF-8."""
    try:
        return read_file(path, key).decode("utf-8-sig")  # Editors on Windows put a byte order mark first.
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} (key {key}): not UTF-8 text: {error}") from error
