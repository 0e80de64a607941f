"""Plans of sweeps whose axes are methods: equalized networks, refined weights, searched scales."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from nvdla_quant.network.onnx.writer import to_onnx
from tests.sweeps import plan, run, tiny_network
from tests.workflow.test_profiles import groups_of
from tests.workflow.test_staleness import REPORT

INT8 = {"precision": "int8", "mode": "per-filter", "calibrator": "entropy"}
ONNX = {"onnx": "inputs/tiny.onnx", "preprocessing": {"channels": "gray", "scale": 0.00390625}}


def methods(config: dict[str, Any], *variants: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Return `config` with these int8 variants on nv_small alone."""
    return copy.deepcopy(config) | {"targets": ["nv_small"], "variants": [{**INT8, **one} for one in variants], **keys}


def runs(count: int) -> dict[str, int]:
    """Return the jobs of `count` runs, and what a case and its report have once."""
    each = dict.fromkeys(("compile_loadable", "run_loadable", "score_variant", "verify_loadable"), count)
    once = dict.fromkeys(("select_test_images", "check_support", "compute_reference", "score_reference"), 1)
    return {**each, **once, "estimate_costs": 1, **REPORT}


@pytest.fixture(scope="module")
def checkout(new_checkout: Callable[..., Path]) -> Path:
    """Return a checkout with the tiny network as Caffe's files and as ONNX; nothing has run."""
    found = new_checkout()
    onnx.save(to_onnx(tiny_network(0)), found / "inputs" / "tiny.onnx")
    return found


def test_all_axes_at_once(checkout: Path, tiny_config: dict[str, Any]) -> None:
    """2 x 2 x 2 x 2 variants: two networks, each calibrated and its table fixed once."""
    config = methods(
        tiny_config,
        {
            "preparation": ["fold", "fold-equalize"],
            "correction": ["none", "bias"],
            "rounding": ["nearest", "adaround"],
            "search": ["none", "output"],
        },
    )
    assert plan(checkout, config) == {
        "select_calibration_images": 1,
        "prepare_network": 1,
        "equalize_network": 1,
        "calibrate": 1,
        "calibrate_equalized": 1,
        "convert_cache": 1,
        "convert_equalized_cache": 1,
        "fix_table": 2,
        "search_scales": 8,
        "refine_weights": 12,
        **runs(16),
    }


def test_an_equalized_network_alone(checkout: Path, tiny_config: dict[str, Any]) -> None:
    """The other forms and their calibration are not made; the images of two calibrators are looked at."""
    config = methods(tiny_config, {"preparation": "fold-equalize", "calibrator": ["entropy", "minmax"]})
    assert plan(checkout, config) == {
        "select_calibration_images": 2,
        "equalize_network": 1,
        "calibrate_equalized": 2,
        "convert_equalized_cache": 2,
        "fix_table": 2,
        **runs(2),
    }


def test_raw_pixels_go_into_the_equalized_network(checkout: Path, tiny_config: dict[str, Any]) -> None:
    config = methods(tiny_config, {"preparation": "fold-equalize", "feeding": "stock-runtime", "rounding": "adaround"})
    assert plan(checkout, config) == {
        "select_calibration_images": 1,
        "equalize_network": 1,
        "prepare_network": 1,
        "calibrate_equalized": 1,
        "convert_equalized_cache": 1,
        "fix_table": 1,
        "refine_weights": 1,
        **runs(1),
    }


def test_an_onnx_model(checkout: Path, tiny_config: dict[str, Any]) -> None:
    """Equalized as ONNX; as Caffe's files only for NVIDIA's compiler, whose table has other layers."""
    config = methods(
        tiny_config,
        {"preparation": "fold-equalize", "correction": "bias", "search": "output"},
        {"preparation": "fold-equalize", "compiler": "nvdla_compiler"},
        models={"tiny": ONNX},
        backends={"nvdla_compiler": {"path": "nvdla_compiler"}},
    )
    assert plan(checkout, config) == {
        "import_network": 1,
        "select_calibration_images": 1,
        "equalize_onnx_network": 1,
        "convert_network": 1,
        "calibrate_equalized": 1,
        "convert_equalized_cache": 1,
        "fix_table": 2,
        "search_scales": 1,
        "refine_weights": 1,
        "compile_with_nvdla_compiler": 1,
        **{**runs(2), "compile_loadable": 1},
    }


@pytest.mark.parametrize("model", [{}, {"models": {"tiny": ONNX}}])
def test_tensorrt_calibrates_the_equalized_network(
    checkout: Path, tiny_config: dict[str, Any], model: dict[str, Any]
) -> None:
    """Its own engines run the network as it was trained, in int8 only with a cache of that."""
    calibrators = {"trt": {"method": "tensorrt-entropy", "images": 16, "batch_size": 8}}
    config = methods(
        tiny_config,
        {"preparation": "fold-equalize", "calibrator": "trt"},
        calibrators=calibrators,
        backends={"tensorrt": {}},
        **model,
    )
    jobs = plan(checkout, config)
    assert {name: count for name, count in jobs.items() if "tensorrt" in name} == {
        "prepare_tensorrt": 1,
        "prepare_equalized_tensorrt": 1,
        "calibrate_equalized_with_tensorrt": 1,
        "run_tensorrt": 2,
        "score_tensorrt": 2,
    }
    config["variants"].append({**INT8, "calibrator": "trt"})
    jobs = plan(checkout, config)
    assert (jobs["calibrate_with_tensorrt"], jobs["run_tensorrt"]) == (1, 3)


def test_clusters_can_order_the_groups(checkout: Path, tiny_config: dict[str, Any]) -> None:
    """Equalizing waits for images that a group chooses; what waits for it must not be of that group's jobs."""
    axes = {"preparation": ["fold", "fold-equalize"], "feeding": ["quantized", "stock-runtime"]}
    config = methods(tiny_config, {**axes, "rounding": "adaround", "search": "output"}, shards=3)
    assert plan(checkout, config, groups_of("slurm")) == plan(checkout, config)


@pytest.mark.parametrize(
    ("name", "status"), [("table.searched.json", 1), ("weights.steps.npz", 1), ("loadable.nvdla", 0)]
)
def test_a_plain_variant_has_no_such_files(checkout: Path, tiny_config: dict[str, Any], name: str, status: int) -> None:
    """Neither by asking for them."""
    (checkout / "config.yaml").write_text(yaml.safe_dump(methods(tiny_config, {}, {"rounding": "adaround"})))
    result = run(checkout, "--dry-run", f"results/tiny/noise/nv_small/int8-per-filter-entropy/{name}")
    assert result.returncode == status
    assert ("MissingRuleException" in result.stdout + result.stderr) == bool(status)
