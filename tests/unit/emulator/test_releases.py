"""Where hardware with clock gating stops: what NVIDIA's RTL did (nvdla/hw master, four configurations)."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.cli import main
from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.decode.releases import Stop, lost_releases
from nvdla_quant.emulator.operations import ConvOperation, CpuOperation
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, TARGETS, Precision
from nvdla_quant.loadable.describe import describe
from nvdla_quant.loadable.reader import parse_loadable, read_loadable
from nvdla_quant.network.files import read_model
from nvdla_quant.network.graph import Power
from tests.layered import PER_FILTER, table_of
from tests.networks.builder import Builder
from tests.verified import compiled_case

LENETS = [
    *(f"lenet-nv-small-int8-{form}" for form in ("perfilter", "perfilter-fixedcal", "perkernel", "perkernel-fixedcal")),
    "lenet-nv-small-int8-perfilter-nchw",
]
RESNETS = [
    *(f"resnets-nv-small-int8-perfilter{form}" for form in ("", "-basic", "-fixedcal")),
    *(f"resnets-nv-small-int8-perkernel{form}" for form in ("", "-basic", "-default", "-fixedcal")),
]
RUN = [
    f"v-{name}-nv-small-int8-{mode}"
    for name in ("conv0-nobias-relu", "dilation", "elt-prod", "group", "scale-nobias", "sigmoid")
    for mode in ("perfilter", "perkernel")
]
"""Loadables of one to four convolutions, which the RTL of nv_small ran with clock gating on."""


def convolutions_before(folder: Path, index: int) -> int:
    """Return how many convolutions a loadable has before operation `index`, which is one."""
    units = [operation["unit"] for operation in describe(read_loadable(folder / "loadable.nvdla"))["operations"]]
    assert units[index] == "CONV"
    return units[:index].count("CONV")


@pytest.mark.parametrize("name", [*LENETS, *RESNETS])
def test_nvidias_loadables_stop_in_the_third_convolution(shared: Path, name: str) -> None:
    folder = shared / "golden" / "loadables" / name
    stop = lost_releases(read_loadable(folder / "loadable.nvdla"), TARGETS["nv_small"])
    assert stop is not None
    if "basic" not in name and "default" not in name:
        assert convolutions_before(folder, stop.index) == 2


def test_nv_large_stops_in_the_fourth(shared: Path) -> None:
    folder = shared / "golden" / "loadables" / "lenet-nv-large-int8-perfilter"
    stop = lost_releases(read_loadable(folder / "loadable.nvdla"), NV_LARGE)
    assert stop is not None
    assert convolutions_before(folder, stop.index) == 3


@pytest.mark.parametrize("name", RUN)
def test_few_convolutions_run(shared: Path, name: str) -> None:
    loadable = read_loadable(shared / "golden" / "loadables" / name / "loadable.nvdla")
    assert lost_releases(loadable, TARGETS["nv_small"]) is None


@pytest.mark.parametrize(
    ("target", "counted", "own", "room"), [("nv_large", 449, 144, 512), ("nv_medium_512", 450, 144, 512)]
)
def test_resnet20(repository: Path, target: str, counted: int, own: int, room: int) -> None:
    """The counters are those that were read in the RTL when it stood still; 144 entries are 32 x 16 x 3 x 3 bytes."""
    folder = repository / "resources" / "resnet20-fashion-mnist"
    network = read_model([folder / "deploy.prototxt", folder / "resnet20.caffemodel"])
    images = np.random.default_rng(0).normal(0, 1, (2, *network.only_input.shape)).astype(np.float32)
    table = table_of(network, images)
    hardware = TARGETS[target]
    loadable = parse_loadable(compile_network(network, table, hardware, Precision.INT8, PER_FILTER).data)
    stop = lost_releases(loadable, hardware)
    assert stop is not None
    assert (stop.counted, stop.own, stop.room) == (counted, own, room)


def test_a_stop_behind_a_task_of_the_processor_is_at_its_convolution() -> None:
    """The processor's operations have numbers, too."""
    builder = Builder("squared", (32, 8, 8))
    last = builder.add("square", Power(2.0, 1.0, 0.25), builder.conv("c", "data", 32, 3))
    for number in range(4):
        last = builder.conv(f"c{number}", last, 64, 3)
    target = TARGETS["nv_small"]
    loadable = compiled_case(builder.build(), target, Precision.INT8, PER_FILTER).loadable
    operations = decode(loadable, target).operations
    (square,) = (one.index for one in operations if isinstance(one, CpuOperation))
    stop = lost_releases(loadable, target)
    assert stop is not None
    assert stop.index > square
    assert stop.index in [one.source.index for one in operations if isinstance(one.source, ConvOperation)]


def test_nv_full_has_no_such_counter(shared: Path) -> None:
    loadable = read_loadable(shared / "golden" / "loadables" / "resnets-nv-full-int8-perfilter" / "loadable.nvdla")
    assert lost_releases(loadable, NV_FULL) is None


def test_inspect_warns(shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared / "golden" / "loadables" / LENETS[0] / "loadable.nvdla"
    for more in ((), ("--json",)):
        monkeypatch.setattr(sys, "argv", ["nvdla-quant", "inspect", str(path), *more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (None, 0)
        printed = capsys.readouterr()
        if more:
            assert json.loads(printed.out)["stops_with_clock_gating"]["nv_small"]["counted"] == 3375
        else:
            expected = str(Stop(6, 3375, 50000, 2048))
            assert f"warning: nv_small: {expected}" in printed.err
