"""Into how many jobs the test images are divided changes nothing that is measured; raw dumps of one of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nvdla_quant.runtime.dimg import read_dimg
from tests.sweeps import run

pytestmark = pytest.mark.e2e
IMAGES = 200  # Of 3 shards each has a batch of the fp32 network, and one more that is not whole.
FILES = ("accuracy.json", "comparison.json", "comparisons.json", "verdict.json", "layers.tsv")
RAW = "results/tiny/noise/nv_small/int8-per-filter-entropy/dumps/3-of-3.dimg"


def test_one_and_three_shards(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> None:
    """The fp16 runs too, of which 32 images in all are also run bit for bit.

    What does not depend on shards, such as loadables, is made once: the measured files are removed, and made again.
    """
    checkout = new_checkout()
    rng = np.random.default_rng(2)
    images, labels = rng.integers(0, 256, (IMAGES, 8, 8), np.uint8), rng.integers(0, 6, IMAGES)
    np.savez(checkout / "inputs" / "noise.npz", images=images, labels=labels)
    fp16, int8 = tiny_config["variants"]
    config = tiny_config | {
        "variants": [fp16, {**int8, "targets": ["nv_small"]}],
        "raw_dumps": {"format": "text", "images": 2},
    }
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    found = {}
    for shards, more in ((1, ()), (3, (RAW,))):
        results = checkout / "results"
        done = run(checkout, "results/summary.tsv", *more, "--config", f"shards={shards}")
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        paths = [path for name in FILES for path in results.rglob(name)]
        found[shards] = {path.relative_to(results): path.read_bytes() for path in [results / "summary.tsv", *paths]}
        for path in found[shards]:
            (results / path).unlink()
    assert len(found[1]) == 1 + 3 + 2 + 1 + 2 + 2
    assert found[1] == found[3]
    files = sorted((checkout / RAW).glob("*.dimg"))
    assert [path.name for path in files] == ["000000.dimg", "000001.dimg"]
    output = np.load((checkout / RAW).with_suffix(".npz"))["output"]
    for path, values in zip(files, output, strict=False):
        assert read_dimg(path, shape=(6, 1, 1), dtype=np.int8).tolist() == values.tolist()
