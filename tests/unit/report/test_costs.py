"""Times of loadables: what is read, what a layer takes, which are fastest, which no other beats."""

import json
from pathlib import Path

import pandas as pd
import pytest

from nvdla_quant.errors import ReportError
from nvdla_quant.report.costs import front, layer_times, read_costs, representatives, setting
from nvdla_quant.report.frames import LAYERS, OPERATIONS, records, typed, where
from nvdla_quant.report.tables import sheets_of, time_sheet
from nvdla_quant.report.terminal import render_summary
from tests.unit.report.reported import CASE, cost, layer, lines_of, operation, sweep_evidence

KEY = (*CASE, "nv_full", "fp16")
CYCLES: dict[str, int | None] = {
    **{"fp16": 2000, "int8-filter": 1000, "int8-kernel-seed-0": 1002, "int8-kernel-seed-1": 1002},
    "int8-broken": 10,
}


def test_layers_take_what_their_operations_take() -> None:
    """Two pieces of conv1 and, within the second, what runs with it; an operation that makes nothing known; the CPU."""
    operations = typed(
        [
            operation(KEY, 0, 100, others="1", layers="conv1, relu1"),
            operation(KEY, 2, 300, others="3", layers="conv1", bound="data"),
            operation(KEY, 4, 50, unit="rubik"),
            operation(KEY, 5, 50, unit="CPU", layers="prob", bound="CPU"),
        ],
        OPERATIONS,
    )
    layers = typed([layer(KEY, 0, "relu1", operations="1,3", sqnr_fp32=33.0)], LAYERS)
    found = records(layer_times(operations, layers))
    assert [(one["layer"], one["cycles"], one["share"], one["bound"], one["sqnr"]) for one in found] == [
        ("relu1", 400, 80.0, "data", 33.0),
        ("operation 4", 50, 10.0, "MACs", None),
        ("prob", 50, 10.0, "CPU", None),
    ]
    assert found[0]["bytes"] == 180


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        ([(1.0, 5.0)], [0]),
        # The second costs more and gains no more; the third does; the fourth gains the most, and is cheap.
        ([(1.0, 5.0), (2.0, 5.0), (3.0, 6.0), (0.5, 7.0)], [3]),
        ([(2.0, 9.0), (1.0, 5.0), (1.5, 4.0), (1.0, 6.0)], [3, 0]),
    ],
)
def test_the_front(points: list[tuple[float, float]], kept: list[int]) -> None:
    assert front(points) == kept


def test_the_fastest_of_each_precision_is_shown_and_none_that_is_wrong() -> None:
    evidence = sweep_evidence(targets=("nv_full", "nv_small"), cycles=CYCLES)
    chosen = representatives(evidence.accuracies, evidence.costs)
    assert chosen[["target", "variant", "precision"]].to_numpy().tolist() == [
        [target, variant, variant.partition("-")[0]]
        for target in ("nv_full", "nv_small")
        for variant in ("fp16", "int8-filter")
    ]


def test_the_summary_has_times() -> None:
    evidence = sweep_evidence(cycles=CYCLES)
    rows = {row["variant"]: row for row in records(evidence.accuracies)}
    assert [rows["int8-filter"][name] for name in ("cycles", "ms", "dram_bytes", "bound", "extrapolated")] == [
        *(1000, 1.0, 900, "MACs", False),
    ]
    assert rows["fp16"]["extrapolated"] is True
    assert [rows["fp32"][name] for name in ("cycles", "ms", "dram_bytes", "bound", "extrapolated")] == [None] * 5
    seeds = where(evidence.groups, ["group"], ["int8-kernel"])
    assert seeds["ms"].tolist() == [1.002]


def test_the_sheet_of_times() -> None:
    shown = time_sheet(sweep_evidence(cycles=CYCLES), CASE)
    assert lines_of(shown)[0] == ("nv_full", "fp16", "100.00", "0.00", "2,000*", "2*", "500*", "900", "MACs")
    assert lines_of(shown)[1][4:7] == ("1,000", "1", "1,000")
    assert "nv_full: 1 MHz, latency 40 cycles, 8 bytes a cycle each way" in shown.notes[0]
    assert shown.notes[1].startswith("* extrapolated")
    assert shown.title in [one.title for one in sheets_of(sweep_evidence(cycles=CYCLES))]
    assert not any("time" in one.title for one in sheets_of(sweep_evidence()))


def test_the_terminal_has_times() -> None:
    text = render_summary(sweep_evidence(cycles=CYCLES).accuracies, width=120)
    assert " 2* " in text
    assert "ms of an image on the hardware, estimated from the loadable. * extrapolated" in text.replace("\n", " ")
    assert " ms" not in render_summary(sweep_evidence().accuracies)


def test_a_setting_in_words() -> None:
    plain = cost(KEY, 1)
    assert setting({**plain, "outstanding": None}) == ("1 MHz, latency 40 cycles", "8 bytes a cycle each way")
    asked = {**plain, "outstanding": 4, "host_gap": 9, "shared": True, "read_bytes": 0.5}
    assert setting(asked)[1:] == (
        "0.5 bytes a cycle shared by both ways",
        "at most 4 reads under way",
        "9 cycles between accesses to registers",
    )


def test_an_estimate_that_failed_is_a_reason(tmp_path: Path) -> None:
    subject = dict(zip(("model", "dataset", "target", "variant"), KEY, strict=True))
    (tmp_path / "cost.json").write_text(json.dumps({"subject": subject, "error": "what is operation 3?"}))
    costs, operations = read_costs([tmp_path / "cost.json"])
    assert operations.empty
    assert costs["error"].tolist() == ["what is operation 3?"]
    assert pd.isna(costs["cycles"].iloc[0])


@pytest.mark.parametrize("text", ["", "{}", '{"subject": {}}', "[]"])
def test_what_is_no_estimate_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "cost.json").write_text(text)
    with pytest.raises(ReportError, match=r"cost\.json: not an estimate"):
        read_costs([tmp_path / "cost.json"])
