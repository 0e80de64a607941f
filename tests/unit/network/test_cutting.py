"""Networks that end before their file does: Caffe's files, anybody's ONNX, and ONNX of ours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from nvdla_quant.errors import NetworkError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.network.cutting import Node, as_option, cut, ends_before, needed
from nvdla_quant.network.files import import_onnx, read_model, read_structure, write_model
from nvdla_quant.network.graph import Network
from nvdla_quant.network.onnx.written import write_onnx
from nvdla_quant.network.problems import LayersError
from nvdla_quant.table.cache import CalibrationCache
from nvdla_quant.table.fix import fix_table
from tests.caffe_networks import layer, prototxt, write_random
from tests.networks.dense import HEADS, detector, detector_caffe, detector_onnx, labeller, labels_onnx
from tests.networks.random import Drawn, networks

BACKWARDS = HEADS[::-1]


@pytest.fixture(scope="module")
def network() -> Network:
    return detector()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Path:
    """The detector with its tail, as Caffe's files and as ONNX, and without it as ONNX that we wrote."""
    path = tmp_path_factory.mktemp("cutting")
    write_model(network, [path / "bare.prototxt", path / "net.caffemodel"])
    (path / "net.prototxt").write_text(detector_caffe((path / "bare.prototxt").read_text()))
    onnx.save(detector_onnx(network), path / "net.onnx")
    onnx.save(labels_onnx(labeller()), path / "labels.onnx")
    write_onnx(network, path / "ours.onnx")
    return path


def files_of(folder: Path, kind: str) -> list[Path]:
    return [folder / name for name in (("net.prototxt", "net.caffemodel") if kind == "caffe" else (f"{kind}.onnx",))]


@pytest.mark.parametrize("ends", [HEADS, BACKWARDS, ("head16",), ("head8", "block4", "head16"), ("pool2", "block2")])
@pytest.mark.parametrize("kind", ["caffe", "net", "ours"])
def test_a_file_ends_where_it_is_cut(folder: Path, network: Network, kind: str, ends: Sequence[str]) -> None:
    """Outputs in the order asked for, tensors among them that others follow from, with the values of the whole."""
    got = read_model(files_of(folder, kind), cut_at=ends)
    assert [tensor.blob for tensor in got.outputs] == list(ends)
    images = np.random.default_rng(0).normal(0, 1, (2, *network.only_input.chw)).astype(np.float32)
    expected, found = Reference(network, ends).run(images), Reference(got).run(images)
    for name, tensor in zip(ends, got.outputs, strict=True):
        np.testing.assert_allclose(found[tensor.name], expected[name], rtol=1e-4, atol=1e-4)
    # What no end needs is gone: with one head alone, the other and what leads to it.
    needs = needed([Node(item.inputs, (item.name,)) for item in network.layers], ends)
    assert len([item for item in got.layers if item.name in network.by_name]) == len(needs)


@pytest.mark.parametrize("form", ["caffe", "onnx"])
def test_a_cut_network_is_written_and_read_back(folder: Path, tmp_path: Path, form: str) -> None:
    """As the workflow does; the loadable's output keeps the name of the tensor."""
    ends = ["head8", "block4", "head16"]
    first = read_model(files_of(folder, "caffe" if form == "caffe" else "net"), cut_at=ends)
    made = [tmp_path / name for name in (("a.prototxt", "a.caffemodel") if form == "caffe" else ("a.onnx",))]
    write_model(first, made)
    again = read_model(made)
    assert [(tensor.name, tensor.blob) for tensor in again.outputs] == [
        ("head8", "head8"),
        ("block4_output", "block4"),
        ("head16", "head16"),
    ]
    assert [item.name for item in again.layers] == [item.name for item in first.layers]


def test_structure_alone(folder: Path) -> None:
    got = read_structure([folder / "net.prototxt"], BACKWARDS)
    assert [tensor.name for tensor in got.outputs] == list(BACKWARDS)


