"""Names in a cache, against TensorRT's own caches and small networks worked out from the rule."""

from pathlib import Path

import pytest

from nvdla_quant.errors import CacheError
from nvdla_quant.network.caffe.reader import read_structure
from nvdla_quant.network.graph import Network
from nvdla_quant.table.cache import CalibrationCache, read_cache
from nvdla_quant.table.naming import match, tensor_names
from tests.caffe_networks import layer, prototxt

CONVOLUTION = "convolution_param { num_output: 4 kernel_size: 3 pad: 1 }"
DENSE = "inner_product_param { num_output: 5 }"
BRANCHES = (
    layer("c", "Convolution", "data", CONVOLUTION),
    layer("c_relu", "ReLU", "c", top="c"),
    layer("l", "Convolution", "c", CONVOLUTION),
    layer("l_bn", "BatchNorm", "l", top="l"),
    layer("r", "Convolution", "c", CONVOLUTION),
    layer("s", "Eltwise", "l r"),
    layer("s_relu", "ReLU", "s", top="s"),
    layer("f", "InnerProduct", "s", DENSE),
    layer("p", "Softmax", "f"),
)


@pytest.fixture
def branches(tmp_path: Path) -> Network:
    return structure(tmp_path, *BRANCHES)


def structure(folder: Path, *layers: str) -> Network:
    path = folder / "deploy.prototxt"
    path.write_text(prototxt(*layers))
    return read_structure(path)


def cache_of(network: Network, header: str = "TRT-8503-EntropyCalibration2", without: str = "") -> CalibrationCache:
    """A cache with scale 1, 2, 3, ... in the network's order, without some entries."""
    names = enumerate(tensor_names(network).values(), start=1)
    return CalibrationCache(header, tuple((name, float(i)) for i, name in names if name not in without.split(",")))


def test_only_the_last_writer_has_the_blobs_name(branches: Network) -> None:
    assert dict(tensor_names(branches)) == {
        "data": "data",
        "c": "(Unnamed Layer* 0) [Convolution]_output",
        "c_relu": "c",
        "l": "(Unnamed Layer* 2) [Convolution]_output",
        "l_bn": "l",
        "r": "r",
        "s": "(Unnamed Layer* 5) [ElementWise]_output",
        "s_relu": "s",
        "f": "f",
        "p": "p",
    }


def test_dropped_layers_lend_their_blobs_name(tmp_path: Path) -> None:
    network = structure(
        tmp_path,
        layer("f", "InnerProduct", "data", DENSE),
        layer("drop", "Dropout", "f", top="f"),
        layer("g", "InnerProduct", "f", DENSE),
        layer("a_drop", "Dropout", "g"),
        layer("h", "InnerProduct", "a_drop", DENSE),
        layer("z_drop", "Dropout", "h"),
        layer("p", "Softmax", "z_drop"),
    )
    # In place: f is f. Blobs a_drop and g are one tensor, as are h and z_drop: the last name in byte order wins.
    assert dict(tensor_names(network)) == {"data": "data", "f": "f", "g": "g", "h": "z_drop", "p": "p"}


def test_dropped_layers_do_not_count_and_prelu_counts_twice(tmp_path: Path) -> None:
    network = structure(
        tmp_path,
        layer("c", "Convolution", "data", CONVOLUTION),
        layer("c_prelu", "PReLU", "c", top="c"),
        layer("flat", "Flatten", "c"),
        layer("f", "InnerProduct", "flat", DENSE),
        layer("f_relu", "ReLU", "f", top="f"),
    )
    names = tensor_names(network)
    assert names["c"] == "(Unnamed Layer* 0) [Convolution]_output"
    assert names["c_prelu"] == "flat"
    assert names["f"] == "(Unnamed Layer* 3) [Fully Connected]_output"
    slopes = (*cache_of(network).entries, ("(Unnamed Layer* 1) [Constant]_output", 1.0))
    assert "c_prelu" in match(CalibrationCache("h", slopes), network)[0].scales


def test_every_layer_type_has_tensorrts_name(tmp_path: Path) -> None:
    network = structure(
        tmp_path,
        *(
            layer("a", "Convolution", "data", CONVOLUTION),
            layer("a1", "ReLU", "a", top="x"),
            layer("a2", "Scale", "x", top="x"),
            layer("a3", "Power", "x", top="x"),
            layer("a4", "Sigmoid", "x", top="x"),
            layer("a5", "LRN", "x", top="x"),
            layer("a6", "Reshape", "x", "reshape_param { shape { dim: 0 dim: -1 dim: 1 dim: 1 } }", top="x"),
            layer("a7", "Pooling", "x", "pooling_param { kernel_size: 1 }", top="x"),
            layer("b", "Concat", "x x", top="x"),
            layer("last", "Softmax", "x", top="x"),
        ),
    )
    types = [name.split("[")[1].split("]")[0] for name in list(tensor_names(network).values()) if "[" in name]
    assert types == ["Activation", "Scale", "Scale", "Activation", "LRN", "Shuffle", "Pooling", "Concatenation"]


def test_an_input_overwritten_in_place_is_refused(tmp_path: Path) -> None:
    network = structure(tmp_path, layer("shift", "Power", "data", "power_param { scale: 2 }", top="data"))
    with pytest.raises(CacheError, match="layer 'shift': writes blob 'data' of a network input in place"):
        tensor_names(network)


def test_a_whole_cache_is_keyed_by_layer(branches: Network) -> None:
    table, changes = match(cache_of(branches), branches)
    assert list(table.scales.items()) == [(name, float(i)) for i, name in enumerate(branches.tensors, start=1)]
    assert [change.name for change in changes] == list(branches.tensors)
    assert [change.rule for change in changes[:3]] == ["input", "unnamed", "last-writer"]


