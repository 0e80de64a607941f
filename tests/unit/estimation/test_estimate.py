"""Estimates of networks: LeNet's and ResNet-20's cycles on NVIDIA's RTL, NVIDIA's own loadables, and the ends."""

import math
from pathlib import Path

import pytest

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.estimation.estimate import CPU, estimate
from nvdla_quant.estimation.record import record
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, TARGETS
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.structs import EmuFormat, EmuOperation
from nvdla_quant.timing.memory import memory_of
from nvdla_quant.timing.records import Convolution, Move, Planar
from tests.estimated import lenet, resnet20
from tests.loadables import cpu_loadable
from tests.specifications import text_of, values_of
from tests.unit_loadables import unit_loadables

SETTINGS: tuple[dict[str, float], ...] = (
    {},
    {"latency": 0},
    {"latency": 1_000_000},
    {"bandwidth": 0.01},
    {"outstanding": 1},
    {"latency": 0, "outstanding": 1},
    {"shared": True},
    {"host_gap": 5000},
)


@pytest.mark.parametrize(
    ("target", "setting", "measured"),
    [
        ("nv_small", {}, 140_744),
        ("nv_small", {"latency": 20}, 140_584),
        ("nv_small", {"latency": 200}, 183_080),
        ("nv_small", {"bandwidth": 4.0}, 187_161),
        ("nv_small", {"shared": True}, 140_990),
        ("nv_small", {"outstanding": 16}, 216_579),
        ("nv_small", {"host_gap": 20}, 149_559),
        ("nv_small", {"host_gap": 100}, 183_790),
        ("nv_small_256", {}, 100_478),
        ("nv_medium_512", {}, 54_408),
        ("nv_large", {}, 25_893),
    ],
)
def test_lenet_takes_what_was_measured(target: str, setting: dict[str, float], measured: int) -> None:
    """The network's records of NVIDIA's RTL, its softmax on the processor left out."""
    found = estimate(lenet(target), TARGETS[target], memory_of(TARGETS[target], **setting))  # type: ignore[arg-type]
    assert found.cycles == pytest.approx(measured, rel=0.01)
    assert found.extrapolated == ()


@pytest.mark.parametrize(
    ("target", "measured"),
    [("nv_small", 559_488), ("nv_small_256", 241_206), ("nv_medium_512", 125_563), ("nv_large", 92_871)],
)
def test_resnet20_takes_what_was_measured(target: str, measured: int) -> None:
    """Of which no operation is among those that the model was made with."""
    found = estimate(resnet20(target), TARGETS[target], memory_of(TARGETS[target]))
    assert found.cycles == pytest.approx(measured, rel=0.01)


def test_a_convolution_and_its_sdp_are_one_row() -> None:
    found = record(estimate(lenet("nv_small"), NV_SMALL, memory_of(NV_SMALL)))
    assert [operation["op"] for operation in found["operations"]] == [0, 2, 3, 5, 6, 8, 10]
    assert [operation["unit"] for operation in found["operations"]] == [
        *("conv+sdp", "pdp", "conv+sdp", "pdp", "conv+sdp", "conv+sdp", CPU)
    ]
    assert found["operations"][0]["with"] == [1]
    keys = {"op", "unit", "cycles", "bound", "bytes_read", "bytes_written", "extrapolated"}
    assert all(keys <= operation.keys() for operation in found["operations"])
    assert all(operation["extrapolated"] is False for operation in found["operations"])
    assert isinstance(found["cycles"], int)
    for key in ("bytes_read", "bytes_written"):
        assert found[key] == sum(operation[key] for operation in found["operations"])
    assert found["dram_bytes"] == found["bytes_read"] + found["bytes_written"]


def test_bytes_of_the_first_convolution_by_hand() -> None:
    """28 lines of 28 pixels of 4 bytes, whose lines are whole atoms; 20 kernels of 25 x 4 bytes; 24 biases of 2.

    The two units of the SDP read a bias and a multiplier; output 24 x 24 of 24 channels.
    """
    row = estimate(lenet("nv_small"), NV_SMALL, memory_of(NV_SMALL)).rows[0]
    assert (row.traffic.data, row.traffic.weights, row.traffic.output) == (28 * 28 * 4, 20 * 100, 24 * 24 * 24)
    assert row.traffic.operands == 24 * 2 * 2


def test_what_the_processor_computes_takes_what_the_user_says() -> None:
    memory = memory_of(NV_SMALL)
    without, given = (estimate(lenet("nv_small"), NV_SMALL, memory, cycles) for cycles in (0.0, 50.0))
    (row,) = (row for row in given.rows if row.unit == CPU)
    assert row.cycles == given.cycles - without.cycles
    assert row.cycles >= 10 * 50
    assert row.traffic.bytes == 0


