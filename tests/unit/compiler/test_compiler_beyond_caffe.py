"""What ONNX has and Caffe lacks: loadables run on the emulator, against fp32, and judged by `verify`.

As in test_compiler_layers.py, a tolerance is in steps of the output, and each test says what costs them.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest

from nvdla_quant.compiler.claim.records import Bounding, Claim, Gathering, Joining, Lookup, Stage
from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.compiler.numbers.luts import evaluate
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.operations import SdpOperation
from nvdla_quant.emulator.run import run
from nvdla_quant.hardware.targets import TARGETS, QuantizationMode, Target
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.network.graph import (
    GELU,
    Clip,
    Concat,
    Convolution,
    Deconvolution,
    Eltwise,
    Gather,
    HardSigmoid,
    HardSwish,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    ReLU,
    Sigmoid,
    Swish,
    Tabulated,
    Tensor,
)
from nvdla_quant.network.shapes import assemble
from nvdla_quant.support.check import check
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.verification.judgement.verdicts import Judgement
from tests.layered import (
    FP16,
    INT8,
    VARIANTS,
    WITH_TABLES,
    case,
    chain,
    compiled,
    convolution,
    follows,
    is_called_right,
    random_weights,
    two_branches,
)
from tests.verified import Case

Pads = tuple[tuple[int, int], tuple[int, int]]
"""Padding (before, after), each (vertical, horizontal)."""
FAR: list[Pads] = [((0, 0), (1, 1)), ((1, 0), (0, 2)), ((2, 1), (1, 3))]


def changed(claim: Claim, kind: type[Stage], **fields: object) -> Claim:
    """The claim, its first stage of this kind with other fields."""
    pieces, found = [], False
    for piece in claim.pieces:
        stages = []
        for stage in piece.stages:
            if isinstance(stage, kind) and not found:
                stage, found = replace(stage, **fields), True  # type: ignore[type-var]
            stages.append(stage)
        pieces.append(replace(piece, stages=tuple(stages)))
    assert found
    return replace(claim, pieces=tuple(pieces))


def is_called_wrong(found: Case, claim: Claim) -> None:
    verdict = replace(found, claim=claim).verify().verdict
    assert verdict.verdict is not Judgement.OK


# Padding that differs


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize(("near", "far"), FAR)
@pytest.mark.parametrize("channels", [3, 20])
def test_convolutions_padded_otherwise_on_the_far_side(
    target: Target, mode: QuantizationMode | None, near: tuple[int, int], far: tuple[int, int], channels: int
) -> None:
    """Of an image and of features; weights are rounded: a step and a half of 27 or 180 products."""
    rng = np.random.default_rng(1)
    weights, bias = random_weights(rng, 9, channels, 3, 3), rng.normal(0, 0.3, 9).astype(np.float32)
    for stride in ((1, 1), (2, 2)):
        network = chain((channels, 8, 9), Convolution(weights, bias, stride, near, far=far))
        follows(network, target, mode, 3.0)
        is_called_right(network, target, mode)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize(("near", "far"), [((0, 1), (6, 0)), ((7, 0), (0, 3)), ((1, 1), (6, 0))])
def test_windows_that_lie_in_the_padding_altogether(
    target: Target, mode: QuantizationMode | None, near: tuple[int, int], far: tuple[int, int]
) -> None:
    """What they make is the bias: found by drawn networks of one pixel and a dilated kernel."""
    rng = np.random.default_rng(20)
    weights, bias = random_weights(rng, 5, 3, 3, 1), rng.normal(0, 0.3, 5).astype(np.float32)
    layers = Pooling("max", (1, 1)), Convolution(weights, bias, (2, 2), near, (3, 3), far=far)
    follows(chain((3, 1, 1), *layers), target, mode, 2.0, correlation=-1.0)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize(("kernel", "stride", "far"), [((2, 2), (3, 3), (0, -2)), ((1, 3), (4, 4), (-3, -3))])
def test_outputs_of_a_deconvolution_that_no_input_reaches(
    target: Target,
    mode: QuantizationMode | None,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    far: tuple[int, int],
) -> None:
    """They are the bias; found by drawn networks of one pixel, whose output_padding is more than the kernel spans."""
    rng = np.random.default_rng(21)
    weights, bias = rng.normal(0, 0.5, (3, 5, *kernel)).astype(np.float32), rng.normal(0, 0.3, 5).astype(np.float32)
    for size in ((1, 1), (2, 3)):
        layers = Pooling("max", (1, 1)), Deconvolution(weights, bias, stride, (0, 1), far=far)
        follows(chain((3, *size), *layers), target, mode, 2.0, correlation=-1.0)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
def test_a_tiled_convolution_padded_on_the_far_side_alone(target: Target, mode: QuantizationMode | None) -> None:
    """As TensorFlow's SAME with a stride of 2; the buffer holds a part of the rows, so the last run alone is padded."""
    rng = np.random.default_rng(2)
    shape = (64, 90, 90)
    operation = Convolution(random_weights(rng, 16, 64, 3, 3), None, (2, 2), (0, 0), far=(1, 1))
    assert follows(chain(shape, operation), target, mode, 3.0).facts.convolutions[0].runs > 1


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize(
    ("near", "far"), [*FAR, ((1, 1), (0, -1)), ((0, 0), (-1, -1)), ((1, 0), (-1, 1))], ids=lambda pad: str(pad)
)
def test_deconvolutions_cut_or_extended_on_the_far_side(
    target: Target, mode: QuantizationMode | None, near: tuple[int, int], far: tuple[int, int]
) -> None:
    """A negative far side is ONNX's output_padding: rows and columns of the bias, or of what reaches them."""
    rng = np.random.default_rng(3)
    weights, bias = rng.normal(0, 0.2, (12, 10, 3, 3)).astype(np.float32), rng.normal(0, 0.3, 10).astype(np.float32)
    network = chain((12, 6, 5), Deconvolution(weights, bias, (2, 2), near, far=far))
    follows(network, target, mode, 3.0)
    is_called_right(network, target, mode)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize(("near", "far"), FAR)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("rounding", ["up", "down"])
