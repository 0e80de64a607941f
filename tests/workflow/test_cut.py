"""A sweep over models whose tail is cut off, in Caffe's files and in ONNX."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from onnx import helper

from nvdla_quant.configuration.artefacts import Artefacts
from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.parameters.job import Job
from nvdla_quant.errors import ConfigError
from nvdla_quant.network.files import read_model
from nvdla_quant.network.onnx.writer import to_onnx
from tests.sweeps import plan, run, tiny_network
from tests.unit.configuration.test_parameters import wildcards

Case = tuple[Path, dict[str, Any]]
TAIL = '\nlayer { name: "label" type: "ArgMax" bottom: "prob" top: "label" }\n'
NETWORK = "results/tiny/noise/network"


@pytest.fixture(scope="module")
def case(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> Case:
    """Return a checkout with the tiny network, an ArgMax behind it in both forms, and the configuration of a sweep."""
    checkout = new_checkout()
    with (checkout / "inputs" / "deploy.prototxt").open("a") as file:
        file.write(TAIL)
    model = to_onnx(tiny_network(0))
    model.graph.node.append(helper.make_node("ArgMax", ["prob"], ["label"], axis=1))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("label", onnx.TensorProto.INT64, None))
    onnx.save(model, checkout / "inputs" / "tail.onnx")
    config = copy.deepcopy(tiny_config)
    config["models"]["tiny"]["cut_at"] = ["prob"]
    how = config["models"]["tiny"]["preprocessing"]
    config["models"]["other"] = {"onnx": "inputs/tail.onnx", "preprocessing": how, "cut_at": ["prob"]}
    config["cases"].append({"model": "other", "dataset": "noise"})
    config |= {"targets": ["nv_small"], "variants": config["variants"][1:]}
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    return checkout, config


def test_a_caffe_model_is_cut_and_an_onnx_model_read(case: Case) -> None:
    """No rule is there for a model that is not cut: `test_staleness` and others have its plan."""
    jobs = plan(*case)
    assert (jobs["cut_network"], jobs["import_network"], jobs["prepare_network"]) == (1, 1, 1)


def test_what_is_made_is_the_network_up_to_there(case: Case) -> None:
    """The form that is compiled is made of the cut network, whose layers the caffemodel has and no others."""
    form, imported = f"{NETWORK}/fold/weights.caffemodel", "results/other/noise/network/imported/network.onnx"
    result = run(case[0], form, imported)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    expected = [layer.name for layer in tiny_network(0).layers]
    pairs = [
        [f"{NETWORK}/{name}/{file}" for file in ("deploy.prototxt", "weights.caffemodel")] for name in ("cut", "fold")
    ]
    for files in (*pairs, [imported]):
        assert [layer.name for layer in read_model([case[0] / path for path in files]).layers] == expected


def job_of(config: dict[str, Any]) -> Job:
    configuration = load_configuration(config)
    return Job(configuration, Artefacts(configuration, "results"))


def test_jobs_read_what_was_cut(case: Case, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the model's own files only the rule that cuts it."""
    monkeypatch.chdir(case[0])
    job, names = job_of(case[1]), wildcards(calibrator="entropy")
    pair = [f"{NETWORK}/cut/deploy.prototxt", f"{NETWORK}/cut/weights.caffemodel"]
    assert job.network(names) == job.caffe_files(names) == pair
    assert job.structure(names) == [job.size(names)] == pair[:1]
    assert job.model_files(names) == ["inputs/deploy.prototxt", "inputs/tiny.caffemodel"]
    assert (job.cut_at(names), job_of(tiny_config).cut_at(names)) == (["prob"], [])
    assert set(pair) <= set(job.artefacts.exact)
    assert not [path for path in job_of(tiny_config).artefacts.exact if "/cut/" in path]
    assert not [path for path in job.artefacts.exact if "/other/noise/network/cut/" in path]


@pytest.mark.parametrize(
    ("cut_at", "said"),
    [
        ([], r"models\.tiny\.cut_at: "),
        (["a", "a"], r"models\.tiny\.cut_at: "),
        ("prob", r"models\.tiny\.cut_at: 'prob' is not of type 'array'"),
        ([3], r"models\.tiny\.cut_at\[0\]: 3 is not of type 'string'"),
    ],
)
def test_mistakes(case: Case, cut_at: object, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case[0])
    config = copy.deepcopy(case[1])
    config["models"]["tiny"]["cut_at"] = cut_at
    with pytest.raises(ConfigError, match=said):
        load_configuration(config)
