"""What each job is given, by the wildcards of its paths."""

import copy
import re
from types import SimpleNamespace
from typing import Any

import pytest

from nvdla_quant.configuration.artefacts import Artefacts
from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.parameters.job import Job
from nvdla_quant.configuration.parameters.names import ANY_NAME, alternatives, known, those
from nvdla_quant.configuration.sources import files_of, located


def job_of(config: dict[str, Any]) -> Job:
    configuration = load_configuration(config)
    return Job(configuration, Artefacts(configuration, "results"))


def wildcards(**names: str) -> Any:
    return SimpleNamespace(model="tiny", dataset="noise", **names)


@pytest.fixture
def job(tiny_config: dict[str, Any]) -> Job:
    return job_of(tiny_config)


INT8 = wildcards(target="nv_small", variant="int8-per-filter-entropy")
FP16 = wildcards(target="nv_full", variant="fp16")


def test_files_of_a_variant(job: Job) -> None:
    case = "results/tiny/noise"
    files = [f"{case}/network/fold/deploy.prototxt", f"{case}/network/fold/weights.caffemodel"]
    assert job.prepared(INT8) == files
    assert job.prepared_structure(INT8) == job.table_network(wildcards(table="fold-quantized")) == files[:1]
    assert job.network(INT8) == ["inputs/deploy.prototxt", "inputs/tiny.caffemodel"]
    assert job.structure(INT8) == ["inputs/deploy.prototxt"]
    assert job.table(INT8) == f"{case}/calibration/entropy/fold-quantized/table.fixed.json"
    assert job.table(FP16) == []


def test_parameters_of_a_variant(job: Job) -> None:
    assert job.compile_options(INT8) == {"precision": "int8", "mode": "per-filter"}
    assert job.builtin_options(INT8) == {"precision": "int8", "mode": "per-filter", "objective": "cycles"}
    assert job.feeding(FP16) == {"precision": "fp16", "feeding": "quantized"}
    assert (job.is_quantized_here(INT8), job.is_quantized_here(FP16)) == (True, False)
    assert (job.is_compiled_here(INT8), job.is_fed_raw_pixels(INT8)) == (True, False)


def test_raw_pixels_take_the_preprocessing_into_the_network(tiny_config: dict[str, Any]) -> None:
    config = copy.deepcopy(tiny_config)
    config["variants"] = [{"precision": "fp16", "feeding": "stock-runtime"}]
    job = job_of(config)
    assert job.is_fed_raw_pixels(wildcards(variant="fp16-stock-runtime"))
    assert job.preparation(wildcards(network="fold-stock-runtime")) == {
        "preparation": "fold",
        "pixels": ([0], 0.00390625),
    }


def test_rows_say_what_made_them(job: Job) -> None:
    row = job.subject(INT8)
    assert (row["calibrate_backend"], row["compile_backend"], row["run_backend"]) == ("cpu", "builtin", "emulator")
    assert job.subject(FP16)["calibrate_backend"] is None
    assert job.subject(FP16)["feeding"] is None
    assert job.verified_subject(INT8) == {key: row[key] for key in ("model", "dataset", "target", "variant")}
    assert job.pair_with_fp32(INT8) == {**job.verified_subject(INT8), "baseline": "fp32", "kind": "fp32"}


def test_a_case_s_runs_dumps_and_comparisons_are_in_one_order(tiny_config: dict[str, Any]) -> None:
    job = job_of({**tiny_config, "shards": 2})
    runs = job.runs(wildcards())
    assert len(runs) == 3
    folders = [f"results/tiny/noise/{target}/{variant}" for target, variant in runs]
    assert job.dumps(wildcards()) == [f"{folder}/dumps/{i}-of-2.npz" for folder in folders for i in (1, 2)]
    assert job.comparisons(wildcards()) == [f"{folder}/comparison.json" for folder in folders]
    assert job.part(wildcards(shard="2-of-2")) == {"shard": 1, "shards": 2}


def test_files_of_a_storage_stand_elsewhere(job: Job) -> None:
    """Where Snakemake copies them to; the configuration's path is one of the bucket."""
    given = SimpleNamespace(files=["copies/inputs/noise.npz"])
    expected = {"format": "npz", "path": "copies/inputs/noise.npz"}
    assert job.test_dataset(wildcards(), given)["source"] == expected
    assert job.calibration_dataset(wildcards(calibrator="entropy"), given)["source"] == expected
    assert job.base(wildcards(), SimpleNamespace(manifest="copies/results/manifest.json")) == "copies/"
    assert job.base(wildcards(), SimpleNamespace(manifest="results/manifest.json")) == ""