def test_maxima_padded_otherwise_on_the_far_side(
    target: Target,
    mode: QuantizationMode | None,
    near: tuple[int, int],
    far: tuple[int, int],
    stride: int,
    rounding: Literal["up", "down"],
) -> None:
    """A maximum is exact."""
    network = chain((9, 10, 11), Pooling("max", (4, 4), (stride, stride), near, rounding, far))
    _, result, expected = compiled(network, target, mode)
    assert np.array_equal(result, expected)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize(("near", "far"), [*FAR, ((1, 1), (1, 1)), ((3, 2), (3, 2))])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("rounding", ["up", "down"])
@pytest.mark.parametrize("area", ["padded", "image"])
def test_averages_divide_by_what_of_a_window_counts(
    target: Target,
    mode: QuantizationMode | None,
    near: tuple[int, int],
    far: tuple[int, int],
    stride: int,
    rounding: Literal["up", "down"],
    area: Literal["padded", "image"],
) -> None:
    """Two roundings one after the other, for each axis one: a step at most (docs/hardware/pooling.md)."""
    network = chain((9, 10, 11), Pooling("average", (4, 4), (stride, stride), near, rounding, far, area))
    follows(network, target, mode, 1.01, correlation=-1.0)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
def test_averages_of_the_image_alone_are_called_right(target: Target, mode: QuantizationMode | None) -> None:
    """As in Inception: nine operations, since each border and each corner divides by another number."""
    rng = np.random.default_rng(4)
    layers = [convolution(rng, 12, 3), Pooling("average", (3, 3), (1, 1), (1, 1), area="image")]
    network = chain((3, 9, 8), *layers)
    found = case(network, target, mode)
    assert sum(operation.unit == "PDP" for operation in found.program.operations) == 9
    assert found.verify().verdict.verdict is Judgement.OK
    # Were they divided as Caffe divides them, what the border reads would be wrong.
    pooling = replace(network.by_name["l1"], operation=replace(layers[1], area="padded"))  # type: ignore[type-var]
    other = case(assemble(network.name, network.inputs, [network.layers[0], pooling]), target, mode)
    verdict = replace(found, loadable=other.loadable, claim=other.claim).verify().verdict
    assert verdict.verdict is not Judgement.OK


