"""A sweep whose model is an ONNX file."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.errors import ConfigError
from nvdla_quant.network.files import read_model
from nvdla_quant.network.graph import Clip, Layer
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.network.shapes import assemble
from tests.fakes import install
from tests.sweeps import MEASURED, plan, run, tiny_network
from tests.workflow.test_staleness import PAGE, REPORT

Case = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def case(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> Case:
    """Return a checkout with the tiny network as ONNX, and the configuration of a sweep over it; nothing has run."""
    checkout = new_checkout()
    model = to_onnx(tiny_network(0))
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "features/conv 1"  # No name of a layer in Caffe.
    onnx.save(model, checkout / "inputs" / "tiny.onnx")
    config = copy.deepcopy(tiny_config)
    config["models"]["tiny"] = {"onnx": "inputs/tiny.onnx", "preprocessing": {"channels": "gray", "scale": 0.00390625}}
    config |= {"targets": ["nv_small"], "variants": config["variants"][1:]}
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    return checkout, config


def test_the_plan_is_known_before_the_model_is_read(case: Case) -> None:
    assert plan(*case) == {
        "import_network": 1,
        "select_calibration_images": 1,
        "select_test_images": 1,
        "prepare_onnx_network": 1,
        "check_support": 1,
        "compute_reference": 1,
        "calibrate": 1,
        "convert_cache": 1,
        "fix_table": 1,
        "compile_loadable": 1,
        "estimate_costs": 1,
        "run_loadable": 1,
        "score_reference": 1,
        "score_variant": 1,
        "verify_loadable": 1,
        **REPORT,
    }


def test_caffe_s_files_are_made_where_something_reads_no_others(case: Case) -> None:
    """And a table of their layers: some of the network's may be several in Caffe."""
    checkout, config = case
    config = copy.deepcopy(config)
    config["backends"] = {"nvdla_compiler": {"path": "nvdla_compiler"}}
    config["variants"].append({**config["variants"][0], "compiler": "nvdla_compiler"})
    jobs = plan(checkout, config)
    assert {name: jobs[name] for name in ("convert_network", "fix_table", "compile_with_nvdla_compiler")} == {
        "convert_network": 1,
        "fix_table": 2,
        "compile_with_nvdla_compiler": 1,
    }


PAIR = [f"results/tiny/noise/network/fold/{name}" for name in ("deploy.prototxt", "weights.caffemodel")]


@pytest.fixture(scope="module")
def swept(case: Case) -> Case:
    """Return the same, with everything made that is measured, and Caffe's files beside it."""
    result = run(case[0], "all", *PAIR, *MEASURED)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return case


def test_a_sweep_runs_to_its_summary(swept: Case) -> None:
    """From there on nothing knows of the model's format; `test_quantized_onnx` runs to the report."""
    checkout, config = swept
    assert plan(checkout, config) == PAGE
    folder = checkout / "results" / "tiny" / "noise"
    names = json.loads((folder / "network" / "imported" / "names.json").read_text())
    assert "features/conv 1" in names.values()
    verdicts = [json.loads(path.read_text())["verdict"] for path in folder.glob("*/*/verdict.json")]
    assert verdicts == ["ok"]
    network = read_model([folder / "network" / "fold" / "network.onnx"])
    assert [layer.kind for layer in network.layers] == ["Convolution", "ReLU", "Pooling", "InnerProduct", "Softmax"]


def test_caffe_s_files_of_a_form(swept: Case) -> None:
    network = read_model([swept[0] / path for path in PAIR])
    assert [layer.kind for layer in network.layers] == ["Convolution", "ReLU", "Pooling", "InnerProduct", "Softmax"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "models.tiny: missing 'prototxt', 'caffemodel'; or give the model as `onnx`"),
        ({"prototxt": "a"}, "models.tiny: missing 'caffemodel'; or give the model as `onnx`"),
        ({"onnx": "a", "caffemodel": "b"}, "models.tiny.caffemodel: `onnx` is there as well"),
        ({"prototxt": "a", "caffemodel": "b", "input_shape": [1, 1, 8, 8]}, "models.tiny.input_shape: it goes with"),
    ],
)
def test_a_model_is_one(case: Case, record: dict[str, Any], said: str) -> None:
    config = copy.deepcopy(case[1])
    config["models"]["tiny"] = {**record, "preprocessing": {"channels": "gray"}}
    with pytest.raises(ConfigError) as caught:
        load_configuration(config)
    assert str(caught.value).startswith(f"config: {said}")


def test_nvidia_s_compiler_gets_the_network_in_caffe(
    new_checkout: Callable[..., Path], tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    """With a ReLU6, which is four layers there, each with an entry in the table; a stand-in compiles."""
    checkout = new_checkout()
    network = tiny_network(0)
    layers = [Layer("relu1", Clip(0.0, 0.5), ("conv1",)) if item.name == "relu1" else item for item in network.layers]
    onnx.save(to_onnx(assemble("tiny", network.inputs, layers)), checkout / "inputs" / "tiny.onnx")
    install("nvdla_compiler", tmp_path)
    int8 = {"precision": "int8", "mode": "per-filter", "calibrator": "minmax"}
    config = tiny_config | {
        "models": {"tiny": {"onnx": "inputs/tiny.onnx", "preprocessing": {"channels": "gray", "scale": 0.00390625}}},
        "targets": ["nv_small"],
        "variants": [{**int8, "name": "theirs", "compiler": "nvdla_compiler"}, {**int8, "name": "ours"}],
        "backends": {"nvdla_compiler": {"path": str(tmp_path / "nvdla_compiler"), "informat": "nchw"}},
    }
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    verdict = "results/tiny/noise/nv_small/theirs/verdict.json"
    # And the table of the other variant, which is that of the layers as they are in the model.
    result = run(checkout, verdict, "results/tiny/noise/calibration/minmax/fold-quantized/table.fixed.json")
    logs = "".join(path.read_text()[-600:] for path in (checkout / "results" / "logs").rglob("*.log"))
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:] + logs
    tables = checkout / "results/tiny/noise/calibration/minmax"
    more, fewer = (
        json.loads((tables / name / "table.fixed.json").read_text())
        for name in ("fold-quantized-caffe", "fold-quantized")
    )
    assert set(more) - set(fewer) == {"relu1_low", "relu1_below", "relu1_high"}
    assert json.loads((checkout / verdict).read_text())["verdict"] == "ok"
