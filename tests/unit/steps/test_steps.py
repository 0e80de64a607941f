"""What the jobs do, files in and files out: a network compiled, run, scored and verified in one folder."""

import json
import logging
from pathlib import Path

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
from nvdla_quant.steps.reference import compute_reference
from nvdla_quant.steps.scoring import score_variant
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
    files = ["deploy.prototxt", "weights.caffemodel"], None, "loadable.nvdla", "compile.json"
    compile_loadable(*files, "nv_full", options)
    return tmp_path


def test_thresholds_that_clip_too_far_are_in_the_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "collapses", lambda *_, **__: ("tensor 'a': clipped", "tensor 'b': clipped"))
    given = MODEL, "test.npz", "made.cache", PREPROCESSING
    calibrate(*given, {"method": "mse"}, 1)
    assert caplog.messages == []
    calibrate(*given, {"method": "entropy"}, 1)
    assert caplog.messages == ["tensor 'a': clipped", "tensor 'b': clipped"]
    assert Path("made.cache").read_text().count("\n") > 1


def judge(report: str | None = "compile.json") -> dict[str, object]:
    """Verify the loadable of `folder` and return what is written."""
    read = "loadable.nvdla", report, MODEL, None, "test.npz"
    verify_loadable(*read, "verdict.json", "layers.tsv", "nv_full", NAMES, PREPROCESSING, 4)
    found: dict[str, object] = json.loads(Path("verdict.json").read_text())
    return found


def test_a_loadable_runs_and_is_scored_beside_fp32(folder: Path) -> None:
    compute_reference(MODEL, "test.npz", "fp32.npz", PREPROCESSING)
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
    read = "loadable.nvdla", "compile.json", MODEL, None, "test.npz"
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
