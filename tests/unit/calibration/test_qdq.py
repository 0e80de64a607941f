"""Scales of a quantized ONNX file as a calibration cache."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from nvdla_quant.calibration.qdq import Taken, take_scales
from nvdla_quant.errors import CacheError
from nvdla_quant.network.files import import_onnx
from nvdla_quant.network.graph import (
    Concat,
    Convolution,
    Eltwise,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    ReLU,
    Softmax,
    Tensor,
)
from nvdla_quant.network.quantized import Range
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.fix import fix_table
from nvdla_quant.table.table import SOFTMAX_SCALE
from tests.qdq import ACTIVATION_SCALE, SCORE_SCALE, static

INT8 = (-128, 127, "INT8")
CONVOLUTION = Convolution(np.ones((2, 2, 1, 1), np.float32), None)


def symmetric(scale: float) -> tuple[Range, ...]:
    return (Range(scale, 0, *INT8),)


def network(*layers: tuple[str, Operation, str | tuple[str, ...]]) -> Network:
    made = [Layer(name, kind, (reads,) if isinstance(reads, str) else reads) for name, kind, reads in layers]
    blobs = {layer.name: layer.name for layer in made}
    return assemble("net", [Tensor("data", (2, 4, 4), "data")], made, blobs)


def taken(net: Network, scales: Mapping[str, float]) -> Taken:
    return take_scales(net, {name: symmetric(scale) for name, scale in scales.items()})


def rules(found: Taken) -> dict[str, tuple[float, str]]:
    return {change.name: (change.scale_after, change.rule) for change in found.changes}


def test_the_scales_of_the_file_are_the_cache_s(tmp_path: Path) -> None:
    onnx.save(static(), tmp_path / "net.onnx")
    imported = import_onnx(tmp_path / "net.onnx")
    found = take_scales(imported.network, imported.ranges)
    assert found.cache.header.endswith("-QuantizeLinear")
    assert found.cache.scales == {name: ranges[0].scale for name, ranges in imported.ranges.items()}
    table, changes = fix_table(imported.network, imported.network, found.cache, unify_scales=False)
    assert dict(table.scales) == found.cache.scales
    assert all(change.scale_before == change.scale_after for change in changes)
    assert not found.covered


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_all_ranges_that_are_not_symmetric_are_told(kind: str, tmp_path: Path) -> None:
    onnx.save(static(symmetric=False, kind=kind), tmp_path / "net.onnx")
    imported = import_onnx(tmp_path / "net.onnx")
    with pytest.raises(CacheError) as caught:
        take_scales(imported.network, imported.ranges)
    message = str(caught.value)
    assert "4 of 4 tensors are not quantized to int8 around 0" in message
    for name in ("data", "act", "pool", "scores"):
        assert f"{name!r} ({kind.upper()} with zero point" in message
    assert "qdq_ranges: cover; --qdq-ranges cover" in message
    found = take_scales(imported.network, imported.ranges, "cover")
    assert found.cache.scales == pytest.approx(
        {
            "data": 156 * (1 / 64) / 127 if kind == "uint8" else 155 * (1 / 64) / 127,
            "act:sum": 255 * ACTIVATION_SCALE / 127,
            "act": 255 * ACTIVATION_SCALE / 127,
            "pool": 255 * ACTIVATION_SCALE / 127,
            "scores": 178 * SCORE_SCALE / 127,
        },
        rel=0.01,
    )
    for name, ranges in imported.ranges.items():
        assert found.cache.scales[name] * 127 >= max(abs(ranges[0].low), abs(ranges[0].high)) * (1 - 1e-6)
    assert [change.name for change in found.covered] == ["data", "act", "pool", "scores"]


def test_one_zero_point_is_enough_to_be_refused() -> None:
    net = network(("out", CONVOLUTION, "data"))
    ranges = {"data": (Range(0.1, 1, *INT8),), "out": symmetric(0.2)}
    with pytest.raises(CacheError, match=r"1 of 2 tensors .*: 'data' \(INT8 with zero point 1, -12.9 to 12.6\); quant"):
        take_scales(net, ranges)
    assert rules(take_scales(net, ranges, "cover")) == {
        "data": (pytest.approx(12.9 / 127), "cover"),
        "out": (0.2, "file"),
    }


def test_readers_with_scales_of_their_own() -> None:
    net = network(("out", CONVOLUTION, "data"))
    ranges = {"data": (*symmetric(0.1), *symmetric(0.3)), "out": symmetric(0.2)}
    with pytest.raises(CacheError, match=r"1 tensors have several scales, of which hardware writes one: 'data' "):
        take_scales(net, ranges)
    assert rules(take_scales(net, ranges, "cover"))["data"] == (0.3, "cover")


def test_a_float_file() -> None:
    with pytest.raises(CacheError, match="no activation goes through QuantizeLinear"):
        take_scales(network(("out", CONVOLUTION, "data")), {})


def test_what_follows_from_others() -> None:
    """Fused layers, poolings, concatenations, a sum, and the Softmax at the end."""
    net = network(
        ("c1", CONVOLUTION, "data"),
        ("r1", ReLU(), "c1"),
        ("p1", Pooling("max", (2, 2), (2, 2)), "r1"),
        ("c2", CONVOLUTION, "p1"),
        ("sum", Eltwise("sum"), ("c2", "p1")),
        ("r2", ReLU(), "sum"),
        ("p2", Pooling("average", (1, 1)), "r2"),
        ("cat", Concat(), ("p2", "p1")),
        ("fc", InnerProduct(np.ones((3, 16), np.float32), None), "cat"),
        ("prob", Softmax(), "fc"),
    )
    found = taken(net, {"data": 0.1, "p1": 0.2, "c2": 0.3, "fc": 0.4})
    assert rules(found) == {
        "data": (0.1, "file"),
        "c1": (0.2, "fused"),
        "r1": (0.2, "pooling"),
        "p1": (0.2, "file"),
        "c2": (0.3, "file"),
        "sum": (pytest.approx(0.5), "fused"),
        "r2": (pytest.approx(0.5), "bound"),
        "p2": (pytest.approx(0.5), "pooling"),
        "cat": (pytest.approx(0.5), "concat"),
        "fc": (0.4, "file"),
        "prob": (SOFTMAX_SCALE, "softmax"),
    }


def test_an_average_does_not_say_how_large_its_input_is() -> None:
    net = network(("c1", CONVOLUTION, "data"), ("p1", Pooling("average", (2, 2), (2, 2)), "c1"))
    with pytest.raises(CacheError, match=r"the hardware writes 1 tensors .*: 'c1' \(Convolution\); quantize"):
        taken(net, {"data": 0.1, "p1": 0.2})


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (["data"], ["'r1' (ReLU)", "'c2' (Convolution)"]),
        (["data", "r1"], ["'c2' (Convolution)"]),
        (["r1", "c2"], ["'data' (input)"]),
    ],
)
def test_all_that_is_missing_is_told(given: Sequence[str], missing: Sequence[str]) -> None:
    net = network(("c1", CONVOLUTION, "data"), ("r1", ReLU(), "c1"), ("c2", CONVOLUTION, "r1"))
    with pytest.raises(CacheError) as caught:
        taken(net, dict.fromkeys(given, 0.1))
    assert f"writes {len(missing)} tensors in int8 that the file does not quantize" in str(caught.value)
    assert ", ".join(missing) in str(caught.value)
    assert "calibrate with images" in str(caught.value)
