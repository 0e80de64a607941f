"""Scales that weights came with: kept as far as multipliers can express them, and reported."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.compiler.compile import Compilation, compile_network
from nvdla_quant.compiler.numbers.quantize import quantize_weights, weight_change, weight_scales
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, Precision, QuantizationMode
from nvdla_quant.network.graph import Convolution, Deconvolution, InnerProduct, Layer, Network, ReLU, Tensor
from nvdla_quant.network.quantized import dequantized
from nvdla_quant.network.shapes import assemble
from nvdla_quant.support.miscompiles import check_nvdla_compiler
from nvdla_quant.table.table import CalibrationTable

PER_FILTER, PER_KERNEL = QuantizationMode.PER_FILTER, QuantizationMode.PER_KERNEL
RANDOM = np.random.default_rng(0)
STEPS = RANDOM.integers(-127, 128, (8, 4, 3, 3))
STEPS[:, 0, 0, 0] = 60
STEPS[np.abs(STEPS) > 60] = 50  # No filter reaches 127: scales chosen anew would be others.
SCALES = np.array([1, 0.5, 0.9, 0.3, 0.11, 0.07, 0.02, 0.6], np.float32) * np.float32(0.01)


def convolution(steps: Any = STEPS, scales: Any = SCALES, bias: float = 0.1) -> Convolution:
    weights, biases = dequantized(steps, scales[:, None, None, None]), np.full(8, bias, np.float32)
    return Convolution(weights, biases, scales=scales)


def network(operation: Any) -> Network:
    layers = [Layer("conv", operation, ("data",)), Layer("relu", ReLU(), ("conv",))]
    return assemble("one", [Tensor("data", (4, 6, 6), "data")], layers, {"conv": "conv", "relu": "relu"})


TABLE = CalibrationTable({"data": 0.02, "conv": 0.05, "relu": 0.05})


def compiled(operation: Any, mode: QuantizationMode | None = PER_FILTER, target: str = "nv_small") -> Compilation:
    precision = Precision.FP16 if mode is None else Precision.INT8
    return compile_network(network(operation), None if mode is None else TABLE, target_of(target), precision, mode)


@pytest.mark.parametrize("target", ["nv_small", "nv_full"])
def test_per_filter_they_are_honoured(target: str) -> None:
    (layer,) = compiled(convolution(), target=target).facts.weights
    assert (layer.layer, layer.honoured) == ("conv", True)
    assert layer.steps <= 0.5  # Else an integer would be another.
    assert layer.relative < 1 / 254
    assert compiled(convolution(), target=target).report["weights"] == (
        {"layer": "conv", "honoured": True, "steps": layer.steps, "relative": layer.relative},
    )


def test_without_them_scales_are_chosen_and_nothing_is_reported() -> None:
    plain = compiled(replace(convolution(), scales=None))
    assert plain.facts.weights == ()
    assert "weights" not in plain.report
    assert plain.data != compiled(convolution()).data


def test_per_kernel_the_largest_counts() -> None:
    (layer,) = compiled(convolution(), PER_KERNEL).facts.weights
    assert not layer.honoured
    assert layer.relative == 1  # Of a filter at a fiftieth of the largest scale some weights vanish.
    same = np.full(8, 0.01, np.float32)
    (layer,) = compiled(convolution(scales=same), PER_KERNEL).facts.weights
    assert layer.honoured
    assert layer.steps < 1e-4


def test_a_filter_that_is_too_small_for_its_multiplier_is_told() -> None:
    """A scale of 1/20,000 of the largest has one bit of multiplier, so that its weights become others."""
    scales = SCALES.copy()
    scales[3] = SCALES[0] / 20_000
    (layer,) = compiled(convolution(scales=scales)).facts.weights
    assert not layer.honoured
    assert layer.relative > 1 / 254


def test_a_bias_that_does_not_fit_raises_a_scale_and_is_told() -> None:
    """20 steps of the output are 250,000 of the smallest filter's sums; 16 bits shifted by 2 hold 131,068."""
    (layer,) = compiled(convolution(bias=1)).facts.weights
    assert not layer.honoured


