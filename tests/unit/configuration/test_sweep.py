"""Lists that stand for several records, and rules that pick runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.configuration import sweep
from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.records import Configuration
from nvdla_quant.errors import ConfigError

INT8 = {"precision": "int8", "mode": "per-filter", "calibrator": "entropy"}


@pytest.fixture
def config(repository: Path) -> dict[str, Any]:
    """Return the default configuration with one case, one int8 variant and one target."""
    content = yaml.safe_load((repository / "config.yaml").read_text())
    return {**content, "cases": content["cases"][:1], "targets": ["nv_full"], "variants": [INT8]}


def names(configuration: Configuration) -> list[str]:
    return [f"{run.target}/{run.variant.name}" for run in configuration.runs]


@given(st.lists(st.lists(st.integers(), max_size=4), max_size=4))
def test_combinations_are_the_product(lists: list[list[int]]) -> None:
    record = {str(i): items for i, items in enumerate(lists)} | {"other": "kept"}
    found = list(sweep.combinations(record, [str(i) for i in range(len(lists))]))
    count = 1
    for items in lists:
        count *= len(items)
    assert len(found) == count
    assert all(single["other"] == "kept" and not any(isinstance(v, list) for v in single.values()) for single in found)


def test_a_record_without_lists_stands_for_itself() -> None:
    record = {"method": "entropy", "images": 8, "seed": 0}
    assert sweep.calibrators("entropy", record) == {"entropy": record}


def test_lists_name_the_calibrators(config: dict[str, Any]) -> None:
    config["calibrators"] = {
        "entropy": {"method": "entropy", "images": [8, 16], "seed": [0, 1]},
        "pct": {"method": "percentile", "percentile": [99.9, 100]},
    }
    config["variants"] = [{**INT8, "calibrator": ["entropy", "pct-100"]}]
    configuration = load_configuration(config)
    assert list(configuration.settings["calibrators"]) == [
        *(f"entropy-images-{count}-seed-{seed}" for count in (8, 16) for seed in (0, 1)),
        "pct-99p9",
        "pct-100",
    ]
    assert configuration.settings["calibrators"]["entropy-images-16-seed-0"]["images"] == 16
    assert configuration.families["pct-99p9"] == "pct"
    # Both members of the family and the single one that is named.
    assert len(configuration.variants) == 4 + 1


def test_lists_of_a_variant_make_all_combinations(config: dict[str, Any]) -> None:
    config["variants"] = [
        {
            **INT8,
            "mode": ["per-kernel", "per-filter"],
            "calibrator": ["entropy", "minmax"],
            "unify_scales": [True, False],
        }
    ]
    assert names(load_configuration(config)) == [
        f"nv_full/int8-{mode}-{calibrator}{rest}"
        for mode in ("per-kernel", "per-filter")
        for calibrator in ("entropy", "minmax")
        for rest in ("", "-not-unified")
    ]


def test_rules_pick_runs(config: dict[str, Any]) -> None:
    config["targets"] = ["nv_full", "nv_large", "nv_small"]
    config["variants"] = [{**INT8, "mode": ["per-kernel", "per-filter"]}]
    config["include"] = [{"target": "nv_[fl]*"}, {"mode": "per-kernel"}]
    config["exclude"] = [{"target": ["nv_large", "nv_small"], "variant": "*-per-kernel-*"}]
    assert names(load_configuration(config)) == [
        "nv_full/int8-per-kernel-entropy",
        "nv_full/int8-per-filter-entropy",
        "nv_large/int8-per-filter-entropy",
    ]


def test_what_no_run_needs_is_not_planned(config: dict[str, Any]) -> None:
    config["variants"].append({**INT8, "calibrator": "minmax"})
    config["exclude"] = [{"calibrator": "minmax"}]
    assert list(load_configuration(config).variants) == ["int8-per-filter-entropy"]


def test_a_case_overrides_what_it_names(config: dict[str, Any]) -> None:
    config["calibrators"]["minmax"]["images"] = [10, 20]
    config["cases"][0]["overrides"] = {
        "preprocessing": {"scale": 0.5},
        "dataset": {"test_images": 7},
        "calibrators": {"minmax": {"batch_size": 5}, "minmax-images-20": {"images": 30}},
    }
    configuration = load_configuration(config)
    (case,) = configuration.cases
    assert configuration.preprocessing(case) == {"channels": "gray", "scale": 0.5, "mean": [0]}
    assert configuration.dataset(case)["test_images"] == 7
    assert configuration.dataset(case)["calibration_pool"] == 500
    assert configuration.calibrator(case, "minmax-images-10")["batch_size"] == 5
    assert configuration.calibrator(case, "minmax-images-10")["images"] == 10
    assert configuration.calibrator(case, "minmax-images-20")["images"] == 30
    assert configuration.calibrator(case, "entropy")["batch_size"] == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exclude": [{"target": "nv_smal"}]}, r"exclude\[0\]: picks none of the 1 runs"),
        ({"exclude": [{"target": "*"}]}, "nothing is left to run"),
        ({"exclude": [{}]}, r"exclude\[0\]"),
        ({"include": [{"color": "red"}]}, r"include\[0\]: unknown key 'color'"),
        ({"variants": [{**INT8, "mode": ["per-foo"]}]}, r"variants\[0\]\.mode\[0\]: 'per-foo' is not one of"),
        ({"variants": [{**INT8, "mode": "per-foo"}]}, r"variants\[0\]\.mode: 'per-foo' is not one of"),
        ({"variants": [{**INT8, "calibrator": ["kl"]}]}, "no calibrator is called 'kl'; there are entropy, minmax"),
        (
            {"variants": [{**INT8, "name": "x", "mode": ["per-kernel", "per-filter"]}]},
            r"variants\[0\]\.name: the record stands for 2 variants",
        ),
        (
            {"calibrators": {"a": {"method": "minmax", "seed": [1]}, "a-seed-1": {"method": "minmax"}}},
            "both make 'a-seed-1'",
        ),
        (
            {"cases": [{"model": "lenet", "dataset": "mnist", "overrides": {"calibrators": {"kl": {"images": 1}}}}]},
            r"cases\[0\]\.overrides\.calibrators: no calibrator is called 'kl'",
        ),
        (
            {"cases": [{"model": "lenet", "dataset": "mnist", "overrides": {"dataset": {"source": {}}}}]},
            r"overrides\.dataset: unknown key 'source'",
        ),
    ],
)
def test_messages_name_the_key(config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_configuration({**config, **change})


def test_groups_differ_in_the_seed_alone(config: dict[str, Any]) -> None:
    """Two numbers of images, three seeds, two modes, and fp16: four groups of three runs, and one of one."""
    config["calibrators"] = {"entropy": {"method": "entropy", "images": [8, 16], "seed": [0, 1, 2]}}
    config["variants"] = [{"precision": "fp16"}, {**INT8, "mode": ["per-kernel", "per-filter"]}]
    groups = load_configuration(config).groups
    assert [(g.name, g.series, g.images, len(g.runs)) for g in groups] == [
        ("fp16", "fp16", None, 1),
        ("int8-per-kernel-entropy-images-8", "int8-per-kernel-entropy", 8, 3),
        ("int8-per-kernel-entropy-images-16", "int8-per-kernel-entropy", 16, 3),
        ("int8-per-filter-entropy-images-8", "int8-per-filter-entropy", 8, 3),
        ("int8-per-filter-entropy-images-16", "int8-per-filter-entropy", 16, 3),
    ]
    assert groups[1].variants == tuple(f"int8-per-kernel-entropy-images-8-seed-{seed}" for seed in range(3))


def test_calibrators_written_out_are_grouped_too(config: dict[str, Any]) -> None:
    record = {"method": "entropy", "images": 8}
    config["calibrators"] = {"a": {**record, "seed": 0}, "b": {**record, "seed": 1}, "c": {**record, "batch_size": 1}}
    config["variants"] = [{**INT8, "calibrator": ["a", "b", "c"]}, {**INT8, "calibrator": "a", "name": "again"}]
    groups = load_configuration(config).groups
    assert [g.variants for g in groups] == [
        ("int8-per-filter-a", "int8-per-filter-b"),
        ("int8-per-filter-c",),
        ("again",),
    ]


def test_pairs_of_modes(config: dict[str, Any]) -> None:
    """Same calibrator, target, options: what has no partner makes no pair."""
    config["targets"] = ["nv_full", "nv_small"]
    config["variants"] = [
        {**INT8, "mode": ["per-filter", "per-kernel"], "preparation": ["fold", "as-is"]},
        {**INT8, "calibrator": "minmax"},
        {"precision": "fp16", "targets": ["nv_full"]},
    ]
    configuration = load_configuration(config)
    pairs = configuration.mode_pairs(configuration.cases[0])
    assert [(a.target, a.variant.name, b.target, b.variant.name) for a, b in pairs] == [
        (target, f"int8-per-kernel-entropy{option}", target, f"int8-per-filter-entropy{option}")
        for target in ("nv_full", "nv_small")
        for option in ("", "-as-is")
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("entropy-images-8", "entropy"),
        ("entropy-images-8-seed-0", "entropy-seed-0"),
        ("images-8-images-8", "images-8"),
        ("entropy-images-80", "entropy-images-80"),
        ("images-8", "images-8"),
    ],
)
def test_names_without_a_word(name: str, expected: str) -> None:
    assert sweep.without(name, "images", 8) == expected
