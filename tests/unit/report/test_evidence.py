"""What a report reads: groups, scale ratios, layers, verdicts, run times."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nvdla_quant.emulator.integer.kernels import Kernel, chosen_kernel
from nvdla_quant.errors import ReportError
from nvdla_quant.report.evidence import (
    layer_costs,
    pair_rows,
    read_layers,
    scale_ratios,
    seed_rows,
)
from nvdla_quant.report.frames import (
    ACCURACIES,
    GROUPS,
    LAYER_FILE,
    PAIRS,
    RUN,
    SCALES,
    SEEDS,
    records,
    to_tsv,
    typed,
    where,
)
from nvdla_quant.report.rows import group_seeds
from nvdla_quant.report.times import read_kernels, read_times, shards_for
from tests.kernels import using
from tests.unit.report.reported import sweep_evidence

RUN_OF_LAYERS = dict(zip(RUN, ("m", "d", "nv_full", "v"), strict=True))
CELLS: Any = {"values": 10, "saturated": 0, "zeros": 5, "scale": 0.5}
LAYERS = to_tsv(
    typed(
        [
            {**CELLS, "step": 0, "layer": "conv1", "sqnr_fp32": 20, "cosine_fp32": 0.99, "saturated": 1},
            {**CELLS, "step": 1, "layer": "ip1", "sqnr_fp32": 10, "sqnr_simulated": 30, "causes": "wrong-weights"},
            {**CELLS, "step": 2, "layer": "prob", "sqnr_fp32": math.inf, "sqnr_simulated": 30},
        ],
        LAYER_FILE,
    )
)


def test_layers(tmp_path: Path) -> None:
    (tmp_path / "layers.tsv").write_text(LAYERS)
    found = read_layers(tmp_path / "layers.tsv", RUN_OF_LAYERS)
    first, second, _ = records(found)
    cells = ("variant", "layer", "sqnr_fp32", "sqnr_simulated", "saturated", "zeros", "values")
    assert [first[name] for name in cells] == ["v", "conv1", 20, None, 1, 5, 10]
    assert second["causes"] == "wrong-weights"
    # Noise over signal: 0.01, 0.1, 0; another run begins anew.
    both = pd.concat([found, found.assign(variant="w")], ignore_index=True)
    assert layer_costs(both).tolist() == pytest.approx([0.01, 0.09, -0.1] * 2)


def test_no_layer_of_a_loadable_that_could_not_be_verified(tmp_path: Path) -> None:
    (tmp_path / "layers.tsv").write_text(LAYERS.partition("\n")[0] + "\n")
    assert read_layers(tmp_path / "layers.tsv", RUN_OF_LAYERS).empty


@pytest.mark.parametrize("content", ["", "step\tlayer\n0\tconv1\n", LAYERS.replace("\t20.0\t", "\tx\t")])
def test_what_is_no_table_of_layers_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "layers.tsv").write_text(content)
    with pytest.raises(ReportError, match=r"layers\.tsv: not a table of layers"):
        read_layers(tmp_path / "layers.tsv", RUN_OF_LAYERS)


def test_scale_ratios_by_hand() -> None:
    """Two seeds of the baseline, 1 and 4, have the geometric mean 2; ours are 2 and 8, whose mean is 4."""
    names = ["entropy", "entropy", "minmax", "minmax"]
    tables = [{"a": 1.0, "b": 1.0}, {"a": 4.0, "b": 1.0}, {"a": 2.0}, {"a": 8.0, "c": 1.0}]
    case = {"model": "m", "dataset": "d"}
    frames = [
        typed(
            ({**case, "calibrator": name, "tensor": tensor, "scale": scale} for tensor, scale in table.items()), SCALES
        )
        for name, table in zip(names, tables, strict=True)
    ]
    found = records(scale_ratios(frames))
    assert [(one["calibrator"], one["baseline"], one["tensor"]) for one in found] == [("minmax", "entropy", "a")]
    assert [found[0][name] for name in ("ratio", "low", "high")] == pytest.approx([2, 1, 4])


def test_rows_for_programs() -> None:
    evidence = sweep_evidence()
    pairs = pair_rows(evidence)
    assert tuple(pairs) == tuple(PAIRS)
    # Four variants with fp32 and the averaged seeds; two others with the best; one pair of modes.
    assert pairs["kind"].value_counts().to_dict() == {"fp32": 5, "best": 2, "mode": 1}
    (averaged,) = records(where(pairs, ["kind", "variant"], ["fp32", "int8-kernel"]))
    assert (averaged["seeds"], averaged["top1"], averaged["agreement"]) == (2, 85.0, None)
    # By Holm: of two p-values the smaller counts twice.
    best = pairs[pairs["kind"] == "best"].sort_values("p")
    assert best["p_holm"].tolist() == pytest.approx(
        [2 * best["p"].iloc[0], max(2 * best["p"].iloc[0], best["p"].iloc[1])]
    )
    (seeds,) = records(seed_rows(evidence))
    assert tuple(seeds) == tuple(SEEDS)
    assert seeds["top1_sd"] == pytest.approx(math.sqrt(50), abs=1e-4)
    assert (seeds["variant"], seeds["seeds"], seeds["images"], seeds["top1_min"]) == ("int8-kernel", 2, 8, 80.0)


def test_files_for_programs_keep_their_bytes() -> None:
    """Lines as they were written before there were data frames."""
    evidence = sweep_evidence()
    made = "\t\tbuiltin\temulator\tbit-exact"
    spread = "\t7.0711\t80.0\t90.0"
    line = f"lenet\tmnist\tnv_full\tint8-kernel\t8\t2\t200\t85.0{spread}\t-15.0\t7.0711\t-20.0\t-10.0\t85.0{spread}\t"
    assert to_tsv(seed_rows(evidence)).splitlines() == ["\t".join(SEEDS), line + made]
    lines = to_tsv(pair_rows(evidence)).splitlines()
    assert lines[0] == "\t".join(PAIRS)
    shown = "1\t200\t100.0\t100.0\t0.0\t-0.9703\t0.9703\t0\t0\t1.0\t1.0\t100.0\t1.0\t0.0\t0.0\t0\t0\t0\t0"
    assert lines[1] == f"lenet\tmnist\tnv_full\tfp32\tfp16\tfp32\t{shown}{made}"
    figures = "2\t200\t85.0\t100.0\t-15.0\t-19.3551\t-10.3478\t0\t40\t1.8189894035458565e-12\t3.637978807091713e-12"
    empty = "\t" * 8
    assert f"lenet\tmnist\tnv_full\tbest\tint8-kernel\tfp16\t{figures}{empty}{made}" in lines


def test_a_seed_whose_output_means_nothing_leaves_no_mean() -> None:
    """Also where another seed's has one."""
    evidence = sweep_evidence()
    broken = evidence.accuracies["variant"] == "int8-kernel-seed-1"
    figures = ["top1", "delta", "agreement"]
    accuracies = evidence.accuracies.assign(
        error=evidence.accuracies["error"].mask(broken, "constant"),
        **{name: evidence.accuracies[name].mask(broken) for name in figures},
    )
    place = {"model": "lenet", "dataset": "mnist", "target": "nv_full", "images": 8}
    variants = ["int8-kernel-seed-0", "int8-kernel-seed-1"]
    group = {**place, "name": "int8-kernel", "series": "int8-kernel", "variants": variants}
    of = figures, (ACCURACIES, GROUPS), "accuracy"
    (found,) = records(group_seeds(accuracies, [group], *of)[1])
    assert (found["seeds"], found["error"]) == (2, "constant")
    assert [found[f"{name}_{part}"] for name in figures for part in ("mean", "sd", "min", "max")] == [None] * 12
    with pytest.raises(ReportError, match="lenet / mnist / nv_full / lost has no accuracy"):
        group_seeds(accuracies, [{**group, "variants": ["int8-kernel-seed-0", "lost"]}], *of)


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


