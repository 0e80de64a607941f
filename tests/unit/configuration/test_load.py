"""The configuration: defaults, names, and messages that name the key."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.readme import COMMAND, render_markdown
from nvdla_quant.configuration.schema import load_schema
from nvdla_quant.errors import ConfigError


@pytest.fixture
def config(repository: Path) -> dict[str, Any]:
    return yaml.safe_load((repository / "config.yaml").read_text())


def test_default_configuration_has_thirteen_runs_a_case(config: dict[str, Any]) -> None:
    """3 targets x 2 modes x 2 calibrators in int8, and fp16 on nv_full alone: 13, for each of two networks."""
    assert len(load_configuration(config).runs) == 2 * 13


def test_defaults_come_from_the_schema(config: dict[str, Any]) -> None:
    del config["targets"]
    configuration = load_configuration(config)
    assert configuration.settings["targets"] == ["nv_full", "nv_large", "nv_small"]
    assert configuration.shards == ("1-of-1",)
    assert configuration.settings["models"]["lenet"]["preprocessing"]["mean"] == [0]
    assert configuration.settings["raw_dumps"] == {"format": "none", "images": 16}


def test_defaults_of_shared_definitions_are_filled_too(config: dict[str, Any]) -> None:
    config["backends"] = {"nvdla_runtime": {"device": "local", "path": "nvdla_runtime"}}
    filled = load_configuration(config).settings["backends"]["nvdla_runtime"]
    assert (filled["launcher"], filled["time_limit"]) == ("apptainer", 300)
    assert "container" not in filled


@pytest.mark.parametrize("method", ["mse", "cosine"])
def test_thresholds_of_the_rounded_tensor_are_the_cpus(config: dict[str, Any], method: str) -> None:
    config["calibrators"]["entropy"]["method"] = method
    configuration = load_configuration(config)
    assert configuration.settings["calibrators"]["entropy"]["method"] == method
    assert configuration.tensorrt_calibrators == ()


def test_loading_leaves_the_input_alone(config: dict[str, Any]) -> None:
    before = copy.deepcopy(config)
    load_configuration(config)
    assert config == before


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"precision": "fp16"}, "fp16"),
        ({"precision": "int8", "mode": "per-filter", "calibrator": "entropy"}, "int8-per-filter-entropy"),
        (
            {"precision": "int8", "mode": "per-kernel", "calibrator": "minmax", "preparation": "as-is"},
            "int8-per-kernel-minmax-as-is",
        ),
        (
            {
                "precision": "int8",
                "mode": "per-kernel",
                "calibrator": "minmax",
                "feeding": "stock-runtime",
                "unify_scales": False,
            },
            "int8-per-kernel-minmax-stock-runtime-not-unified",
        ),
        ({"precision": "fp16", "name": "half"}, "half"),
        ({"precision": "fp16", "compiler": "nvdla_compiler"}, "fp16-nvdla-compiler"),
    ],
)
def test_variant_names(config: dict[str, Any], record: dict[str, Any], name: str) -> None:
    config["variants"] = [record]
    config["backends"] = {"nvdla_compiler": {"path": "nvdla_compiler"}}
    assert list(load_configuration(config).variants) == [name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shard": 2}, r"unknown key 'shard' \(did you mean 'shards'\?\)"),
        ({"targets": ["nv_tiny"]}, r"targets\[0\]: there is no target 'nv_tiny', but nv_full, nv_large, "),
        (
            {"cases": [{"model": "vgg", "dataset": "mnist"}]},
            r"cases\[0\]\.model: no model is called 'vgg'; there",
        ),
        ({"cases": [{"model": "lenet", "dataset": "mnist"}] * 2}, "cases: lenet/mnist stands twice"),
        ({"variants": [{"precision": "int8"}]}, r"variants\[0\]: missing 'mode', 'calibrator'$"),
        ({"variants": [{"precision": "fp16", "mode": "per-kernel"}]}, r"variants\[0\]\.mode: only an int8 variant"),
        ({"variants": [{"precision": "fp16"}, {"precision": "fp16"}]}, "two variants are called 'fp16'"),
        (
            {"variants": [{"precision": "int8", "mode": "per-kernel", "calibrator": "kl"}]},
            "no calibrator is called 'kl'; there are entropy, minmax",
        ),
        (
            {"targets": ["nv_small"], "variants": [{"precision": "fp16", "targets": ["nv_full"]}]},
            "nothing is left to run; look at targets, include and exclude",
        ),
        (
            {"calibrators": {"entropy": {"method": "percentile"}, "minmax": {"method": "minmax"}}},
            "entropy: `percentile`",
        ),
        (
            {"calibrators": {"entropy": {"method": "mse", "percentile": 99}, "minmax": {"method": "minmax"}}},
            "entropy: `percentile`",
        ),
        (
            {"calibrators": {"entropy": {"method": "tensorrt-mse"}, "minmax": {"method": "minmax"}}},
            r"calibrators\.entropy\.method",
        ),
        (
            {"variants": [{"precision": "fp16", "compiler": "nvdla_compiler"}]},
            r"variants\[0\]\.compiler: nvdla_compiler needs the section backends\.nvdla_compiler",
        ),
        ({"backends": {"nvdla_compiler": {}}}, r"backends\.nvdla_compiler: missing 'path'"),
        (
            {"calibrators": {"entropy": {"method": "tensorrt-entropy"}, "minmax": {"method": "minmax"}}},
            r"calibrators\.entropy\.images: 500 in batches of 64; TensorRT .* a multiple, 512 for example",
        ),
        ({"shards": 0}, "shards: 0 is less than the minimum of 1"),
    ],
)
def test_mistakes_are_named(config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_configuration({**config, **change})


def test_a_target_that_the_sweep_has_not_makes_no_run_and_is_named(config: dict[str, Any]) -> None:
    """The default has fp16 on nv_full alone: a sweep without nv_full leaves it out, and says so."""
    configuration = load_configuration({**config, "targets": ["nv_small"]})
    assert configuration.notes == ("config: variants[0]: no run on nv_full, which `targets` does not list",)
    assert {run.target for run in configuration.runs} == {"nv_small"}
    assert "fp16" not in configuration.variants
    assert load_configuration(config).notes == ()


def test_unknown_keys_deep_inside_are_named(config: dict[str, Any]) -> None:
    config["models"]["lenet"]["preprocessing"]["means"] = [1]
    with pytest.raises(ConfigError, match=r"lenet\.preprocessing: unknown key 'means' \(did you mean 'mean'\?\)"):
        load_configuration(config)


def test_names_stay_out_of_trouble_in_paths(config: dict[str, Any]) -> None:
    config["models"]["../evil"] = config["models"]["lenet"]
    with pytest.raises(ConfigError, match=r"'\.\./evil' is no name .*not allowed are '\.', '/'$"):
        load_configuration(config)


def test_a_data_set_has_one_origin_of_calibration_images(config: dict[str, Any]) -> None:
    del config["datasets"]["mnist"]["calibration_pool"]
    with pytest.raises(ConfigError, match="give exactly one of calibration_source, calibration_pool"):
        load_configuration(config)


def test_every_key_of_the_schema_is_described() -> None:
    def check(schema: dict[str, Any], where: str) -> None:
        for key, value in schema.get("properties", {}).items():
            referred = value.get("$ref", "").startswith("#/$defs/") or "const" in value
            assert "description" in value or referred, f"{where}.{key}"
            check(value, f"{where}.{key}")

    schema = load_schema()
    check(schema, "config")
    for name, definition in schema["$defs"].items():
        check(definition, name)


def test_config_readme_is_current(repository: Path) -> None:
    assert (repository / "config" / "README.md").read_text() == render_markdown(), f"run: {COMMAND}"


def on_device(config: dict[str, Any], scale: float, **variant: Any) -> dict[str, Any]:
    """Return a configuration of one variant that runs with nvdla_runtime, pixels multiplied by `scale`."""
    config["models"]["lenet"]["preprocessing"]["scale"] = scale
    config["cases"] = [{"model": "lenet", "dataset": config["cases"][0]["dataset"]}]
    config["variants"] = [{"precision": "fp16", "runtime": "nvdla_runtime", **variant}]
    config["backends"] = {"nvdla_runtime": {"device": "local", "path": "nvdla_runtime"}}
    return config


@pytest.mark.parametrize("scale", [1 / 256, 1 / 300, 1 / 127.5, 2])
def test_fp16_that_nvdla_runtime_cannot_feed_is_refused_before_anything_is_compiled(
    config: dict[str, Any], scale: float
) -> None:
    message = r"config: variant fp16-nvdla-runtime, lenet on \S+: nvdla_runtime: --normalize would be .* from 1 to 255"
    with pytest.raises(ConfigError, match=message):
        load_configuration(on_device(config, scale))


@pytest.mark.parametrize(
    ("scale", "variant"),
    [
        (1 / 255, {}),
        (0.017857142857, {}),
        (1, {}),
        (1 / 256, {"feeding": "stock-runtime"}),
        (1 / 256, {"runtime": "emulator"}),
        (1 / 256, {"precision": "int8", "mode": "per-filter", "calibrator": "minmax"}),
    ],
)
def test_what_nvdla_runtime_can_feed_is_taken(config: dict[str, Any], scale: float, variant: dict[str, Any]) -> None:
    assert load_configuration(on_device(config, scale, **variant)).runs


def test_what_a_case_overrides_is_what_counts(config: dict[str, Any]) -> None:
    on_device(config, 1 / 256)["cases"][0]["overrides"] = {"preprocessing": {"scale": 0.0078125}}
    assert load_configuration(config).runs
    on_device(config, 0.0078125)["cases"][0]["overrides"] = {"preprocessing": {"scale": 1 / 256}}
    with pytest.raises(ConfigError, match="--normalize"):
        load_configuration(config)


def test_a_platform_without_modules_for_a_target_is_refused(config: dict[str, Any]) -> None:
    platform = {"config": "/a.lua", "files": "f", "modules": {"nv_small": ["drm.ko"]}}
    on_device(config, 1)["backends"]["nvdla_runtime"] |= {"device": "virtual-platform", "virtual_platform": platform}
    with pytest.raises(ConfigError, match=r"virtual_platform\.modules: names none for nv_full, which fp16-"):
        load_configuration(config)
    del platform["modules"]
    assert load_configuration(config).runs


@pytest.fixture
def quantized(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration whose second model is a quantized ONNX file, used with its own scales."""
    config["models"]["resnet20"] = {"onnx": "net.onnx", "preprocessing": {"channels": "gray"}}
    config["calibrators"] = {"own": {"method": "qdq"}}
    config["variants"] = [{"precision": "int8", "mode": "per-filter", "calibrator": "own"}]
    config["cases"] = config["cases"][1:]
    return config