def test_fused_layers_take_the_entry_of_their_group(branches: Network) -> None:
    """As TensorRT fuses: convolution with ReLU; a branch with the sum and its ReLU; the other branch keeps its own."""
    absent = ",".join(name for name in tensor_names(branches).values() if name.startswith("(")) + ",l"
    table, changes = match(cache_of(branches, "TRT-8503-EntropyCalibration", absent), branches)
    own = match(cache_of(branches), branches)[0]
    expected = dict(own.scales) | {"c": own["c_relu"], "s": own["s_relu"], "l": own["s_relu"], "l_bn": own["s_relu"]}
    assert dict(table.scales) == expected
    assert [change.name for change in changes if change.rule == "fused"] == ["c", "l", "l_bn", "s"]


@pytest.mark.parametrize(
    ("header", "absent", "named"),
    [
        (
            "TRT-8503-EntropyCalibration2",
            "(Unnamed Layer* 0) [Convolution]_output",
            r"\[Convolution\]_output' \(of c\)",
        ),
        ("TRT-8503-MinMaxCalibration", "r", r"'r' \(of r\)"),
        ("nvdla-quant-0.1.0-EntropyCalibration2", "r", r"'r' \(of r\)"),
        ("TRT-8503-EntropyCalibration", "p", r"'p' \(of p\)"),
        ("TRT-8503-EntropyCalibration", "f,p", r"'f' \(of f\), 'p' \(of p\)"),
        # c has two readers, so that nothing can have been fused behind it.
        ("0 3ff0000000000000 3fefff2e48e8a71e", "c", r"'c' \(of c_relu\)"),
        # A header that says nothing, and unnamed tensors: taken before fusion.
        ("somebody", "r", r"'r' \(of r\)"),
    ],
)
def test_absent_entries_are_named(branches: Network, header: str, absent: str, named: str) -> None:
    with pytest.raises(CacheError, match=named):
        match(cache_of(branches, header, absent), branches)


def test_a_cache_of_another_network_is_refused(branches: Network) -> None:
    strange = CalibrationCache("h", (*cache_of(branches).entries, ("conv9", 1.0)))
    with pytest.raises(CacheError, match=r"10 of its 11 entries match the 10 tensors of network 'net'.*'conv9'"):
        match(strange, branches)


def test_reshape_has_an_entry_in_the_cache_and_none_in_the_table(tmp_path: Path) -> None:
    network = structure(
        tmp_path,
        layer("f", "InnerProduct", "data", DENSE),
        layer("view", "Reshape", "f", "reshape_param { shape { dim: 0 dim: 5 } }"),
        layer("p", "Softmax", "view"),
    )
    table, changes = match(cache_of(network), network)
    assert list(table.scales) == ["data", "f", "p"]
    assert [(change.name, change.cache_name) for change in changes if change.rule == "unused"] == [("", "view")]


def test_names_equal_tensorrts_on_every_golden_cache(shared: Path) -> None:
    paths = sorted((shared / "golden" / "tensorrt").glob("*/*.cache"))
    assert len(paths) == 15
    for path in paths:
        network, cache = read_structure(path.parent / "deploy.prototxt"), read_cache(path)
        names = list(tensor_names(network).values())
        theirs = [name for name, _ in cache.entries]
        after_fusion = path.name.startswith("entropy.")
        assert theirs == ([name for name in names if name in theirs] if after_fusion else names)
        table, changes = match(cache, network)
        assert list(table.scales) == list(network.tensors)
        assert any(change.rule == "fused" for change in changes) == after_fusion


def test_golden_fused_branches(shared: Path) -> None:
    """Read off TensorRT's cache: one branch of each sum is fused with it, the other one keeps an entry."""
    folder = shared / "golden" / "tensorrt" / "resnet-digits"
    cache = read_cache(folder / "entropy.batch64.cache")
    table, _ = match(cache, read_structure(folder / "deploy.prototxt"))
    assert table["res2a_branch1"] == table["scale2a_branch1"] == table["res2a_relu"] == cache.scales["res2a"]
    assert table["scale2a_branch2b"] == cache.scales["res2a_branch2b"]
    assert table["scale2b_branch2b"] == cache.scales["res2b"]


# --- a BatchNorm of NVIDIA's Caffe, which is two layers here ----------------------------------------------------------

BOTH = "batch_norm_param { eps: 0.001 scale_bias: true }"


def test_a_layer_that_is_read_as_two_has_one_name(tmp_path: Path) -> None:
    """TensorRT makes one Scale of it: one entry, one number, and the first half takes the scale of the layer."""
    path = tmp_path / "deploy.prototxt"
    relu = layer("r", "ReLU", "bn", top="bn")
    path.write_text(prototxt(layer("bn", "BatchNorm", "data", BOTH), relu, layer("p", "ReLU", "bn")))
    network = read_structure(path)
    assert [item.kind for item in network.layers] == ["BatchNorm", "Scale", "ReLU", "ReLU"]
    assert [item.inner for item in network.layers] == [True, False, False, False]
    unnamed = "(Unnamed Layer* 0) [Scale]_output"
    assert dict(tensor_names(network)) == {"data": "data", "bn": unnamed, "r": "bn", "p": "p"}
    cache = CalibrationCache("TRT-8503-EntropyCalibration2", (("data", 1.0), (unnamed, 2.0), ("bn", 3.0), ("p", 4.0)))
    table, changes = match(cache, network)
    assert dict(table.scales) == {"data": 1, "bn_normalized": 2, "bn": 2, "r": 3, "p": 4}
    assert [change.rule for change in changes if change.name == "bn_normalized"] == ["inner"]
