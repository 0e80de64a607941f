"""A sweep over a quantized ONNX model, with the scales that it has in it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pandas as pd
import pytest
import yaml

from nvdla_quant.table.cache import read_cache
from nvdla_quant.table.table import read_table
from tests.qdq import ACTIVATION_SCALE, INPUT_SCALE, static
from tests.sweeps import plan, run
from tests.workflow.test_staleness import REPORT

Case = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def case(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> Case:
    """Return a checkout with a quantized model, and the configuration of a sweep over it; nothing has run."""
    checkout = new_checkout()
    onnx.save(static(), checkout / "inputs" / "quantized.onnx")
    config = copy.deepcopy(tiny_config)
    config["models"] = {
        "tiny": {"onnx": "inputs/quantized.onnx", "preprocessing": {"channels": "gray", "scale": 1 / 512}}
    }
    config["calibrators"] = {"own": {"method": "qdq"}}
    int8 = {"precision": "int8", "mode": "per-filter", "calibrator": "own"}
    config["variants"] = [int8, {**int8, "unify_scales": False}]
    config["targets"] = ["nv_small"]
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    return checkout, config


def test_no_images_are_needed_to_calibrate(case: Case) -> None:
    assert plan(*case) == {
        "import_network": 1,
        "select_test_images": 1,
        "prepare_onnx_network": 1,
        "check_support": 1,
        "compute_reference": 1,
        "run_quantized": 1,
        "take_scales": 1,
        "convert_cache": 1,
        "fix_table": 2,
        "compile_loadable": 2,
        "estimate_costs": 1,
        "run_loadable": 2,
        "score_reference": 1,
        "score_quantized": 1,
        "score_variant": 2,
        "verify_loadable": 2,
        **REPORT,
    }


def test_a_sweep_runs_to_the_report(case: Case) -> None:
    checkout, config = case
    result = run(checkout)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    folder = checkout / "results" / "tiny" / "noise"
    verdicts = [json.loads(path.read_text())["verdict"] for path in folder.glob("*/*/verdict.json")]
    assert verdicts == ["ok"] * 2
    scales = read_cache(folder / "calibration" / "own" / "calibration.cache").scales
    fixed = read_table(folder / "calibration" / "own" / "fold-quantized-not-unified" / "table.fixed.json").scales
    assert {name: fixed[name] for name in ("data", "sum", "act", "pool")} == {
        "data": INPUT_SCALE,
        **dict.fromkeys(("sum", "act", "pool"), ACTIVATION_SCALE),
    }
    assert set(fixed.values()) <= set(scales.values())
    changes = pd.read_csv(folder / "calibration" / "own" / "fold-quantized-not-unified" / "changes.tsv", sep="\t")
    assert (changes["scale_before"] == changes["scale_after"]).all()
    ranges = pd.read_csv(folder / "calibration" / "own" / "ranges.tsv", sep="\t")
    assert set(ranges["rule"]) == {"file"}
    weights = json.loads((folder / "nv_small" / "int8-per-filter-own" / "compile.json").read_text())["weights"]
    assert [layer["honoured"] for layer in weights] == [True, True]
    summary = pd.read_csv(checkout / "results" / "summary.tsv", sep="\t")
    assert list(summary["variant"][:2]) == ["fp32", "onnxruntime-int8"]
    assert summary["agreement"][1:].min() > 80  # Of noise: the three sets of scores nearly tie.
    page = (checkout / "results" / "report" / "report.html").read_text()
    assert "rounds ties to even where NVDLA rounds them away from zero" in page
    manifest = json.loads((checkout / "results" / "manifest.json").read_text())
    made = {name.partition("noise/")[2] for name in manifest["artefacts"]}
    assert list(manifest["inputs"]) == ["inputs/noise.npz", "inputs/quantized.onnx"]
    assert {"quantized/1-of-1.npz", "quantized/accuracy.json", "calibration/own/ranges.tsv"} <= made
    assert {"network/imported/network.onnx", "network/imported/remarks.txt", "network/fold/network.onnx"} <= made
    assert not any(name.startswith("images/calibration") for name in made)
    assert plan(checkout, config) == {}
