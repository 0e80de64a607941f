"""What a report reads: groups, scale ratios, layers, verdicts, run times."""

import math
from pathlib import Path

import pytest

from nvdla_quant.errors import ReportError
from nvdla_quant.report.evidence import (
    PAIR_COLUMNS,
    SEED_COLUMNS,
    layer_costs,
    pair_rows,
    read_layers,
    scale_ratios,
    seed_rows,
)
from nvdla_quant.report.times import read_times
from tests.unit.reported import sweep_evidence

KEY = ("m", "d", "nv_full", "v")
LAYERS = (
    "step\tlayer\tscale\tsqnr_fp32\tcosine_fp32\tsqnr_simulated\tsaturated\tzeros\tvalues\tcauses\n"
    "0\tconv1\t0.5\t20\t0.99\t\t1\t5\t10\t\n"
    "1\tip1\t0.25\t10\t0.9\t30\t0\t0\t10\twrong-weights\n"
    "2\tprob\t1\tinf\t1\t30\t0\t0\t10\t\n"
)


def test_layers(tmp_path: Path) -> None:
    (tmp_path / "layers.tsv").write_text(LAYERS)
    first, second, third = read_layers(tmp_path / "layers.tsv", KEY)
    assert (first.layer, first.sqnr, first.sqnr_simulated, first.saturated, first.zeros) == (
        "conv1",
        20,
        None,
        0.1,
        0.5,
    )
    assert second.causes == "wrong-weights"
    # Noise over signal: 0.01, 0.1, 0.
    assert layer_costs([first, second, third]) == pytest.approx([0.01, 0.09, -0.1])


def test_no_layer_of_a_loadable_that_could_not_be_verified(tmp_path: Path) -> None:
    (tmp_path / "layers.tsv").write_text(LAYERS.partition("\n")[0] + "\n")
    assert read_layers(tmp_path / "layers.tsv", KEY) == []


@pytest.mark.parametrize("content", ["", "step\tlayer\n0\tconv1\n", LAYERS.replace("\t20\t", "\tx\t")])
def test_what_is_no_table_of_layers_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "layers.tsv").write_text(content)
    with pytest.raises(ReportError, match=r"layers\.tsv: not a table of layers"):
        read_layers(tmp_path / "layers.tsv", KEY)


def test_scale_ratios_by_hand() -> None:
    """Two seeds of the baseline, 1 and 4, have the geometric mean 2; ours are 2 and 8, whose mean is 4."""
    names = ["entropy", "entropy", "minmax", "minmax"]
    records = [{"model": "m", "dataset": "d", "name": name} for name in names]
    tables = [{"a": 1.0, "b": 1.0}, {"a": 4.0, "b": 1.0}, {"a": 2.0}, {"a": 8.0, "c": 1.0}]
    (found,) = scale_ratios(records, tables)
    assert (found.calibrator, found.baseline, found.tensor) == ("minmax", "entropy", "a")
    assert (found.ratio, found.low, found.high) == pytest.approx((2, 1, 4))


def test_rows_for_programs() -> None:
    evidence = sweep_evidence()
    pairs = pair_rows(evidence)
    assert all(tuple(row) == PAIR_COLUMNS for row in pairs)
    # Four variants with fp32 and the averaged seeds; two others with the best; one pair of modes.
    assert [row["kind"] for row in pairs].count("fp32") == 5
    assert [row["kind"] for row in pairs].count("best") == 2
    assert [row["kind"] for row in pairs].count("mode") == 1
    averaged = next(row for row in pairs if row["variant"] == "int8-kernel" and row["kind"] == "fp32")
    assert (averaged["seeds"], averaged["top1"], averaged["agreement"]) == (2, 85.0, None)
    (seeds,) = seed_rows(evidence)
    assert tuple(seeds) == SEED_COLUMNS
    assert seeds["top1_sd"] == pytest.approx(math.sqrt(50), abs=1e-4)


def test_run_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seconds, memory in (("a/x", 1.5, "100.4"), ("b/x", 2.5, "-"), ("y", 9.0, "50")):
        path = tmp_path / "times" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t{memory}\n")
    found = read_times({"x": "times/*/x.tsv", "y": "times/y.tsv", "never": "times/z.tsv"})
    assert [tuple(row.values()) for row in found] == [("y", 1, 9.0, 9.0, 50), ("x", 2, 4.0, 2.5, 100)]
    (tmp_path / "times" / "y.tsv").write_text("damaged")
    with pytest.raises(ReportError, match=r"y\.tsv: not a benchmark file"):
        read_times({"y": "times/y.tsv"})
