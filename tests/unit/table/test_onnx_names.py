"""Names in a cache that TensorRT's ONNX parser wrote: the file's, and what the parser adds."""

from pathlib import Path

import onnx
import pytest

from nvdla_quant.errors import CacheError
from nvdla_quant.network.files import read_structure, write_model
from nvdla_quant.network.graph import Network
from nvdla_quant.network.onnx.reader import read_onnx
from nvdla_quant.table.cache import CalibrationCache, format_cache, parse_cache
from nvdla_quant.table.naming import match, tensor_names
from tests.conftest import REPOSITORY

LENET = REPOSITORY / "tests/data/exports/lenet-13-script.onnx"
HEADER = "TRT-8503-EntropyCalibration2"
ADDED = ("(Unnamed Layer* 9) [Shuffle]_output", "(Unnamed Layer* 12) [Constant]_output", "ONNXTRT_Broadcast_17")
"""As public caches of TensorRT 8.4 and 10.3 have them."""


@pytest.fixture(scope="module")
def lenet() -> Network:
    return read_onnx(LENET).network


def entries(network: Network) -> dict[str, float]:
    """A scale for each tensor of the file that nodes write, as TensorRT's calibrators have, and for the input."""
    written = [name for node in onnx.load(LENET).graph.node for name in node.output]
    return {name: float(number) for number, name in enumerate([network.only_input.name, *written], start=1)}


def test_every_tensor_of_the_file_may_stand_there(lenet: Network) -> None:
    scales = entries(lenet)
    table, changes = match(CalibrationCache(HEADER, tuple(scales.items())), lenet)
    assert lenet.onnx is not None
    assert dict(table.scales) == {name: scales[lenet.onnx.names[name]] for name in tensor_names(lenet)}
    unused = {change.cache_name for change in changes if change.rule == "unused"}
    assert unused == set(scales) - set(tensor_names(lenet).values())
    assert unused, "LeNet flattens its images"


def test_what_the_parser_adds_is_listed(lenet: Network) -> None:
    added = dict.fromkeys(ADDED, 1.0)
    _, changes = match(CalibrationCache(HEADER, tuple({**entries(lenet), **added}.items())), lenet)
    assert [change.cache_name for change in changes if "parser added" in change.reason] == list(ADDED)


def test_a_tensor_of_another_file_is_a_stranger(lenet: Network) -> None:
    with pytest.raises(CacheError, match=r"'conv9'; give the ONNX file that was calibrated"):
        match(CalibrationCache(HEADER, (*entries(lenet).items(), ("conv9", 1.0))), lenet)


def test_a_scale_of_zero_counts_where_it_is_needed(lenet: Network) -> None:
    """A public cache of TensorRT 8.4 holds one, for a tensor of zeros."""
    scales = entries(lenet)
    content = "".join(f"{name}: 3c010a14\n" for name in scales)
    free = parse_cache(f"{HEADER}\n{content}{ADDED[0]}: 0\n".encode())
    assert free.zeros == ADDED[:1]
    assert parse_cache(format_cache(free).encode()) == free
    match(free, lenet)
    needed = list(tensor_names(lenet).values())[1]
    short = content.replace(f"{needed}: 3c010a14\n", f"{needed}: 00000000\n")
    with pytest.raises(CacheError, match="0 there: it saw nothing but zeros"):
        match(parse_cache(f"{HEADER}\n{short}".encode()), lenet)


def test_the_form_that_the_workflow_keeps_has_the_same_names(lenet: Network, tmp_path: Path) -> None:
    write_model(lenet, [tmp_path / "network.onnx"])
    kept = read_structure([tmp_path / "network.onnx"])
    assert dict(tensor_names(kept)) == {name: name for name in tensor_names(lenet)}
