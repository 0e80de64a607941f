"""The parts that test images are divided into."""

import inspect
from collections.abc import Callable

import pytest

from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.execution.quantized_file import run_file
from nvdla_quant.images.sets import BATCH, part_of


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
