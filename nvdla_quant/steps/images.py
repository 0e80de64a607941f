"""Write the images that calibrate and those that test, as a network sees them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.images.preprocess import Preprocessing
from nvdla_quant.images.selection import write_images
from nvdla_quant.images.sets import calibration_images, test_images
from nvdla_quant.network.files import read_structure

Record = Mapping[str, Any]


def select_calibration_images(
    files: Sequence[str], images: str, dataset: Record, preprocessing: Record, *, count: int, seed: int
) -> None:
    """Choose the images of a data set that a calibrator sees, for the network in `files`, and write `images`."""
    shape = read_structure(files).only_input.chw
    chosen = calibration_images(dataset, Preprocessing.from_config(preprocessing), shape, count=count, seed=seed)
    write_images(Path(images), chosen)


def select_test_images(
    files: Sequence[str], images: str, dataset: Record, preprocessing: Record, *, shard: int, shards: int
) -> None:
    """Write one shard of a data set's test images for the network in `files`."""
    network = read_structure(files)
    shape, classes = network.only_input.chw, network.only_output.chw[0]
    prepared = Preprocessing.from_config(preprocessing)
    write_images(Path(images), test_images(dataset, prepared, shape, classes, shard=shard, shards=shards))
