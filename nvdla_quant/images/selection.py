"""Which images calibrate and which test, and the file that carries them through the workflow.

A data set either brings calibration images of its own, or gives some of its images away: `split` sets a pool aside
and leaves the rest as test images, the same ones for every calibrator. A calibrator then draws its images from the
pool with its own seed (`draw`). The choice depends on the seed and the numbers alone: it is the order of the raw
64-bit numbers of numpy's PCG64, whose stream numpy keeps from version to version (NEP 19), unlike `permutation`'s.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nvdla_quant.errors import DatasetError
from nvdla_quant.images.datasets import Dataset
from nvdla_quant.images.preprocess import Preprocessing, check_geometry, to_pixels
from nvdla_quant.jobs.files import write_npz

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Indices into one data set, ascending, without a common one."""

    calibration: Indices
    test: Indices


def split(size: int, pool: int, seed: int = 0, test: int | None = None) -> Split:
    """Set `pool` of `size` images aside for calibration; the others, or `test` of them, are test images.

    The pool does not depend on `test`, and fewer test images are a part of more: data sets are often sorted by class,
    so the first ones would not do.

    Raises
    ------
    DatasetError
        `pool` is negative or leaves no test image, or `test` asks for more than are left.
    """
    if not 0 <= pool < size:
        raise DatasetError(
            f"a calibration pool of {pool} of {size} images: expected 0 to {size - 1}, so that a test image is left"
        )
    if test is not None and not 1 <= test <= size - pool:
        raise DatasetError(
            f"{test} test images asked for; {size} images less a calibration pool of {pool} leave {size - pool}"
        )
    order = _shuffled(size, seed)
    end = size if test is None else pool + test
    return Split(calibration=np.sort(order[:pool]), test=np.sort(order[pool:end]))


def draw(pool: Indices, count: int, seed: int) -> Indices:
    """`count` different images of `pool`, in the order drawn (it decides which ones share a calibration batch).

    Raises
    ------
    DatasetError
        `count` is below 1 or more than the pool holds.
    """
    if not 1 <= count <= len(pool):
        raise DatasetError(
            f"calibration: {count} images asked for, the pool holds {len(pool)}; ask for 1 to {len(pool)}, or enlarge "
            "the data set's calibration pool"
        )
    return pool[_shuffled(len(pool), seed)[:count]]


def _shuffled(size: int, seed: int) -> Indices:
    """0 .. size - 1 in the order of `size` raw numbers of PCG64(seed)."""
    keys: NDArray[np.uint64] = np.random.PCG64(seed).random_raw(size)
    return np.argsort(keys, kind="stable").astype(np.int64)


@dataclass(frozen=True, eq=False)
class ImageBundle:
    """Chosen images, as the network sees them before mean and scale.

    Attributes
    ----------
    pixels : NDArray[np.uint8]
        (n, channels, height, width), in the network's channel order.
    labels : NDArray[np.int64] or None
        Class of each, (n,); None of images without labels, of which the manifest says ``labelled: false``.
    indices : NDArray[np.int64]
        Place of each in its data set, (n,).
    names : tuple[str, ...]
        Name of each in its data set.
    manifest : Mapping[str, Any]
        What was chosen and from which files, as JSON can hold it: see `gather`.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    indices: Indices
    names: tuple[str, ...]
    manifest: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Freeze the manifest and check that the parts have one length."""
        object.__setattr__(self, "manifest", MappingProxyType(dict(self.manifest)))
        labels = "no" if self.labels is None else len(self.labels)
        lengths = {len(self.pixels), len(self.indices), len(self.names), *({labels} - {"no"})}
        if len(lengths) > 1 or self.pixels.dtype != np.uint8 or self.pixels.ndim != 4:
            raise DatasetError(
                f"images: pixels {self.pixels.dtype} {self.pixels.shape}, {labels} labels, "
                f"{len(self.indices)} indices, {len(self.names)} names; expected uint8 (n, c, h, w) and n of each"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    @property
    def classes(self) -> NDArray[np.int64]:
        """Labels of images that are to have some.

        Raises
        ------
        DatasetError
            They have none.
        """
        if self.labels is None:
            raise DatasetError(f"images: {len(self)} without labels, expected the class of each; they only calibrate")
        return self.labels


def gather(
    dataset: Dataset,
    indices: Indices,
    preprocessing: Preprocessing,
    network_input: tuple[int, int, int],
    selection: Mapping[str, Any],
) -> ImageBundle:
    """Read and prepare the images at `indices`.

    The manifest holds `selection` (the caller's rule: seed, numbers), `files` (key, name and SHA-256 of each file read)
    and `pixels_sha256` (of the prepared pixels in C order); of images without labels it also says so (`labelled`). It
    names no folder, so it is the same on every machine.

    Parameters
    ----------
    dataset : Dataset
        Where they are.
    indices : NDArray[np.int64]
        Which, in which order.
    preprocessing : Preprocessing
        Geometry and channel order.
    network_input : (int, int, int)
        Channels, height and width of the network's input.
    selection : Mapping[str, Any]
        How the indices were chosen, for the manifest.

    Raises
    ------
    DatasetError
        An image cannot be read, or does not fit the network's input.
    """
    pixels = np.empty((len(indices), *network_input), np.uint8)
    for place, index in enumerate(indices):
        (image,) = dataset.load([int(index)])
        try:
            prepared = to_pixels(image, preprocessing)
            check_geometry(prepared.shape, network_input)
        except DatasetError as error:
            raise DatasetError(f"{dataset.source}, image {dataset.names[index]}: {error}") from error
        pixels[place] = prepared
    files = [{"key": file.key, "name": file.name, "sha256": file.sha256()} for file in dataset.files(indices)]
    manifest = {
        "selection": dict(selection),
        "files": files,
        "pixels_sha256": hashlib.sha256(pixels.data).hexdigest(),
        **({"labelled": False} if dataset.labels is None else {}),
    }
    names = tuple(dataset.names[index] for index in indices)
    labels = None if dataset.labels is None else dataset.labels[indices]
    return ImageBundle(pixels, labels, np.asarray(indices, np.int64), names, manifest)


def write_images(path: Path, images: ImageBundle) -> None:
    """Write a bundle as ``.npz``, whole or not at all; the same bundle gives the same bytes."""
    arrays: dict[str, ArrayLike] = {
        "pixels": images.pixels,
        **({} if images.labels is None else {"labels": images.labels}),
        "indices": images.indices,
        "names": np.array(images.names, np.str_),
        "manifest": np.array(json.dumps(dict(images.manifest), sort_keys=True)),
    }
    write_npz(path, arrays)


def read_images(path: Path) -> ImageBundle:
    """Read a bundle that `write_images` wrote.

    Raises
    ------
    DatasetError
        The file is missing, no such bundle, or its pixels are not those that the manifest was made for.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            pixels, names = archive["pixels"], tuple(str(name) for name in archive["names"])
            manifest = json.loads(str(archive["manifest"]))
            # Without labels only where that was meant: else the array is missing, and the file is damaged.
            labels = archive["labels"] if manifest.get("labelled", True) else None
            images = ImageBundle(pixels, labels, archive["indices"], names, manifest)
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DatasetError(f"{path}: not a readable bundle of images ({error}); make it again") from error
    found = hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
    if (expected := images.manifest.get("pixels_sha256")) not in (None, found):
        raise DatasetError(
            f"{path}: the pixels have SHA-256 {found}, the manifest says {expected}; make the file again"
        )
    return images
