"""What the jobs do, files in and files out: a network compiled, run, scored and verified in one folder."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nvdla_quant.calibration import cpu
from nvdla_quant.errors import ClaimError
from nvdla_quant.evaluation.accuracy import Subject
from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.steps.calibration import calibrate
from nvdla_quant.steps.compilation import compile_loadable
from nvdla_quant.steps.emulation import run_loadable
from nvdla_quant.steps.images import select_test_images
from nvdla_quant.steps.measures.accuracy import score_variant
from nvdla_quant.steps.reference import compute_reference
from nvdla_quant.steps.reporting.costs import estimate_costs
from nvdla_quant.steps.verification import verify_loadable
from nvdla_quant.verification import verify
from tests.sweeps import tiny_network

PREPROCESSING = {"channels": "gray", "scale": 0.00390625, "mean": [0]}
MODEL = ["deploy.prototxt", "weights.caffemodel"]
NAMES = {"model": "tiny", "dataset": "noise", "target": "nv_full", "variant": "fp16"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, which has a network, test images and a loadable."""
    monkeypatch.chdir(tmp_path)
    network = tiny_network(0)
    write_prototxt(network, tmp_path / "deploy.prototxt")
    write_caffemodel(network, tmp_path / "weights.caffemodel")
    rng = np.random.default_rng(1)
    np.savez("noise.npz", images=rng.integers(0, 256, (24, 8, 8), np.uint8), labels=rng.integers(0, 6, 24))
    dataset = {"source": {"format": "npz", "path": "noise.npz"}, "calibration_pool": 4, "pool_seed": 0}
    select_test_images(["deploy.prototxt"], "test.npz", dataset, PREPROCESSING, shard=0, shards=1)
    options = {"precision": "fp16", "mode": None}
    files = ["deploy.prototxt", "weights.caffemodel"], None, None, "loadable.nvdla", "compile.json"
    compile_loadable(*files, "nv_full", options)
    return tmp_path


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings that were logged."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_thresholds_that_clip_too_far_are_in_the_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "collapses", lambda *_, **__: ("tensor 'a': clipped", "tensor 'b': clipped"))
    given = MODEL, "test.npz", "made.cache", PREPROCESSING
    calibrate(*given, {"method": "mse"}, 1)
    # On a busy machine the log also tells how far it is.
    assert not warnings_in(caplog)
    calibrate(*given, {"method": "entropy"}, 1)
    assert warnings_in(caplog) == ["tensor 'a': clipped", "tensor 'b': clipped"]
    assert Path("made.cache").read_text().count("\n") > 1


def judge(report: str | None = "compile.json") -> dict[str, object]:
    """Verify the loadable of `folder` and return what is written."""
    read = "loadable.nvdla", report, MODEL, None, None, "test.npz"
    verify_loadable(*read, "verdict.json", "layers.tsv", "nv_full", NAMES, PREPROCESSING, 4)
    found: dict[str, object] = json.loads(Path("verdict.json").read_text())
    return found


def test_a_loadable_runs_and_is_scored_beside_fp32(folder: Path) -> None:
    compute_reference(MODEL, "test.npz", "fp32.npz", PREPROCESSING, "classification")
    feeding = {"precision": "fp16", "feeding": "quantized"}
    files = "loadable.nvdla", "test.npz", None, "dumps.npz"
    run_loadable(*files, "nv_full", PREPROCESSING, feeding, {"fp16": "exact"}, 1)
    subject = dict.fromkeys(Subject.__dataclass_fields__) | NAMES | {"precision": "fp16"}
    pair = NAMES | {"baseline": "fp32", "kind": "fp32"}
    scored = ["dumps.npz"], ["fp32.npz"], MODEL, None, "accuracy.json", "comparison.json"
    score_variant(*scored, subject, pair)
    assert json.loads(Path("accuracy.json").read_text())["n"] == 20
    (comparison,) = json.loads(Path("comparison.json").read_text())
    assert comparison["baseline"] == "fp32"


