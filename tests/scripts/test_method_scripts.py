"""What the scripts of methods, and of what takes their files, hand to the steps, which are stood in for."""

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from snakemake.iocontainers import InputFiles, OutputFiles

Given = tuple[Any, ...]


def handed(
    monkeypatch: pytest.MonkeyPatch, repository: Path, log: Path, step: str, function: str, **parts: dict[str, Any]
) -> Given:
    """Return the arguments that the script named as `function` hands to that of a step, paths as plain text."""
    calls: list[Given] = []
    module = ModuleType(step)
    setattr(module, function, lambda *given: calls.append(given))
    monkeypatch.setitem(sys.modules, f"nvdla_quant.steps.{step}", module)
    stand_in = SimpleNamespace(
        input=InputFiles(fromdict=parts["input"]),
        output=OutputFiles(fromdict=parts["output"]),
        params=SimpleNamespace(**parts["params"]),
        log=[str(log)],
        threads=2,
    )
    runpy.run_path(str(repository / "scripts" / f"{function}.py"), init_globals={"snakemake": stand_in})
    (call,) = calls
    return tuple(list(map(str, one)) if isinstance(one, list) else one for one in call)


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch, repository: Path, tmp_path: Path) -> Any:
    return lambda *names, **parts: handed(monkeypatch, repository, tmp_path / "log", *names, **parts)


@pytest.mark.parametrize("made", [["deploy.prototxt", "weights.caffemodel"], ["network.onnx"]])
def test_equalize_network_makes_caffe_s_files_or_one_of_onnx(hand: Any, made: list[str]) -> None:
    found = hand(
        "networks.refinement",
        "equalize_network",
        input={"network": ["a.prototxt", "a.caffemodel"], "images": ["calibration-a.npz"]},
        output={**{name.replace(".", "_"): name for name in made}, "report": "equalization.tsv"},
        params={"preprocessing": {"scale": 1}},
    )
    files = (["a.prototxt", "a.caffemodel"], made, "equalization.tsv", ["calibration-a.npz"])
    assert found == (*files, {"scale": 1}, 2)


@pytest.mark.parametrize("raw", [False, True])
def test_refine_weights_has_no_preprocessing_where_the_network_does_it(hand: Any, raw: bool) -> None:
    options = {"mode": "per-filter", "correction": "bias", "rounding": "nearest", "objective": "cycles"}
    found = hand(
        "networks.refinement",
        "refine_weights",
        input={
            "network": ["network.onnx"],
            "table": "table.fixed.json",
            "searched": [],
            "images": "a.npz",
            "specification": [],
        },
        output={"weights": "weights.steps.npz", "changes": "refinement.tsv"},
        params={"target": "nv_small", "options": options, "preprocessing": {"scale": 1}, "raw_pixels": raw},
    )
    files = (["network.onnx"], "table.fixed.json", None, "a.npz", "weights.steps.npz", "refinement.tsv")
    assert found == (*files, "nv_small", options, None if raw else {"scale": 1}, 2)


def test_search_scales(hand: Any) -> None:
    """With the preprocessing whatever the feeding is, as what runs a loadable takes it."""
    options, feeding = {"mode": "per-kernel"}, {"precision": "int8", "feeding": "stock-runtime"}
    found = hand(
        "networks.refinement",
        "search_scales",
        input={
            "network": ["network.onnx"],
            "table": "table.fixed.json",
            "searched": [],
            "images": "a.npz",
            "specification": [],
        },
        output={"table": "table.searched.json", "weights": "weights.searched.npz", "report": "search.tsv"},
        params={"target": "nv_small", "options": options, "preprocessing": {"scale": 1}, "feeding": feeding},
    )
    made = ("table.searched.json", "weights.searched.npz", "search.tsv")
    files = (["network.onnx"], "table.fixed.json", "a.npz", *made)
    assert found == (*files, "nv_small", options, {"scale": 1}, feeding, 2)


@pytest.mark.parametrize(("weights", "expected"), [("weights.steps.npz", "weights.steps.npz"), ([], None)])
def test_steps_of_weights_stand_behind_the_table(hand: Any, weights: Any, expected: str | None) -> None:
    read = {"network": ["network.onnx"], "table": "table.json", "weights": weights}
    compiled = hand(
        "compilation",
        "compile_loadable",
        input=read,
        output={"loadable": "loadable.nvdla", "report": "compile.json"},
        params={"target": "nv_small", "options": {}},
    )
    assert compiled == (["network.onnx"], "table.json", expected, "loadable.nvdla", "compile.json", "nv_small", {})
    verified = hand(
        "verification",
        "verify_loadable",
        input={**read, "loadable": "loadable.nvdla", "report": "compile.json", "images": "test.npz"},
        output={"verdict": "verdict.json", "layers": "layers.tsv"},
        params={"target": "nv_small", "subject": {}, "raw_pixels": True, "preprocessing": {}, "images": 8},
    )
    files = ("loadable.nvdla", "compile.json", ["network.onnx"], "table.json", expected, "test.npz")
    assert verified == (*files, "verdict.json", "layers.tsv", "nv_small", {}, None, 8)