def test_method_qdq_takes_no_images(quantized: dict[str, Any]) -> None:
    configuration = load_configuration(quantized)
    (case,) = configuration.cases
    assert configuration.calibrator(case, "own") == {"method": "qdq", "qdq_ranges": "refuse"}
    assert configuration.quantized_cases == (case,)
    assert [group.images for group in configuration.groups] == [None] * 3
    quantized["calibrators"]["own"]["qdq_ranges"] = "cover"
    assert load_configuration(quantized).calibrator(case, "own")["qdq_ranges"] == "cover"


def test_other_methods_are_no_quantized_cases(config: dict[str, Any]) -> None:
    assert load_configuration(config).quantized_cases == ()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("images", 8, "own.images: method qdq takes the scales that the model has in it, and sees no images"),
        ("seed", [1, 2], "own.seed: method qdq takes"),
        ("percentile", 99, "belongs to methods percentile and tensorrt-legacy"),
        ("qdq_ranges", "half", "is not one of"),
    ],
)
def test_keys_that_mean_nothing_to_method_qdq(quantized: dict[str, Any], key: str, value: Any, message: str) -> None:
    quantized["calibrators"]["own"][key] = value
    with pytest.raises(ConfigError, match=message):
        load_configuration(quantized)


def test_qdq_ranges_belongs_to_method_qdq(config: dict[str, Any]) -> None:
    config["calibrators"]["entropy"]["qdq_ranges"] = "cover"
    with pytest.raises(ConfigError, match=r"calibrators\.entropy\.qdq_ranges: only method qdq takes it"):
        load_configuration(config)


def test_a_caffe_model_has_no_scales(quantized: dict[str, Any]) -> None:
    quantized["cases"].append({"model": "lenet", "dataset": "mnist"})
    with pytest.raises(ConfigError, match=r"calibrator own takes the scales .* and lenet is a Caffe model"):
        load_configuration(quantized)
    quantized["exclude"] = [{"model": "lenet", "calibrator": "own"}]
    load_configuration(quantized)
