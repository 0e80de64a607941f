"""What `check` and the rules for NVIDIA's compiler say of layers and paddings that ONNX has and Caffe lacks."""

import numpy as np
import pytest

from nvdla_quant.hardware.targets import TARGETS, Precision
from nvdla_quant.network.graph import (
    GELU,
    Clip,
    Convolution,
    Deconvolution,
    Eltwise,
    Gather,
    HardSigmoid,
    HardSwish,
    Network,
    Operation,
    Pooling,
    Swish,
)
from nvdla_quant.support.check import check
from nvdla_quant.support.miscompiles import check_nvdla_compiler
from tests.layered import chain
from tests.networks.builder import Builder

FULL = TARGETS["nv_full"]


def ones(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.full(shape, 0.01, np.float32)


def rules(network: Network) -> list[tuple[str, str]]:
    found = check(network, FULL, Precision.INT8)
    return [(item.layer, item.rule) for item in found if item.severity == "error"]


def of_nvidia(network: Network) -> list[tuple[str, str]]:
    return [(item.layer, item.rule) for item in check_nvdla_compiler(network, FULL, Precision.FP16, None)]


@pytest.mark.parametrize(
    ("operation", "rule"),
    [
        (Convolution(ones(8, 8, 3, 3), None, far=(1, 0)), "padding"),
        (Deconvolution(ones(8, 8, 3, 3), None, (2, 2), far=(-1, -1)), "padding"),
        (Pooling("max", (3, 3), pad=(1, 1), far=(0, 0)), "padding"),
        (Pooling("average", (3, 3), pad=(1, 1), area="image"), "pooling-area"),
        (Clip(0.0, 6.0), "layer-type"),
        (HardSigmoid(), "layer-type"),
        (HardSwish(), "layer-type"),
        (Swish(), "layer-type"),
        (GELU(), "layer-type"),
        (Gather((1, 0)), "layer-type"),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_what_its_caffe_parser_cannot_read(operation: Operation, rule: str) -> None:
    """And this compiler runs all of them."""
    network = chain((8, 9, 9), operation)
    assert of_nvidia(network) == [("l0", rule)]
    assert rules(network) == []


def test_what_is_the_same_to_it_has_no_finding() -> None:
    """A far side that is the near one; an average of the image alone without padding."""
    for operation in (
        Convolution(ones(8, 8, 3, 3), None, pad=(1, 1), far=(1, 1)),
        Pooling("average", (3, 3), area="image"),
        Pooling("max", (3, 3), pad=(1, 1), area="image"),
    ):
        assert of_nvidia(chain((8, 9, 9), operation)) == []


def test_combinations_that_caffe_lacks() -> None:
    builder = Builder("joined", (8, 6, 6))
    pixel = builder.global_average("pixel", "data")
    builder.add("min", Eltwise("min"), "data", builder.pool("same", "data", "max", 1))
    builder.add("prod", Eltwise("prod"), "min", pixel)
    network = builder.build()
    assert of_nvidia(network) == [("min", "eltwise"), ("prod", "eltwise")]
    assert rules(network) == []


@pytest.mark.parametrize(("far", "expected"), [(63, []), (64, [("l0", "convolution-limit")])])
def test_far_padding_has_six_bits(far: int, expected: list[tuple[str, str]]) -> None:
    """NVDLA_CDMA_D_ZERO_PADDING has 6 bits for the right and below, 5 for the left and above."""
    assert rules(chain((8, 9, 9), Convolution(ones(8, 8, 1, 1), None, far=(0, far)))) == expected


def test_wide_averages_of_the_image_alone_do_not_run() -> None:
    """A convolution divides all windows by one number."""
    average = Pooling("average", (9, 11), pad=(2, 2), area="image")
    assert rules(chain((8, 30, 30), average)) == [("l0", "pooling-limit")]
    assert rules(chain((8, 30, 30), Pooling("average", (9, 11), area="image"))) == []


def test_a_hard_sigmoid_that_is_a_constant() -> None:
    assert rules(chain((8, 3, 3), HardSigmoid(0.0, 0.5))) == [("l0", "function")]


def test_several_layers_are_named_at_once() -> None:
    network = chain((8, 9, 9), Swish(), Gather((1, 0)), GELU())
    small = check(network, TARGETS["nv_small"], Precision.INT8)
    assert [(item.layer, item.rule) for item in small] == [("l0", "no-table"), ("l2", "no-table")]
    assert [layer for layer, _ in of_nvidia(network)] == ["l0", "l1", "l2"]
