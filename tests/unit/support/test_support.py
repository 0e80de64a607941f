"""Findings: each rule once on each side of its limit."""

import json

import numpy as np
import pytest

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.errors import CompileError
from nvdla_quant.hardware.targets import TARGETS, Precision
from nvdla_quant.network.graph import (
    LRN,
    Concat,
    Convolution,
    Deconvolution,
    Eltwise,
    Flatten,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    Power,
    ReLU,
    Reshape,
    Sigmoid,
    Softmax,
    TanH,
    Tensor,
)
from nvdla_quant.network.shapes import assemble
from nvdla_quant.support.check import check, image_inputs
from nvdla_quant.support.ends import findings_by_precision
from nvdla_quant.table.table import CalibrationTable

FULL, SMALL = TARGETS["nv_full"], TARGETS["nv_small"]


def zeros(*shape: int) -> np.ndarray:
    return np.broadcast_to(np.float32(0), shape)


def network(shape: tuple[int, ...], *operations: Operation) -> Network:
    layers = [Layer(f"l{i}", operation, (f"l{i - 1}" if i else "data",)) for i, operation in enumerate(operations)]
    return assemble("net", [Tensor("data", shape, "data")], layers)


def found(net: Network, target: str = "nv_full", precision: Precision = Precision.INT8) -> list[tuple[str, str, str]]:
    return [(f.layer, f.rule, f.severity) for f in check(net, TARGETS[target], precision)]


def conv(outputs: int, inputs: int, kernel: tuple[int, int] = (3, 3), **fields: object) -> Convolution:
    return Convolution(zeros(outputs, inputs, *kernel), None, **fields)  # type: ignore[arg-type]


def test_what_runs_has_no_findings() -> None:
    net = network(
        (3, 12, 12),
        conv(8, 3),
        ReLU(),
        Pooling("max", (2, 2), (2, 2)),
        Flatten(),
        InnerProduct(zeros(5, 200), None),
        Softmax(),
    )
    for target in TARGETS:
        assert found(net, target) == []
    assert found(net, precision=Precision.FP16) == []


@pytest.mark.parametrize("target", ["nv_small", "nv_large"])
def test_fp16_needs_its_multipliers(target: str) -> None:
    (finding,) = check(network((8, 4, 4), conv(8, 8)), TARGETS[target], Precision.FP16)
    assert (finding.rule, finding.severity, finding.layer) == ("precision", "error", "")
    assert "nv_full" in finding.message


@pytest.mark.parametrize("operation", [Sigmoid(), TanH()])
def test_functions_need_a_table(operation: Operation) -> None:
    assert found(network((8, 6, 6), operation)) == []
    assert found(network((8, 6, 6), operation), "nv_small") == [("l0", "no-table", "error")]


def test_powers_on_the_cpu_are_cut_off() -> None:
    net = network((8, 6, 6), Power(2.0))
    assert found(net) == []
    assert found(net, precision=Precision.FP16) == []
    assert found(net, "nv_small") == [("l0", "power-rounding", "warning")]


@pytest.mark.parametrize(
    ("operation", "findings"),
    [
        (LRN(9, 1e-4, 0.75, 1.0), 0),
        (LRN(1, 1e-4, 0.75, 1.0), 1),
        (LRN(11, 1e-4, 0.75, 1.0), 1),
        (LRN(5, 1e-4, 0.75, 0.0), 1),
        (LRN(5, -1e-4, 0.75, 1.0), 1),
    ],
)
def test_normalisation_sums_over_few_channels(operation: LRN, findings: int) -> None:
    assert found(network((8, 6, 6), operation)) == [("l0", "lrn", "error")] * findings


@pytest.mark.parametrize(
    ("kernel", "fields", "findings"),
    [
        ((64, 64), {"stride": (2, 2), "pad": (31, 31)}, 0),
        ((66, 64), {"stride": (2, 2), "pad": (31, 31)}, 1),
        ((17, 1), {"dilation": (2, 1)}, 1),
    ],
)
def test_phases_of_deconvolutions_have_the_limits_of_convolutions(
    kernel: tuple[int, int], fields: dict[str, tuple[int, int]], findings: int
) -> None:
    operation = Deconvolution(zeros(8, 4, *kernel), None, **fields)  # type: ignore[arg-type]
    rules = {finding[1] for finding in found(network((8, 40, 40), operation))}
    assert rules == ({"convolution-limit"} if findings else set())


@pytest.mark.parametrize(
    ("operation", "rule"),
    [
        (conv(8, 8, (33, 1)), "convolution-limit"),
        (conv(8, 8, (1, 33)), "convolution-limit"),
        (conv(8, 8, stride=(9, 1)), "convolution-limit"),
        (conv(8, 8, pad=(0, 32)), "convolution-limit"),
        (conv(8, 8, dilation=(1, 33)), "convolution-limit"),
        (conv(8193, 8, (1, 1)), "size"),
        (Pooling("average", (11, 11), (2, 2)), "pooling-limit"),
        (Pooling("max", (8, 8), (9, 9)), "pooling-limit"),
    ],
)
def test_limits(operation: Operation, rule: str) -> None:
    assert found(network((8, 80, 80), operation)) == [("l0", rule, "error")]


