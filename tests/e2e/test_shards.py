"""Into how many jobs the test images are divided changes nothing that is measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.sweeps import run

pytestmark = pytest.mark.e2e
IMAGES = 500  # Of 7 shards each has a batch of the fp32 network, and the last one's is not whole.
FILES = ("accuracy.json", "comparison.json", "comparisons.json", "verdict.json", "layers.tsv")


def test_one_two_and_seven_shards(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> None:
    """The fp16 runs too, of which 32 images in all are also run bit for bit.

    What does not depend on shards, such as loadables, is made once: the measured files are removed, and made again.
    """
    checkout = new_checkout()
    rng = np.random.default_rng(2)
    images, labels = rng.integers(0, 256, (IMAGES, 8, 8), np.uint8), rng.integers(0, 6, IMAGES)
    np.savez(checkout / "inputs" / "noise.npz", images=images, labels=labels)
    (checkout / "config.yaml").write_text(yaml.safe_dump(tiny_config))
    found = {}
    for shards in (1, 2, 7):
        results = checkout / "results"
        done = run(checkout, "results/summary.tsv", "--config", f"shards={shards}")
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        paths = [path for name in FILES for path in results.rglob(name)]
        found[shards] = {path.relative_to(results): path.read_bytes() for path in [results / "summary.tsv", *paths]}
        for path in found[shards]:
            (results / path).unlink()
    assert len(found[1]) == 1 + 4 + 3 + 1 + 3 + 3
    assert found[1] == found[2] == found[7]
