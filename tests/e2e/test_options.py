"""Every choice that a variant can make, on the tiny network."""

import copy
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nvdla_quant.table.table import read_table
from tests.sweeps import run

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
    config["verify"] = {"images": 0}
    checkout = new_checkout()
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    finished = run(checkout, "results/summary.tsv")
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
    expected = np.load(case / "reference/1-of-1.npz")["logits"]
    for folder in sorted((case / "nv_large").glob("*/")):
        found = np.load(folder / "dumps/1-of-1.npz")["logits"]
        assert np.corrcoef(found.reshape(expected.shape).ravel(), expected.ravel())[0, 1] > 0.99, folder.name


def test_the_stock_runtime_s_input_scale_is_its_pixel_step(results: Path) -> None:
    """It stores floor(p * 127 / 255 + 0.5), and the mean and scale of the pixels are in the network then."""
    folder = results / "tiny/noise/calibration/minmax/fold-stock-runtime"
    assert read_table(folder / "table.fixed.json")["data"] == pytest.approx(255 / 127, rel=1e-6)
    assert "stock-runtime" in (folder / "changes.tsv").read_text()
