"""``nvdla-quant estimate`` as a stranger meets it."""

import json
from pathlib import Path

import pytest

from nvdla_quant.estimation.estimate import estimate
from nvdla_quant.hardware.targets import NV_SMALL
from nvdla_quant.jobs.files import write_json
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.network.passes import prepare
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.timing.memory import memory_of
from tests.estimated import RESOURCES, shipped
from tests.unit.test_cli import cli, fail, succeed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped LeNet for nv_small, as `compile --report` makes it."""
    folder, model = tmp_path_factory.mktemp("estimate"), RESOURCES / "lenet-mnist"
    table = CalibrationTable(dict.fromkeys(prepare(shipped("lenet-mnist"), "fold").tensors, 0.05))
    entry = {"min": 0, "max": 0, "offset": 0}
    write_json(folder / "table.json", {name: {"scale": scale, **entry} for name, scale in table.scales.items()})
    options = ("--configtarget", "nv_small", "--cprecision", "int8", "--quantizationMode", "per-filter")
    files = ("--prototxt", model / "deploy.prototxt", "--caffemodel", model / "lenet.caffemodel")
    made = ("--output", folder / "lenet.nvdla", "--report", folder / "compile.json")
    succeed("compile", *files, "--calibtable", folder / "table.json", *options, *made)
    return folder


def test_json_has_a_row_for_each_operation(folder: Path) -> None:
    found = json.loads(succeed("estimate", folder / "lenet.nvdla", "--configtarget", "nv_small", "--json"))
    assert found["cycles"] == pytest.approx(140_744, rel=0.001)
    assert [operation["op"] for operation in found["operations"]] == [0, 2, 3, 5, 6, 8, 10]
    for operation in found["operations"]:
        assert {"op", "unit", "cycles", "bound", "bytes_read", "bytes_written", "extrapolated"} <= operation.keys()
    assert any("--cpu-cycles" in note for note in found["notes"])


def test_the_table_names_target_time_and_layers(folder: Path) -> None:
    result = cli("estimate", folder / "lenet.nvdla", "--report", folder / "compile.json", "--clock", "5e8")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["op", "unit", "cycles", "share", "bound", "read", "written", "layers"]
    assert lines[1].startswith("0,1  conv+sdp")
    assert "conv1" in lines[1]
    assert "140,741 cycles on nv_small: 0.281 ms at 500 MHz" in result.stdout
    assert "*" not in result.stdout
    assert "note: operations of the processor are not counted; give --cpu-cycles" in result.stderr


def test_what_was_not_measured_is_marked(folder: Path) -> None:
    result = cli("estimate", folder / "lenet.nvdla", "--latency", 500, "--cpu-cycles", 10)
    assert result.stdout.count("*") == 7
    assert "note: extrapolated: a latency of 500 cycles; measured: 20 to 200" in result.stderr
    assert "--cpu-cycles" not in result.stderr


def test_a_race_is_said(shared: Path) -> None:
    path = shared / "golden" / "loadables" / "v-elt-prod-nv-full-fp16" / "loadable.nvdla"
    assert "note: race: operation 5" in cli("estimate", path).stderr


def test_times_of_a_board_say_its_memory(folder: Path, tmp_path: Path) -> None:
    memory = memory_of(NV_SMALL, latency=120, bandwidth=5.0)
    rows = estimate(read_loadable(folder / "lenet.nvdla"), NV_SMALL, memory).rows
    times = tmp_path / "times.tsv"
    times.write_text("op\tus\n" + "".join(f"{row.operation}\t{row.cycles / 500}\n" for row in rows if row.works))
    options = ("estimate", folder / "lenet.nvdla", "--fit", times, "--clock", 5e8)
    found = json.loads(succeed(*options, "--json"))
    assert found["memory"]["read_latency"] == found["fit"]["latency"]["value"] == 120
    assert found["memory"]["read_bytes"] == pytest.approx(5.0, rel=0.01)
    assert [one["op"] for one in found["fit"]["operations"]] == [0, 2, 3, 5, 6, 8]
    text = succeed(*options)
    assert "fitted to 6 times: latency 120 cycles +- " in text
    assert "memory: latency 120 cycles, 5 bytes a cycle each way" in text


def test_mistakes_are_one_line(folder: Path, tmp_path: Path) -> None:
    loadable = folder / "lenet.nvdla"
    times = tmp_path / "times.tsv"
    times.write_text("op\tcycles\n0\t26000\n77\t1\n")
    assert "line 3: op '77'" in fail("estimate", loadable, "--fit", times)
    assert "leave --latency and --bandwidth out" in fail("estimate", loadable, "--fit", times, "--latency", 40)
    assert "no such file" in fail("estimate", loadable, "--fit", tmp_path / "missing.tsv")
    assert "'--bandwidth'" in fail("estimate", loadable, "--bandwidth", 0)
    assert "expected a number" in fail("estimate", loadable, "--clock", "inf")
    assert "it fits nv_small" in fail("estimate", loadable, "--configtarget", "nv_large")
    assert "names no operations" in fail("estimate", loadable, "--report", times)