@pytest.mark.parametrize(
    "operation",
    [
        conv(8, 8, (32, 1)),
        conv(8, 8, (1, 32)),
        conv(8, 8, stride=(8, 8)),
        conv(8, 8, pad=(31, 31)),
        conv(8, 8, (2, 3), dilation=(32, 32)),
        conv(8192, 8, (1, 1)),
        Pooling("max", (8, 8), (8, 8)),
        # Taken apart: 10 = 5 * 2.
        Pooling("average", (10, 10), (10, 10)),
    ],
)
def test_just_inside_of_the_limits(operation: Operation) -> None:
    assert found(network((8, 80, 80), operation)) == []


def test_sizes_have_13_bits() -> None:
    assert found(network((8, 8192, 1), ReLU())) == []
    assert found(network((8, 8193, 1), ReLU())) == [("l0", "size", "error")]
    assert ("l0", "size", "error") in found(network((8193,), InnerProduct(zeros(4, 8193), None)))


def test_an_image_is_padded_to_four_channels() -> None:
    """The kernel of an image may be any number of columns wide, as they become channels; rows keep their limit."""
    assert found(network((1, 40, 40), conv(4, 1, (5, 40)))) == []
    assert found(network((1, 40, 40), conv(4, 1, (33, 5)))) == [("l0", "convolution-limit", "error")]


def test_a_kernel_that_no_split_makes_fit() -> None:
    """A row of 400 windows of a dilated image: rows cannot be cut, and the image's columns neither."""
    wide = conv(8, 3, (32, 3), dilation=(1, 1))
    assert found(network((3, 40, 100), wide), "nv_small") == []
    (finding,) = check(network((3, 40, 2000), wide), SMALL, Precision.INT8)
    assert (finding.layer, finding.rule) == ("l0", "cbuf")
    # 32 rows of 2000 pixels of four bytes in entries of 8 bytes are 32000 entries of 512 a bank.
    assert "32 CBUF banks of 4096 bytes" in finding.message
    assert "take 63" in finding.message


def test_groups_run_at_a_cost() -> None:
    assert found(network((8, 6, 6), conv(8, 2, group=4))) == [("l0", "group", "warning")]


def test_only_inner_products_read_a_flattened_cube() -> None:
    assert found(network((8, 2, 2), Flatten(), ReLU())) == [("l1", "reshape", "error")]
    assert found(network((8, 1, 1), Flatten(), ReLU())) == []
    reshaped = network((8, 2, 2), Reshape((2, 4, 4)), conv(4, 2))
    assert found(reshaped) == [("l1", "reshape", "error")]


@pytest.mark.parametrize("operation", ["sum", "max", "prod"])
def test_any_number_of_tensors_can_be_joined(operation: str) -> None:
    for count in (2, 3, 5):
        layers = [Layer(f"p{i}", Pooling("max", (1, 1)), ("data",)) for i in range(count)]
        layers.append(Layer("join", Eltwise(operation), tuple(layer.name for layer in layers)))  # type: ignore[arg-type]
        net = assemble("joined", [Tensor("data", (8, 4, 4), "data")], layers)
        assert not any(found(net, target) for target in TARGETS)


def test_image_inputs_are_read_by_convolutions_alone() -> None:
    assert image_inputs(network((3, 6, 6), conv(4, 3))) == {"data"}
    assert image_inputs(network((5, 6, 6), conv(4, 5))) == frozenset()
    assert image_inputs(network((3, 6, 6), Pooling("max", (2, 2)))) == frozenset()
    assert image_inputs(network((3,), InnerProduct(zeros(4, 3), None))) == frozenset()


def test_json_of_several_precisions() -> None:
    report = findings_by_precision(network((3, 6, 6), conv(4, 3), Sigmoid()), SMALL, ["int8", "fp16"])
    parsed = json.loads(json.dumps(report))
    assert [f["rule"] for f in parsed["int8"]["findings"]] == ["no-table", "cut"]
    assert [f["rule"] for f in parsed["fp16"]["findings"]] == ["precision", "no-table"]
    assert set(parsed["int8"]["findings"][0]) == {"layer", "rule", "severity", "message", "rewrite"}


def test_the_compiler_refuses_what_is_an_error() -> None:
    net = network((3, 6, 6), conv(4, 3), Sigmoid(), LRN(11, 1e-4, 0.75, 1.0))
    with pytest.raises(CompileError, match=r"layer 'l1'.*look-up table.*layer 'l2'.*local_size 11"):
        compile_network(net, CalibrationTable({}), SMALL, Precision.INT8)
    with pytest.raises(CompileError, match="nv_small has no fp16"):
        compile_network(network((3, 6, 6), conv(4, 3)), None, SMALL, Precision.FP16)


@pytest.mark.parametrize(
    ("target", "channels", "findings"),
    # Each input takes whole atoms: 500 * 32 are 16000 of 8192 channels, 500 * 8 are 4000.
    [("nv_full", [1] * 500, 1), ("nv_small", [1] * 500, 0), ("nv_full", [32] * 200, 0)],
)
def test_inputs_of_a_concatenation_take_whole_atoms(target: str, channels: list[int], findings: int) -> None:
    layers = [Layer(f"c{i}", conv(count, 3, (1, 1)), ("data",)) for i, count in enumerate(channels)]
    layers.append(Layer("cat", Concat(), tuple(layer.name for layer in layers)))
    net = assemble("cat", [Tensor("data", (3, 2, 2), "data")], layers)
    assert found(net, target) == [("cat", "concat-atom", "error")] * findings