def test_where_nothing_is_counted_there_is_no_rate() -> None:
    """A loadable of the processor alone."""
    fields = {"format": EmuFormat.INT8_8, "channel": 8, "height": 1, "width": 1, "size": 8}
    fields |= {"line_stride": 8, "surf_stride": 8}
    operation = {"op_type": EmuOperation.SOFTMAX, "input_scale": 1.0, "output_scale": 1.0}
    found = estimate(cpu_loadable(operation, fields, fields, (32, 32)), NV_SMALL, memory_of(NV_SMALL))
    assert (found.cycles, found.bound, found.images_per_second) == (0, CPU, None)
    assert record(found)["images_per_second"] is None


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_loadables_of_every_unit(setting: dict[str, float]) -> None:
    """Poolings in parts and behind the SDP, copies, two bytes, Winograd, what stays in the buffer, older firmware."""
    memory = memory_of(NV_FULL, **setting)  # type: ignore[arg-type]
    for name, loadable in unit_loadables().items():
        found = estimate(loadable, NV_FULL, memory)
        assert 0 < found.cycles < 1e9, name
        assert all(row.cycles > 0 and row.extrapolated for row in found.rows), name


def test_what_units_do_is_told_apart() -> None:
    found = {name: estimate(one, NV_FULL, memory_of(NV_FULL)) for name, one in unit_loadables().items()}
    assert [row.unit for row in found["pdp-fly"].rows] == ["sdp+pdp"]
    assert isinstance(found["bdma"].rows[0].works[0], Move)
    assert isinstance(found["cdp-int8"].rows[0].works[0], Planar)
    first, second = (row.works[0] for row in found["conv-twice"].rows)
    assert isinstance(first, Convolution)
    assert isinstance(second, Convolution)
    assert (second.data_bytes, second.weight_bytes) == (0, 0)
    assert "what stays in the buffer was not measured" in found["conv-twice"].rows[1].extrapolated


def golden_loadables(shared: Path) -> list[Path]:
    return sorted((shared / "golden" / "loadables").glob("*/*.nvdla"))


def test_nvidias_loadables_have_estimates(shared: Path) -> None:
    for path in golden_loadables(shared):
        name = path.parent.name.replace("-", "_")
        target = next(TARGETS[one] for one in ("nv_full", "nv_large", "nv_small") if one in name)
        loadable = read_loadable(path)
        operations = {operation.index for operation in decode(loadable, target).operations}
        for setting in SETTINGS:
            found = estimate(loadable, target, memory_of(target, **setting))  # type: ignore[arg-type]
            assert math.isfinite(found.cycles), path
            assert all(row.cycles > 0 or row.unit == CPU for row in found.rows), path
            numbers = [number for row in found.rows for number in (row.operation, *row.others)]
            assert sorted(numbers) == sorted(set(numbers)), path
            assert operations <= set(numbers), path
            extrapolated = bool(found.extrapolated)
            assert extrapolated is (target is NV_FULL) or setting, path


def test_nvidias_lenet_takes_what_ours_does(shared: Path) -> None:
    """It is divided alike; on the RTL of nv_small our own took 140,744 cycles, and of nv_large NVIDIA's ran too."""
    for name, measured in (("nv-small", 140_744), ("nv-large", 25_893)):
        path = shared / "golden" / "loadables" / f"lenet-{name}-int8-perfilter" / "loadable.nvdla"
        target = TARGETS[name.replace("-", "_")]
        assert estimate(read_loadable(path), target, memory_of(target)).cycles == pytest.approx(measured, rel=0.001)


def test_a_target_of_ones_own(tmp_path: Path) -> None:
    """One with nv_small's values is nv_small under another name; with deeper queues it is none that was measured."""
    values = values_of(NV_SMALL)
    found = {}
    for name, latency in (("same", "64"), ("deeper", "256")):
        path = tmp_path / f"{name}.spec"
        path.write_text(text_of(values | {"PRIMARY_MEMIF_LATENCY": latency}))
        target = target_of(str(path))
        found[name] = estimate(lenet("nv_small"), target, memory_of(target, latency=200))
    assert found["same"].cycles == estimate(lenet("nv_small"), NV_SMALL, memory_of(NV_SMALL, latency=200)).cycles
    assert found["same"].extrapolated == ()
    assert found["deeper"].cycles < found["same"].cycles
    assert found["deeper"].extrapolated == ("deeper was not measured",)
