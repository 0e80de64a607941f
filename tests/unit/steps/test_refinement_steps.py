"""The steps of the methods, on files: an equalized network, searched scales, refined weights, and their loadable."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.network.files import read_model
from nvdla_quant.quantization.steps import read_weight_steps
from nvdla_quant.steps.calibration import calibrate
from nvdla_quant.steps.compilation import compile_loadable
from nvdla_quant.steps.images import select_test_images
from nvdla_quant.steps.networks.refinement import equalize_network, refine_weights, search_scales
from nvdla_quant.steps.tables import fix_table
from nvdla_quant.steps.verification import verify_loadable
from nvdla_quant.table.table import read_table
from tests.sweeps import tiny_network

PREPROCESSING = {"channels": "gray", "scale": 0.00390625, "mean": [0]}
MODEL = ["deploy.prototxt", "weights.caffemodel"]
EQUALIZED = ["equalized/deploy.prototxt", "equalized/weights.caffemodel"]
FEEDING = {"precision": "int8", "feeding": "quantized"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, which has images, an equalized network and its fixed table."""
    monkeypatch.chdir(tmp_path)
    network = tiny_network(0)
    write_prototxt(network, tmp_path / "deploy.prototxt")
    write_caffemodel(network, tmp_path / "weights.caffemodel")
    rng = np.random.default_rng(1)
    np.savez("noise.npz", images=rng.integers(0, 256, (40, 8, 8), np.uint8), labels=rng.integers(0, 6, 40))
    dataset = {"source": {"format": "npz", "path": "noise.npz"}, "calibration_pool": 4, "pool_seed": 0}
    select_test_images(["deploy.prototxt"], "images.npz", dataset, PREPROCESSING, shard=0, shards=1)
    equalize_network(MODEL, EQUALIZED, "equalization.tsv", ["images.npz", "images.npz"], PREPROCESSING, 1)
    calibrate(EQUALIZED, "images.npz", "calibration.cache", PREPROCESSING, {"method": "minmax"}, 1)
    options = {"feeding": "quantized", "unify_scales": True}
    fix_table(EQUALIZED[:1], EQUALIZED, "calibration.cache", "table.json", "changes.tsv", options)
    return tmp_path


def test_an_equalized_network_is_folded_and_its_changes_are_listed(folder: Path) -> None:
    folded, original = read_model(EQUALIZED), read_model(MODEL)
    assert not [layer.name for layer in folded.layers if layer.kind in ("BatchNorm", "Scale")]
    assert {layer.name for layer in folded.layers} <= {layer.name for layer in original.layers}
    header, *rows = Path("equalization.tsv").read_text().splitlines()
    assert header.split("\t") == ["first", "second", "channels", "scaled", "spread_before", "spread_after", "remark"]
    assert rows


@pytest.mark.parametrize("mode", ["per-kernel", "per-filter"])
@pytest.mark.parametrize("searched", [False, True])
def test_search_then_refine_then_compile_then_verify(
    folder: Path, caplog: pytest.LogCaptureFixture, mode: str, searched: bool
) -> None:
    table, weights = "table.json", None
    if searched:
        caplog.set_level(logging.INFO)
        options = {"mode": mode, "unify_scales": True, "objective": "cycles", "trials": 40}
        made = table, weights = "table.searched.json", "weights.searched.npz"
        files = EQUALIZED, "table.json", "images.npz", *made, "search.tsv"
        search_scales(*files, "nv_small", options, PREPROCESSING, FEEDING, 1)
        assert "SQNR of the scores" in caplog.text
        kept = Path("search.tsv").read_text().splitlines()
        assert kept[0].split("\t") == ["number", "kind", "names", "factor", "sqnr"]
        assert (read_table(Path(table)) != read_table(Path("table.json"))) == any("tensor" in row for row in kept[1:])
    options = {"mode": mode, "correction": "bias", "rounding": "adaround"}
    files = EQUALIZED, table, weights, "images.npz", "weights.steps.npz", "refinement.tsv"
    refine_weights(*files, "nv_small", options, PREPROCESSING, 1)
    steps = read_weight_steps(Path("weights.steps.npz"))
    assert len(Path("refinement.tsv").read_text().splitlines()) == len(steps.layers) + 1
    if weights is not None:
        for name, one in read_weight_steps(Path(weights)).layers.items():
            assert (steps.layers[name].scales == one.scales).all()  # The search's scales are kept.
    files = EQUALIZED, table, "weights.steps.npz", "loadable.nvdla", "compile.json"
    compile_loadable(*files, "nv_small", {"precision": "int8", "mode": mode, "objective": "cycles"})
    report = json.loads(Path("compile.json").read_text())
    assert {one["layer"] for one in report["weights"]} == steps.layers.keys()
    assert all(one["honoured"] for one in report["weights"])
    files = "loadable.nvdla", "compile.json", EQUALIZED, table, "weights.steps.npz", "images.npz"
    verify_loadable(*files, "verdict.json", "layers.tsv", "nv_small", {"model": "tiny"}, PREPROCESSING, 8)
    assert json.loads(Path("verdict.json").read_text())["verdict"] == "ok"


def test_without_them_the_loadable_is_another(folder: Path) -> None:
    options = {"mode": "per-filter", "correction": "none", "rounding": "adaround"}
    files = EQUALIZED, "table.json", None, "images.npz", "weights.steps.npz", "refinement.tsv"
    refine_weights(*files, "nv_small", options, PREPROCESSING, 1)
    compiled = {"precision": "int8", "mode": "per-filter", "objective": "cycles"}
    compile_loadable(EQUALIZED, "table.json", "weights.steps.npz", "a.nvdla", "a.json", "nv_small", compiled)
    compile_loadable(EQUALIZED, "table.json", None, "b.nvdla", "b.json", "nv_small", compiled)
    assert Path("a.nvdla").read_bytes() != Path("b.nvdla").read_bytes()
    assert "weights" not in json.loads(Path("b.json").read_text())