def test_minus_128_times_minus_one_saturates_and_is_told() -> None:
    steps = STEPS.copy()
    steps[2, 1, 1, 1] = 128
    (layer,) = compiled(convolution(steps)).facts.weights
    assert not layer.honoured
    assert layer.steps == pytest.approx(1, abs=0.1)


def test_other_operations() -> None:
    scales = SCALES[:6]
    down = Deconvolution(
        dequantized(STEPS[:4, :3, :2, :2], np.repeat(scales.reshape(2, 3), 2, 0)[:, :, None, None]),
        None,
        stride=(2, 2),
        group=2,
        scales=scales,
    )
    product = InnerProduct(dequantized(np.resize(STEPS, (8, 144)), SCALES[:, None]), None, scales=SCALES)
    for operation in (down, product):
        (layer,) = compiled(operation).facts.weights
        assert layer.honoured


def test_parts_of_a_layer_are_reported_together() -> None:
    """Groups that are several operations, of which one is not honoured."""
    scales = np.tile(SCALES, 8)
    steps = np.resize(STEPS, (64, 8, 3, 3))
    operation = Convolution(dequantized(steps, scales[:, None, None, None]), None, group=8, scales=scales)
    data = Tensor("data", (64, 6, 6), "data")
    net = assemble("groups", [data], [Layer("conv", operation, ("data",))], {"conv": "conv"})
    facts = compile_network(net, CalibrationTable({"data": 0.02, "conv": 0.05}), NV_SMALL, "int8", PER_FILTER).facts
    assert len(facts.convolutions) > 1
    assert [layer.honoured for layer in facts.weights] == [True]


def test_fp16_has_no_scales_to_honour() -> None:
    assert compiled(convolution(), None, "nv_full").facts.weights == ()


def test_nvdla_compiler_takes_no_scales_of_weights() -> None:
    (found,) = [
        finding
        for finding in check_nvdla_compiler(network(convolution()), NV_FULL, Precision.INT8, PER_FILTER)
        if finding.rule == "weight-scales"
    ]
    assert found.severity == "warning"
    assert "the weights of 1 layers came quantized (conv is the first)" in found.message
    for operation, precision in (
        (replace(convolution(), scales=None), Precision.INT8),
        (convolution(), Precision.FP16),
    ):
        rules = [finding.rule for finding in check_nvdla_compiler(network(operation), NV_FULL, precision, None)]
        assert "weight-scales" not in rules


@given(st.integers(0, 2**32 - 1), st.floats(0, 1 / 255), st.integers(-20, 0))
def test_a_scale_raised_by_less_than_a_254th_leaves_the_integers(seed: int, rise: float, size: int) -> None:
    random = np.random.default_rng(seed)
    steps = random.integers(-127, 128, (3, 5, 1, 1))
    scales = np.ldexp(random.uniform(0.5, 1, 3), size).astype(np.float32)
    weights = dequantized(steps, scales[:, None, None, None])
    raised = scales.astype(np.float64) * (1 + rise)
    found = quantize_weights(weights, raised)
    assert (found == steps).all()
    change = weight_change(weights, scales, found, raised)
    assert change.honoured
    assert change.relative <= rise + 1e-6


@given(st.integers(0, 2**32 - 1))
def test_given_scales_are_those_that_weights_would_get(seed: int) -> None:
    """Where each filter reaches 127, what the file says is what the compiler chooses by itself."""
    random = np.random.default_rng(seed)
    steps = random.integers(-127, 128, (4, 6, 1, 1))
    steps[:, 0] = 127
    scales = np.ldexp(random.uniform(0.5, 1, 4), -8).astype(np.float32)
    weights, bias = dequantized(steps, scales[:, None, None, None]), random.normal(0, 10, 4)
    for mode in QuantizationMode:
        own = weight_scales(weights, bias, 0.01, mode)
        assert weight_scales(weights, bias, 0.01, mode, scales) == pytest.approx(own, rel=1e-6)
