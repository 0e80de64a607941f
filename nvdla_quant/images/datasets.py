"""Image sets in the forms they are published in, behind one small interface.

======== ==================================================================================================
format   what it is
======== ==================================================================================================
idx      MNIST's IDX: one file of gray images (n, height, width), one of labels (n,); plain, gzip or xz
cifar10  CIFAR-10's binary version: records of one label byte and 32 x 32 pixels as red, green, blue planes
folder   a folder of image files and a list with ``relative/path label`` on each line
npz      NumPy archive: `images` uint8 (n, height, width) or (n, height, width, 1 or 3), `labels` integers (n,)
======== ==================================================================================================

Images that only calibrate need no labels: IDX without the second file, a folder with a list of ``relative/path`` lines
or with none (all its images), an archive without the array.

Files that hold many images are read whole; of a folder only the images asked for are decoded.
"""

import gzip
import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import ConfigError, DatasetError
from nvdla_quant.images.decoding import Pixels, read_image
from nvdla_quant.images.lists import (
    Labels,
    existing,
    images_below,
    read_file,
    read_label_list,
    read_name_list,
    read_text,
    require_file,
)

CIFAR_SIZE = 32
CIFAR_CLASSES = 10


@dataclass(frozen=True)
class IdxRecord:
    """Where an IDX data set lies."""

    images: Path
    labels: Path | None = None
    label_names: Path | None = None


@dataclass(frozen=True)
class CifarRecord:
    """Where the files of CIFAR-10's binary version lie; they follow one another."""

    files: tuple[Path, ...]
    label_names: Path | None = None


@dataclass(frozen=True)
class FolderRecord:
    """Where image files lie: names in the list `labels`, or `list` without labels, are relative to the folder `images`.

    With neither, all images in it and below it are meant.
    """

    images: Path
    labels: Path | None = None
    label_names: Path | None = None
    list: Path | None = None

    def __post_init__(self) -> None:
        """Refuse two lists."""
        if self.labels is not None and self.list is not None:
            raise ConfigError(
                "data set: format folder has the keys labels and list; keep labels (lines 'path label') or list (lines "
                "'path', for calibration)"
            )


@dataclass(frozen=True)
class NpzRecord:
    """Where a NumPy archive lies."""

    path: Path
    label_names: Path | None = None


DatasetRecord = IdxRecord | CifarRecord | FolderRecord | NpzRecord
FORMATS: Mapping[str, type[DatasetRecord]] = {
    "idx": IdxRecord,
    "cifar10": CifarRecord,
    "folder": FolderRecord,
    "npz": NpzRecord,
}


def dataset_record(config: Mapping[str, Any]) -> DatasetRecord:
    """Record of a configuration entry such as ``{format: idx, images: PATH, labels: PATH}``.

    Raises
    ------
    ConfigError
        The format is unknown, a key is missing, or a key does not belong to the format.
    """
    given = dict(config)
    kind = given.pop("format", None)
    if kind not in FORMATS:
        raise ConfigError(f"data set: format {kind!r} is unknown, expected one of {', '.join(FORMATS)}")
    keys = {item.name: item.default is MISSING for item in fields(FORMATS[kind])}
    if missing := [key for key, required in keys.items() if required and given.get(key) is None]:
        raise ConfigError(f"data set: format {kind} needs the key {', '.join(missing)}")
    if unknown := sorted(given.keys() - keys):
        raise ConfigError(f"data set: format {kind} has no key {', '.join(unknown)}, only {', '.join(keys)}")
    paths: dict[str, Any] = {
        key: tuple(Path(item) for item in value) if key == "files" else Path(value)
        for key, value in given.items()
        if value is not None
    }
    return FORMATS[kind](**paths)