def test_modes_are_paired(tiny_config: dict[str, Any]) -> None:
    int8 = {"precision": "int8", "mode": ["per-kernel", "per-filter"], "calibrator": "entropy"}
    (pair,) = job_of({**tiny_config, "variants": [int8], "targets": ["nv_small"]}).pairs(wildcards())
    assert pair == {
        "target": "nv_small",
        "variant": "int8-per-filter-entropy",
        "baseline": "int8-per-kernel-entropy",
        "kind": "mode",
    }


def test_what_tensorrt_is_told(tiny_config: dict[str, Any]) -> None:
    config = copy.deepcopy(tiny_config)
    config["calibrators"]["entropy"] = {
        "method": "tensorrt-legacy",
        "images": 16,
        "batch_size": 8,
        "percentile": 99.5,
    }
    job = job_of(config)
    options = ["--method=tensorrt-legacy", "--batch-size=8", "--quantile=0.995"]
    model = ["inputs/deploy.prototxt", "inputs/tiny.caffemodel"]
    files = [f"--prototxt={model[0]}", f"--caffemodel={model[1]}"]
    given = SimpleNamespace(network=job.caffe_files(wildcards()), cache=[])
    assert job.tensorrt_options(wildcards(calibrator="entropy"), given) == [*files, *options]
    cache = "results/tiny/noise/calibration/entropy/calibration.cache"
    int8, fp16 = wildcards(engine="int8-entropy"), wildcards(engine="fp16")
    assert (job.engine_cache(int8), job.engine_cache(fp16)) == (cache, [])
    told = [*files, "--precision=int8", f"--cache={cache}", *options]
    assert job.engine_options(int8, SimpleNamespace(network=model, cache=cache)) == told
    assert job.engine_options(fp16, given) == [*files, "--precision=fp16", "--batch-size=64"]
    assert job.engine_subject(int8)["calibrator"] == "entropy"
    assert job.engine_subject(fp16)["precision"] == "fp16"


def test_what_nvdla_compiler_makes(tiny_config: dict[str, Any]) -> None:
    config = copy.deepcopy(tiny_config)
    config["variants"][0]["compiler"] = "nvdla_compiler"
    config["backends"] = {"nvdla_compiler": {"path": "nvdla_compiler"}}
    job = job_of(config)
    assert list(job.nvdla_compiler_variants(wildcards(target="nv_full"))) == ["fp16-nvdla-compiler"]
    assert job.nvdla_compiler_variants(wildcards(target="nv_small")) == {}
    assert not job.is_compiled_here(wildcards(variant="fp16-nvdla-compiler"))


@pytest.mark.parametrize(
    ("method", "names", "message"),
    [
        ("network", {"model": "vgg"}, "config: there is no model 'vgg', but tiny"),
        ("preprocessing", {"dataset": "cats"}, "config: there is no case 'tiny/cats', but tiny/noise"),
        ("calibrator", {"calibrator": "kl"}, "config: there is no calibrator 'kl', but entropy, minmax"),
        ("table", {"variant": "fp8"}, "config: there is no variant 'fp8', but fp16, int8-per-filter-entropy"),
    ],
)
def test_unknown_names_end_with_one_line(job: Job, method: str, names: dict[str, str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        getattr(job, method)(SimpleNamespace(**{"model": "tiny", "dataset": "noise", **names}))
    assert caught.value.code == message


def test_nothing_is_known_where_there_is_nothing() -> None:
    with pytest.raises(SystemExit, match="there is no model 'a', but none at all"):
        known("model", "a", {})


def test_patterns() -> None:
    assert re.fullmatch(alternatives(["a.b", "c"]), "a.b")
    assert not re.fullmatch(alternatives(["a.b", "c"]), "axb")
    assert not re.fullmatch(alternatives([]), "")
    assert those(["a", "b"], {"b": 0, "a": 0}) == ANY_NAME
    assert those(["a"], ["a", "b"]) == "a"
    assert those([], ["a"]) == "(?!)"


@pytest.mark.parametrize(
    "source",
    [
        {"format": "idx", "images": "a", "labels": "b", "label_names": "c"},
        {"format": "cifar10", "files": ["a", "b"], "label_names": "c"},
        {"format": "folder", "labels": "b", "images": "a"},
    ],
)
def test_located_files_have_the_keys_that_they_had(source: dict[str, Any]) -> None:
    moved = located(source, [f"copies/{file}" for file in files_of(source)])
    assert list(moved) == list(source)
    assert moved == {
        key: [f"copies/{file}" for file in value] if key == "files" else value if key == "format" else f"copies/{value}"
        for key, value in source.items()
    }