def test_the_names_of_an_import(folder: Path) -> None:
    """Of the file's tensors the dropped ones are still its own: a cache of the whole file has entries of them."""
    imported = import_onnx(folder / "net.onnx", None, HEADS)
    assert {imported.names[name] for name in HEADS} == set(HEADS)
    assert imported.network.onnx is not None
    assert "head8/sigmoid" in imported.network.onnx.others
    network = imported.network
    scales = tuple((name, 0.1) for name in (*network.tensors, "head8/sigmoid"))
    _, changes = fix_table(network, network, CalibrationCache("TRT-8503-MinMaxCalibration", scales))
    assert [change.cache_name for change in changes if change.rule == "unused"] == ["head8/sigmoid"]
    ours = cut(import_onnx(folder / "ours.onnx").network, ["head16"]).onnx
    assert ours is not None
    assert "head8" in ours.others
    assert "head8" not in ours.names


@pytest.mark.parametrize("kind", ["caffe", "net", "ours"])
@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (["haed8"], "cut_at names 'haed8', which nothing in the network writes; near it are 'head8'"),
        (["nothing like it"], "cut_at names 'nothing like it', which nothing in the network writes; check the name"),
        (["data"], "cut_at names 'data', an input or a constant"),
        (["head8", "head8"], "cut_at names 'head8' twice"),
    ],
)
def test_no_place_to_cut_at(folder: Path, kind: str, ends: list[str], said: str) -> None:
    with pytest.raises(NetworkError, match=rf"^{files_of(folder, kind)[0]}.*: {said}"):
        read_model(files_of(folder, kind), cut_at=ends)


# Caffe.


def caffe(*ends: str, text: str, folder: Path) -> Network:
    path = folder / "net.prototxt"
    path.write_text(text)
    return read_structure([path], ends)


CONV = "convolution_param { num_output: 4 kernel_size: 1 }"
IN_PLACE = (
    layer("conv", "Convolution", "data", CONV),
    layer("act", "ReLU", "conv", top="conv"),
    layer("last", "Convolution", "conv", CONV),
)


def test_a_blob_is_what_was_written_last_and_a_layer_is_its_own(tmp_path: Path) -> None:
    text = prototxt(*IN_PLACE)
    assert [tensor.name for tensor in caffe("conv", text=text, folder=tmp_path).outputs] == ["act"]
    assert [tensor.name for tensor in caffe("act", text=text, folder=tmp_path).outputs] == ["act"]
    renamed = text.replace('name: "conv"', 'name: "first"')
    assert [tensor.name for tensor in caffe("first", text=renamed, folder=tmp_path).outputs] == ["first"]


def test_a_blob_that_is_overwritten_and_an_output_gets_one_of_its_own(tmp_path: Path) -> None:
    text = prototxt(*IN_PLACE).replace('name: "conv"', 'name: "first"')
    network = caffe("first", "last", text=text, folder=tmp_path)
    assert [(tensor.name, tensor.blob) for tensor in network.outputs] == [("first_output", "first"), ("last", "last")]
    write_model(network, [tmp_path / "a.prototxt", tmp_path / "a.caffemodel"])
    again = read_model([tmp_path / "a.prototxt", tmp_path / "a.caffemodel"])
    assert [tensor.name for tensor in again.outputs] == ["first_output", "last"]


HEADLESS = 'name: "net"\n'
INPUTS = {
    "layers": 'layer { name: "in" type: "Input" top: "data" top: "info" input_param { shape { dim: 1 dim: 3 dim: 8 '
    "dim: 8 } shape { dim: 1 dim: 3 } } }\n",
    "dims": 'input: "data" input: "info" input_dim: [1, 3, 8, 8, 1, 3, 1, 1]\n',
    "shapes": 'input: "data" input: "info" input_shape { dim: [1, 3, 8, 8] } input_shape { dim: [1, 3] }\n',
}


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_that_only_the_tail_reads_are_dropped(tmp_path: Path, kind: str) -> None:
    """As the size of the image that a Proposal layer reads, which is no image itself."""
    tail = layer("found", "Proposal", "last info")
    text = HEADLESS + INPUTS[kind] + "".join(IN_PLACE) + tail
    network = caffe("last", text=text, folder=tmp_path)
    assert [tensor.name for tensor in network.inputs] == ["data"]
    assert network.only_input.shape == (3, 8, 8)


