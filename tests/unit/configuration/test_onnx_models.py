"""Models that are ONNX files: their records, and the paths that follow from them before any is read."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nvdla_quant.configuration.artefacts import Artefacts
from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.parameters.job import Job
from nvdla_quant.errors import ConfigError

Jobs = Callable[..., Job]
NETWORK = "results/tiny/noise/network"


def wildcards(**names: str) -> Any:
    return SimpleNamespace(**{"model": "tiny", "dataset": "noise", **names})


@pytest.fixture
def job_of(tiny_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Return jobs of a sweep over one ONNX model, with what a test adds to its record; a variant is NVIDIA's."""
    monkeypatch.chdir(tmp_path)

    def job_of(onnx: Any = "inputs/tiny.onnx", **record: Any) -> Job:
        config = copy.deepcopy(tiny_config)
        config["models"]["tiny"] = {"onnx": onnx, "preprocessing": {"channels": "gray"}, **record}
        config["backends"] = {"nvdla_compiler": {"path": "nvdla_compiler"}}
        config["variants"].append({**config["variants"][1], "name": "theirs", "compiler": "nvdla_compiler"})
        configuration = load_configuration(config)
        return Job(configuration, Artefacts(configuration, "results"))

    return job_of


def test_every_job_reads_what_the_model_was_read_to(job_of: Jobs) -> None:
    job = job_of(input_shape=[1, 1, 8, 8])
    imported = [f"{NETWORK}/imported/network.onnx"]
    assert job.network(wildcards()) == job.structure(wildcards()) == imported
    assert job.model_files(wildcards()) == ["inputs/tiny.onnx"]
    assert job.input_shape(wildcards()) == [1, 1, 8, 8]
    assert job_of().input_shape(wildcards()) is None
    assert job.caffe_files(wildcards()) == []
    given = SimpleNamespace(network=[], cache=[])
    assert job.tensorrt_options(wildcards(calibrator="entropy"), given) == ["--method=entropy", "--batch-size=8"]


def test_a_form_is_onnx_and_in_caffe_for_nvidia_s_compiler(job_of: Jobs) -> None:
    job = job_of()
    ours, theirs = wildcards(variant="int8-per-filter-entropy", target="nv_small"), wildcards(variant="theirs")
    pair = [f"{NETWORK}/fold/deploy.prototxt", f"{NETWORK}/fold/weights.caffemodel"]
    assert job.prepared(ours) == [f"{NETWORK}/fold/network.onnx"]
    assert job.prepared(theirs) == pair
    tables = "results/tiny/noise/calibration/entropy"
    assert job.table(ours) == f"{tables}/fold-quantized/table.fixed.json"
    assert job.table(theirs) == f"{tables}/fold-quantized-caffe/table.fixed.json"
    assert job.table_network(wildcards(table="fold-quantized")) == [f"{NETWORK}/fold/network.onnx"]
    assert job.table_network(wildcards(table="fold-quantized-caffe")) == pair
    assert job.nvdla_compiler_variants(wildcards(target="nv_small"))["theirs"]["is_converted"]


def test_artefacts(job_of: Jobs) -> None:
    artefacts = job_of().artefacts
    assert {path.removeprefix(f"{NETWORK}/") for path in artefacts.exact if "/network/" in path} == {
        "imported/network.onnx",
        "imported/names.json",
        "imported/remarks.txt",
        "imported/size.json",
        "fold/network.onnx",
        "fold/deploy.prototxt",
        "fold/weights.caffemodel",
    }
    tables = [path for path in artefacts.processor_dependent if path.endswith("table.fixed.json")]
    assert [path.split("/")[-2] for path in tables] == ["fold-quantized", "fold-quantized-caffe"]
    assert artefacts.inputs == ["inputs/tiny.onnx", "inputs/noise.npz"]


def test_weights_beside_the_model_are_its_files(job_of: Jobs) -> None:
    Path("inputs").mkdir()
    Path("inputs/tiny.onnx.data").touch()
    job = job_of()
    assert job.model_files(wildcards()) == ["inputs/tiny.onnx", "inputs/tiny.onnx.data"]
    assert "inputs/tiny.onnx.data" in job.artefacts.inputs


def test_a_model_from_elsewhere(job_of: Jobs) -> None:
    source = {"url": "https://example.org/nets.zip", "sha256": "0" * 64, "member": "nets/tiny.onnx"}
    job = job_of(source)
    assert job.model_files(wildcards()) == [f"downloads/{'0' * 64}/member/nets/tiny.onnx"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"prototxt": "a"}, r"models\.tiny\.prototxt: `onnx` is there as well; give one model"),
        ({"prototxt": "a", "caffemodel": "b"}, r"models\.tiny\.caffemodel: `onnx` is there as well"),
        ({"input_shape": [1, 3, 0, 4]}, r"models\.tiny\.input_shape\[2\]: 0 is less than the minimum of 1"),
        ({"input_shape": "1,3"}, r"models\.tiny\.input_shape: '1,3' is not of type 'array'"),
        ({"onix": "b"}, r"unknown key 'onix' \(did you mean 'onnx'\?\)"),
    ],
)
def test_mistakes(job_of: Jobs, record: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        job_of(**record)


def test_a_sheet_of_both_kinds(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    sheet = tmp_path / "models.tsv"
    head = "name\tprototxt\tcaffemodel\tonnx\tinput_shape\tpreprocessing.channels\n"
    sheet.write_text(f"{head}tiny\ta.prototxt\ta.caffemodel\t\t\tgray\nother\t\t\tb.onnx\t[1, 1, 8, 8]\tgray\n")
    cases = [{"model": name, "dataset": "noise"} for name in ("tiny", "other")]
    configuration = load_configuration({**tiny_config, "models": str(sheet), "cases": cases})
    assert (configuration.models(onnx=False), configuration.models(onnx=True)) == (("tiny",), ("other",))
    sheet.write_text(f"{head}tiny\ta.prototxt\ta.caffemodel\tb.onnx\t\tgray\n")
    with pytest.raises(ConfigError, match=r"models\.tsv, row 2, column caffemodel: `onnx` is there as well"):
        load_configuration({**tiny_config, "models": str(sheet)})