@pytest.mark.parametrize("report", ["compile.json", None])
def test_a_loadable_is_verified_with_and_without_a_claim(folder: Path, report: str | None) -> None:
    found = judge(report)
    assert found["subject"] == NAMES
    assert found["verdict"] == "ok"
    assert len(Path("layers.tsv").read_text().splitlines()) > 1


def test_the_claim_reaches_verification(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr("nvdla_quant.verification.verify.verify_in_sweep", lambda *parts: given.append(parts))
    monkeypatch.setattr("nvdla_quant.verification.verify.write_verdict", lambda *_: None)
    monkeypatch.setattr("nvdla_quant.verification.verify.write_layers", lambda *_: None)
    read = "loadable.nvdla", "compile.json", MODEL, None, None, "test.npz"
    verify_loadable(*read, "verdict.json", "layers.tsv", "nv_full", NAMES, PREPROCESSING, 4)
    assert given[0][-1].pieces


def test_a_defect_of_verification_is_a_verdict_and_a_log_entry(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(verify, "diagnose", fail)
    with caplog.at_level(logging.INFO, logger="nvdla_quant"):
        found = judge()
    assert found["verdict"] == "unknown"
    assert "ZeroDivisionError: a defect" in json.dumps(found)
    assert "verification failed" in caplog.text
    assert len(Path("layers.tsv").read_text().splitlines()) == 1


def test_a_report_without_a_claim_is_a_damaged_file(folder: Path) -> None:
    Path("compile.json").write_text("{}")
    with pytest.raises(ClaimError, match=r"compile\.json: no claim in it"):
        judge()


SETTING = {"latency": 40, "shared": False, "host_gap": 0}


def estimated(loadables: list[str], **changed: object) -> list[dict[str, Any]]:
    """Estimate loadables of nv_full and return what is written."""
    runs = [{**NAMES, "hardware": "nv_full", "claimed": True, "clock": 1e9, **changed} for _ in loadables]
    costs = [f"cost-{number}.json" for number in range(len(loadables))]
    claims = ["compile.json"] * len(loadables) if runs[0]["claimed"] else []
    estimate_costs(loadables, claims, costs, runs, SETTING, 2.0)
    return [json.loads(Path(path).read_text()) for path in costs]


def test_a_loadable_is_estimated_with_its_layers(folder: Path) -> None:
    (found,) = estimated(["loadable.nvdla"])
    assert found["subject"] == NAMES
    assert found["cycles"] > 0
    assert found["ms"] == pytest.approx(found["cycles"] / 1e6, rel=0.01)
    assert found["peak_macs_per_cycle"]["int8"] == 2 * found["peak_macs_per_cycle"]["fp16"] == 2048
    assert [one["layers"] for one in found["operations"]] == [["conv1", "relu1"], ["pool1"], ["ip1"], ["prob"]]
    # 36 pixels and 4 kernels of 9; 6 outputs of 36 inputs, as they stand in the buffer: the channels fill an atom.
    assert found["macs"] == sum(one["macs"] for one in found["operations"]) > 36 * 4 * 9 + 6 * 36
    assert found["operations"][-1]["cycles"] == 2 * 6


def test_without_a_claim_operations_have_no_layers(folder: Path) -> None:
    (found,) = estimated(["loadable.nvdla"], claimed=False)
    assert all("layers" not in one for one in found["operations"])


def test_a_slower_clock_takes_longer_and_no_more_cycles(folder: Path) -> None:
    (fast,), (slow,) = estimated(["loadable.nvdla"]), estimated(["loadable.nvdla"], clock=1e8)
    assert slow["cycles"] == fast["cycles"]
    assert slow["ms"] == pytest.approx(10 * fast["ms"])


def test_what_cannot_be_estimated_keeps_none_of_the_others(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another target's loadable, and what is none: a reason each, and the one that is sound has its figures."""
    Path("broken.nvdla").write_bytes(b"no loadable at all")
    broken, sound = estimated(["broken.nvdla", "loadable.nvdla"])
    assert set(broken) == {"subject", "error"}
    assert broken["error"].startswith("broken.nvdla: loadable:")
    assert sound["cycles"] > 0
    (other,) = estimated(["loadable.nvdla"], hardware="nv_small")
    assert "nv_small" in other["error"]
    assert "not estimated" in caplog.text
