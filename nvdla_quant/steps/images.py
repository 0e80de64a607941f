"""Write the images that calibrate and those that test, as a network sees them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.errors import NetworkError
from nvdla_quant.images.preprocess import Preprocessing
from nvdla_quant.images.selection import write_images
from nvdla_quant.images.sets import calibration_images, test_images
from nvdla_quant.network.files import read_structure
from nvdla_quant.network.graph import Network

Record = Mapping[str, Any]


def select_calibration_images(
    files: Sequence[str], images: str, dataset: Record, preprocessing: Record, *, count: int, seed: int
) -> None:
    """Choose the images of a data set that a calibrator sees, for the network in `files`, and write `images`."""
    shape = read_structure(files).only_input.chw
    chosen = calibration_images(dataset, Preprocessing.from_config(preprocessing), shape, count=count, seed=seed)
    write_images(Path(images), chosen)


def select_test_images(
    files: Sequence[str],
    images: str,
    dataset: Record,
    preprocessing: Record,
    *,
    shard: int,
    shards: int,
    metric: str = "classification",
) -> None:
    """Write one shard of a data set's test images for the network in `files`; a `metric` of labels needs some."""
    network = read_structure(files)
    shape = network.only_input.chw
    classes = _classes(network) if metric == "classification" else None
    prepared = Preprocessing.from_config(preprocessing)
    write_images(Path(images), test_images(dataset, prepared, shape, classes, shard=shard, shards=shards))


def _classes(network: Network) -> int:
    """Return how many classes the only output of a classifier tells apart."""
    outputs = network.outputs
    if len(outputs) > 1:
        raise NetworkError(
            f"network {network.name!r}: {len(outputs)} outputs ({', '.join(output.blob for output in outputs)}), and "
            "top-1 is of one; give the case metric: fidelity, which measures them all"
        )
    return network.only_output.chw[0]
