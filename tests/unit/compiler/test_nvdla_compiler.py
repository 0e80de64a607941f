"""The nvdla_compiler backend against a program with the real one's traps, and what is known to be miscompiled."""

import json
import os
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.compiler.nvdla_compiler import NvdlaCompiler
from nvdla_quant.errors import CompileError, TableError, ToolError
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL, Precision, QuantizationMode, Target
from nvdla_quant.jobs.programs import Program, bind_into_containers
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare
from nvdla_quant.support.miscompiles import check_nvdla_compiler, findings_by_variant, image_post_extension
from nvdla_quant.table.table import CalibrationTable
from tests.caffe_networks import layer, prototxt, write_random
from tests.fakes import NASTY, install
from tests.sweeps import tiny_network

pytestmark = pytest.mark.usefixtures("canary")

INT8, FP16 = Precision.INT8, Precision.FP16
KERNEL, FILTER = QuantizationMode.PER_KERNEL, QuantizationMode.PER_FILTER
TABLE = CalibrationTable(dict.fromkeys(("data", "conv1", "relu1", "pool1", "ip1", "prob"), 0.05))


class Fake:
    """The fake compiler in a folder whose name no shell would survive, and its settings in the environment."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = install("nvdla_compiler", folder / NASTY)
        self.calls, self.monkeypatch = folder / "calls.txt", monkeypatch
        loadable = folder / "made.nvdla"
        loadable.write_bytes(compile_network(tiny_network(0), TABLE, NV_SMALL, "int8", "per-filter").data)
        monkeypatch.setenv("FAKE_LOADABLE", str(loadable))
        monkeypatch.setenv("FAKE_CALLS", str(self.calls))
        temporary = folder / "Upper Case $HOME"
        temporary.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        self.temporary = temporary

    def compile(self, mode: str = "", seconds: float = 30, **changes: Any) -> tuple[bytes, dict[str, Any]]:
        self.monkeypatch.setenv("FAKE_MODE", mode)
        compiler = NvdlaCompiler(Program("backends.nvdla_compiler", str(self.path)), seconds)
        given = {"network": tiny_network(0), "table": TABLE, "target": NV_SMALL, "precision": "int8"}
        return compiler.compile(**{**given, "mode": "per-filter", **changes})


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(tmp_path, monkeypatch)


def test_every_option_is_given_and_every_path_is_lower_case(fake: Fake) -> None:
    data, report = fake.compile()
    assert data == Path(os.environ["FAKE_LOADABLE"]).read_bytes()
    (call,) = fake.calls.read_text().splitlines()
    options = dict(zip(json.loads(call)[::2], json.loads(call)[1::2], strict=True))
    assert options == {
        "--prototxt": "deploy.prototxt",
        "--caffemodel": "weights.caffemodel",
        "-o": "./",
        "--profile": "fast-math",
        "--cprecision": "int8",
        "--configtarget": "nv_small",
        "--informat": "nhwc",
        "--batch": "1",
        "--quantizationMode": "per-filter",
        "--calibtable": "table.json",
    }
    assert report["options"] == json.loads(call)
    assert re.fullmatch(r"loadable format \d+\.\d+\.\d+", report["version"])
    expected = subprocess.run(["sha256sum"], stdin=fake.path.open(), capture_output=True, text=True, check=True)
    assert report["sha256"] == {"nvdla_compiler": expected.stdout.split()[0]}
    assert list(fake.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("usage", "exit status 0; it said: Usage: "),
        ("no-output", "exit status 0, but it wrote no loadable, expected fast-math.nvdla"),
        ("other-name", "it wrote default.nvdla, expected fast-math.nvdla"),
        ("missing-entry", r"exit status 134 \(it aborted on an assertion, mostly on an entry that the table lacks\)"),
        ("divide", r"exit status 136 \(it divided by zero"),
        ("parse-error", "exit status 255; it said: libnvdla<1> could not parse layer type PReLU"),
        ("garbage-target", "exit status 0; it said: libnvdla<1> Invalid target config"),
        ("segfault", r"exit status 139 \(it read memory that it does not own\)"),
        ("old", r"exit status 1 \(it does not know an option.*\); it said: unknown argument: --informat; Usage: "),
        ("truncated", "exit status 0, but its loadable is malformed"),
        ("late-failure", "exit status 255; it said: closing wisdom context"),
    ],
)
def test_each_trap_is_an_error_of_its_own(fake: Fake, mode: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        fake.compile(mode)
    assert list(fake.temporary.iterdir()) == []


def test_a_hang_ends_at_the_time_limit_with_all_that_it_started(fake: Fake) -> None:
    start = time.monotonic()
    with pytest.raises(CompileError, match=r"killed after 1\.5 s; .* last line: opening wisdom context"):
        fake.compile("hang", seconds=1.5)
    assert time.monotonic() - start < 20
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(fake.temporary.parent) not in running


@pytest.mark.parametrize(
    "line",
    [
        "(DLA) Error 0x00000004: (propagating from Compiler.cpp, function emitOp(), line 1234)",
        "(DLA) Error 0x00000002: Activation type not supported: 1 (in engine-ast/ActivationOp.cpp, line 59)",
        "(DLA) Error 0x00000003: Empty INT8 Sigmoid LUT (in LutManager.cpp, line 368)",
        "(DLA) Error 0x00000004: Truncate too high: 40",
        "(DLA) Error 0x00000003: Scale value is 0 for 0.000000",
        "(DLA) Error 0x00000003: Condition Asserted (in engine-ast/EngineEdge.cpp, verifySurfaceTensorScales())",
        "(DLA) Error 0x00000004: Atleast 1 of scale or min-max should be specified for conv1",
        "(DLA) Error 0x00000004: JSON parsing error: Missing a name for object member. (in ParseTest.cpp, line 70)",
        "(DLA) Error 0x00000002: Couldn't narrow down to suitable SF for e-1/tsd-6 (determineSurfaceFormat())",
        "(DLA) Error 0x00000002: Not enough banks to hold weight data. No software split supported",
        "(DLA) Error 0x00000002: Don't support 0 (in engine-ast/ConvCoreNode.cpp, function another(), line 1176)",
        "Unrecognized compute precision: 0",
        "libnvdla<1> Batch Normalization moving average is zero",
        "FIXME: Cannot handle Mean values beyond computePrecision limits for now",
    ],
)
def test_each_error_that_it_goes_on_after_is_one(fake: Fake, line: str) -> None:
    """It writes a loadable and exits with 0 after all of these."""
    fake.monkeypatch.setenv("FAKE_SAYS", line)
    with pytest.raises(CompileError, match=re.escape(f"exit status 0; it said: {line}")):
        fake.compile()
    assert list(fake.temporary.iterdir()) == []


def test_the_one_error_that_is_expected_passes_and_is_recorded(fake: Fake) -> None:
    where = "engine-ast/ConvCoreNode.cpp, function tryToMergeWithScaleOp(), line 1176"
    fake.monkeypatch.setenv("FAKE_SAYS", f"(DLA) Error 0x00000002: Don't support 0 (in {where})")
    _, report = fake.compile()
    assert "Don't support 0" in report["log"][0]


def test_int8_without_a_table_never_reaches_the_compiler(fake: Fake) -> None:
    """It would take 127 for the scale of everything and exit with 0."""
    with pytest.raises(CompileError, match="int8 needs a calibration table"):
        fake.compile(table=None)
    assert not fake.calls.exists()


def test_a_table_that_lacks_an_entry_never_reaches_the_compiler(fake: Fake) -> None:
    scales = dict(TABLE.scales)
    del scales["relu1"]
    with pytest.raises(TableError, match="no entry for 'relu1'"):
        fake.compile(table=CalibrationTable(scales))
    assert not fake.calls.exists()


def test_a_loadable_of_another_target_is_refused(fake: Fake) -> None:
    """What stands in the working folder is a loadable for nv_small, whatever was asked."""
    with pytest.raises(CompileError, match=r"asked for int8 on nv_large, but output .* options were not taken"):
        fake.compile(target=NV_LARGE)


def test_a_missing_compiler_names_the_key_and_what_to_do() -> None:
    compiler = NvdlaCompiler(Program("backends.nvdla_compiler", "/nowhere/nvdla_compiler"))
    with pytest.raises(ToolError, match=r"backends\.nvdla_compiler\.path: '/nowhere/nvdla_compiler' is not an exec"):
        compiler.compile(tiny_network(0), TABLE, NV_SMALL, "int8", "per-filter")


def test_in_a_container_the_working_folder_is_bound_and_docker_s_program_has_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's client may be killed without its container."""
    for name in ("docker", "apptainer"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    docker = Program("key", "/opt/nvdla_compiler", "docker://nvdla/vp", "docker")
    command = docker.command(["-o", "./"], tmp_path, seconds=9.5)
    assert command[command.index("--entrypoint") + 1 :] == [
        *("timeout", "nvdla/vp", "-s", "KILL", "10", "/opt/nvdla_compiler", "-o", "./")
    ]
    assert f"type=bind,source={tmp_path},target=/nvdla-quant" in command
    apptainer = Program("key", "/opt/nvdla_compiler", "docker://nvdla/vp", "apptainer")
    assert apptainer.command(["-h"], tmp_path)[-3:] == ["docker://nvdla/vp", "/opt/nvdla_compiler", "-h"]
    with pytest.raises(ToolError, match="comma or colon cannot be bound"):
        apptainer.command([], tmp_path / "a,b")


def test_what_is_bound_into_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user binds stays; the working directory is bound by Snakemake, and what is not there cannot be."""
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    for folder in (work, elsewhere, tmp_path / "a,b"):
        folder.mkdir()
    (elsewhere / "file").touch()
    (work / "link").symlink_to(elsewhere / "file")
    monkeypatch.chdir(work)
    monkeypatch.setenv("APPTAINER_BIND", "/data:/data:ro")
    bind_into_containers([Path("link"), Path("results"), tmp_path / "missing" / "file"])
    assert os.environ["APPTAINER_BIND"] == f"/data:/data:ro,{elsewhere}"
    with pytest.raises(ToolError, match="comma or colon cannot be bound"):
        bind_into_containers([tmp_path / "a,b"])


# ---- what is known to be miscompiled


def random_network(folder: Path, *layers: str, shape: tuple[int, ...] = (1, 3, 16, 16)) -> Network:
    return read_network(*write_random(folder, prototxt(*layers, shape=shape)))


def convolution(parameters: str, name: str = "c", source: str = "data") -> str:
    return layer(name, "Convolution", source, f"convolution_param {{ num_output: 8 {parameters} }}")


def rules(
    network: Network, target: Target, precision: Precision, mode: QuantizationMode | None, **how: str
) -> list[str]:
    return [finding.rule for finding in check_nvdla_compiler(network, target, precision, mode, **how)]


@pytest.mark.parametrize(
    ("size", "wrong"), [(3, False), (4, False), (5, True), (6, False), (7, False), (8, False), (11, False)]
)
def test_fault_a_is_the_5x5_kernel_over_the_image(tmp_path: Path, size: int, wrong: bool) -> None:
    """Of the widths that were compiled, 5 alone was wrong; S=4 joins 4 rows, 6 to 8 join 2, 3 needs 8 rows, 11 none."""
    network = random_network(tmp_path, convolution(f"kernel_size: {size}"))
    for target in (NV_FULL, NV_LARGE):
        assert (rules(network, target, INT8, FILTER) == ["image-kernel"]) is wrong
    assert rules(network, NV_SMALL, INT8, FILTER) == []
    assert rules(network, NV_FULL, INT8, FILTER, informat="nchw") == []


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [
        ("kernel_size: 3 stride: 2 round_mode: FLOOR", True),  # 16 pixels: 7 windows inside, 8 rounded up.
        ("kernel_size: 2 stride: 2 round_mode: FLOOR", False),  # 8 either way.
        ("kernel_size: 10 stride: 10 ceil_mode: false", True),  # Also where `fold` takes the window apart.
        ("kernel_size: 3 stride: 2", False),
    ],
)
def test_pooling_that_rounds_down_is_refused_by_name(tmp_path: Path, parameters: str, wrong: bool) -> None:
    pooling = layer("p", "Pooling", "data", f"pooling_param {{ {parameters} }}")
    network = prepare(random_network(tmp_path, pooling), "fold")
    found = check_nvdla_compiler(network, NV_SMALL, INT8, FILTER)
    assert (bool(found) and {finding.rule for finding in found} == {"pooling-rounding"}) is wrong


def test_rows_that_are_joined() -> None:
    """ConvCoreNode.cpp:886-945 for atomic C 64: width 4 fits 4 rows, 5 to 8 fit 2, beyond none."""
    joined = {width: image_post_extension((16, width), 1, 64) for width in (3, 4, 5, 8, 9)}
    assert joined == {3: 4, 4: 4, 5: 2, 8: 2, 9: 1}
    assert image_post_extension((16, 4), 5, 64) == 1, "the stride is wider than the kernel"
    assert image_post_extension((3, 4), 1, 64) == 1, "too few rows"


def test_faults_b_and_c_need_a_scale_behind_the_image_convolution_and_fold_removes_them(tmp_path: Path) -> None:
    network = random_network(
        tmp_path,
        convolution("kernel_size: 3 bias_term: false"),
        layer("bn", "BatchNorm", "c", top="c"),
        layer("s", "Scale", "c", "scale_param { bias_term: true }", top="c"),
        layer("r", "ReLU", "c", top="c"),
    )
    assert rules(network, NV_SMALL, INT8, KERNEL) == ["image-scale"]
    assert rules(network, NV_SMALL, INT8, FILTER) == []
    assert rules(network, NV_SMALL, INT8, KERNEL, profile="default") == []
    assert rules(network, NV_FULL, FP16, None) == ["image-fold"]
    assert rules(network, NV_FULL, FP16, None, informat="nchw") == []
    assert rules(network, NV_SMALL, FP16, None)[0] == "precision"
    assert rules(prepare(network, "fold"), NV_SMALL, INT8, KERNEL) == []
    assert rules(prepare(network, "fold"), NV_FULL, FP16, None) == []


def test_support_lists_what_each_variant_would_meet_after_its_preparation(tmp_path: Path) -> None:
    network = random_network(
        tmp_path, convolution("kernel_size: 3 bias_term: false"), layer("bn", "BatchNorm", "c", top="c")
    )
    variant = {"precision": "int8", "mode": "per-kernel", "pixels": None}
    variants = {"as-is": {**variant, "preparation": "as-is"}, "folded": {**variant, "preparation": "fold"}}
    found = findings_by_variant(network, NV_SMALL, variants, {"profile": "fast-math", "informat": "nhwc"})
    (fault,) = found["as-is"]["findings"]  # type: ignore[index]
    assert (fault["layer"], fault["rule"], fault["severity"]) == ("c", "image-scale", "error")
    assert "preparation fold" in fault["rewrite"]
    assert found["folded"] == {"findings": []}


@pytest.mark.parametrize(
    ("layers", "int8", "fp16"),
    [
        ([convolution("kernel_size: 3 pad: 1"), convolution("kernel_size: 3 group: 2", "g", "c")], ["group"], []),
        ([layer("p", "Pooling", "data", "pooling_param { pool: AVE kernel_size: 9 }")], ["pooling-window"], None),
        ([layer("r", "ReLU", "data", "relu_param { negative_slope: 0.1 }")], ["leaky-relu"], None),
        ([layer("e", "Eltwise", "data data", "eltwise_param { operation: PROD }")], ["eltwise"], []),
        ([layer("e", "Eltwise", "data data", "eltwise_param { coeff: 1 coeff: 2 }")], ["eltwise"], None),
        ([layer("s", "Sigmoid", "data")], ["layer-type"], []),
        ([layer("n", "LRN", "data")], ["layer-type"], []),
        ([layer("n", "PReLU", "data")], ["layer-type"], None),
        ([layer("w", "Power", "data", "power_param { shift: 1 }")], ["power"], None),
        ([layer("x", "Softmax", "data")], ["softmax-size"], None),
    ],
)
def test_each_fault_has_its_rule(tmp_path: Path, layers: list[str], int8: list[str], fp16: list[str] | None) -> None:
    network = random_network(tmp_path, *layers)
    assert rules(network, NV_FULL, INT8, FILTER) == int8
    assert rules(network, NV_FULL, FP16, None) == (int8 if fp16 is None else fp16)


def test_dead_filters_lose_their_bias_in_per_filter_mode(tmp_path: Path) -> None:
    network = random_network(tmp_path, convolution("kernel_size: 3"))
    operation = network.layers[0].operation
    weights = operation.weights.copy()  # type: ignore[union-attr]
    weights[3] = 0
    dead = replace(network, layers=(replace(network.layers[0], operation=replace(operation, weights=weights)),))
    assert rules(dead, NV_SMALL, INT8, FILTER) == ["dead-filter"]
    assert rules(dead, NV_SMALL, INT8, KERNEL) == []
    assert rules(network, NV_SMALL, INT8, FILTER) == []


def test_a_mean_beyond_127_is_refused(tmp_path: Path) -> None:
    network = random_network(tmp_path, convolution("kernel_size: 3"), layer("bn", "BatchNorm", "c"))
    for value, found in ((-128, ["batch-norm-mean"]), (-127, []), (500, [])):
        mean = np.full(8, value, np.float32)
        operation = replace(network.layers[1].operation, mean=mean)  # type: ignore[type-var]
        changed = replace(network, layers=(network.layers[0], replace(network.layers[1], operation=operation)))
        assert rules(changed, NV_FULL, INT8, FILTER) == found


def test_golden_loadables_of_faults_are_refused_and_right_ones_are_not(shared: Path) -> None:
    """README of the golden data: what the real compiler got wrong, and what it got right."""
    cases = {
        ("lenet", "nv_full", INT8, FILTER): ["image-kernel"],
        ("lenet", "nv_small", INT8, KERNEL): [],
        ("resnets", "nv_small", INT8, KERNEL): ["image-scale"],
        ("resnets", "nv_small", INT8, FILTER): [],
        ("resnets", "nv_full", FP16, None): ["image-fold"],
        ("v-group", "nv_full", INT8, FILTER): ["group"],
        ("v-concat", "nv_full", INT8, FILTER): [],
        ("v-dilation", "nv_small", INT8, KERNEL): [],
    }
    targets = {"nv_full": NV_FULL, "nv_small": NV_SMALL}
    for (model, target, precision, mode), expected in cases.items():
        folder = shared / "golden" / "models" / model
        network = read_network(folder / "deploy.prototxt", folder / "model.caffemodel")
        assert rules(network, targets[target], precision, mode) == expected, (model, target, precision, mode)


def test_a_known_fault_stops_before_the_compiler_runs(fake: Fake, tmp_path: Path) -> None:
    network = random_network(tmp_path, layer("r", "ReLU", "data", "relu_param { negative_slope: 0.1 }"))
    with pytest.raises(CompileError, match=r"known to miscompile this network: r \[leaky-relu\]: .*train with ReLU"):
        fake.compile(network=network, table=CalibrationTable({"data": 1, "r": 1}))
    assert not fake.calls.exists()
