"""Only what is stale runs again."""

import copy
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nvdla_quant.network.caffe.writer import write_caffemodel
from tests.profiles import is_long
from tests.sweeps import plan, tiny_network

PAGE = {"plot_figures": 1, "write_manifest": 1, "write_report": 1}
VERDICTS = {"summarize_sweep": 1, **PAGE}
REPORT = {"compare_case": 1, **VERDICTS}
TIMES = {"estimate_costs": 1, **VERDICTS}
INT8_RUNS = {"compile_loadable": 2, "estimate_costs": 1, "run_loadable": 2, "score_variant": 2, "verify_loadable": 2}
RUNS = {"run_loadable": 3, "score_variant": 3, "verify_loadable": 3}


@contextmanager
def edited(path: Path, content: bytes) -> Iterator[None]:
    """Replace the content of `path` for a while; afterwards content and time stamp are as before."""
    before, status = path.read_bytes(), path.stat()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_second_run_does_nothing(finished: Path, tiny_config: dict[str, Any]) -> None:
    assert plan(finished, tiny_config) == {}


def test_whatever_is_lost_is_made_again(finished: Path, tiny_config: dict[str, Any]) -> None:
    """One file at a time, of some that the manifest lists, in the long form of all; the report and the manifest too."""
    manifest = finished / "results" / "manifest.json"
    listed = [finished / name for name in json.loads(manifest.read_text())["artefacts"]]
    assert len(listed) > 40
    some = listed[:: 1 if is_long() else len(listed) // 6]
    for path in [*some, manifest, finished / "results" / "report" / "report.html"]:
        aside = path.rename(path.with_name("aside"))
        try:
            jobs = plan(finished, tiny_config)
        finally:
            aside.rename(path)
        assert jobs, path


def test_first_plan(new_checkout: Any, tiny_config: dict[str, Any]) -> None:
    assert plan(new_checkout(), tiny_config) == {
        "select_calibration_images": 1,
        "select_test_images": 1,
        "prepare_network": 1,
        "check_support": 2,
        "compute_reference": 1,
        "calibrate": 1,
        "convert_cache": 1,
        "fix_table": 1,
        "compile_loadable": 3,
        "estimate_costs": 1,
        "run_loadable": 3,
        "score_reference": 1,
        "score_variant": 3,
        "verify_loadable": 3,
        **REPORT,
    }


def test_another_calibrator(finished: Path, tiny_config: dict[str, Any]) -> None:
    """The variant is another one then, so its folder is new; images, reference and fp16 stay."""
    config = copy.deepcopy(tiny_config)
    config["variants"][1]["calibrator"] = "minmax"
    assert plan(finished, config) == {
        "select_calibration_images": 1,
        "calibrate": 1,
        "convert_cache": 1,
        "fix_table": 1,
        **INT8_RUNS,
        **REPORT,
    }


def test_another_number_of_calibration_images(finished: Path, tiny_config: dict[str, Any]) -> None:
    config = copy.deepcopy(tiny_config)
    config["calibrators"]["entropy"]["images"] = 12
    assert plan(finished, config) == {
        "select_calibration_images": 1,
        "calibrate": 1,
        "convert_cache": 1,
        "fix_table": 1,
        **INT8_RUNS,
        **REPORT,
    }


def test_another_model_file(finished: Path, tiny_config: dict[str, Any], tmp_path: Path) -> None:
    """New weights: everything but the choice of images, which takes the size of the input from the prototxt."""
    write_caffemodel(tiny_network(2), tmp_path / "new.caffemodel")
    with edited(finished / "inputs" / "tiny.caffemodel", (tmp_path / "new.caffemodel").read_bytes()):
        assert plan(finished, tiny_config) == {
            "prepare_network": 1,
            "check_support": 2,
            "compute_reference": 1,
            "calibrate": 1,
            "convert_cache": 1,
            "fix_table": 1,
            "compile_loadable": 3,
            "estimate_costs": 1,
            "run_loadable": 3,
            "score_reference": 1,
            "score_variant": 3,
            "verify_loadable": 3,
            **REPORT,
        }


@pytest.mark.parametrize(
    ("module", "jobs"),
    [
        ("runtime/dimg.py", {}),
        # An estimate decodes loadables as the emulator does.
        ("emulator/integer/pdp.py", {"estimate_costs": 1, **RUNS, **REPORT}),
        ("compiler/emission/emit.py", {"compile_loadable": 3, "estimate_costs": 1, **RUNS, **REPORT}),
        # The compiler divides the buffer by what this says.
        ("timing/sequence.py", {"compile_loadable": 3, "estimate_costs": 1, **RUNS, **REPORT}),
        ("estimation/timeline.py", TIMES),
        ("calibration/entropy.py", {"calibrate": 1, "convert_cache": 1, "fix_table": 1, **INT8_RUNS, **REPORT}),
        # Calibration warns of what the table's scales clip.
        (
            "table/consistency.py",
            {"calibrate": 1, "convert_cache": 1, "fix_table": 1, **INT8_RUNS, "verify_loadable": 3, **REPORT},
        ),
        ("verification/search/mapping.py", {"verify_loadable": 3, **VERDICTS}),
        ("evaluation/accuracy.py", {"score_reference": 1, "score_variant": 3, **REPORT}),
        ("evaluation/comparison.py", {"score_variant": 3, **REPORT}),
        ("report/charts/accuracy.py", PAGE),
        ("report/page.py", {"write_report": 1}),
    ],
)
def test_an_edited_module_of_the_package(
    finished: Path, tiny_config: dict[str, Any], module: str, jobs: dict[str, int]
) -> None:
    path = finished / "nvdla_quant" / module
    with edited(path, path.read_bytes() + b"\n# an edit\n"):
        assert plan(finished, tiny_config) == jobs


def test_one_more_variant(finished: Path, tiny_config: dict[str, Any]) -> None:
    """The other mode with the same calibrator: its own compile, run and score on both targets, and the report."""
    config = copy.deepcopy(tiny_config)
    config["variants"].append({"precision": "int8", "mode": "per-kernel", "calibrator": "entropy"})
    assert plan(finished, config) == {**INT8_RUNS, **REPORT}


def test_one_variant_less_only_reports_again(finished: Path, tiny_config: dict[str, Any]) -> None:
    """And estimates, since one job does all of them."""
    config = copy.deepcopy(tiny_config)
    del config["variants"][0]
    assert plan(finished, config) == {"estimate_costs": 1, **REPORT}


@pytest.mark.parametrize(
    "changed", [{"memory": {"latency": 100}}, {"clock": 2e8}, {"clock": {"nv_small": 2e8}}, {"cpu_cycles": 5}]
)
def test_another_memory_or_clock_only_estimates_again(
    finished: Path, tiny_config: dict[str, Any], changed: dict[str, Any]
) -> None:
    assert plan(finished, {**tiny_config, **changed}) == TIMES


def test_another_accuracy_to_keep_only_reports_again(finished: Path, tiny_config: dict[str, Any]) -> None:
    assert plan(finished, {**tiny_config, "keep": "95 %"}) == PAGE
