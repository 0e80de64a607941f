"""Tables of other origin: what is read, and what is refused with the reason."""

import json
from pathlib import Path

import pytest

from nvdla_quant.errors import CacheError, NcnnTableError, NvdlaQuantError, TableError
from nvdla_quant.network.caffe.reader import read_structure
from nvdla_quant.table.fix import fix_table
from nvdla_quant.table.foreign import read_cache_of, read_scales, unmeasured
from tests.caffe_networks import layer, prototxt

CONV = "(Unnamed Layer* 0) [Convolution]_output"


@pytest.mark.parametrize("header", ["TRT-5105-EntropyCalibration2", "TRT-7202-MinMaxCalibration", "TRT-100300-Entropy"])
def test_caches_of_any_version(tmp_path: Path, header: str) -> None:
    path = tmp_path / "cache"
    path.write_text(f"{header}\ndata: 3c010a14\n{CONV}: 3cc4351e\n")
    expected = {"data": 0.00787594, CONV: 0.02395111}
    assert read_scales(path).scales == pytest.approx(expected, rel=1e-6)


def test_nvidia_s_json_and_minimum_and_maximum(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text('\n {"conv1": {"scale": 0.5, "min": 0, "max": 0, "offset": 0}, "ip1": {"min": -254, "max": 127}}')
    assert dict(read_scales(path).scales) == {"conv1": 0.5, "ip1": 2.0}


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ('{"conv1": {"scale": 0.5, "offset": 3}}', TableError, "'conv1' has offset 3: an asymmetric scale"),
        ('{"conv1": 0.5}', TableError, "entry 'conv1' is 0.5, expected an object"),
        ("[1]", TableError, "holds a JSON list"),
        ("conv1 15.6\nconv2 9.1\nconv1_param_0 130.2 98.7\n", CacheError, r"INT8 table of ncnn"),
        ("hello", CacheError, "no entries"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    tmp_path: Path, content: str, error: type[NvdlaQuantError], message: str
) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(error, match=message):
        read_scales(path)


# ---- what a table of ncnn cannot give

CONVOLUTION = "convolution_param { num_output: 6 kernel_size: 3 pad: 1 }"
MAXIMUM = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
AVERAGE = "pooling_param { pool: AVE kernel_size: 2 stride: 2 }"
FULL = "inner_product_param { num_output: 3 }"


@pytest.mark.parametrize(
    ("layers", "lacking"),
    [
        # conv1's scale is relu1's; the maximum of relu1 is at its scale.
        (
            [
                layer("conv1", "Convolution", "data", CONVOLUTION),
                layer("relu1", "ReLU", "conv1", top="conv1"),
                layer("pool1", "Pooling", "conv1", MAXIMUM),
                layer("drop", "Dropout", "pool1"),
                layer("ip", "InnerProduct", "drop", FULL),
                layer("prob", "Softmax", "ip"),
            ],
            ["ip"],
        ),
        # An average is smaller than what it is of.
        (
            [
                layer("conv1", "Convolution", "data", CONVOLUTION),
                layer("pool1", "Pooling", "conv1", AVERAGE),
                layer("ip", "InnerProduct", "pool1", FULL),
            ],
            ["conv1", "ip"],
        ),
        # Both inputs of a sum are at one scale, but the branch's may be the larger one.
        (
            [
                layer("conv1", "Convolution", "data", CONVOLUTION),
                layer("conv2", "Convolution", "conv1", CONVOLUTION),
                layer("sum", "Eltwise", "conv1 conv2"),
                layer("conv3", "Convolution", "sum", CONVOLUTION),
            ],
            ["conv2", "conv3"],
        ),
        # What is joined is at the joint's scale, and what is pooled at that of its input.
        (
            [
                layer("a", "Convolution", "data", CONVOLUTION),
                layer("b", "Convolution", "data", CONVOLUTION),
                layer("both", "Concat", "a b"),
                layer("c", "Convolution", "both", CONVOLUTION),
                layer("pool", "Pooling", "data", AVERAGE),
            ],
            ["c"],
        ),
    ],
)
def test_scales_that_do_not_follow_from_what_convolutions_read(
    tmp_path: Path, layers: list[str], lacking: list[str]
) -> None:
    path = tmp_path / "deploy.prototxt"
    path.write_text(prototxt(*layers, shape=(1, 6, 8, 8)))
    assert list(unmeasured(read_structure(path))) == lacking
    table = tmp_path / "net.table"
    table.write_text("conv1_param_0 140.5 127.0\nconv1 12.7\n")
    with pytest.raises(NcnnTableError, match=rf"net.table: .*INT8 table of ncnn.*it lacks {', '.join(lacking)}$"):
        read_cache_of(read_structure(path), table)


def test_no_network_is_complete(repository: Path) -> None:
    for path in sorted((repository / "resources").glob("*/deploy.prototxt")):
        assert unmeasured(read_structure(path)), path


# ---- tables in JSON, by TensorRT's names or by layers

NETWORK = prototxt(
    layer("conv", "Convolution", "data", CONVOLUTION),
    layer("relu", "ReLU", "conv", top="conv"),
    layer("ip", "InnerProduct", "conv", FULL),
    layer("prob", "Softmax", "ip"),
)


def fixed_from(tmp_path: Path, scales: dict[str, float], bom: bytes = b"") -> dict[str, float]:
    path, structure = tmp_path / "table.json", tmp_path / "deploy.prototxt"
    structure.write_text(NETWORK)
    path.write_bytes(bom + json.dumps({name: {"scale": scale} for name, scale in scales.items()}).encode())
    network = read_structure(structure)
    table, _ = fix_table(network, network, read_cache_of(network, path))
    return {name: round(scale, 4) for name, scale in table.scales.items()}


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_json_with_tensorrts_names(tmp_path: Path, bom: bytes) -> None:
    """Blob conv ends with relu's tensor; what it held before is unnamed."""
    found = fixed_from(tmp_path, {"data": 1, CONV: 2, "conv": 3, "ip": 4, "prob": 0.5}, bom)
    assert found == {"data": 1, "conv": 2, "relu": 3, "ip": 4, "prob": 0.0079}


def test_json_with_layers_names(tmp_path: Path) -> None:
    found = fixed_from(tmp_path, {"data": 1, "conv": 2, "relu": 3, "ip": 4, "prob": 0.5})
    assert found == {"data": 1, "conv": 2, "relu": 3, "ip": 4, "prob": 0.0079}


def test_json_by_hand_may_leave_out_what_follows(tmp_path: Path) -> None:
    assert fixed_from(tmp_path, {"data": 1, "conv": 2, "ip": 4}) == {
        "data": 1, "conv": 2, "relu": 2, "ip": 4, "prob": 0.0079,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({"data": 1, "conv": 2, "ipp": 4}, r"a table of another network: 2 of its 3 .*'ipp' \(did you mean 'ip'\?\)"),
        ({"data": 1, "conv": 2}, r"lacks 1 of .*'ip' \(of ip\).*add these entries"),
        ({"data": 1, "conv": 0, "ip": 4}, r"entry 'conv' has scale 0"),
    ],
)
def test_mistakes_in_json_name_the_entry(tmp_path: Path, scales: dict[str, float], message: str) -> None:
    with pytest.raises((CacheError, TableError), match=message):
        fixed_from(tmp_path, scales)


def test_the_text_table_of_onnxruntime_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    path.write_text("data 2.008338\nconv1 7.1\n")
    with pytest.raises(CacheError, match="as onnxruntime writes it") as error:
        read_scales(path)
    assert "ncnn" not in str(error.value)
