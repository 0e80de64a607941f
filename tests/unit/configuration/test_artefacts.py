"""Every file that a configuration implies, once and in order."""

import copy
from typing import Any

import pytest
import yaml

from nvdla_quant.configuration.artefacts import Artefacts
from nvdla_quant.configuration.load import load_configuration


@pytest.fixture
def artefacts(tiny_config: dict[str, Any]) -> Artefacts:
    return Artefacts(load_configuration(tiny_config), "results")


def test_files_of_runs_stand_in_the_order_of_the_report(artefacts: Artefacts) -> None:
    runs = ["nv_full/fp16", "nv_full/int8-per-filter-entropy", "nv_small/int8-per-filter-entropy"]
    case = "results/tiny/noise"
    assert artefacts.accuracies == [
        f"{case}/reference/accuracy.json",
        *(f"{case}/{run}/accuracy.json" for run in runs),
    ]
    assert artefacts.comparisons == [*(f"{case}/{run}/comparison.json" for run in runs), f"{case}/comparisons.json"]
    assert artefacts.verdicts == [f"{case}/{run}/verdict.json" for run in runs]
    assert artefacts.layers == [f"{case}/{run}/layers.tsv" for run in runs]
    assert artefacts.loadables == [f"{case}/{run}/loadable.nvdla" for run in runs]
    assert artefacts.claims == [f"{case}/{run}/compile.json" for run in runs]
    assert artefacts.costs == [f"{case}/{run}/cost.json" for run in runs]
    assert set(artefacts.costs) <= set(artefacts.processor_dependent)
    assert artefacts.raw_tables == [f"{case}/calibration/entropy/table.raw.json"]
    assert artefacts.calibrators == [{"model": "tiny", "dataset": "noise", "name": "entropy"}]
    assert artefacts.raw_dumps == []
    assert artefacts.inputs == ["inputs/deploy.prototxt", "inputs/tiny.caffemodel", "inputs/noise.npz"]


def test_no_artefact_stands_twice(artefacts: Artefacts) -> None:
    every = [*artefacts.exact, *artefacts.processor_dependent]
    assert len(every) == len(set(every))
    assert not {artefacts.manifest, artefacts.page} & set(every)


def test_what_is_not_asked_for_is_not_there(tiny_config: dict[str, Any]) -> None:
    found = Artefacts(load_configuration({**tiny_config, "verify": {"images": 0}}), "results")
    assert found.verdicts == found.layers == []
    assert not [path for path in found.processor_dependent if path.endswith(("verdict.json", "layers.tsv"))]


def test_shards_and_raw_dumps(tiny_config: dict[str, Any]) -> None:
    config = {**tiny_config, "shards": 2, "targets": ["nv_small"], "raw_dumps": {"format": "text"}}
    found = Artefacts(load_configuration(config), "elsewhere")
    folder = "elsewhere/tiny/noise/nv_small/int8-per-filter-entropy"
    assert found.raw_dumps == [f"{folder}/dumps/1-of-2.dimg", f"{folder}/dumps/2-of-2.dimg"]
    assert {f"{folder}/dumps/1-of-2.npz", f"{folder}/dumps/2-of-2.npz"} <= set(found.processor_dependent)


def test_engines_of_tensorrt_are_rows_where_a_calibrator_is_its_own(tiny_config: dict[str, Any]) -> None:
    config = copy.deepcopy(tiny_config)
    config["calibrators"]["entropy"]["method"] = "tensorrt-entropy"
    config["backends"] = {"tensorrt": {"python": "python3"}}
    found = Artefacts(load_configuration(config), "results")
    engines = ["fp32", "fp16", "int8-entropy"]
    assert found.accuracies[1:4] == [f"results/tiny/noise/tensorrt/{engine}.json" for engine in engines]
    assert {f"results/tiny/noise/tensorrt/{engine}.npz" for engine in engines} <= set(found.processor_dependent)


def test_what_an_estimate_rests_on(tiny_config: dict[str, Any]) -> None:
    """Clocks by target; a loadable of NVIDIA's compiler has no claim beside it."""
    nvidia = {"precision": "fp16", "targets": ["nv_full"], "compiler": "nvdla_compiler"}
    backends = {"nvdla_compiler": {"path": "nvdla_compiler"}}
    config = {**tiny_config, "clock": {"nv_small": 1e8}, "variants": [*tiny_config["variants"], nvidia]}
    found = Artefacts(load_configuration({**config, "backends": backends}), "results")
    shown = [(run["hardware"], run["variant"], run["claimed"], run["clock"]) for run in found.estimates]
    assert shown == [
        ("nv_full", "fp16", True, 10**9),
        ("nv_full", "int8-per-filter-entropy", True, 10**9),
        ("nv_full", "fp16-nvdla-compiler", False, 10**9),
        ("nv_small", "int8-per-filter-entropy", True, 1e8),
    ]
    assert len(found.loadables) == len(found.costs) == len(found.claims) + 1


def test_repeated_seeds_are_one_group_and_go_by_one_name(tiny_config: dict[str, Any]) -> None:
    config = copy.deepcopy(tiny_config)
    config["calibrators"]["entropy"]["seed"] = [0, 1]
    found = Artefacts(load_configuration(config), "results")
    names = {group["name"]: group["variants"] for group in found.groups if group["target"] == "nv_small"}
    assert names == {
        "int8-per-filter-entropy": ("int8-per-filter-entropy-seed-0", "int8-per-filter-entropy-seed-1"),
    }
    assert [record["name"] for record in found.calibrators] == ["entropy", "entropy"]
    assert len(found.raw_tables) == 2


def test_the_default_configuration_s_artefacts(repository: Any) -> None:
    """2 networks with 13 runs each: what their loadables imply, and what is made once a case."""
    config = yaml.safe_load((repository / "config.yaml").read_text())
    found = Artefacts(load_configuration(config), "results")
    assert len(found.verdicts) == 26
    assert len(found.accuracies) == 26 + 2
    assert len([path for path in found.processor_dependent if path.endswith("loadable.nvdla")]) == 26
    assert len([path for path in found.exact if path.endswith("support.json")]) == 6