def test_caffe_tensors_that_follow_from_no_input(tmp_path: Path) -> None:
    text = prototxt(layer("fixed", "DummyData", ""), layer("doubled", "Power", "fixed"), *IN_PLACE)
    with pytest.raises(NetworkError, match="cut_at names 'doubled', which does not depend on the network's input"):
        caffe("doubled", text=text, folder=tmp_path)
    split = 'layer { name: "split" type: "Split" bottom: "data" top: "a" top: "b" }\n'
    text = prototxt(split, layer("conv", "Convolution", "b", CONV))
    with pytest.raises(NetworkError, match="cut_at names 'a', a copy of an input"):
        caffe("a", text=text, folder=tmp_path)
    assert caffe("conv", text=text, folder=tmp_path).only_output.name == "conv"


def test_a_split_passes_on_what_a_layer_writes(tmp_path: Path) -> None:
    split = 'layer { name: "split" type: "Split" bottom: "conv" top: "a" top: "b" }\n'
    text = prototxt(*IN_PLACE[:2], split, layer("last", "Convolution", "b", CONV))
    assert [tensor.name for tensor in caffe("last", "a", text=text, folder=tmp_path).outputs] == ["last", "act_output"]


def test_weights_of_dropped_layers_are_not_asked_for(tmp_path: Path) -> None:
    structure, weights = write_random(tmp_path, prototxt(*IN_PLACE))
    structure.write_text(structure.read_text() + layer("more", "InnerProduct", "last", "inner_product_param {}"))
    with pytest.raises(LayersError, match="no weights"):
        read_model([structure, weights])
    assert read_model([structure, weights], cut_at=["last"]).only_output.name == "last"


def test_views_of_one_tensor_are_one_output(tmp_path: Path) -> None:
    views = (layer("dropped", "Dropout", "last"), layer("flat", "Flatten", "dropped"))
    network = caffe("last", "flat", text=prototxt(*IN_PLACE, *views), folder=tmp_path)
    assert [(item.name, item.kind) for item in network.layers][-1] == ("last", "Convolution")
    assert network.only_output.name == "last"


# ONNX.


def tail(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    """Put nodes behind a model, the last of which writes its only output."""
    model.graph.node.extend(nodes)
    model.graph.ClearField("output")
    model.graph.output.append(helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None))
    return model


