"""Tables of other origin: what is read, and what is refused with the reason."""

from pathlib import Path

import pytest

from nvdla_quant.errors import CacheError, NvdlaQuantError, TableError
from nvdla_quant.table.foreign import read_scales

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
