"""Sizes of what jobs read, from headers and structure alone: a plan asks for many, and loads none."""

import gzip
import json
import lzma
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from nvdla_quant.errors import NvdlaQuantError
from nvdla_quant.network.graph import Learned, Network

_PACKED: dict[bytes, Callable[[str], Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7": lzma.open}
"""First bytes of packed IDX files, and what opens them."""
_CIFAR_RECORD = 1 + 3 * 32 * 32


@dataclass(frozen=True)
class NetworkSize:
    """Values of one image, of the network's inputs and of all its tensors; and its weights, however they are stored."""

    inputs: int
    tensors: int
    weights: int


UNKNOWN = NetworkSize(0, 0, 0)


def size_of(network: Network) -> NetworkSize:
    """Return the size of a network, with or without its weights."""
    inputs, tensors = (sum(prod(one.shape) for one in many) for many in (network.inputs, network.tensors.values()))
    operations = (layer.operation for layer in network.layers)
    weights = sum(operation.weights.size for operation in operations if isinstance(operation, Learned))
    return NetworkSize(inputs, tensors, weights)


def network_size(path: str) -> NetworkSize:
    """Return the size of the network in a prototxt, or in a ``.json`` that holds it; zeros where it cannot be read.

    Whatever is wrong with the file, the job that reads it says so better than a plan could.
    """
    try:
        status = os.stat(path)
    except OSError:
        return UNKNOWN
    return _network_size(path, status.st_mtime_ns, status.st_size)


@cache
def _network_size(path: str, _time: int, _bytes: int) -> NetworkSize:
    try:
        if path.endswith(".json"):
            return NetworkSize(**json.loads(Path(path).read_text(encoding="utf-8")))
        from nvdla_quant.network.files import read_structure  # Here: reading Caffe's files imports protobuf.

        return size_of(read_structure([path]))
    except (NvdlaQuantError, ValueError, TypeError):
        return UNKNOWN


def unpacked_bytes(path: str) -> int:
    """Return the bytes of the arrays in an ``.npz``, from its directory; of a file that is none, its own.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """
    size = os.stat(path).st_size
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        return size


def images_in(source: Mapping[str, Any]) -> int:
    """Return how many images the files of a data set hold; 0 where they cannot be read.

    Parameters
    ----------
    source : Mapping
        ``source`` or ``calibration_source`` of the configuration.

    Raises
    ------
    FileNotFoundError
        A file is not there.
    """
    told = [source[key] for key in ("labels", "list", "path", "images") if source.get(key) is not None]
    paths = told[:1] or source["files"]
    status = [os.stat(path) for path in paths]
    size, time = sum(one.st_size for one in status), max(one.st_mtime_ns for one in status)
    return _images_in(source["format"], tuple(paths), size, time)


@cache
def _images_in(kind: str, paths: tuple[str, ...], size: int, _time: int) -> int:
    try:
        if kind == "cifar10":
            return size // _CIFAR_RECORD
        if kind == "npz":
            return _rows(paths[0], "images.npy")
        if os.path.isdir(paths[0]):
            return sum(len(files) for _, _, files in os.walk(paths[0]))
        with open(paths[0], "rb") as file:
            if kind == "folder":
                return sum(1 for _ in file)
            packed = _PACKED.get(file.read(2))
        with packed(paths[0]) if packed else open(paths[0], "rb") as file:
            return int.from_bytes(file.read(8)[4:], "big")
    except (OSError, EOFError, KeyError, ValueError, lzma.LZMAError, zipfile.BadZipFile):
        return 0


def _rows(path: str, name: str) -> int:
    """Return the length of an array in an ``.npz``, from its header."""
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        version, later = np.lib.format.read_magic(file), np.lib.format.read_array_header_2_0
        shape, _, _ = np.lib.format.read_array_header_1_0(file) if version == (1, 0) else later(file)
        return int(shape[0])
