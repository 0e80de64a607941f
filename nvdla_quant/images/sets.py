"""From a data set record of the configuration to the images that calibrate and the images that test."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nvdla_quant.images.datasets import dataset_record, open_dataset
from nvdla_quant.images.preprocess import Preprocessing
from nvdla_quant.images.selection import ImageBundle, draw, gather, split

Shape = tuple[int, int, int]
BATCH = 64
"""Images that `execution` computes at once in floating point."""


def calibration_images(
    record: Mapping[str, Any], preprocessing: Preprocessing, shape: Shape, *, count: int, seed: int
) -> ImageBundle:
    """Images that a calibrator sees: `count` of the data set's calibration images, drawn with `seed`.

    Parameters
    ----------
    record : Mapping
        ``datasets.<name>`` of the configuration: either its own ``calibration_source``, or a ``calibration_pool`` set
        aside from ``source`` with ``pool_seed``. Neither needs labels.
    preprocessing : Preprocessing
        Geometry and channel order.
    shape : (int, int, int)
        Channels, height and width of the network's input.

    Raises
    ------
    DatasetError
        Files are missing or malformed, or there are fewer images than asked for.
    """
    selection: dict[str, Any] = {"images": count, "seed": seed}
    if "calibration_source" in record:
        dataset = open_dataset(dataset_record(record["calibration_source"]))
        pool = np.arange(len(dataset), dtype=np.int64)
    else:
        dataset = open_dataset(dataset_record(record["source"]))
        pool = split(len(dataset), record["calibration_pool"], record["pool_seed"]).calibration
        selection |= {"calibration_pool": record["calibration_pool"], "pool_seed": record["pool_seed"]}
    return gather(dataset, draw(pool, count, seed), preprocessing, shape, selection)


def test_images(
    record: Mapping[str, Any],
    preprocessing: Preprocessing,
    shape: Shape,
    classes: int | None,
    *,
    shard: int,
    shards: int,
) -> ImageBundle:
    """One shard of the test images: all images of ``source`` outside the calibration pool, or some of them.

    Parameters
    ----------
    record : Mapping
        ``datasets.<name>`` of the configuration.
    preprocessing : Preprocessing
        Geometry and channel order.
    shape : (int, int, int)
        Channels, height and width of the network's input.
    classes : int or None
        Outputs of the network; a label beyond them is an error. None where nothing is said by labels: images need none.
    shard, shards : int
        Which part (from 0) of how many; see `part_of`.

    Raises
    ------
    DatasetError
        Files are missing or malformed, images have no labels, a label fits no output, or there are fewer images than
        asked for.
    """
    dataset = open_dataset(dataset_record(record["source"]))
    if classes is not None:
        dataset.check_labels(classes)
    pool = record.get("calibration_pool", 0)
    chosen = split(len(dataset), pool, record["pool_seed"], test=record.get("test_images")).test
    first, end = part_of(len(chosen), shard, shards)
    selection = {
        "test_images": len(chosen),
        "calibration_pool": pool,
        "pool_seed": record["pool_seed"],
        "shard": shard,
        "shards": shards,
    }
    return gather(dataset, chosen[first:end], preprocessing, shape, selection)


def part_of(count: int, shard: int, shards: int) -> tuple[int, int]:
    """Return the first image of a part, and the first behind it, of `count` images in `shards` parts.

    Parts follow one another. Where each can have a batch of the fp32 network, they are of whole batches, since its last
    bits depend on which images share one: results are then the same for any number of parts. Of fewer images, parts
    differ in size by at most one.
    """
    unit = BATCH if count >= BATCH * shards else 1
    units, longer = divmod(-(-count // unit), shards)
    first, end = (unit * (units * part + min(part, longer)) for part in (shard, shard + 1))
    return first, min(end, count)
