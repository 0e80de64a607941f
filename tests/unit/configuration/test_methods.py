"""Methods as axes of the sweep: names, lists, rules, refusals, what is made, and what each job is given."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nvdla_quant.configuration.artefacts import Artefacts
from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.parameters.job import Job
from nvdla_quant.errors import ConfigError

INT8 = {"precision": "int8", "mode": "per-filter", "calibrator": "entropy"}
EQUALIZED = {**INT8, "preparation": "fold-equalize"}
EVERYTHING = {**EQUALIZED, "correction": "bias", "rounding": "adaround", "search": "output"}
CASE = "results/tiny/noise"
ONNX = {"onnx": "inputs/tiny.onnx", "preprocessing": {"channels": "gray"}}

Loaded = Callable[..., Artefacts]


@pytest.fixture
def loaded(tiny_config: dict[str, Any]) -> Loaded:
    """Return a function that loads variants on nv_small."""

    def load(*variants: dict[str, Any], **keys: Any) -> Artefacts:
        config = copy.deepcopy(tiny_config) | {"targets": ["nv_small"], "variants": list(variants), **keys}
        return Artefacts(load_configuration(config), "results")

    return load


def job_of(artefacts: Artefacts) -> Job:
    return Job(artefacts.configuration, artefacts)


def wildcards(**names: str) -> Any:
    return SimpleNamespace(model="tiny", dataset="noise", target="nv_small", **names)


def names(artefacts: Artefacts) -> list[str]:
    return list(artefacts.configuration.variants)


# ---- names, lists, rules


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({**INT8, "correction": "none", "rounding": "nearest", "search": "none"}, "int8-per-filter-entropy"),
        ({**INT8, "correction": "bias"}, "int8-per-filter-entropy-bias"),
        (EVERYTHING, "int8-per-filter-entropy-fold-equalize-bias-adaround-search-output"),
        (
            {
                **INT8,
                "rounding": "adaround",
                "feeding": "stock-runtime",
                "unify_scales": False,
                "runtime": "nvdla_runtime",
            },
            "int8-per-filter-entropy-stock-runtime-not-unified-adaround-nvdla-runtime",
        ),
        (
            {**EQUALIZED, "compiler": "nvdla_compiler"},
            "int8-per-filter-entropy-fold-equalize-nvdla-compiler",
        ),
        ({**EVERYTHING, "name": "best"}, "best"),
    ],
)
def test_what_is_not_the_default_is_in_the_name(loaded: Loaded, record: dict[str, Any], name: str) -> None:
    backends = {
        "nvdla_compiler": {"path": "nvdla_compiler"},
        "nvdla_runtime": {"device": "local", "path": "nvdla_runtime"},
    }
    assert names(loaded(record, backends=backends)) == [name]


AXES = {
    "preparation": ["fold", "fold-equalize"],
    "correction": ["none", "bias"],
    "rounding": ["nearest", "adaround"],
    "search": ["none", "output"],
}


def test_lists_make_all_combinations(loaded: Loaded) -> None:
    assert names(loaded({**INT8, **AXES})) == [
        f"int8-per-filter-entropy{preparation}{correction}{rounding}{search}"
        for preparation in ("", "-fold-equalize")
        for correction in ("", "-bias")
        for rounding in ("", "-adaround")
        for search in ("", "-search-output")
    ]


def test_rules_pick_by_method(loaded: Loaded) -> None:
    include = [{"preparation": "fold-equalize", "search": "none"}, {"correction": "bias", "rounding": "ada*"}]
    exclude = [{"search": "output"}, {"correction": "none", "rounding": "adaround"}]
    assert names(loaded({**INT8, **AXES}, include=include, exclude=exclude)) == [
        "int8-per-filter-entropy-bias-adaround",
        "int8-per-filter-entropy-fold-equalize",
        "int8-per-filter-entropy-fold-equalize-bias",
        "int8-per-filter-entropy-fold-equalize-bias-adaround",
    ]


def test_pairs_differ_in_the_mode_alone(loaded: Loaded) -> None:
    """Not in a method as well: each kind of variant has a partner of its own."""
    found = loaded({**INT8, **AXES, "mode": ["per-kernel", "per-filter"]}).configuration
    (case,) = found.cases
    pairs = found.mode_pairs(case)
    assert len(pairs) == 16
    for kernel, filters in pairs:
        assert kernel.variant.name.replace("per-kernel", "per-filter") == filters.variant.name
        for key in ("table", "correction", "rounding", "search"):
            assert getattr(kernel.variant, key) == getattr(filters.variant, key)
    kernel_alone = {**INT8, "mode": "per-kernel"}
    for method in ({"rounding": "adaround"}, {"correction": "bias"}, {"search": "output"}, EQUALIZED):
        assert loaded(kernel_alone, {**INT8, **method}).configuration.mode_pairs(case) == ()


def test_methods_are_paired_with_the_same_variant_without_them(loaded: Loaded) -> None:
    found = loaded({**INT8, **AXES, "mode": ["per-kernel", "per-filter"]}).configuration
    (case,) = found.cases
    pairs = found.method_pairs(case)
    assert len(pairs) == 2 * 15  # All of the sixteen but the plain one, in both modes.
    for plain, better in pairs:
        assert plain.variant.name == f"int8-{better.variant.mode}-entropy"
        assert better.variant.name.startswith(f"{plain.variant.name}-")
    given = job_of(loaded(INT8, EVERYTHING)).pairs(wildcards())
    assert [(pair["kind"], pair["baseline"]) for pair in given] == [("method", "int8-per-filter-entropy")]
    assert loaded(EVERYTHING).configuration.method_pairs(case) == ()


def test_seeds_of_a_method_are_a_group(loaded: Loaded) -> None:
    calibrators = {"entropy": {"method": "entropy", "images": 16, "batch_size": 8, "seed": [0, 1]}}
    found = loaded({**INT8, "preparation": ["fold", "fold-equalize"], "rounding": "adaround"}, calibrators=calibrators)
    assert {group.name: len(group.runs) for group in found.configuration.groups} == {
        "int8-per-filter-entropy-adaround": 2,
        "int8-per-filter-entropy-fold-equalize-adaround": 2,
    }
    shown = ["entropy", "entropy", "entropy fold-equalize", "entropy fold-equalize"]
    assert [record["name"] for record in found.calibrators] == shown
    assert len(found.raw_tables) == 4


# ---- refusals


NVIDIA = {**INT8, "compiler": "nvdla_compiler", "name": "theirs"}
FP16 = {"precision": "fp16", "targets": ["nv_full"]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**FP16, "correction": "bias"}, r"variants\[0\]\.correction: bias: only an int8 variant has one; remove it"),
        ({**FP16, "rounding": "adaround"}, r"variants\[0\]\.rounding: adaround: only an int8 variant has one"),
        ({**FP16, "search": ["none", "output"]}, r"variants\[0\]\.search: output: only an int8 variant has one"),
        ({**FP16, "preparation": "fold-equalize"}, r"preparation: fold-equalize: it evens out ranges .*; use fold"),
        (
            {**NVIDIA, "correction": "bias"},
            "variant theirs: correction: bias: nvdla_compiler takes no weights.steps.npz, .*use compiler: builtin",
        ),
        (
            {**NVIDIA, "rounding": "adaround"},
            "rounding: adaround: nvdla_compiler rounds weights itself and takes no weights.steps.npz; use compiler: ",
        ),
        (
            {**NVIDIA, "search": "output"},
            "search: output: nvdla_compiler chooses scales of weights .*compiler: builtin",
        ),
        ({**INT8, "preparation": "as-is", "correction": "bias"}, "correction: bias: .* folded layers; use preparation"),
        ({**INT8, "preparation": "as-is", "rounding": "adaround"}, "rounding: adaround: .*; use preparation: fold"),
        ({**INT8, "correction": "zero"}, r"variants\[0\]\.correction: 'zero' is not one of"),
        ({**INT8, "rounding": ["up"]}, r"variants\[0\]\.rounding\[0\]: 'up' is not one of"),
        ({**INT8, "preparation": "equalize"}, r"variants\[0\]\.preparation: 'equalize' is not one of"),
    ],
)
def test_methods_that_can_do_nothing_are_refused(loaded: Loaded, record: dict[str, Any], message: str) -> None:
    backends = {"nvdla_compiler": {"path": "nvdla_compiler"}}
    with pytest.raises(ConfigError, match=message):
        loaded(record, targets=["nv_full"], backends=backends)


@pytest.mark.parametrize(
    ("key", "value"),
    [("correction", "bias"), ("rounding", "adaround"), ("search", "output"), ("preparation", "fold-equalize")],
)
def test_a_quantized_model_keeps_its_scales_and_weights(loaded: Loaded, key: str, value: str) -> None:
    model = {"models": {"tiny": ONNX}, "calibrators": {"own": {"method": "qdq"}}}
    own = {**INT8, "calibrator": "own"}
    message = f"variant int8-per-filter-own-.*: {key}: {value}: calibrator own keeps the scales and the weights that"
    with pytest.raises(ConfigError, match=message):
        loaded({**own, key: value}, **model)
    assert loaded(own, **model)


def test_what_a_rule_leaves_out_is_not_refused(loaded: Loaded) -> None:
    """So lists of compilers and of methods go together."""
    backends = {"nvdla_compiler": {"path": "nvdla_compiler"}}
    both = {**INT8, "compiler": ["builtin", "nvdla_compiler"], "rounding": ["nearest", "adaround"]}
    exclude = [{"compiler": "nvdla_compiler", "rounding": "adaround"}]
    assert len(names(loaded(both, backends=backends, exclude=exclude))) == 3


def test_a_search_may_take_the_network_as_it_is(loaded: Loaded) -> None:
    record = {**INT8, "preparation": "as-is", "search": "output"}
    assert names(loaded(record)) == ["int8-per-filter-entropy-as-is-search-output"]


@pytest.mark.parametrize("trials", [0, 1.5, "many"])
def test_a_search_has_a_bound(loaded: Loaded, trials: Any) -> None:
    with pytest.raises(ConfigError, match="search_trials: "):
        loaded(INT8, search_trials=trials)
    assert loaded(INT8).configuration.settings["search_trials"] == 300


# ---- what is made


def test_what_methods_make_is_listed(loaded: Loaded) -> None:
    found = loaded({**EVERYTHING, "name": "best"}, {**EQUALIZED, "feeding": "stock-runtime", "name": "stock"})
    forms = [f"{CASE}/network/fold-equalize{form}" for form in ("", "-stock-runtime")]
    made = {
        *(f"{form}/{name}" for form in forms for name in ("deploy.prototxt", "weights.caffemodel")),
        f"{CASE}/network/fold-equalize/equalization.tsv",
        f"{CASE}/calibration/entropy/fold-equalize/calibration.cache",
        f"{CASE}/calibration/entropy/fold-equalize/table.raw.json",
        f"{CASE}/calibration/entropy/fold-equalize-quantized/table.fixed.json",
        f"{CASE}/calibration/entropy/fold-equalize-quantized/changes.tsv",
        f"{CASE}/calibration/entropy/fold-equalize-stock-runtime/table.fixed.json",
        f"{CASE}/calibration/entropy/fold-equalize-stock-runtime/changes.tsv",
        f"{CASE}/nv_small/best/table.searched.json",
        f"{CASE}/nv_small/best/search.tsv",
        f"{CASE}/nv_small/best/weights.searched.npz",
        f"{CASE}/nv_small/best/weights.steps.npz",
        f"{CASE}/nv_small/best/refinement.tsv",
    }
    words = ("/network/", "/calibration/", "/best/table", "/best/search", "/best/weights", "/best/refinement")
    listed = [path for path in found.processor_dependent if any(word in path for word in words)]
    assert sorted(listed) == sorted(made)
    assert not [path for path in found.exact if "/network/" in path or "/calibration/" in path]
    assert found.raw_tables == [f"{CASE}/calibration/entropy/fold-equalize/table.raw.json"]
    assert f"{CASE}/images/calibration-entropy.npz" in found.exact


def test_both_calibrations_are_listed(loaded: Loaded) -> None:
    found = loaded({**INT8, "preparation": ["fold", "fold-equalize"]})
    folder = f"{CASE}/calibration/entropy"
    assert found.raw_tables == [f"{folder}/table.raw.json", f"{folder}/fold-equalize/table.raw.json"]
    assert [record["name"] for record in found.calibrators] == ["entropy", "entropy fold-equalize"]
    assert f"{CASE}/network/fold/deploy.prototxt" in found.exact
    assert f"{CASE}/network/fold-equalize/deploy.prototxt" in found.processor_dependent


def test_an_onnx_model_is_equalized_as_onnx(loaded: Loaded) -> None:
    """Its form for raw pixels and in Caffe follow from that; the network that was read does not."""
    backends = {"nvdla_compiler": {"path": "nvdla_compiler"}}
    caffe = {**EQUALIZED, "compiler": "nvdla_compiler"}
    found = loaded(caffe, models={"tiny": ONNX}, backends=backends)
    folder = f"{CASE}/network/fold-equalize"
    assert sorted(path for path in found.processor_dependent if "/network/" in path) == [
        f"{folder}/deploy.prototxt",
        f"{folder}/equalization.tsv",
        f"{folder}/network.onnx",
        f"{folder}/weights.caffemodel",
    ]
    assert [path for path in found.exact if "/network/" in path] == [
        f"{CASE}/network/imported/{name}" for name in ("network.onnx", "names.json", "remarks.txt", "size.json")
    ]


@pytest.mark.parametrize("variants", [[EVERYTHING], [INT8, EQUALIZED], [{**INT8, **AXES}]])
def test_no_artefact_stands_twice(loaded: Loaded, variants: list[dict[str, Any]]) -> None:
    found = loaded(*variants)
    every = [*found.exact, *found.processor_dependent]
    assert len(every) == len(set(every))


# ---- what jobs are given


def test_jobs_of_an_equalized_network(loaded: Loaded) -> None:
    calibrators = {name: {"method": name, "images": 16, "batch_size": 8} for name in ("entropy", "minmax", "mse")}
    both = {**EQUALIZED, "calibrator": ["entropy", "minmax"], "feeding": ["quantized", "stock-runtime"]}
    job = job_of(loaded(both, {**INT8, "calibrator": "mse"}, calibrators=calibrators))
    pair = [f"{CASE}/network/fold-equalize/{name}" for name in ("deploy.prototxt", "weights.caffemodel")]
    original = ["inputs/deploy.prototxt", "inputs/tiny.caffemodel"]
    images = [f"{CASE}/images/calibration-{name}.npz" for name in ("entropy", "minmax")]
    assert job.equalized(wildcards()) == job.equalized_caffe_files(wildcards()) == pair
    assert job.equalization_images(wildcards()) == images
    assert job.unprepared(wildcards(network="fold-equalize-stock-runtime")) == pair
    assert job.unprepared(wildcards(network="fold")) == original
    raw = {"preparation": "as-is", "pixels": ([0], 0.00390625)}
    assert job.preparation(wildcards(network="fold-equalize-stock-runtime")) == raw
    tables = {
        "fold-quantized": ("", original[:1], f"{CASE}/network/fold/deploy.prototxt"),
        "fold-equalize-quantized": ("/fold-equalize", pair[:1], pair[0]),
        "fold-equalize-stock-runtime": (
            "/fold-equalize",
            pair[:1],
            f"{CASE}/network/fold-equalize-stock-runtime/deploy.prototxt",
        ),
    }
    for table, (folder, structure, prepared) in tables.items():
        given = wildcards(table=table, calibrator="mse")
        assert job.cache(given) == f"{CASE}/calibration/mse{folder}/calibration.cache"
        assert job.table_structure(given) == structure
        assert job.table_network(given) == [prepared]


def test_tables_and_steps_of_a_variant(loaded: Loaded) -> None:
    variants = [{**INT8, "name": "plain"}, {**INT8, "name": "rounded", "rounding": "adaround"}]
    variants += [{**EQUALIZED, "name": "searched", "search": "output"}, {**EVERYTHING, "name": "both"}]
    job = job_of(loaded(*variants))
    fixed = f"{CASE}/calibration/entropy/fold{{}}-quantized/table.fixed.json"
    expected: dict[str, tuple[str, str, str | None]] = {
        "plain": (fixed.format(""), fixed.format(""), None),
        "rounded": (fixed.format(""), fixed.format(""), "steps"),
        "searched": (fixed.format("-equalize"), f"{CASE}/nv_small/searched/table.searched.json", "searched"),
        "both": (fixed.format("-equalize"), f"{CASE}/nv_small/both/table.searched.json", "steps"),
    }
    for variant, (fixed_table, table, weights) in expected.items():
        given = wildcards(variant=variant)
        assert (job.fixed_table(given), job.table(given)) == (fixed_table, table)
        assert job.weight_steps(given) == (f"{CASE}/nv_small/{variant}/weights.{weights}.npz" if weights else [])
        assert job.calibration_images(given) == f"{CASE}/images/calibration-entropy.npz"


def test_an_fp16_variant_has_none_of_them(loaded: Loaded) -> None:
    job = job_of(loaded(FP16, targets=["nv_full"]))
    given = wildcards(variant="fp16")
    assert job.table(given) == job.fixed_table(given) == job.weight_steps(given) == job.calibration_images(given) == []


def test_options_of_methods(loaded: Loaded) -> None:
    job = job_of(loaded({**EVERYTHING, "name": "best"}, objective="bytes", search_trials=7))
    given = wildcards(variant="best")
    assert job.refinement_options(given) == {"mode": "per-filter", "correction": "bias", "rounding": "adaround"}
    searched = {"mode": "per-filter", "unify_scales": True, "objective": "bytes", "trials": 7}
    assert job.search_options(given) == searched


def test_rows_say_the_methods(loaded: Loaded) -> None:
    job = job_of(loaded({**EVERYTHING, "name": "best"}, {**INT8, "name": "plain"}, FP16, targets=["nv_full"]))
    keys = ("preparation", "correction", "rounding", "search")
    rows = {name: [job.subject(wildcards(variant=name))[key] for key in keys] for name in ("best", "plain", "fp16")}
    assert rows == {
        "best": ["fold-equalize", "bias", "adaround", "output"],
        "plain": ["fold", "none", "nearest", "none"],
        "fp16": ["fold", None, None, None],
    }
    for row in (job.engine_subject(wildcards(engine="fp16")), job.quantized_subject(wildcards())):
        assert set(row) == set(job.subject(wildcards(variant="plain")))
        assert [row[key] for key in keys] == [None] * 4


def test_nvdla_compiler_is_asked_about_the_folded_network(loaded: Loaded) -> None:
    """It has the layers of the equalized one, which is not there yet."""
    backends = {"nvdla_compiler": {"path": "nvdla_compiler"}}
    job = job_of(loaded({**EQUALIZED, "compiler": "nvdla_compiler", "name": "theirs"}, backends=backends))
    assert job.nvdla_compiler_variants(wildcards())["theirs"]["preparation"] == "fold"
