"""A results folder read as data frames."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nvdla_quant.errors import ReportError
from nvdla_quant.evaluation.comparison import Scored, compare, write_comparisons
from nvdla_quant.jobs.files import write_json
from nvdla_quant.report import read_results
from nvdla_quant.report.evidence import Evidence, pair_rows, seed_rows
from nvdla_quant.report.frames import LAYER_FILE, PAIRS, RUN, SEEDS, SUMMARY, read_tsv, records, where, write_tsv
from tests.unit.report.reported import sweep_evidence

LABELS = np.arange(20) % 4
COST = {
    "memory": dict.fromkeys(("read_latency", "write_latency"), 40)
    | {"read_bytes": 8.0, "write_bytes": 8.0, "shared": False, "outstanding": None, "host_gap": 0},
    **{"cycles": 900, "ms": 0.9, "clock": 1e6, "dram_bytes": 80, "bytes_read": 70, "bytes_written": 10, "macs": 99},
    **{"peak_macs_per_cycle": {"int8": 64}, "bound": "MACs", "extrapolated": ["a", "b"]},
    "operations": [
        {"op": 0, "with": [1], "unit": "conv+sdp", "layers": ["conv1", "relu1"], "start": 5, "cycles": 800}
        | {"bound": "MACs", "macs": 99, "bytes_read": 70, "bytes_written": 10, "extrapolated": True}
    ],
}
SCORES = np.eye(4, dtype=np.float32)[LABELS]


def _write(folder: Path, evidence: Evidence) -> None:
    """Lay out what a sweep of `evidence` leaves, with one comparison of each run."""
    write_tsv(folder / "summary.tsv", evidence.accuracies, SUMMARY)
    write_tsv(folder / "pairs.tsv", pair_rows(evidence), PAIRS)
    write_tsv(folder / "seeds.tsv", seed_rows(evidence), SEEDS)
    wrong = np.roll(SCORES, 1, axis=1)
    for run in records(evidence.verdicts):
        names = {name: run[name] for name in RUN}
        place = folder.joinpath(*names.values())
        write_tsv(place / "layers.tsv", where(evidence.layers, RUN, names.values()), LAYER_FILE)
        findings = [] if run["cause"] is None else [{"evidence": run["evidence"]}]
        verdict = {name: run[name] for name in ("verdict", "cause", "images")} | {"first_bad_layer": run["layer"]}
        write_json(place / "verdict.json", {"subject": names, **verdict, "findings": findings})
        pair = compare(
            {**names, "baseline": "fp32", "kind": "fp32"}, LABELS, *(Scored.of(s, 1.0) for s in (wrong, SCORES))
        )
        assert pair is not None
        write_comparisons(place / "comparison.json", [pair])
        write_json(place / "cost.json", {"subject": names, **COST})
    case = folder / "lenet" / "mnist"
    write_comparisons(case / "comparisons.json", [])
    table = {"conv1": {"scale": 0.5, "min": 0, "max": 0, "offset": 0}}
    write_json(case / "calibration" / "entropy" / "table.raw.json", table)


@pytest.fixture
def evidence() -> Evidence:
    return sweep_evidence(unverified=("fp16",))


@pytest.fixture
def folder(tmp_path: Path, evidence: Evidence) -> Path:
    _write(tmp_path, evidence)
    return tmp_path


def test_everything_is_read_back(folder: Path, evidence: Evidence) -> None:
    found = read_results(folder)
    pd.testing.assert_frame_equal(found.summary, evidence.accuracies[list(SUMMARY)])
    pd.testing.assert_frame_equal(found.pairs, pair_rows(evidence).reset_index(drop=True))
    pd.testing.assert_frame_equal(found.seeds, seed_rows(evidence).reset_index(drop=True))
    pd.testing.assert_frame_equal(found.layers, evidence.layers)
    pd.testing.assert_frame_equal(found.verdicts, evidence.verdicts)
    assert found.scales.to_numpy().tolist() == [["lenet", "mnist", "entropy", "conv1", 0.5]]
    # Every class loses its 5 images, to one other class, in each of 5 runs.
    assert found.classes["after"].sub(found.classes["before"]).tolist() == [-5.0] * 4 * 5
    assert found.confusions.groupby("variant").size().tolist() == [8] * 5


def test_scales_of_an_equalized_network_are_read_beside_the_others(folder: Path) -> None:
    """From the calibration of its own; with no other variant, from that alone."""
    summary = read_tsv(folder / "summary.tsv", SUMMARY, "accuracies")
    equalized = summary["variant"] == "int8-filter"
    write_tsv(folder / "summary.tsv", summary.assign(preparation=equalized.map({True: "fold-equalize"})), SUMMARY)
    place = folder / "lenet" / "mnist" / "calibration" / "entropy"
    table = {"conv1": {"scale": 0.25, "min": 0, "max": 0, "offset": 0}}
    write_json(place / "fold-equalize" / "table.raw.json", table)
    shown = ["calibrator", "scale"]
    assert sorted(read_results(folder).scales[shown].to_numpy().tolist()) == [
        ["entropy", 0.5],
        ["entropy fold-equalize", 0.25],
    ]
    (place / "table.raw.json").unlink()
    write_tsv(folder / "summary.tsv", summary.assign(preparation="fold-equalize"), SUMMARY)
    assert read_results(folder).scales[shown].to_numpy().tolist() == [["entropy fold-equalize", 0.25]]


def test_times_are_read_back(folder: Path) -> None:
    found = read_results(folder)
    assert len(found.costs) == len(found.operations) == 5
    assert found.costs[["cycles", "read_bytes", "peak_int8", "reasons"]].iloc[0].tolist() == [900, 8.0, 64, "a; b"]
    assert found.costs["peak_fp16"].isna().all()
    shown = ["variant", "op", "others", "layers", "cycles"]
    assert found.operations[shown].iloc[0].tolist() == ["fp16", 0, "1", "conv1, relu1", 800]


def test_what_it_gives_can_be_pivoted(folder: Path) -> None:
    table = read_results(folder).summary.pivot(index="variant", columns="target", values="top1")
    assert table.loc["int8-filter", "nv_full"] == 99.0


def test_what_is_no_results_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "lenet/mnist/nv_full/fp16/layers.tsv").unlink()
    with pytest.raises(ReportError, match=r"fp16/layers\.tsv: not a table of layers"):
        read_results(folder)
    with pytest.raises(ReportError, match=r"elsewhere: no folder of results, it has no summary\.tsv"):
        read_results(tmp_path / "elsewhere")