@dataclass(frozen=True)
class SourceFile:
    """A file that images or labels were read from; `key` is the configuration key that names it."""

    key: str
    name: str
    path: Path

    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images, with or without labels, read when asked for.

    Attributes
    ----------
    source : str
        Where they come from, for messages.
    labels : NDArray[np.int64] or None
        Class of each image, (n,), 0 or above; None where images have no labels.
    names : tuple[str, ...]
        Name of each image: its file relative to the folder, else its index.
    label_names : tuple[str, ...] or None
        Name of each class, where a file of names is given.
    """

    source: str
    labels: Labels | None
    names: tuple[str, ...]
    label_names: tuple[str, ...] | None
    _read: Callable[[int], Pixels] = field(repr=False)
    _shared_files: tuple[SourceFile, ...] = field(repr=False)
    _image_files: Callable[[int], SourceFile] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def load(self, indices: Sequence[int] | Labels) -> list[Pixels]:
        """Read the images at `indices`, in that order; each is uint8 (height, width, 1 or 3), colours as RGB.

        Raises
        ------
        DatasetError
            An index is outside the data set, or a file is missing or no image.
        """
        for index in indices:
            if not 0 <= index < len(self):
                raise DatasetError(f"{self.source}: image {index} asked for, there are {len(self)}")
        return [self._read(int(index)) for index in indices]

    def files(self, indices: Sequence[int] | Labels) -> tuple[SourceFile, ...]:
        """Every file that the labels and the images at `indices` come from."""
        if self._image_files is None:
            return self._shared_files
        return self._shared_files + tuple(self._image_files(int(index)) for index in indices)

    def check_labels(self, classes: int) -> None:
        """Raise a `DatasetError` where there are no labels, or one is not one of a network's `classes` outputs."""
        if self.labels is None:
            raise DatasetError(
                f"{self.source}: {len(self)} images without labels as test images; top-1 and top-5 need the label of "
                "each: a list of 'path label' lines (format folder) or the label file (idx) under the key labels, an "
                "array labels (npz). Without labels they can be the calibration_source"
            )
        if len(self) and (worst := int(self.labels.argmax())) >= 0 and self.labels[worst] >= classes:
            raise DatasetError(
                f"{self.source}: image {self.names[worst]} has label {self.labels[worst]}, but the network has "
                f"{classes} outputs (labels 0 to {classes - 1}); is this the data set the network was trained for?"
            )


def open_dataset(record: DatasetRecord) -> Dataset:
    """Open a data set and check that its parts fit together.

    Raises
    ------
    DatasetError
        A file is missing (the message names the configuration key), malformed or truncated; images and labels differ
        in number; a label is negative or has no name in `label_names`.
    """
    match record:
        case IdxRecord():
            dataset = _open_idx(record)
        case CifarRecord():
            dataset = _open_cifar(record)
        case FolderRecord():
            dataset = _open_folder(record)
        case NpzRecord():
            dataset = _open_npz(record)
    labels, names = dataset.labels, dataset.label_names
    if names is not None and labels is not None and len(dataset) and labels.max() >= len(names):
        worst = int(labels.argmax())
        raise DatasetError(
            f"{dataset.source}: image {dataset.names[worst]} has label {labels[worst]}, but "
            f"{record.label_names} (key label_names) names only {len(names)} classes"
        )
    return dataset


_PACKED = ((b"\x1f\x8b", "gzip", gzip.decompress), (b"\xfd7zXZ\0", "xz", lzma.decompress))
"""First bytes of packed files (RFC 1952; the .xz format's section 2.1.1.1), and how they are unpacked."""