def test_what_is_behind_is_not_looked_at(network: Network, tmp_path: Path) -> None:
    """Operators of domains that nobody knows, control flow, functions, and constants of types that are not read."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["head16"], ["kept"])],
        "then",
        [],
        [helper.make_tensor_value_info("kept", 1, None)],
    )
    model = tail(
        detector_onnx(network),
        helper.make_node("Strange", ["head8", "words"], ["strange"], domain="of.nobody"),
        helper.make_node("If", ["strange"], ["chosen"], then_branch=inner, else_branch=inner),
        helper.make_node("Decode", ["chosen"], ["decoded"], domain="of.ours"),
    )
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"a"]))
    opset = [helper.make_opsetid("", 17)]
    decode = helper.make_node("Decode", ["x"], ["y"], domain="of.ours")  # It calls itself.
    model.functions.append(helper.make_function("of.ours", "Decode", ["x"], ["y"], [decode], opset))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(NetworkError):
        read_model([tmp_path / "net.onnx"])
    got = read_model([tmp_path / "net.onnx"], cut_at=BACKWARDS)
    assert [tensor.name for tensor in got.outputs] == list(BACKWARDS)


def test_a_subgraph_needs_what_it_captures(network: Network, tmp_path: Path) -> None:
    """Whose node cannot be read, but nothing that it reads is dropped before that is said."""
    captured = helper.make_tensor_value_info("kept", 1, None)
    inner = helper.make_graph([helper.make_node("Identity", ["head16"], ["kept"])], "then", [], [captured])
    branches = {"then_branch": inner, "else_branch": inner}
    model = tail(detector_onnx(network), helper.make_node("If", ["head8"], ["chosen"], "choice", **branches))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(LayersError, match="operator 'If' is not supported") as caught:
        read_model([tmp_path / "net.onnx"], cut_at=["chosen"])
    assert caught.value.ends == HEADS


def test_onnx_tensors_that_follow_from_no_input(network: Network, tmp_path: Path) -> None:
    model = detector_onnx(network)
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]))
    onnx.save(tail(model, helper.make_node("Neg", ["one"], ["constant"])), tmp_path / "net.onnx")
    with pytest.raises(NetworkError, match="cut_at names 'constant', which does not depend on the network's input"):
        read_model([tmp_path / "net.onnx"], cut_at=["constant"])
    with pytest.raises(NetworkError, match="cut_at names 'one', an input or a constant"):
        read_model([tmp_path / "net.onnx"], cut_at=["one"])


# Where a network could end.


@pytest.mark.parametrize("kind", ["caffe", "net"])
def test_an_error_says_where_the_network_could_end(folder: Path, kind: str) -> None:
    """In front of all that only moves or decodes: a PriorBox reads no values of the tensors that it is given."""
    with pytest.raises(LayersError) as caught:
        read_model(files_of(folder, kind))
    assert caught.value.ends == HEADS
    line = "cut_at: [head8, head16] in the model's record, --cut-at head8 --cut-at head16 on the command line"
    assert str(caught.value).endswith(f"; or end the network before them: {line}")
    read_model(files_of(folder, kind), cut_at=caught.value.ends)


def test_labels_end_at_the_scores(folder: Path) -> None:
    with pytest.raises(LayersError) as caught:
        read_model([folder / "labels.onnx"])
    assert caught.value.ends == ("scores",)


def test_no_tail_no_proposal(tmp_path: Path) -> None:
    """Where most of what was learned is behind what cannot be read, or nothing is before it, or its name means more."""
    cases = {
        "behind": [IN_PLACE[0], layer("odd", "Mish", "conv"), layer("last", "Convolution", "odd", CONV)],
        "alone": [layer("odd", "Mish", "data")],
        "renamed": [IN_PLACE[0], layer("odd", "Mish", "conv", top="conv")],
    }
    for name, layers in cases.items():
        with pytest.raises(LayersError) as caught:
            caffe(text=prototxt(*layers), folder=tmp_path)
        assert caught.value.ends == (), name


def test_a_proposal_of_a_network_that_is_cut_already(tmp_path: Path) -> None:
    text = prototxt(*IN_PLACE, layer("odd", "Mish", "last"), layer("odder", "Mish", "odd"))
    with pytest.raises(LayersError) as caught:
        caffe("odd", text=text, folder=tmp_path)
    assert caught.value.ends == ("last",)


def test_names_as_yaml_and_the_shell_have_them() -> None:
    assert as_option(["/model/24/Conv_0", "495", "no", "a:0", "x y"]) == (
        'cut_at: [/model/24/Conv_0, "495", "no", "a:0", "x y"] in the model\'s record, '
        "--cut-at /model/24/Conv_0 --cut-at 495 --cut-at no --cut-at a:0 --cut-at 'x y' on the command line"
    )


@given(networks(), st.data())
def test_what_is_left_is_what_the_ends_are_computed_by(drawn: Drawn, data: st.DataObject) -> None:
    """On drawn networks: every layer that is left leads to an end, and ends are the outputs, in order."""
    network = drawn.network
    ends = data.draw(st.lists(st.sampled_from(sorted(network.by_name)), min_size=1, max_size=3, unique=True))
    got = cut(network, [network.tensors[name].blob for name in ends])
    read = {name for item in got.layers for name in item.inputs}
    outputs = [tensor.name for tensor in got.outputs]
    assert all(item.name in read or item.name in outputs for item in got.layers)
    assert {name.removesuffix("_output") for name in outputs} <= set(ends)
    for tensor in got.inputs:
        assert tensor.name in read


@given(st.data())
def test_no_bad_node_is_needed_by_the_ends(data: st.DataObject) -> None:
    """On drawn graphs; and no output of the graph is lost that does not follow from a bad node."""
    count = data.draw(st.integers(1, 12))
    nodes = [
        Node(
            tuple(map(str, data.draw(st.sets(st.integers(0, max(number - 1, 0)), max_size=3)) if number else [])),
            (str(number),),
            True,
        )
        for number in range(count)
    ]
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=2))
    outputs = {str(number) for number in range(count)} - {value for node in nodes for value in node.reads}
    ends = ends_before(nodes, bad, outputs, {str(number) for number in range(count)})
    if not ends:
        return
    left = needed(nodes, ends)
    assert not left & bad
    assert 2 * len(left) > count
    for value in outputs:
        assert value in ends or needed(nodes, [value]) & bad