def test_wide_poolings_padded_on_one_side() -> None:
    """Above 8 x 8: maxima in a chain, exact; an average as a convolution, one rounding (0.51 steps)."""
    target, mode = TARGETS["nv_small"], QuantizationMode.PER_FILTER
    maximum = Pooling("max", (11, 9), (2, 3), (3, 0), "down", (0, 4))
    _, result, expected = compiled(chain((9, 27, 30), maximum), target, mode)
    assert np.array_equal(result, expected)
    average = Pooling("average", (11, 9), (2, 3), (3, 0), "down", (0, 4))
    follows(chain((9, 27, 30), average), target, mode, 0.6, correlation=-1.0)


# Minimum


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("count", [2, 3])
def test_minima(target: Target, mode: QuantizationMode | None, count: int) -> None:
    """Behind convolutions (rounded weights) as a maximum is; of two poolings one rounding and the operand's 2**-9."""
    network = two_branches(np.random.default_rng(5), (12, 6, 5), Eltwise("min"), count)
    follows(network, target, mode, 4.0)
    is_called_right(network, target, mode)
    layers = [
        Layer("a", Pooling("max", (2, 2), (1, 1)), ("data",)),
        Layer("b", Pooling("max", (1, 1), (1, 1), (0, 0), far=None), ("a",)),
        Layer("join", Eltwise("min"), ("a", "b")),
    ]
    follows(assemble("n", [Tensor("data", (9, 6, 5), "data")], layers), target, mode, 0.6)


def test_a_minimum_claimed_to_be_a_maximum_fails() -> None:
    network = two_branches(np.random.default_rng(5), (12, 6, 5), Eltwise("min"))
    found = case(network, TARGETS["nv_small"], QuantizationMode.PER_KERNEL)
    assert found.claim is not None
    is_called_wrong(found, changed(found.claim, Joining, how="max"))


# Channels by number


def gathering(*channels: tuple[int, ...], last: Operation | None = None, copied: bool = False) -> Network:
    """Gathers of one convolution of 64 channels, side by side, and what reads them."""
    rng = np.random.default_rng(6)
    layers = [Layer("conv", convolution(rng, 64, 3), ("data",))]
    names = []
    for number, taken in enumerate(channels):
        layers.append(Layer(f"g{number}", Gather(taken), ("conv",)))
        names.append(f"g{number}")
    if last is not None:
        layers.append(Layer("last", last, tuple(names)))
    return assemble("gathering", [Tensor("data", (3, 7, 6), "data")], layers)


SHUFFLED = tuple(np.arange(64).reshape(4, 16).T.ravel().tolist())
HALVES = tuple(range(32)), tuple(range(32, 64))
ODD = tuple(range(3, 40)), (5, 5, 63, 0), (1,)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize(
    "network",
    [
        gathering(SHUFFLED),
        gathering(HALVES[1]),
        gathering(*HALVES, last=Concat()),
        gathering(*HALVES[::-1], last=Eltwise("sum", (1.0, -0.5))),
        gathering(*ODD, last=Concat()),
        gathering(HALVES[1], last=ReLU()),
        gathering(HALVES[0], last=Pooling("average", (2, 2), (2, 2))),
        gathering(HALVES[1], last=Gather(tuple(range(31, -1, -1)))),
        gathering(HALVES[1], last=Gather((7,))),
    ],
    ids=["shuffled", "output", "halves", "exchanged", "odd", "relu", "pooled", "reversed", "one"],
)
def test_channels_are_read_where_they_stand_or_copied(
    target: Target, mode: QuantizationMode | None, network: Network
) -> None:
    """Nothing is added to what the convolution's rounded weights cost: 27 products, a step and a half; then a sum's."""
    follows(network, target, mode, 4.0)
    is_called_right(network, target, mode)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
def test_whole_atoms_cost_no_operation(target: Target, mode: QuantizationMode | None) -> None:
    """Halves of 64 channels are atoms everywhere: two poolings read them where they stand."""
    layers = list(gathering(*HALVES).layers)
    layers += [Layer(f"p{i}", Pooling("max", (2, 2), (2, 2)), (f"g{i}",)) for i in range(2)]
    layers.append(Layer("sum", Eltwise("sum"), ("p0", "p1")))
    network = assemble("halves", [Tensor("data", (3, 7, 6), "data")], layers)
    assert follows(network, target, mode, 4.0).facts.units == {"CONV": 1, "PDP": 2, "SDP": 2}
    is_called_right(network, target, mode)