def test_kernels_of_the_emulator_are_found_in_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By the line that the emulator itself says."""
    monkeypatch.chdir(tmp_path)
    with using(Kernel.FLOAT32), caplog.at_level("INFO"):
        chosen_kernel()
    (said,) = caplog.messages
    lines = (
        f"2026 INFO {said}\n",
        "int8 convolutions: vnni512 (vnni512 is exact, in 0.3 of float32's time)\n",
        "done\n",
    )
    for number, line in enumerate(lines * 2):
        path = tmp_path / "logs" / str(number) / "all.log"
        path.parent.mkdir(parents=True)
        path.write_text(f"progress\n{line}more\n")
    assert read_kernels("logs/*/all.log") == {"float32": 2, "vnni512": 2}
    assert read_kernels("logs/none.log") == {}


@pytest.mark.parametrize(
    ("longest", "shards", "expected"), [(2.0, 1, 1), (299, 1, 1), (301, 1, 2), (3000, 4, 40), (30, 40, 4)]
)
def test_shards_for_jobs_of_five_minutes(longest: float, shards: int, expected: int) -> None:
    """In proportion, of the longest job that runs a loadable; other jobs do not count."""
    rows = [{"rule": "calibrate", "longest": 9999.0}, {"rule": "run_loadable", "longest": longest}]
    assert shards_for(rows, shards) == expected
    assert shards_for(rows[:1], shards) is None
