"""Every choice that a variant can make, on the tiny network."""

import copy
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nvdla_quant.runtime.dimg import read_dimg
from nvdla_quant.table.table import read_table
from tests.sweeps import MEASURED, run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def results(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> Path:
    config = copy.deepcopy(tiny_config)
    config["models"]["tiny"]["preprocessing"]["mean"] = [100]
    config["datasets"]["noise"]["test_images"] = 21
    config["calibrators"]["percentile"] = {"method": "percentile", "images": 16, "percentile": 99.9}
    config["targets"] = ["nv_large"]
    int8 = {"precision": "int8", "mode": "per-filter", "calibrator": "minmax"}
    config["variants"] = [
        int8,
        {**int8, "feeding": "stock-runtime"},
        {**int8, "preparation": "as-is"},
        {**int8, "unify_scales": False},
        {**int8, "calibrator": "percentile", "name": "mine"},
    ]
    config["shards"] = 2
    config["raw_dumps"] = {"format": "text", "images": 2}
    checkout = new_checkout()
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    finished = run(checkout, *MEASURED)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    return checkout / "results"


def test_each_choice_has_its_row(results: Path) -> None:
    with (results / "summary.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["variant"] for row in rows] == [
        "fp32",
        "int8-per-filter-minmax",
        "int8-per-filter-minmax-stock-runtime",
        "int8-per-filter-minmax-as-is",
        "int8-per-filter-minmax-not-unified",
        "mine",
    ]
    assert {row["n"] for row in rows} == {"21"}


def test_every_choice_stays_near_fp32(results: Path) -> None:
    """The logits' correlation with fp32: int8 leaves more than 0.99 on a network this small."""
    case = results / "tiny" / "noise"
    shards = ["1-of-2", "2-of-2"]
    expected = np.concatenate([np.load(case / f"reference/{shard}.npz")["logits"] for shard in shards])
    for folder in sorted((case / "nv_large").glob("*/")):
        found = np.concatenate([np.load(folder / f"dumps/{shard}.npz")["logits"] for shard in shards])
        assert np.corrcoef(found.reshape(expected.shape).ravel(), expected.ravel())[0, 1] > 0.99, folder.name


def test_the_stock_runtime_s_input_scale_is_its_pixel_step(results: Path) -> None:
    """It stores floor(p * 127 / 255 + 0.5), and the mean and scale of the pixels are in the network then."""
    folder = results / "tiny/noise/calibration/minmax/fold-stock-runtime"
    assert read_table(folder / "table.fixed.json")["data"] == pytest.approx(255 / 127, rel=1e-6)
    assert "stock-runtime" in (folder / "changes.tsv").read_text()


def test_raw_dumps_hold_what_the_npz_holds(results: Path) -> None:
    dumps = results / "tiny/noise/nv_large/mine/dumps"
    files = sorted((dumps / "2-of-2.dimg").glob("*.dimg"))
    assert [path.name for path in files] == ["000000.dimg", "000001.dimg"]
    output = np.load(dumps / "2-of-2.npz")["output"]
    for path, values in zip(files, output, strict=False):
        assert read_dimg(path, shape=(6, 1, 1), dtype=np.int8).tolist() == values.tolist()