def test_other_channels_than_are_claimed_fail() -> None:
    """Claimed in another order, or from another place, they are not the network's."""
    found = case(gathering(SHUFFLED), TARGETS["nv_small"], QuantizationMode.PER_KERNEL)
    assert found.claim is not None
    (stage,) = [stage for piece in found.claim.pieces for stage in piece.stages if isinstance(stage, Gathering)]
    places = [(output, 63 - channel, *rest) for output, channel, *rest in stage.places]
    is_called_wrong(found, changed(found.claim, Gathering, places=tuple(places)))
    network = gathering(HALVES[1], last=Pooling("max", (2, 2), (2, 2)))
    found = case(network, TARGETS["nv_small"], QuantizationMode.PER_KERNEL)
    assert found.claim is not None
    inside = {"g0": replace(found.claim.inside["g0"], channels=(0, 32))}
    is_called_wrong(found, replace(found.claim, inside=inside))
    assert all(after.runs[0].operation > before.runs[0].operation for before, after in pairwise(found.claim.pieces))


# Bounds

CLIPS = [Clip(0.0, 1.5), Clip(0.0, 6.0), Clip(-1.0, 1.0), Clip(-0.7, None), Clip(None, 0.9), Clip(0.25, 2.0)]


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("operation", CLIPS)
def test_bounds(target: Target, mode: QuantizationMode | None, operation: Clip) -> None:
    """Behind a convolution, whose rounded weights cost three steps of its range of 4, and twice as many of what bounds
    leave of that; alone: a rounding, and the bound's in 2**-8 of a step.
    """
    rng = np.random.default_rng(11)
    behind = chain((8, 7, 6), convolution(rng, 20, 8), operation)
    follows(behind, target, mode, 8.0)
    is_called_right(behind, target, mode)
    alone = chain((20, 7, 6), Pooling("max", (1, 1)), operation)
    follows(alone, target, mode, 0.52)
    is_called_right(alone, target, mode)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
def test_bounds_in_other_units(target: Target, mode: QuantizationMode | None) -> None:
    """A table that is much wider than the bounds, so that saturation does nothing: the bounds come out as they are."""
    rng = np.random.default_rng(12)
    operations = convolution(rng, 20, 8), Clip(0.0, 1.0), Pooling("max", (1, 1)), Clip(-5.0, 0.5)
    network = chain((8, 7, 6), *operations)
    images = np.clip(np.rint(rng.normal(0, 40, (2, 8, 7, 6))), -127, 127).astype(np.float32) / 32
    table = CalibrationTable({"data": 1 / 32, "l0": 0.05, "l1": 0.02, "l2": 0.02, "l3": 0.03})
    compilation = compile_network(network, table, target, INT8 if mode else FP16, mode)
    program = decode(parse_loadable(compilation.data), target)
    given = (images * 32).astype(np.int8) if mode else images.astype(np.float16)
    result = run(program, given).astype(np.float64)
    # round(0.5 / 0.02) is 25 steps of l2; 0.5 is 16.67 steps of l3.
    assert result.max() == (17 if mode else 0.5)
    assert result.min() == 0


def test_a_bound_that_saturation_holds_costs_nothing() -> None:
    """ReLU6 of a calibrated scale of 6 / 127 is ReLU; beyond that it is a unit of the same operation."""
    rng = np.random.default_rng(13)
    network = chain((8, 7, 6), convolution(rng, 20, 8), Clip(0.0, 6.0))
    for scale, units in ((6 / 127, 1), (6 / 126.4, 2), (0.06, 2)):
        table = CalibrationTable({"data": 1 / 32, "l0": 0.1, "l1": scale})
        compilation = compile_network(network, table, TARGETS["nv_small"], INT8, QuantizationMode.PER_FILTER)
        assert compilation.facts.units == {"CONV": 1, "SDP": 1}
        (operation,) = decode(parse_loadable(compilation.data), TARGETS["nv_small"]).operations
        assert isinstance(operation, SdpOperation)
        assert len(operation.units) == units, scale


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
def test_bounds_behind_a_sum_and_a_function(target: Target, mode: QuantizationMode | None) -> None:
    """The second unit of the SDP is taken by the sum, so they take a pass of their own; a step of 1 / 127 is small."""
    network = two_branches(np.random.default_rng(14), (12, 6, 5), Eltwise("sum"))
    layers = [*network.layers, Layer("clip", Clip(0.0, 1.0), ("join",)), Layer("relu", ReLU(), ("clip",))]
    network = assemble("n", network.inputs, layers)
    follows(network, target, mode, 8.0)
    is_called_right(network, target, mode)


