"""A loadable on another target than its own is found, and the target of one is told from what it holds."""

import json
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.decode.program import decode, default_target, fitting_targets
from nvdla_quant.emulator.run import run
from nvdla_quant.errors import EmulationError, WrongTargetError
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL, NV_SMALL_256, TARGETS, Precision, QuantizationMode
from nvdla_quant.loadable.reader import parse_loadable, read_loadable
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.network.graph import InnerProduct, Network, Pooling, Sigmoid
from nvdla_quant.runtime.on_device import check_target
from nvdla_quant.table.table import CalibrationTable
from tests.unit.compiler.test_compiler_random import chain, integers
from tests.unit.test_cli import fail, succeed


def network_of(*more: object) -> Network:
    """Return two inner products, whose weights need no whole entries of any buffer, and `more` behind them."""
    rng = np.random.default_rng(1)
    layers = InnerProduct(integers(rng, (9, 70)), None), InnerProduct(integers(rng, (5, 9)), None)
    return chain((70, 1, 1), *layers, *more)  # type: ignore[arg-type]


def compiled(target: str, network: Network) -> Loadable:
    table = CalibrationTable({"data": 1 / 64, **{layer.name: 0.5 for layer in network.layers}})
    return parse_loadable(
        compile_network(network, table, TARGETS[target], Precision.INT8, QuantizationMode.PER_KERNEL).data
    )


TWINS = {"nv_small_256": "nv_small_256_full"}
"""Two whose buffers are alike."""


@pytest.mark.parametrize("name", TARGETS)
def test_every_loadable_fits_its_target_alone(name: str) -> None:
    """But for the configurations with one buffer, which give the same results where no unit of one is used."""
    loadable = compiled(name, network_of())
    fits = [program.target.name for program in fitting_targets(loadable)]
    twins = {name, TWINS.get(name, name), *(one for one, other in TWINS.items() if other == name)}
    assert set(fits) == twins
    assert default_target(loadable).name in twins
    for other in TARGETS.values():
        if other.name not in twins:
            with pytest.raises(WrongTargetError, match=f"for another target: it fits .*{name}"):
                decode(loadable, other)


@pytest.mark.parametrize(
    ("made", "asked", "message"),
    [
        (
            "nv_full",
            NV_LARGE,
            r"entry_per_slice is 1, expected 2: an entry of nv_large's buffer has 64 bytes\. .*full",
        ),
        (
            "nv_large",
            NV_FULL,
            r"entry_per_slice is 2, expected 1: an entry of nv_full's buffer has 128 .*nv_large",
        ),
        ("nv_small_256", NV_SMALL, r"entry_per_slice is 3, expected 9: .*nv_small_256"),
        (
            "nv_small",
            NV_FULL,
            r"pixel_format is FEATURE_X8, atoms of 8 bytes, expected FEATURE: nv_full has .* 32",
        ),
    ],
)
def test_the_field_is_named(made: str, asked: object, message: str) -> None:
    with pytest.raises(WrongTargetError, match=message):
        decode(compiled(made, network_of()), asked)  # type: ignore[arg-type]


def test_without_convolutions_any_target_of_the_same_atoms_does() -> None:
    network = chain((40, 6, 6), Pooling("max", (2, 2), (2, 2)))
    loadable = compiled("nv_large", network)
    assert default_target(loadable) is NV_FULL
    images = np.random.default_rng(0).integers(-128, 128, (2, 40, 6, 6)).astype(np.int8)
    results = [run(program, images) for program in fitting_targets(loadable)]
    assert len(results) == 3
    assert all(np.array_equal(results[0], other) for other in results)


def test_targets_of_one_buffer_that_give_other_results_must_be_named(tmp_path: Path) -> None:
    """The table of Y is absent from nv_small_256, which ignores it."""
    loadable = compiled("nv_small_256_full", network_of(Sigmoid()))
    with pytest.raises(EmulationError, match="fits nv_small_256_full, nv_small_256, which would give other results"):
        default_target(loadable)
    assert "no Y unit" in decode(loadable, NV_SMALL_256).warnings[0]


def test_a_device_gets_no_loadable_of_another_target(tmp_path: Path, shared: Path) -> None:
    path = shared / "golden/loadables/lenet-nv-full-int8-perfilter/loadable.nvdla"
    check_target(path, NV_FULL)
    with pytest.raises(WrongTargetError, match="entry_per_slice"):
        check_target(path, NV_LARGE)


def test_golden_loadables_fit_the_target_in_their_name_alone(shared: Path) -> None:
    paths = sorted((shared / "golden/loadables").glob("*/loadable.nvdla"))
    assert paths
    for path in paths:
        (target,) = (name for name in ("nv_full", "nv_large", "nv_small") if name.replace("_", "-") in path.parent.name)
        loadable = read_loadable(path)
        assert [program.target.name for program in fitting_targets(loadable)] == [target], path.parent.name


@pytest.mark.parametrize("target", ["nv_large", "nv_medium_512", "nv_small", "nv_small_256"])
def test_loadables_that_ran_on_rtl_fit_its_configuration(shared: Path, target: str) -> None:
    for path in sorted((shared / "golden/cycles" / target / "loadables").glob("*.nvdla")):
        decode(read_loadable(path), TARGETS[target])


def test_commands_say_what_a_loadable_fits(shared: Path, tmp_path: Path) -> None:
    folder = shared / "golden/loadables/lenet-nv-full-int8-perfilter"
    path, inputs = folder / "loadable.nvdla", tmp_path / "in.npy"
    np.save(inputs, np.load(folder / "vectors.npz")["input"][:1])
    line = fail("emulate", path, "--input", inputs, "--output", tmp_path / "out.npy", "--configtarget", "nv_large")
    assert "entry_per_slice" in line
    assert "it fits nv_full" in line
    assert not (tmp_path / "out.npy").exists()
    assert json.loads(succeed("inspect", path, "--json"))["targets"] == ["nv_full"]
    assert succeed("inspect", path).endswith("fits nv_full\n")