def read_idx(path: Path, key: str, axes: Literal[1, 3]) -> NDArray[np.uint8]:
    """Array of unsigned bytes in an IDX file, plain, gzip or xz (told apart by content, not by suffix).

    The format is MNIST's: two zero bytes, the element type (8: unsigned byte), the number of axes, each axis as a
    big-endian 32-bit number, the elements with the last axis fastest.

    Parameters
    ----------
    path : Path
        File to read.
    key : str
        Configuration key that named it, for messages.
    axes : int
        3 for images, 1 for labels.
    """
    content = read_file(path, key)
    for start, name, decompress in _PACKED:
        if content.startswith(start):
            try:
                content = decompress(content)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                raise DatasetError(f"{path} (key {key}): damaged {name} file: {error}; fetch it again") from error
    magic = bytes((0, 0, 8, axes))
    if content[:4] != magic:
        raise DatasetError(
            f"{path} (key {key}): begins with {content[:4].hex(' ')}, expected {magic.hex(' ')} (IDX, unsigned bytes, "
            f"{axes} axes); are images and labels swapped?"
        )
    header = 4 + 4 * axes
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], ">u4")) if len(content) >= header else ()
    expected = header + int(np.prod(shape, dtype=object))
    if not shape or len(content) != expected:
        raise DatasetError(
            f"{path} (key {key}): {len(content)} bytes, expected {expected} for axes {shape}; fetch the file again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _open_idx(record: IdxRecord) -> Dataset:
    images = read_idx(record.images, "images", 3)
    labels = None if record.labels is None else read_idx(record.labels, "labels", 1)
    files = (_source("images", record.images), *(() if record.labels is None else (_source("labels", record.labels),)))
    return _in_memory(str(record.images), images[..., np.newaxis], labels, record, files)


def _open_cifar(record: CifarRecord) -> Dataset:
    """Open records of 1 + 3 * 32 * 32 bytes, as CIFAR-10's page describes its binary version."""
    size = 1 + 3 * CIFAR_SIZE**2
    parts = []
    for path in record.files:
        content = np.frombuffer(read_file(path, "files"), np.uint8)
        if not len(content) or len(content) % size:
            raise DatasetError(f"{path} (key files): {len(content)} bytes, expected a multiple of {size}")
        parts.append(content.reshape(-1, size))
        if (largest := int(parts[-1][:, 0].max())) >= CIFAR_CLASSES:
            raise DatasetError(f"{path} (key files): a record begins with label {largest}, expected 0 to 9")
    if not parts:
        raise DatasetError("data set: the key files lists no file")
    records = np.concatenate(parts)
    images = records[:, 1:].reshape(-1, 3, CIFAR_SIZE, CIFAR_SIZE).transpose(0, 2, 3, 1)
    files = tuple(_source("files", path) for path in record.files)
    return _in_memory(str(record.files[0].parent), images, records[:, 0], record, files)


def _open_npz(record: NpzRecord) -> Dataset:
    path = record.path
    require_file(path, "path")
    if not zipfile.is_zipfile(path):
        raise DatasetError(f"{path} (key path): not an .npz archive; numpy.savez writes one")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "images" not in archive.files:
                raise DatasetError(f"{path} (key path): no array images; it has {archive.files}")
            images, labels = archive["images"], archive["labels"] if "labels" in archive.files else None
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{path} (key path): not a readable .npz of plain arrays: {error}") from error
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DatasetError(
            f"{path} (key path): images is {images.dtype} {images.shape}, expected uint8 (n, height, width) or "
            "(n, height, width, 1 or 3), channels last"
        )
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        raise DatasetError(f"{path} (key path): labels is {labels.dtype} {labels.shape}, expected integers (n,)")
    return _in_memory(str(path), images, labels, record, (_source("path", path),))


def _in_memory(
    source: str, images: Pixels, labels: NDArray[Any] | None, record: DatasetRecord, files: tuple[SourceFile, ...]
) -> Dataset:
    """Wrap `images` (n, height, width, channels) that are already in memory."""
    names = tuple(str(index) for index in range(len(images)))
    classes = None if labels is None else _checked(source, len(images), labels)
    return Dataset(source, classes, names, _read_names(record), images.__getitem__, files)


def _checked(source: str, images: int, labels: NDArray[Any]) -> Labels:
    """Return the labels of so many images; an error where there are more or fewer, or one is negative."""
    if images != len(labels):
        raise DatasetError(f"{source}: {images} images, but {len(labels)} labels; the files do not belong together")
    classes = labels.astype(np.int64)
    if len(classes) and classes.min() < 0:
        raise DatasetError(f"{source}: image {int(classes.argmin())} has label {classes.min()}, expected 0 or above")
    return classes


def _open_folder(record: FolderRecord) -> Dataset:
    folder = record.images
    if not folder.is_dir():
        raise DatasetError(f"{folder} (key images): no such folder")
    names, labels, shared = _listed(record)

    def image_file(index: int) -> SourceFile:
        return SourceFile("images", names[index], folder / names[index])

    def read(index: int) -> Pixels:
        return read_image(folder / names[index])

    return Dataset(str(folder), labels, names, _read_names(record), read, shared, image_file)


def _listed(record: FolderRecord) -> tuple[tuple[str, ...], Labels | None, tuple[SourceFile, ...]]:
    """Names of a folder's images, their labels, and the file that says so, where there are any."""
    if record.labels is not None:
        listed, labels = read_label_list(record.labels)
        return existing(record.images, listed, record.labels, "labels"), labels, (_source("labels", record.labels),)
    if record.list is not None:
        names = existing(record.images, read_name_list(record.list), record.list, "list")
        return names, None, (_source("list", record.list),)
    return images_below(record.images), None, ()


def _read_names(record: DatasetRecord) -> tuple[str, ...] | None:
    """Names of the classes, one a line."""
    if record.label_names is None:
        return None
    return tuple(line.strip() for line in read_text(record.label_names, "label_names").splitlines() if line.strip())


def _source(key: str, path: Path) -> SourceFile:
    return SourceFile(key, path.name, path)