@pytest.mark.parametrize("operation", CLIPS[:4])
def test_bounds_that_are_claimed_otherwise_fail(operation: Clip) -> None:
    network = chain((8, 7, 6), convolution(np.random.default_rng(11), 20, 8), operation, Clip(-9.0, 9.0))
    found = case(network, TARGETS["nv_small"], QuantizationMode.PER_KERNEL)
    assert found.claim is not None
    assert found.verify().verdict.verdict is Judgement.OK
    is_called_wrong(found, changed(found.claim, Bounding, layer="l2"))
    if operation.high is not None:
        is_called_wrong(found, changed(found.claim, Bounding, sides=("high",)))


# Functions of one value

FUNCTIONS = [HardSigmoid(), HardSigmoid(1 / 6), HardSigmoid(-0.3, 0.4), HardSwish(), Swish(), GELU(), GELU(True)]


@pytest.mark.parametrize(("target", "mode"), WITH_TABLES)
@pytest.mark.parametrize("operation", FUNCTIONS)
def test_functions(target: Target, mode: QuantizationMode | None, operation: Operation) -> None:
    """Alone an entry for each value: one rounding. Behind a convolution its rounded weights count, times the slope."""
    rng = np.random.default_rng(15)
    alone = chain((20, 7, 6), Pooling("max", (1, 1)), operation)
    follows(alone, target, mode, 0.51)
    is_called_right(alone, target, mode)
    fused = chain((8, 7, 6), convolution(rng, 20, 8), operation)
    assert follows(fused, target, mode, 6.0).facts.units == {"CONV": 1, "SDP": 1}
    is_called_right(fused, target, mode)


@pytest.mark.parametrize("operation", FUNCTIONS)
def test_functions_in_fp16_reach_as_far_as_halves_do(operation: Tabulated) -> None:
    """From -30,000 to 30,000: the table's error as `luts.HALF_RANGES` has it, and roundings to 11 bits.

    Those are of entries, products, their sum and the result (docs/hardware/fp16.md, "Tables"): three units of 2**-11.
    """
    values = np.concatenate([np.linspace(-20, 20, 3971), np.geomspace(20, 30000, 60), -np.geomspace(20, 30000, 60)])
    halves = values.astype(np.float16).reshape(1, 1, 1, -1)
    network = chain((1, 1, halves.shape[3]), operation)
    compilation = compile_network(network, None, TARGETS["nv_full"], FP16)
    result = run(decode(parse_loadable(compilation.data), TARGETS["nv_full"]), halves).astype(np.float64)
    expected = evaluate(operation, halves.astype(np.float64).ravel())
    table = {HardSigmoid: 0.0, HardSwish: 4.1e-5, Swish: 2.5e-4, GELU: 1.0e-4}[type(operation)]
    assert np.all(np.abs(result.ravel() - expected) <= table + 3 * 2.0**-11 * np.abs(expected))


@pytest.mark.parametrize("operation", [Sigmoid(), *FUNCTIONS])
def test_functions_need_a_table(operation: Operation) -> None:
    """All that lack one are named at once."""
    network = chain((8, 3, 3), operation, ReLU(), operation)
    findings = check(network, TARGETS["nv_small"], INT8)
    assert [(finding.layer, finding.rule) for finding in findings] == [("l0", "no-table"), ("l2", "no-table")]


def test_another_function_than_is_claimed_fails() -> None:
    last = HardSwish(), Pooling("max", (1, 1)), Swish()
    network = chain((8, 7, 6), convolution(np.random.default_rng(15), 20, 8), *last)
    found = case(network, TARGETS["nv_full"], QuantizationMode.PER_KERNEL)
    assert found.claim is not None
    is_called_wrong(found, changed(found.claim, Lookup, layer="l3"))


