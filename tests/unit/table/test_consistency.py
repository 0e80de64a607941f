"""Scales that must agree: small networks by hand, and the golden tables that NVIDIA's compiler was given."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvdla_quant.errors import TableError
from nvdla_quant.jobs.files import format_records
from nvdla_quant.network.caffe.reader import read_structure
from nvdla_quant.network.graph import Concat, Convolution, Eltwise, Gather, Layer, Network, ReLU, Tensor
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.changes import Change, write_changes
from nvdla_quant.table.consistency import feed, unify
from nvdla_quant.table.fusion import fused_end
from nvdla_quant.table.table import SOFTMAX_SCALE, CalibrationTable, read_table
from tests.caffe_networks import layer, prototxt

CONVOLUTION = "convolution_param { num_output: 6 kernel_size: 1 }"
POOLING = "pooling_param { kernel_size: 2 stride: 2 }"
LAYERS = (
    layer("a", "Convolution", "data", CONVOLUTION),
    layer("a_relu", "ReLU", "a", top="a"),
    layer("p1", "Pooling", "a", POOLING),
    layer("p2", "Pooling", "p1", "pooling_param { kernel_size: 1 }"),
    layer("b", "Convolution", "p1", CONVOLUTION),
    layer("b_bn", "BatchNorm", "b", top="b"),
    layer("sum", "Eltwise", "p2 b"),
    layer("drop", "Dropout", "sum", top="sum"),
    layer("c", "Convolution", "sum", CONVOLUTION),
    layer("join", "Concat", "c sum"),
    layer("f", "InnerProduct", "join", "inner_product_param { num_output: 3 }"),
    layer("prob", "Softmax", "f"),
)


def structure(folder: Path, *layers: str) -> Network:
    path = folder / "deploy.prototxt"
    path.write_text(prototxt(*layers))
    return read_structure(path)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return structure(tmp_path_factory.mktemp("network"), *LAYERS)


def table(network: Network, **scales: float) -> CalibrationTable:
    return CalibrationTable({name: scales.get(name, 1.0) for name in network.tensors if name != "drop"})


def test_chains_go_through_poolings_sums_and_views(network: Network) -> None:
    fixed, changes = unify(network, table(network, b=9.0, p1=8.0, b_bn=3.0, a_relu=2.0, c=4.0, sum=0.5, prob=0.1))
    assert dict(fixed.scales) == {
        "data": 1.0,
        "a": 1.0,  # Fused into a_relu: no effect, left as it is.
        "a_relu": 3.0,
        "p1": 3.0,  # A pooling's own 8.0 does not count.
        "p2": 3.0,
        "b": 9.0,
        "b_bn": 3.0,  # The largest of the group.
        "sum": 4.0,  # Seen by the concatenation through Dropout.
        "c": 4.0,
        "join": 4.0,
        "f": 1.0,
        "prob": SOFTMAX_SCALE,
    }
    rules = {change.name: change.rule for change in changes}
    expected = {"a_relu": "pooling", "p1": "pooling", "p2": "pooling", "sum": "concat", "join": "concat"}
    assert rules == expected | {"prob": "softmax"}
    assert changes[0].reason == "pooling p1 needs a_relu = p1; the scale of b_bn decides"
    assert [change.scale_before for change in changes] == [2.0, 8.0, 1.0, 0.5, 1.0, 0.1]


def test_the_largest_of_a_sum_and_its_rule(network: Network) -> None:
    fixed, changes = unify(network, table(network, a_relu=5.0))
    assert (fixed["b_bn"], fixed["b"]) == (5.0, 1.0)
    assert next(change for change in changes if change.name == "b_bn").rule == "eltwise"


def test_a_product_binds_nothing_and_a_maximum_does(tmp_path: Path) -> None:
    for operation, expected in (("PROD", 1.0), ("MAX", 2.0)):
        network = structure(
            tmp_path,
            layer("a", "Convolution", "data", CONVOLUTION),
            layer("b", "Convolution", "data", CONVOLUTION),
            layer("e", "Eltwise", "a b", f"eltwise_param {{ operation: {operation} }}"),
        )
        assert unify(network, table(network, b=2.0))[0]["a"] == expected


def test_gathered_channels_take_the_scale_of_what_they_are_taken_from() -> None:
    """As a pooling does: their own entry does not count, and what binds them binds their source."""
    layers = [
        Layer("conv", Convolution(np.ones((4, 1, 1, 1), np.float32), None), ("data",)),
        Layer("half", Gather((2, 3)), ("conv",)),
        Layer("other", Convolution(np.ones((2, 1, 1, 1), np.float32), None), ("data",)),
        Layer("sum", Eltwise("min"), ("half", "other")),
    ]
    network = assemble("halves", [Tensor("data", (1, 2, 2), "data")], layers)
    scales = {"data": 1.0, "conv": 2.0, "half": 9.0, "other": 1.0, "sum": 1.0}
    fixed, changes = unify(network, CalibrationTable(scales))
    assert dict(fixed.scales) == {"data": 1.0, "conv": 2.0, "half": 2.0, "other": 2.0, "sum": 1.0}
    assert [(change.name, change.rule) for change in changes] == [("half", "gather"), ("other", "eltwise")]


def test_values_that_move_take_the_scale_of_what_they_are_moved_from() -> None:
    layers = [
        Layer("conv", Convolution(np.ones((4, 1, 1, 1), np.float32), None), ("data",)),
        Layer("cut", Crop((0, 2), (2, 2)), ("conv",)),
        Layer("blocks", SpaceToDepth((2, 2), tuple(range(16))), ("cut",)),
        Layer("pixels", DepthToSpace((4, 4), tuple(range(16))), ("blocks",)),
    ]
    network = assemble("moves", [Tensor("data", (1, 4, 4), "data")], layers)
    fixed, changes = unify(
        network, CalibrationTable({"data": 1.0, "conv": 2.0, "cut": 3.0, "blocks": 4.0, "pixels": 1.0})
    )
    assert dict(fixed.scales) == {"data": 1.0, "conv": 2.0, "cut": 2.0, "blocks": 2.0, "pixels": 2.0}
    assert [(change.name, change.rule) for change in changes] == [
        ("cut", "crop"),
        ("blocks", "blocks"),
        ("pixels", "blocks"),
    ]


def test_what_is_cut_for_a_concat_has_its_scale() -> None:
    """It is copied there, so that what it is cut from keeps a finer one; where anything else reads it, it cannot."""
    layers = [
        Layer("conv", Convolution(np.ones((4, 1, 1, 1), np.float32), None), ("data",)),
        Layer("cut", Crop((0, 2), (0, 2)), ("conv",)),
        Layer("other", Convolution(np.ones((2, 1, 3, 3), np.float32), None), ("data",)),
        Layer("join", Concat(), ("cut", "other")),
    ]
    scales = {"data": 1.0, "conv": 2.0, "cut": 1.5, "other": 9.0, "join": 1.0, "also": 1.0}
    tensor = Tensor("data", (1, 4, 4), "data")
    joined = assemble("joined", [tensor], layers)
    fixed, _ = unify(joined, CalibrationTable(scales))
    assert [fixed[name] for name in ("conv", "cut", "other", "join")] == [2.0, 9.0, 9.0, 9.0]
    read = assemble("read", [tensor], [*layers, Layer("also", ReLU(), ("cut",))])
    fixed, _ = unify(read, CalibrationTable(scales))
    assert [fixed[name] for name in ("conv", "cut", "other", "join")] == [9.0, 9.0, 9.0, 9.0]


def test_a_pinned_input_decides(tmp_path: Path) -> None:
    network = structure(tmp_path, layer("p", "Pooling", "data", POOLING), layer("c", "Convolution", "p", CONVOLUTION))
    assert unify(network, table(network, data=2.0, p=7.0))[0]["p"] == 2.0
    network = structure(tmp_path, layer("a", "Convolution", "data", CONVOLUTION), layer("s", "Eltwise", "data a"))
    assert unify(network, table(network, data=2.0, a=7.0))[0]["data"] == 7.0
    assert unify(network, table(network, data=2.0, a=7.0), frozenset({"data"}))[0]["a"] == 2.0
    with pytest.raises(TableError, match="data at 2, a at 7 must be at one scale"):
        unify(network, table(network, data=2.0, a=7.0), frozenset({"data", "a"}))


def test_missing_entries_are_all_named(network: Network) -> None:
    scales = {name: scale for name, scale in table(network).scales.items() if name not in ("a_relu", "prob")}
    with pytest.raises(TableError, match="no entry for 'a_relu', 'prob' of network 'net'"):
        unify(network, CalibrationTable(scales))


@settings(max_examples=50)
@given(st.lists(st.floats(0.015625, 128, width=32), min_size=12, max_size=12))
def test_unifying_again_changes_nothing(network: Network, scales: list[float]) -> None:
    names = [name for name in network.tensors if name != "drop"]
    fixed, changes = unify(network, CalibrationTable(dict(zip(names, scales, strict=True))))
    assert unify(network, fixed) == (fixed, ())
    assert len({change.name for change in changes}) == len(changes)
    assert fixed["a_relu"] == fixed["p1"] == fixed["p2"] == fixed["b_bn"]
    assert fixed["sum"] == fixed["c"] == fixed["join"]


def test_the_last_fused_layer_decides(network: Network) -> None:
    assert fused_end(network, "a") == fused_end(network, "a_relu") == "a_relu"
    assert fused_end(network, "b") == "b_bn"
    assert fused_end(network, "sum") == "sum"
    assert fused_end(network, "p1") == "p1"
    assert fused_end(network, "data") == "data"


def test_an_output_is_not_fused_away(tmp_path: Path) -> None:
    network = structure(
        tmp_path,
        layer("a", "Convolution", "data", CONVOLUTION),
        layer("r", "ReLU", "a"),
        layer("seen", "Flatten", "a"),
    )
    assert fused_end(network, "a") == "a"


def test_feeding(network: Network) -> None:
    before = table(network, data=0.5)
    assert feed(network, before, "quantized", 1.0) == (before, ())
    fixed, changes = feed(network, before, "stock-runtime", 1.0)
    # nvdla_runtime maps 0..255 to 0..127: 2.00787 pixel levels a step, as public tables for NVDLA have it.
    assert fixed["data"] == float(np.float32(255 / 127)) == 2.007874011993408
    assert [change.rule for change in changes] == ["stock-runtime"]
    assert feed(network, before, "stock-runtime", 1 / 256)[0]["data"] == float(np.float32(255 / 127 / 256))
    assert feed(network, fixed, "stock-runtime", 1.0) == (fixed, ())


def test_changes_are_tab_separated_and_exact(tmp_path: Path) -> None:
    change = Change("a\tb", "c", 0.10000000149011612, 3.0, "pooling", "two\nlines")
    header = "name\tcache_name\tscale_before\tscale_after\trule\treason\n"
    assert format_records([change], Change) == header + "a b\tc\t0.10000000149011612\t3.0\tpooling\ttwo lines\n"
    write_changes([], tmp_path / "changes.tsv")
    assert (tmp_path / "changes.tsv").read_text() == header


@pytest.mark.parametrize("name", ["lenet", "resnets"])
def test_golden_tables_that_were_unified_elsewhere(shared: Path, name: str) -> None:
    """Those tables gave the golden loadables of 0.9996 correlation; their Softmax was left as measured."""
    model = shared / "golden" / "models" / name
    network = read_structure(model / "deploy.prototxt")
    fixed, _ = unify(network, read_table(model / "calibration.fixed.json"))
    golden = read_table(
        shared / "golden" / "loadables" / f"{name}-nv-small-int8-perfilter-fixedcal" / "calibration.fixed.json"
    )
    assert {n: s for n, s in fixed.scales.items() if n != "prob"} == {
        n: golden[n] for n in network.tensors if n != "prob"
    }
