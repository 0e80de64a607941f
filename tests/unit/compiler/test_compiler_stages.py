"""The compiler's stages one by one, against numbers worked out by hand."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.compiler.emission.memory import ALIGNMENT, allocate, largest_live
from nvdla_quant.compiler.emission.pack import pack_image_weights, pack_operands, pack_weights
from nvdla_quant.compiler.lowering.lower import lower
from nvdla_quant.compiler.lowering.operations import (
    ConvolutionStep,
    ConvOperation,
    Join,
    PdpOperation,
    PointStep,
    PoolingStep,
    SdpOperation,
    SoftmaxStep,
    Window,
)
from nvdla_quant.compiler.lowering.schedule import Schedule, reads, written
from nvdla_quant.compiler.lowering.tile import post_extension
from nvdla_quant.compiler.numbers.quantize import (
    effective_scales,
    factorise,
    quantize_convolution,
    quantize_points,
    weight_scales,
)
from nvdla_quant.errors import CompileError, ConfigError, TableError
from nvdla_quant.hardware.cbuf import Division, Shortage, Work, divide, feature_entries, image_entries, weight_banks
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL, Precision, QuantizationMode, Target
from nvdla_quant.loadable.structs import DependencyEvent, Engine, SdpMode, SdpType
from nvdla_quant.network.graph import (
    LRN,
    Convolution,
    Dropout,
    Eltwise,
    Flatten,
    InnerProduct,
    Layer,
    Network,
    Pooling,
    ReLU,
    Softmax,
    Tensor,
)
from nvdla_quant.network.passes import prepare
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.table import CalibrationTable
from tests.networks.residual import resnet18, resnet50

PER_KERNEL, PER_FILTER = QuantizationMode.PER_KERNEL, QuantizationMode.PER_FILTER


def ones(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


def residual() -> Network:
    """Two convolutions, the second added to the first, ReLU, pooling, inner product behind views, softmax."""
    layers = [
        Layer("a", Convolution(ones(8, 3, 3, 3), ones(8), pad=(1, 1)), ("data",)),
        Layer("ra", ReLU(), ("a",)),
        Layer("b", Convolution(ones(8, 8, 3, 3), None, pad=(1, 1)), ("ra",)),
        Layer("sum", Eltwise("sum"), ("ra", "b")),
        Layer("rs", ReLU(), ("sum",)),
        Layer("pool", Pooling("max", (2, 2), (2, 2)), ("rs",)),
        Layer("flat", Flatten(), ("pool",)),
        Layer("drop", Dropout(), ("flat",)),
        Layer("fc", InnerProduct(ones(10, 8 * 4 * 4), ones(10)), ("drop",)),
        Layer("prob", Softmax(), ("fc",)),
    ]
    return assemble("residual", [Tensor("data", (3, 8, 8), "data")], layers)


TABLE = CalibrationTable({"data": 0.5, "ra": 1.0, "rs": 2.0, "pool": 3.0, "fc": 4.0, "prob": 1 / 127})


# Lowering


def test_lowering_fuses_what_the_sdp_does_behind_a_convolution() -> None:
    lowered = lower(residual(), NV_SMALL, Precision.INT8)
    kinds = [type(step) for step in lowered.steps]
    assert kinds == [ConvolutionStep, ConvolutionStep, PoolingStep, ConvolutionStep, SoftmaxStep]
    first, second, pool, inner, softmax = lowered.steps
    assert (first.layers, first.output) == (("a", "ra"), "ra")
    assert isinstance(second, ConvolutionStep)
    assert (second.layers, second.join, second.relu) == (("b", "sum", "rs"), Join("ra"), True)
    assert isinstance(inner, ConvolutionStep)
    assert (inner.source, inner.weights.shape) == ("pool", (10, 8, 4, 4))
    assert (pool.source, softmax.source) == ("rs", "fc")
    assert lowered.images == {"data"}
    assert dict(lowered.before_softmax) == {"prob": "fc"}


def test_lowering_keeps_a_tensor_that_something_else_reads() -> None:
    layers = [
        Layer("a", Convolution(ones(8, 3, 1, 1), None), ("data",)),
        Layer("r", ReLU(), ("a",)),
        Layer("s", Eltwise("sum"), ("a", "r")),
    ]
    lowered = lower(assemble("n", [Tensor("data", (3, 4, 4), "data")], layers), NV_SMALL, Precision.INT8)
    assert [type(step) for step in lowered.steps] == [ConvolutionStep, PointStep, PointStep]


def test_lowering_does_not_read_what_is_not_complete() -> None:
    """The sum can join the convolution that runs last only."""
    layers = [
        Layer("a", Convolution(ones(8, 3, 1, 1), None), ("data",)),
        Layer("b", Convolution(ones(8, 3, 1, 1), None), ("data",)),
        Layer("s", Eltwise("sum"), ("b", "a")),
    ]
    first, second = lower(assemble("n", [Tensor("data", (3, 4, 4), "data")], layers), NV_SMALL, Precision.INT8).steps
    assert isinstance(first, ConvolutionStep)
    assert isinstance(second, ConvolutionStep)
    assert (first.join, second.join) == (None, Join("a"))


def test_lowering_writes_the_dilation_of_an_image_kernel_out() -> None:
    operation = Convolution(ones(4, 3, 2, 3), None, dilation=(3, 2))
    (step,) = lower(
        assemble("n", [Tensor("d", (3, 9, 9), "d")], [Layer("a", operation, ("d",))]), NV_SMALL, Precision.INT8
    ).steps
    assert isinstance(step, ConvolutionStep)
    assert (step.dilation, step.weights.shape) == ((1, 1), (4, 3, 4, 5))
    assert np.array_equal(step.weights[0, 0], [[1, 0, 1, 0, 1], [0] * 5, [0] * 5, [1, 0, 1, 0, 1]])


def test_a_network_without_work_is_refused() -> None:
    with pytest.raises(CompileError, match="output 'd' is an input"):
        lower(assemble("n", [Tensor("d", (3, 9, 9), "d")], [Layer("a", Dropout(), ("d",))]), NV_SMALL, Precision.INT8)


# Scales


def test_scales_are_those_of_the_last_fused_layer_and_pass_through_pooling() -> None:
    scales, remarks = effective_scales(lower(residual(), NV_SMALL, Precision.INT8), TABLE)
    assert scales == {"data": 0.5, "ra": 1.0, "rs": 2.0, "pool": 2.0, "fc": 4.0, "prob": 1 / 127}
    assert remarks == ("layer 'pool': pooling keeps its input's scale 2; the entry 3 is not used",)


@pytest.mark.parametrize("missing", ["data", "ra", "fc", "prob"])
def test_a_missing_scale_is_named(missing: str) -> None:
    table = CalibrationTable({name: scale for name, scale in TABLE.scales.items() if name != missing})
    with pytest.raises(TableError, match=f"no entry for '{missing}'"):
        compile_network(residual(), table, NV_SMALL, Precision.INT8)


def test_int8_needs_a_table_and_another_backend_is_refused() -> None:
    with pytest.raises(CompileError, match="needs a calibration table"):
        compile_network(residual(), None, NV_SMALL, Precision.INT8)
    with pytest.raises(ConfigError, match="compiler is 'nvdla_compiler'"):
        compile_network(residual(), TABLE, NV_SMALL, "int8", "per-filter", "nvdla_compiler")


# Quantization


@given(st.floats(2.0**-48, 2.0**14.9))
def test_a_multiplier_has_15_bits(ratio: float) -> None:
    factor = factorise(ratio, "here")
    assert 2**14 <= factor.scale < 2**15
    assert 0 <= ratio - factor.scale / 2.0**factor.shift < ratio * 2.0**-14


def test_multipliers_at_the_ends() -> None:
    # docs/hardware/integers.md, "Factors": numBits = floor(log2 r) + 1, t = 15 - numBits, s = int(2^t * r).
    assert (factorise(1.0, "x").scale, factorise(1.0, "x").shift) == (16384, 14)
    assert (factorise(0.75, "x").scale, factorise(0.75, "x").shift) == (24576, 15)
    assert (factorise(2.0**-60, "x").scale, factorise(2.0**-60, "x").shift) == (8, 63)
    with pytest.raises(CompileError, match=r"x: outputs are 3.277e\+04 times finer"):
        factorise(2.0**15, "x")


def weights_of(*largest: float) -> NDArray[np.float32]:
    values = np.zeros((len(largest), 1, 1, 2), np.float32)
    values[:, 0, 0, 0] = largest
    return values


def test_weight_scales_without_trouble_are_the_largest_over_127() -> None:
    weights, bias = weights_of(127.0, 254.0), np.array([1.0, 2.0])
    assert weight_scales(weights, bias, 0.01, PER_KERNEL).tolist() == [2.0, 2.0]
    assert weight_scales(weights, bias, 0.01, PER_FILTER).tolist() == [1.0, 2.0]


def test_a_small_filter_is_coarser_where_its_bias_would_not_fit() -> None:
    # The other filter's step is 1 output step / 64: its bias may be coarse by 1/32, a shift of 1; so the small one's
    # bias of 65534 * 3 steps of the input must fit into 32767 << 1.
    chosen = weight_scales(weights_of(127.0, 1e-6), np.array([0.0, 65534.0 * 3]), 1 / 64, PER_FILTER)
    assert chosen.tolist() == pytest.approx([1.0, 3.0], rel=1e-4)


def test_behind_a_sum_a_bias_is_as_coarse_as_its_output_allows() -> None:
    # The same filters: what is handed on to the sum in 1/256 steps of the other tensor shows in steps of 64.
    bias = np.array([0.0, 65534.0 * 3], np.float32)
    step = ConvolutionStep(("c", "s"), "x", "s", weights_of(127.0, 1e-6), bias, join=Join("y", "sum"))
    chosen = quantize_convolution(step, {"x": 1.0, "y": 64.0, "s": 64.0}, PER_FILTER).scales
    assert chosen is not None
    assert chosen.tolist() == pytest.approx([1.0, 3.0], rel=1e-3)


def test_biases_of_more_than_a_step_are_remarked_on() -> None:
    # 1,000,000 / 32767 = 30.5: the bias needs a shift of 5, so that the other one is rounded to 32.
    step = ConvolutionStep(("c",), "x", "y", weights_of(127.0, 127.0), np.array([1e6, 1], np.float32))
    (remark,) = quantize_convolution(step, {"x": 1.0, "y": 1.0}, PER_KERNEL).remarks
    assert remark == (
        "layer 'c': its largest bias is 1e+06 steps of its output, so that biases are rounded to 32 steps; "
        "see its table entry"
    )
    assert quantize_convolution(step, {"x": 1.0, "y": 32.0}, PER_KERNEL).remarks == ()
    assert quantize_convolution(replace(step, bias=None), {"x": 1.0, "y": 1.0}, PER_KERNEL).remarks == ()
    network = assemble(
        "n",
        [Tensor("x", (1, 1, 2), "x")],
        [Layer("c", Convolution(weights_of(127.0, 127.0), np.array([1e6, 1], np.float32)), ("x",))],
    )
    table = CalibrationTable({"x": 1.0, "c": 1.0})
    assert remark in compile_network(network, table, NV_SMALL, "int8").report["warnings"]


def test_a_multiplier_that_rounds_up_to_16_bits_is_refused_where_no_shift_is_left() -> None:
    step = ConvolutionStep(("c",), "x", "y", weights_of(127.0), None)
    with pytest.raises(CompileError, match=r"layer 'c': outputs are 3.277e\+04 times finer"):
        quantize_convolution(step, {"x": 32767.5, "y": 1.0}, PER_FILTER)


def test_a_normalisation_with_a_dead_channel() -> None:
    # Variance 0 and Caffe's epsilon of 1e-5 make a factor of 316; 15 bits leave 6 behind the point beside it.
    factor, offset = np.array([316.23, 1, -0.5], np.float32), np.array([0, 3, 100], np.float32)
    step = PointStep(("n",), "x", "y", affine=(factor, offset))
    program = quantize_points(step, {"x": 1.0, "y": 1.0})
    units, converter = (program.x1, program.x2), program.converter
    assert units[0] is not None
    assert units[1] is not None
    assert converter is not None
    multipliers, addends = (np.asarray(unit.operands, np.int64) for unit in units if unit is not None)
    for value in (0, 1, 40, -100):
        inner = np.rint(value * multipliers / 2.0 ** units[0].truncate) + (addends << units[1].shift)
        result = inner * converter.scale / 2.0**converter.shift
        # Half of 1/64 for each rounding, and what 15 bits of the largest factor leave the others: 1/64 / 2 of `value`.
        assert (
            np.abs(result - (value * factor + offset)).max() <= 1 / 64 + abs(value) / 128 + abs(value * 316) * 2.0**-14
        )


def test_an_offset_beyond_what_the_sdp_adds_is_refused() -> None:
    # 32767 << 15 of 1/256 steps are 4.194e6 steps; beyond, the hardware would saturate it.
    step = PointStep(("n",), "x", "y", affine=(ones(1), np.array([5e6], np.float32)))
    with pytest.raises(CompileError, match=r"'n': an offset is 5e\+06 steps of the output, the limit is 4.19"):
        quantize_points(step, {"x": 1.0, "y": 1.0})


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.floats(0, 1e4, width=32), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=8),
    st.floats(1e-4, 1e2),
    st.sampled_from(QuantizationMode),
)
def test_every_bias_and_multiplier_fits(
    filters: list[tuple[float, float]], ratio: float, mode: QuantizationMode
) -> None:
    weights, bias = weights_of(*(w for w, _ in filters)), np.array([b for _, b in filters], np.float32)
    step = ConvolutionStep(("c",), "x", "y", weights, bias)
    try:
        quantized = quantize_convolution(step, {"x": ratio, "y": 1.0}, mode)
    except CompileError:
        return
    unit, converter = quantized.program.x1, quantized.program.converter
    assert unit is not None
    assert unit.operands is not None
    assert converter is not None
    assert quantized.scales is not None
    pairs = unit.operands.astype(np.int64).reshape(len(filters), -1)
    multipliers = pairs[:, 1] if mode is PER_FILTER else np.full(len(filters), converter.scale)
    shift = unit.truncate if mode is PER_FILTER else converter.shift
    assert 0 <= unit.shift <= 15
    assert 0 <= shift <= 63
    # What the hardware outputs for an all-zero input is the bias: within its own and the multiplier's rounding.
    outputs = (pairs[:, 0] << unit.shift) * multipliers / 2.0**shift
    step_of_bias = 2.0**unit.shift * multipliers / 2.0**shift
    # Half a step each of bias and of rounding to steps at all; 2**-13 for the multiplier.
    allowed = step_of_bias / 2 + quantized.scales * ratio / 2 + np.abs(bias) * 2.0**-13
    assert np.all(np.abs(outputs - bias) <= allowed * (1 + 1e-6) + 1e-9)


def test_per_kernel_is_one_adder_and_one_converter() -> None:
    step = ConvolutionStep(("c",), "x", "y", weights_of(127.0, 3.0), ones(2) * 100)
    program = quantize_convolution(step, {"x": 1.0, "y": 128.0}, PER_KERNEL).program
    assert program.x1 is not None
    assert (program.x1.kind, program.x1.mode, program.x1.shift) == (SdpType.ADD, SdpMode.PER_KERNEL, 0)
    assert program.x1.operands is not None
    assert program.x1.operands.tolist() == [100, 100]
    assert program.converter is not None
    assert (program.converter.scale, program.converter.shift) == (16384, 21)


def test_fp16_says_what_saturates() -> None:
    layers = [
        Layer("c", Convolution(ones(4, 3, 1, 1), None), ("d",)),
        Layer("n", LRN(3, 1.0, 0.75, 1.0), ("c",)),
        Layer("fc", InnerProduct(ones(2, 64), None), ("n",)),
    ]
    network = assemble("n", [Tensor("d", (3, 4, 4), "d")], layers)
    # A normalisation needs real values, so that its input cannot be stored divided: 127 * 600 = 76,200.
    table = CalibrationTable({"d": 1.0, "c": 600.0, "n": 1.0, "fc": 600.0})
    warnings = compile_network(network, table, NV_FULL, "fp16").report["warnings"]
    assert warnings == ("layer 'c': calibrated values reach 7.62e+04; beyond fp16's 65504 they saturate",)


def test_fp16_refuses_what_it_cannot_hold() -> None:
    layer = Layer("c", Convolution(ones(4, 3, 1, 1) * 70000, None), ("d",))
    with pytest.raises(CompileError, match="layer 'c': weights: the largest is 70000"):
        compile_network(assemble("n", [Tensor("d", (3, 4, 4), "d")], [layer]), None, NV_FULL, "fp16")


# Packing


@pytest.mark.parametrize("target", [NV_FULL, NV_SMALL, NV_LARGE])
@pytest.mark.parametrize("shape", [(3, 2, 2, 2), (40, 70, 2, 1), (9, 9, 1, 3)])
def test_packed_weights_read_back_in_the_order_of_the_hardware(target, shape) -> None:  # type: ignore[no-untyped-def]
    weights = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    packed = np.frombuffer(pack_weights(weights, target), np.int8)
    assert len(packed) % target.cbuf_entry_bytes == 0
    kernels, channels, height, width = shape
    order = [
        weights[k, c, y, x]
        for g in range(0, kernels, target.atomic_k)
        for b in range(0, channels, target.atomic_c)
        for y in range(height)
        for x in range(width)
        for k in range(g, min(g + target.atomic_k, kernels))
        for c in range(b, min(b + target.atomic_c, channels))
    ]
    assert packed[: len(order)].tolist() == order
    assert not packed[len(order) :].any()


@pytest.mark.parametrize("extension", [0, 1, 2])
def test_packed_image_weights(extension: int) -> None:
    weights = np.arange(1, 1 + 2 * 3 * 5 * 2).reshape(2, 3, 5, 2).astype(np.int8)
    packed = np.frombuffer(pack_image_weights(weights, NV_FULL, extension), np.int8)
    rows = 1 << extension
    order = [
        weights[k, c, y, x] if c < 3 else 0
        for first in range(0, 5, rows)
        for k in range(2)
        for y in range(first, min(first + rows, 5))
        for x in range(2)
        for c in range(4)
    ]
    if extension == 0:
        order = [
            weights[k, c, y, x] if c < 3 else 0 for y in range(5) for k in range(2) for x in range(2) for c in range(4)
        ]
    assert packed[: len(order)].tolist() == order


@pytest.mark.parametrize(
    ("target", "dtype", "shape", "filled"),
    # Atoms have 32 bytes (nv_small: 8): 32 or 8 elements of int8, 16 of fp16.
    [
        (NV_FULL, np.int16, (20,), 32 * 2),
        (NV_FULL, np.int16, (33, 2), 64 * 4),
        (NV_FULL, np.float16, (5,), 16 * 2),
        (NV_FULL, np.float16, (32,), 32 * 2),
        (NV_SMALL, np.int16, (20, 2), 24 * 4),
    ],
)
def test_operands_fill_their_last_atom_with_zeros(target, dtype, shape, filled: int) -> None:  # type: ignore[no-untyped-def]
    operands = np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)
    packed = pack_operands(operands, 2 if dtype == np.float16 else 1, target)
    assert packed == operands.tobytes().ljust(filled, b"\0")


@pytest.mark.parametrize(
    ("target", "rows", "width", "stride", "expected"),
    # Section 6, Post-extension: four rows up to 4 columns, two up to 8 (nv_small: 1); R / factor >= 2.
    [
        (NV_FULL, 5, 5, 1, 1),
        (NV_FULL, 3, 3, 1, 0),
        (NV_FULL, 8, 3, 1, 2),
        (NV_FULL, 7, 7, 2, 1),
        (NV_FULL, 11, 11, 4, 0),
        (NV_FULL, 5, 5, 6, 0),
        (NV_SMALL, 8, 1, 1, 1),
        (NV_SMALL, 8, 2, 1, 0),
    ],
)
def test_post_extension(target, rows: int, width: int, stride: int, expected: int) -> None:  # type: ignore[no-untyped-def]
    assert post_extension(target, rows, 4 * width, stride) == expected


# The convolution buffer


def test_entries_of_the_golden_loadables() -> None:
    # entry_per_slice of LeNet's convolutions, as the real compiler wrote them.
    assert image_entries(NV_SMALL, 28, 0, 1) == 14
    assert image_entries(NV_FULL, 28, 0, 2) == 2
    assert [feature_entries(NV_SMALL, c, w, 1) for c, w in ((20, 12), (50, 4), (500, 1))] == [36, 28, 63]
    assert [feature_entries(NV_FULL, c, w, 1) for c, w in ((20, 12), (50, 4), (500, 1))] == [3, 2, 4]
    assert [feature_entries(NV_FULL, c, w, 2) for c, w in ((20, 12), (50, 4), (500, 1))] == [6, 4, 8]
    # Three atoms of four take as much as four.
    assert feature_entries(NV_FULL, 96, 10, 1) == feature_entries(NV_FULL, 128, 10, 1) == 10


def work(kernels: int, channels: int, kernel: int, size: int, pad: int = 0, element_bytes: int = 1) -> Work:
    square, out = (kernel, kernel), size + 2 * pad - kernel + 1
    return Work(kernels, channels, square, square, (1, 1), (pad, pad), (size, size), (out, out), element_bytes)


@pytest.mark.parametrize(
    ("target", "asked", "data", "weights", "mode"),
    # data_bank and weight_bank of LeNet's conv2 and ip1, as the real compiler wrote them.
    [
        (NV_SMALL, work(50, 20, 5, 12), 1, 7, "full"),
        (NV_SMALL, work(500, 50, 4, 4), 1, 4, "ping-pong"),
        (NV_FULL, work(500, 50, 4, 4), 1, 13, "full"),
    ],
)
def test_banks_of_the_golden_loadables(target, asked: Work, data: int, weights: int, mode: str) -> None:  # type: ignore[no-untyped-def]
    found = divide(target, asked)
    assert isinstance(found, Division)
    assert (found.data, found.weights, found.mode) == (data, weights, mode)
    assert (len(found.rows), len(found.columns)) == (1, 1)


def test_the_division_that_moves_the_fewest_bytes() -> None:
    """v-big2 on nv_full: the real compiler takes 10 + 6 banks and four runs, each of which reads 1,179,648 bytes."""
    found = divide(NV_FULL, work(512, 256, 3, 64, 1))
    assert isinstance(found, Division)
    # 13 banks hold 26 of 64 rows, so three runs: two borders are read twice, two rows each.
    assert (found.data, found.weights, found.mode, len(found.rows)) == (13, 3, "minimum", 3)
    assert found.bytes == (64 + 2 * 2) * 64 * 256 + 3 * 1179648


@settings(max_examples=100)
@given(
    kernels=st.integers(1, 80),
    channels=st.integers(1, 700),
    kernel=st.integers(1, 17),
    size=st.integers(1, 130),
    stride=st.integers(1, 4),
    pad=st.integers(-2, 8),
    element_bytes=st.sampled_from([1, 2]),
)
def test_a_division_fits(
    kernels: int, channels: int, kernel: int, size: int, stride: int, pad: int, element_bytes: int
) -> None:
    out = (size + 2 * pad - kernel) // stride + 1
    if out < 1:
        return
    square = (kernel, kernel)
    asked = Work(
        kernels, channels, square, square, (stride, stride), (pad, pad), (size, size), (out, out), element_bytes
    )
    for target in (NV_FULL, NV_LARGE, NV_SMALL):
        found = divide(target, asked)
        if isinstance(found, Shortage):
            continue
        part = replace(asked, channels=found.channels)
        assert found.data + found.weights <= target.cbuf_banks
        group = min(found.kernels, target.kernels_per_group(element_bytes))
        assert found.weights >= weight_banks(target, group * part.kernel_bytes)
        entries = part.entries(target, max(span.inputs for span in found.columns))
        assert max(span.inputs for span in found.rows) * entries <= found.data * target.cbuf_bank_entries
        for axis in (found.rows, found.columns):
            # Every output once, in order; inputs and padding are those of its windows.
            assert [first for span in axis for first in range(span.first, span.first + span.count)] == [*range(out)]
            for span in axis:
                assert 0 <= span.start < span.start + span.inputs <= size
                assert min(span.before, span.after) >= 0
                top, reach = span.first * stride - pad, (span.count - 1) * stride + kernel
                if top >= size:
                    # Windows that begin behind all inputs read padding alone; which does not matter.
                    assert span.before >= reach
                else:
                    assert span.start - span.before == top
                    assert span.start + span.inputs + span.after >= top + reach


# Schedule and memory


def pipeline(*names: str) -> list[ConvOperation | SdpOperation | PdpOperation]:
    """Convolution with SDP, then pooling, alternately, each reading the tensor before."""
    operations: list[ConvOperation | SdpOperation | PdpOperation] = []
    for index, (source, output) in enumerate(itertools.pairwise(names)):
        read, write = Window(source, 0, 4, 0, 4), Window(output, 0, 4, 0, 4)
        if index % 2:
            operations.append(PdpOperation(index, read, write, (1, 1), 0, 0, 0, 0))
        else:
            operations += [ConvOperation(index, read, 4, 4, 0, 0, 0, 0), SdpOperation(index, None, None, write)]
    return operations


def test_edges_as_the_real_compiler_draws_them() -> None:
    """The first five operations of LeNet (golden ``lenet-nv-small``)."""
    edges = Schedule(pipeline("data", "conv1", "pool1", "conv2", "pool2")).edges
    programmed, completed = DependencyEvent.OP_PROGRAMMED, DependencyEvent.OP_COMPLETED
    assert edges[0].consumers == {Engine.CONV: (3, programmed), Engine.SDP: (1, programmed)}
    assert edges[1].consumers == {Engine.SDP: (4, programmed), Engine.PDP: (2, completed)}
    assert edges[2].consumers == {Engine.CONV: (3, completed), Engine.PDP: (5, programmed)}
    assert [edge.dependencies for edge in edges] == [1, 1, 1, 3, 2, 2]
    assert [edge.fused_parent for edge in edges] == [None, 0, None, None, 3, None]


def test_an_sdp_waits_for_the_one_before_where_it_reads_its_result() -> None:
    """The race of ``v-elt-prod`` (docs/hardware/firmware.md, "Register groups"): OP_PROGRAMMED would be too early."""
    first = pipeline("data", "a")
    window = Window("a", 0, 4, 0, 4)
    schedule = Schedule([*first, SdpOperation(1, window, None, replace(window, tensor="b"))])
    assert schedule.edges[1].consumers == {Engine.SDP: (2, DependencyEvent.OP_COMPLETED)}


def test_memory_is_used_again_once_its_readers_are_complete() -> None:
    schedule = Schedule(pipeline("data", "a", "b", "c", "d"))
    pool = allocate(schedule, {"a": 1000, "b": 500, "c": 900, "d": 100})
    # c is written after pooling a to b is complete; d while b may still be read.
    assert pool.offsets["a"] == pool.offsets["c"] == 0
    assert pool.offsets["b"] == 1024
    assert pool.size == 4096


def complete_before(schedule: Schedule, what: str) -> list[int]:
    """For each operation the set of those complete before it ``started`` or ``writes``, by reachability between events.

    Events: programmed, started (may read), writes, complete. A unit programs an operation once its last but one is
    complete; its operations start in order and write in order. A fused SDP writes once its convolution has started.
    """
    graph: dict[tuple[str, int], list[tuple[str, int]]] = {}
    chains: dict[type, list[int]] = {}

    def edge(first: str, index: int, second: str, other: int) -> None:
        graph.setdefault((first, index), []).append((second, other))

    for index, (operation, edges) in enumerate(zip(schedule.operations, schedule.edges, strict=True)):
        for first, second in itertools.pairwise(("programmed", "started", "writes", "complete")):
            edge(first, index, second, index)
        chain = chains.setdefault(type(operation), [])
        if chain:
            edge("started", chain[-1], "started", index)
            edge("writes", chain[-1], "writes", index)
        if len(chain) > 1:
            edge("complete", chain[-2], "programmed", index)
        chain.append(index)
        for consumer, event in edges.consumers.values():
            first = "complete" if event is DependencyEvent.OP_COMPLETED else "programmed"
            edge(first, index, "started", consumer)
        if edges.fused_parent is not None:
            edge("started", edges.fused_parent, "writes", index)
            edge("complete", edges.fused_parent, "complete", index)

    def after(event: tuple[str, int]) -> set[tuple[str, int]]:
        seen, todo = {event}, [event]
        while todo:
            for follower in graph.get(todo.pop(), []):
                if follower not in seen:
                    seen.add(follower)
                    todo.append(follower)
        return seen

    sets = [0] * len(schedule.operations)
    for index in range(len(sets)):
        for kind, later in after(("complete", index)):
            if kind == what:
                sets[later] |= 1 << index
    return sets


@settings(max_examples=100)
@given(st.data())
def test_tensors_in_use_never_overlap(data: st.DataObject) -> None:
    """Random graphs of operations: whoever shares bytes with a tensor is complete before it is written."""
    count = data.draw(st.integers(1, 14))
    operations: list[ConvOperation | SdpOperation | PdpOperation] = []
    known = ["data"]
    for index in range(count):
        source = Window(data.draw(st.sampled_from(known)), 0, 4, 0, 4)
        destination = Window(f"t{index}", 0, 4, 0, 4)
        kind = data.draw(st.sampled_from(["conv", "sum", "pool"]))
        addend = Window(data.draw(st.sampled_from(known)), 0, 4, 0, 4) if kind != "pool" else None
        if kind == "conv":
            operations += [
                ConvOperation(index, source, 4, 4, 0, 0, 0, 0),
                SdpOperation(index, None, addend, destination),
            ]
        elif kind == "sum":
            operations.append(SdpOperation(index, source, addend, destination))
        else:
            operations.append(PdpOperation(index, source, destination, (1, 1), 0, 0, 0, 0))
        known.append(destination.tensor)
    schedule = Schedule(operations, serial=data.draw(st.booleans()))
    assert list(schedule.complete_before) == complete_before(schedule, "writes")
    started = complete_before(schedule, "started")
    writer = {window.tensor: i for i, op in enumerate(operations) if (window := written(op))}
    for index, operation in enumerate(operations):
        assert all(started[index] >> writer[w.tensor] & 1 for w in reads(operation) if w.tensor in writer)
    sizes = {name: data.draw(st.integers(1, 5000)) for name in known[1:]}
    pool = allocate(schedule, sizes)
    offsets = pool.offsets
    assert pool.size >= largest_live(schedule, sizes)
    uses: dict[str, list[int]] = {}
    for index, operation in enumerate(operations):
        target = written(operation)
        for window in (*reads(operation), *([target] if target else [])):
            uses.setdefault(window.tensor, []).append(index)
    for name, other in itertools.permutations(sizes, 2):
        shared = offsets[name] < offsets[other] + sizes[other] and offsets[other] < offsets[name] + sizes[name]
        if shared and min(uses[name]) < min(uses[other]):
            before = schedule.complete_before[min(uses[other])]
            assert all(before >> user & 1 for user in uses[name])
    if schedule.serial:
        for index, before in enumerate(schedule.complete_before):
            behind = schedule.edges[index].fused_parent is not None
            assert before == (1 << (index - 1 if behind else index)) - 1
    assert all(offset % ALIGNMENT == 0 for offset in offsets.values())


# The report


def test_report() -> None:
    compilation = compile_network(residual(), TABLE, NV_SMALL, "int8", "per-filter")
    report = compilation.report
    assert (report["compiler"], report["target"], report["precision"], report["mode"]) == (
        ("builtin", "nv_small", "int8", "per-filter")
    )
    assert report["units"] == {"CONV": 3, "CPU": 1, "PDP": 1, "SDP": 3}
    # 8x8 outputs of 8 filters of 27 and of 72 weights, 10 of 128.
    assert report["multiply_accumulates"] == 64 * 8 * (27 + 72) + 1280
    assert report["weight_bytes"] == 8 * 36 + 8 * 72 + 1280
    assert report["inputs"][0] == {"name": "data", "shape": (3, 8, 8), "scale": 0.5, "operation": None}
    assert report["before_softmax"][0]["name"] == "fc"
    assert report["before_softmax"][0]["scale"] == 4.0
    assert report["dram_bytes"]["peak"] == sum(v for k, v in report["dram_bytes"].items() if k != "peak")
    assert len(compilation.data) > report["weight_bytes"]


def test_the_report_says_how_the_buffer_is_divided() -> None:
    """LeNet's conv2 and ip1, with the real compiler's banks (`test_banks_of_the_golden_loadables`)."""
    layers = [
        Layer("conv2", Convolution(ones(50, 20, 5, 5), None), ("data",)),
        Layer("pool2", Pooling("max", (2, 2), (2, 2)), ("conv2",)),
        Layer("ip1", InnerProduct(ones(500, 800), None), ("pool2",)),
    ]
    network = assemble("lenet", [Tensor("data", (20, 12, 12), "data")], layers)
    table = CalibrationTable({"data": 1.0, "conv2": 1.0, "pool2": 1.0, "ip1": 1.0})
    keys = ("layer", "data_banks", "weight_banks", "mode", "row_runs", "column_runs", "runs", "dram_bytes_read")
    found = [
        {key: choice[key] for key in keys}
        for choice in compile_network(network, table, NV_SMALL, "int8").report["convolutions"]
    ]
    # Everything is read once: kernels, and rows of three and seven atoms of 8 channels without what pads the last.
    assert found == [
        dict(zip(keys, ("conv2", 1, 7, "full", 1, 1, 1, 50 * 500 + 12 * 12 * 20), strict=True)),
        dict(zip(keys, ("ip1", 1, 4, "ping-pong", 1, 1, 1, 500 * 800 + 4 * 4 * 50), strict=True)),
    ]
    # A layer that does not fit as a whole: v-big2's, in three runs of rows (`test_the_division_that_...`).
    network = assemble(
        "big",
        [Tensor("data", (256, 64, 64), "data")],
        [Layer("c", Convolution(ones(512, 256, 3, 3), None, pad=(1, 1)), ("data",))],
    )
    scales = CalibrationTable({"data": 1.0, "c": 1.0})
    (choice,) = compile_network(network, scales, NV_FULL, "int8", objective="bytes").report["convolutions"]
    assert {key: choice[key] for key in keys[:-1]} == dict(
        zip(keys[:-1], ("c", 13, 3, "minimum", 3, 1, 3), strict=True)
    )


@pytest.mark.parametrize(("make", "live"), [(resnet18, 1003520), (resnet50, 1806336)])
@pytest.mark.parametrize("target", [NV_FULL, NV_LARGE, NV_SMALL], ids=lambda target: target.name)
def test_networks_of_imagenets_size(make: Callable[[], Network], live: int, target: Target) -> None:
    """Below 10 s, and at most 1.2 times the largest sum of live tensors.

    ResNet-18: what its first pooling reads, 64 x 112 x 112 bytes, and writes, a quarter of that. ResNet-50: shortcut
    and branch of the first sum, 256 x 56 x 56 bytes each, and the 64 x 56 x 56 that the branch's convolution reads.
    """
    network = prepare(make(), "fold")
    started = time.process_time()
    facts = compile_network(network, CalibrationTable(dict.fromkeys(network.tensors, 0.05)), target, "int8").facts
    assert time.process_time() - started < 10
    assert facts.live_bytes == live
    assert facts.dram_bytes["activations"] <= 1.2 * live