# Products with one pixel


def excited(gate: Operation | None, channels: int = 40, more: bool = False) -> Network:
    """Squeeze and excitation: a convolution times what an average of it makes."""
    rng = np.random.default_rng(16)
    squeeze = InnerProduct(random_weights(rng, channels, channels), rng.normal(0, 0.3, channels).astype(np.float32))
    layers = [
        Layer("conv", convolution(rng, channels, 3), ("data",)),
        Layer("relu", ReLU(), ("conv",)),
        Layer("pool", Pooling("average", (7, 6)), ("relu",)),
        Layer("fc", squeeze, ("pool",)),
        *([Layer("gate", gate, ("fc",))] if gate is not None else []),
        *([Layer("other", Pooling("max", (3, 3), (1, 1), (1, 1)), ("relu",))] if more else []),
    ]
    last = layers[-2 if more else -1].name
    # The pixel first: what stands first does not matter.
    layers.append(Layer("prod", Eltwise("prod"), (last, "relu", *(["other", "pool"] if more else []))))
    return assemble("excited", [Tensor("data", (3, 7, 6), "data")], layers)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("channels", [40, 32, 5])
def test_one_pixel_times_all(target: Target, mode: QuantizationMode | None, channels: int) -> None:
    """One operation of the SDP with an operand a channel; the factors' own roundings count, and the weights'."""
    network = excited(Clip(0.0, 1.0), channels)
    compilation = follows(network, target, mode, 8.0)
    assert compilation.facts.units["SDP"] == 3
    is_called_right(network, target, mode)


@pytest.mark.parametrize(("target", "mode"), WITH_TABLES)
def test_a_gate_from_a_table(target: Target, mode: QuantizationMode | None) -> None:
    network = excited(HardSigmoid(1 / 6))
    follows(network, target, mode, 4.0)
    is_called_right(network, target, mode)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
def test_several_factors_of_one_pixel_and_of_all(target: Target, mode: QuantizationMode | None) -> None:
    """Intermediate products keep few steps in int8 (docs/compiler.md), so the correlation is lower."""
    network = excited(None, 12, more=True)
    follows(network, target, mode, 60.0, 0.6 if mode else 0.999)


def test_a_product_with_another_pixel_than_is_claimed_fails() -> None:
    found = case(excited(Clip(0.0, 1.0)), TARGETS["nv_small"], QuantizationMode.PER_KERNEL)
    assert found.claim is not None
    is_called_wrong(found, changed(found.claim, Joining, reads=found.claim.place_of("pool")))


def test_a_pixel_is_no_operand_of_a_sum() -> None:
    """The claim may spread a pixel over a product alone."""
    found = case(excited(Clip(0.0, 1.0)), TARGETS["nv_small"], QuantizationMode.PER_KERNEL)
    assert found.claim is not None
    is_called_wrong(found, changed(found.claim, Joining, how="sum"))


# Without a claim


@pytest.mark.parametrize("mode", [QuantizationMode.PER_FILTER, None], ids=["int8", "fp16"])
@pytest.mark.parametrize(
    "network",
    [
        excited(HardSigmoid(1 / 6)),
        excited(Clip(0.0, 1.0)),
        two_branches(np.random.default_rng(5), (12, 6, 5), Eltwise("min")),
        gathering(SHUFFLED, last=ReLU()),
        gathering(HALVES[1], last=ReLU()),
        chain((3, 9, 8), convolution(np.random.default_rng(4), 12, 3), Pooling("average", (3, 3), area="image")),
        chain((3, 9, 8), convolution(np.random.default_rng(4), 12, 3), HardSwish(), Pooling("max", (2, 2))),
    ],
    ids=["gate", "clipped-gate", "minimum", "shuffled", "half", "average", "function"],
)
def test_what_they_compute_is_found_without_a_claim(network: Network, mode: QuantizationMode | None) -> None:
    found = replace(case(network, TARGETS["nv_full"], mode), claim=None)
    assert found.verify().verdict.verdict is Judgement.OK
