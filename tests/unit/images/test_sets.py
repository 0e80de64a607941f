"""Images out of a data set's record: those that calibrate, and the parts that test images are divided into."""

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.errors import DatasetError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.execution.quantized_file import run_file
from nvdla_quant.images.preprocess import Preprocessing
from nvdla_quant.images.selection import draw, split
from nvdla_quant.images.sets import BATCH, calibration_images, part_of
from nvdla_quant.images.sets import test_images as images_to_test


@pytest.mark.parametrize("shards", [1, 2, 7, 100])
@pytest.mark.parametrize("count", [100, 448, 1000, 6400, 50000])
def test_parts_follow_one_another(count: int, shards: int) -> None:
    parts = [part_of(count, shard, shards) for shard in range(shards)]
    assert [first for first, _ in parts] == [0, *(end for _, end in parts[:-1])]
    assert parts[-1][1] == count
    sizes = [end - first for first, end in parts]
    assert min(sizes) > 0
    if count >= BATCH * shards:
        assert all(first % BATCH == 0 for first, _ in parts)
        assert max(sizes) - min(sizes) < 2 * BATCH
    else:
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("runs", [Reference, run_file])
def test_a_batch_is_that_of_the_fp32_network(runs: Callable[..., object]) -> None:
    assert inspect.signature(runs).parameters["batch_size"].default == BATCH


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """A source of ten images without labels, each of one value."""
    values = np.arange(10, dtype=np.uint8)
    np.savez(tmp_path / "bare.npz", images=np.broadcast_to(values[:, np.newaxis, np.newaxis], (10, 2, 2)))
    return {"format": "npz", "path": str(tmp_path / "bare.npz")}


def test_images_without_labels_calibrate(bare: dict[str, str]) -> None:
    """As a source of their own, and as a pool; which ones does not depend on labels."""
    for record in ({"calibration_source": bare}, {"source": bare, "calibration_pool": 4, "pool_seed": 0}):
        chosen = calibration_images(record, Preprocessing("gray"), (1, 2, 2), count=3, seed=1)
        pool = split(10, 4).calibration if "source" in record else np.arange(10)
        np.testing.assert_array_equal(chosen.pixels[:, 0, 0, 0], draw(pool, 3, seed=1))
        assert chosen.labels is None


def test_images_without_labels_do_not_test(bare: dict[str, str]) -> None:
    record = {"source": bare, "calibration_pool": 4, "pool_seed": 0}
    with pytest.raises(DatasetError, match=r"bare.npz: 10 images without labels as test images; top-1 and top-5 need"):
        images_to_test(record, Preprocessing("gray"), (1, 2, 2), 10, shard=0, shards=1)
