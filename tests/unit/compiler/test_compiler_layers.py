"""Layers that NVIDIA's compiler refuses or gets wrong: loadables run on the emulator, against fp32.

Each network is small and seeded. Tables hold the largest magnitude of each tensor over the test images / 127, made
consistent. `STEPS` is what a layer may be off, in steps of its output: half a step each time a value is rounded, and
what a table or a rounded operand adds; each test says which.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.operations import SdpOperation
from nvdla_quant.hardware.cbuf import Division, Work, divide
from nvdla_quant.hardware.targets import TARGETS, QuantizationMode, Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.loadable.structs import DependencyEvent, Engine
from nvdla_quant.network.graph import (
    LRN,
    BatchNorm,
    Concat,
    Convolution,
    Deconvolution,
    Eltwise,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    Power,
    PReLU,
    ReLU,
    Scale,
    Sigmoid,
    TanH,
    Tensor,
)
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.table import CalibrationTable
from tests.layered import (
    FP16,
    INT8,
    PER_FILTER,
    PER_KERNEL,
    VARIANTS,
    WITH_TABLES,
    chain,
    compiled,
    convolution,
    follows,
    random_weights,
    two_branches,
)

# Functions of one value


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("operation", [ReLU(0.1), ReLU(-0.5), PReLU(np.linspace(-0.5, 3, 20).astype(np.float32))])
def test_slopes_of_negative_values(target: Target, mode: QuantizationMode | None, operation: Operation) -> None:
    """Behind a convolution (weights rounded: 127 steps of each, 72 of them) and alone (one rounding)."""
    rng = np.random.default_rng(0)
    fused = follows(chain((8, 7, 6), convolution(rng, 20, 8), operation), target, mode, 3.0)
    assert fused.facts.units == {"CONV": 1, "SDP": 1}
    alone = chain((20, 7, 6), Pooling("max", (1, 1)), operation)
    assert follows(alone, target, mode, 0.51).facts.units == {"PDP": 1, "SDP": 1}


@pytest.mark.parametrize(("target", "mode"), WITH_TABLES)
@pytest.mark.parametrize("operation", [Sigmoid(), TanH()])
def test_functions_from_a_table(target: Target, mode: QuantizationMode | None, operation: Operation) -> None:
    """Behind a convolution its rounded weights count most: a step of its range of 4 is four of the tangent's."""
    rng = np.random.default_rng(1)
    fused = follows(chain((8, 7, 6), convolution(rng, 20, 8), operation), target, mode, 8.0)
    assert fused.facts.units == {"CONV": 1, "SDP": 1}
    # An entry for each int8 value: only the output is rounded.
    follows(chain((20, 7, 6), Pooling("max", (1, 1)), operation), target, mode, 0.51)


@pytest.mark.parametrize(("target", "mode"), WITH_TABLES)
def test_a_function_behind_a_sum(target: Target, mode: QuantizationMode | None) -> None:
    rng = np.random.default_rng(2)
    network = two_branches(rng, (8, 5, 5), Eltwise("sum"))
    layers = [*network.layers, Layer("s", Sigmoid(), ("join",))]
    follows(assemble("n", network.inputs, layers), target, mode, 3.0)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("operation", [Power(2.0, 0.5, 1.5), Power(3.0), Power(0.5, 1.0, 5.0), Power(-1.0, 0.1, 1.0)])
def test_powers(target: Target, mode: QuantizationMode | None, operation: Power) -> None:
    """From the table (one rounding), or on the CPU (cut off toward zero: one step)."""
    network = chain((20, 7, 6), Pooling("max", (1, 1)), operation)
    units = follows(network, target, mode, 1.01, half=2.0**-10).facts.units
    assert units == ({"PDP": 1, "SDP": 1} if target.has_lut and mode else {"CPU": 1, "PDP": 1})


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("relu", [False, True])
def test_standalone_normalisation(target: Target, mode: QuantizationMode | None, relu: bool) -> None:
    """BatchNorm, Scale and linear Power in a row are one pass: one rounding, and 2**-15 of the factor."""
    rng = np.random.default_rng(3)
    mean, variance = rng.normal(0, 1, 20).astype(np.float32), rng.uniform(0.1, 4, 20).astype(np.float32)
    gamma, beta = rng.normal(0, 2, 20).astype(np.float32), rng.normal(0, 3, 20).astype(np.float32)
    gamma[3] = 0
    operations = [BatchNorm(mean, variance, 1e-5), Scale(gamma, beta), Power(1.0, -0.7, 0.3)]
    network = chain((20, 7, 6), Pooling("max", (1, 1)), *operations, *([ReLU()] if relu else []))
    assert follows(network, target, mode, 0.53).facts.units == {"PDP": 1, "SDP": 1}
    follows(chain((20, 7, 6), Pooling("max", (1, 1)), Scale(gamma, None)), target, mode, 0.53)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("size", [3, 5, 7, 9])
@pytest.mark.parametrize(("alpha", "beta", "k"), [(1e-4, 0.75, 1.0), (1.0, 0.75, 1.0), (5.0, 0.5, 2.0)])
def test_normalisation_across_channels(
    target: Target, mode: QuantizationMode | None, size: int, alpha: float, beta: float, k: float
) -> None:
    """One rounding, and the table: below 1/2 step; fp16's table is off by 2.5e-4, its 17-bit floats by 2**-10."""
    network = chain((20, 7, 6), Pooling("max", (1, 1)), LRN(size, alpha, beta, k))
    assert follows(network, target, mode, 1.0, half=2.0**-8).facts.units == {"CDP": 1, "PDP": 1}


# Element-wise


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("operation", ["prod", "max", "sum"])
def test_joining(
    target: Target, mode: QuantizationMode | None, count: int, operation: Literal["prod", "max", "sum"]
) -> None:
    network = two_branches(np.random.default_rng(4), (12, 6, 5), Eltwise(operation), count)
    # A product of four is rounded at each of its three steps, with a range that holds whatever int8 can.
    correlation = {2: 0.999, 3: 0.98, 4: 0.7}[count] if operation == "prod" and mode else 0.999
    follows(network, target, mode, 40.0 if operation == "prod" else 4.0, correlation)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize(
    "coefficients",
    [(1.0, -1.0), (-1.0, 1.0), (0.25, 3.0), (-2.0, -0.5), (0.0, 1.5), (1.5, 0.0), (1.0, 1.0, -2.0), (0.5, -3.0, 1.0)],
)
@pytest.mark.parametrize("relu", [False, True])
def test_coefficients(
    target: Target, mode: QuantizationMode | None, coefficients: tuple[float, ...], relu: bool
) -> None:
    network = two_branches(np.random.default_rng(5), (12, 6, 5), Eltwise("sum", coefficients), len(coefficients))
    layers = [*network.layers, *([Layer("r", ReLU(), ("join",))] if relu else [])]
    follows(assemble("n", network.inputs, layers), target, mode, 5.0)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("operation", ["prod", "max", "sum"])
def test_joining_tensors_in_memory(
    target: Target, mode: QuantizationMode | None, operation: Literal["prod", "max", "sum"]
) -> None:
    """Two poolings: one rounding of the result, and in sums of the operand (2**-9)."""
    layers = [
        Layer("a", Pooling("max", (2, 2), (1, 1)), ("data",)),
        Layer("b", Pooling("max", (2, 2), (1, 1)), ("data",)),
        Layer("join", Eltwise(operation), ("a", "b")),
        Layer("again", Eltwise(operation), ("join", "join")),
    ]
    network = assemble("n", [Tensor("data", (9, 6, 5), "data")], layers[:3])
    follows(network, target, mode, 0.6)
    follows(assemble("n", network.inputs, layers), target, mode, 2.6)


# Convolutions


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize(
    ("channels", "outputs", "group"), [(48, 48, 48), (48, 96, 48), (24, 16, 2), (64, 64, 2), (40, 40, 5), (96, 48, 3)]
)
def test_groups(target: Target, mode: QuantizationMode | None, channels: int, outputs: int, group: int) -> None:
    rng = np.random.default_rng(6)
    weights = random_weights(rng, outputs, channels // group, 3, 3)
    bias = rng.normal(0, 0.3, outputs).astype(np.float32)
    network = chain((channels, 9, 8), Convolution(weights, bias, (2, 1), (1, 1), group=group), ReLU())
    compilation = follows(network, target, mode, 3.0)
    if target.name == "nv_small" and group == channels:
        # Six blocks of eight channels; 96 outputs of 48 inputs go in blocks of eight inputs and sixteen outputs.
        assert compilation.facts.units["CONV"] == 6


DECONVOLUTIONS = [
    ((4, 4), (2, 2), (1, 1), (1, 1), 1),
    ((2, 2), (2, 2), (0, 0), (1, 1), 1),
    ((3, 3), (2, 2), (1, 1), (1, 1), 1),
    ((3, 5), (1, 3), (0, 2), (1, 1), 1),
    ((3, 2), (3, 1), (2, 0), (1, 1), 1),
    ((2, 3), (4, 4), (0, 1), (1, 1), 1),
    ((3, 2), (2, 2), (1, 0), (2, 3), 1),
    ((4, 4), (2, 2), (1, 1), (1, 1), 12),
    ((8, 8), (4, 4), (2, 2), (1, 1), 3),
]


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize(("kernel", "stride", "pad", "dilation", "group"), DECONVOLUTIONS)
def test_deconvolutions(
    target: Target,
    mode: QuantizationMode | None,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: tuple[int, int],
    group: int,
) -> None:
    rng = np.random.default_rng(7)
    weights = rng.normal(0, 0.2, (12, 24 // group if group != 12 else 1, *kernel)).astype(np.float32)
    bias = rng.normal(0, 0.3, weights.shape[1] * group).astype(np.float32)
    network = chain((12, 6, 5), Deconvolution(weights, bias, stride, pad, dilation, group), ReLU(0.2))
    follows(network, target, mode, 3.0)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("channels", [(5, 32), (3, 7, 1), (33, 16, 9), (8, 8, 8)])
def test_concatenation_at_any_channel(target: Target, mode: QuantizationMode | None, channels: tuple[int, ...]) -> None:
    """In int8 gathering multiplies by one: nothing is lost but where a copy is rescaled."""
    rng = np.random.default_rng(8)
    layers = [Layer(f"c{i}", convolution(rng, count, 3, 1), ("data",)) for i, count in enumerate(channels)]
    layers.append(Layer("cat", Concat(), tuple(layer.name for layer in layers)))
    layers.append(Layer("relu", ReLU(), ("cat",)))
    follows(assemble("n", [Tensor("data", (3, 6, 5), "data")], layers), target, mode, 2.0)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
def test_the_loadable_has_all_operands_that_the_hardware_reads(target: Target, mode: QuantizationMode | None) -> None:
    """The SDP reads operands of whole atoms, and what it makes of those past the last channel reaches a Concat.

    Seen on NVIDIA's C-model: with other bytes than zeros there the channels that fill the atom became NaN in fp16, and
    so did all that the convolution made of them that puts the channels side by side.
    """
    rng = np.random.default_rng(8)
    layers = [Layer(f"c{i}", convolution(rng, count, 3, 1), ("data",)) for i, count in enumerate((5, 33))]
    layers.append(Layer("cat", Concat(), ("c0", "c1")))
    compilation = compiled(assemble("n", [Tensor("data", (3, 6, 5), "data")], layers), target, mode)[0]
    pool = compilation.loadable.memories[0 if compilation.loadable.memories[0].id == 1 else 1]
    given = {
        offset: len(compilation.loadable.blob_by_name[name].data)
        for name, offset in zip(pool.contents, pool.offsets, strict=True)
    }
    atom = target.feature_atom_bytes // (1 if mode else 2)
    seen = 0
    for operation in decode(compilation.loadable, target).operations:
        assert isinstance(operation, SdpOperation)
        for unit in operation.units:
            for operand in (unit.alu_operand, unit.mul_operand):
                if operand is not None and operand.array is not None:
                    channels = -(-operation.destination.channels // atom) * atom
                    assert operand.array.window.memory == pool.id
                    assert given[operand.array.window.offset] >= channels * 2 * operand.array.step
                    seen += 1
    assert seen >= 2


# Pooling


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("method", ["max", "average"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"),
    [
        ((9, 9), 9, 1, 0),
        ((14, 14), 14, 1, 0),
        ((16, 16), 16, 1, 0),
        ((11, 13), (11, 13), 1, 0),
        ((27, 25), 9, 2, 0),
        ((27, 27), 9, 3, 3),
        ((30, 23), (14, 11), (2, 3), (5, 0)),
        ((64, 48), 16, 16, 0),
        ((56, 56), 56, 1, 0),
    ],
)
def test_wide_poolings(
    target: Target,
    mode: QuantizationMode | None,
    method: Literal["max", "average"],
    size: tuple[int, int],
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
) -> None:
    kernel, stride, pad = ((x, x) if isinstance(x, int) else x for x in (kernel, stride, pad))
    network = chain((9, *size), Pooling(method, kernel, stride, pad))
    if method == "max":
        _, result, expected = compiled(network, target, mode)
        assert np.array_equal(result, expected)
    else:
        # A chain rounds each axis at each of its stages: at most two stages of two halves, and 2**-14 each.
        follows(network, target, mode, 2.1, correlation=-1.0)


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize(
    ("method", "size", "kernel", "stride", "pad"),
    [
        ("max", (12, 12), 3, 2, 0),
        ("average", (12, 11), 3, 2, 0),
        ("average", (12, 12), 3, 2, 1),
        ("max", (29, 29), 9, 4, 0),
    ],
)
def test_pooling_that_rounds_down(
    target: Target,
    mode: QuantizationMode | None,
    method: Literal["max", "average"],
    size: tuple[int, int],
    kernel: int,
    stride: int,
    pad: int,
) -> None:
    """What the last whole windows leave over is not read."""
    pooling = Pooling(method, (kernel, kernel), (stride, stride), (pad, pad), "down")
    network = chain((9, *size), pooling)
    assert network.tensors["l0"].shape[1] == (size[0] + 2 * pad - kernel) // stride + 1
    if method == "max":
        _, result, expected = compiled(network, target, mode)
        assert np.array_equal(result, expected)
    else:
        follows(network, target, mode, 0.51, correlation=-1.0)


def test_an_average_that_the_border_cuts_is_refused() -> None:
    from nvdla_quant.support.check import check

    network = chain((9, 24, 24), Pooling("average", (11, 11), (2, 2)))
    (finding,) = check(network, TARGETS["nv_full"], INT8)
    assert (finding.rule, finding.severity) == ("pooling-limit", "error")


# The convolution buffer


def work(channels: int, kernels: int, kernel: int, size: int, out: int, element_bytes: int = 1) -> Work:
    pad = kernel // 2 if out == size else 0
    square = (kernel, kernel)
    return Work(kernels, channels, square, square, (1, 1), (pad, pad), (size, size), (out, out), element_bytes)


SPLITS = [
    # (target, channels, kernels, kernel, size, output): what has to be cut, worked out from the banks.
    pytest.param("nv_small", 64, 10, 16, 16, 1, "kernels", id="nv_small-C*R*S-16384"),
    pytest.param("nv_small", 98, 70, 16, 16, 1, "kernels", id="nv_small-C*R*S-25088"),
    pytest.param("nv_small", 300, 20, 16, 16, 1, "channels", id="nv_small-C*R*S-76800"),
    pytest.param("nv_small", 512, 16, 3, 100, 100, "columns", id="nv_small-wide"),
    pytest.param("nv_large", 1100, 40, 16, 16, 1, "channels", id="nv_large-kernel-above-256-KiB"),
    pytest.param("nv_full", 544, 12, 16, 16, 1, "kernels", id="nv_full-one-group-too-large"),
]


@pytest.mark.parametrize(("name", "channels", "kernels", "kernel", "size", "out", "cut"), SPLITS)
@pytest.mark.parametrize("mode", [PER_KERNEL, PER_FILTER, None])
def test_what_the_buffer_does_not_hold_is_cut(
    name: str, channels: int, kernels: int, kernel: int, size: int, out: int, cut: str, mode: QuantizationMode | None
) -> None:
    target = TARGETS[name]
    if mode is None and FP16 not in target.precisions:
        pytest.skip("the target has no fp16")
    asked = work(channels, kernels, kernel, size, out, 1 if mode else 2)
    division = divide(target, asked)
    assert isinstance(division, Division)
    found = {
        "kernels": division.kernels < kernels,
        "channels": division.channels < channels,
        "columns": len(division.columns) > 1,
    }
    if mode is not None:
        assert [what for what, happens in found.items() if happens] == [cut]
    rng = np.random.default_rng(10)
    weights = random_weights(rng, kernels, channels, kernel, kernel)
    bias = rng.normal(0, 0.3, kernels).astype(np.float32)
    operation = Convolution(weights, bias, pad=asked.pad)
    compilation = follows(chain((channels, size, size), operation, ReLU()), target, mode, 4.0, 0.998)
    assert len(compilation.facts.convolutions) > 1 or cut == "columns"


@pytest.mark.parametrize(("channels", "kernels"), [(260, 5), (64, 12)], ids=["partial-sums", "fewer-kernels-a-run"])
def test_cutting_loses_next_to_nothing(channels: int, kernels: int) -> None:
    """The same layer on a target that runs it whole is no closer to fp32: rms errors within 1 %.

    Partial sums are kept to 1/32 of an output step each; runs of fewer kernels compute the same.
    """
    rng = np.random.default_rng(11)
    weights = random_weights(rng, kernels, channels, 16, 16)
    network = chain((channels, 16, 16), Convolution(weights, rng.normal(0, 0.3, kernels).astype(np.float32)))
    cut, result, expected = compiled(network, TARGETS["nv_small"], PER_FILTER, images=64)
    assert len(cut.facts.convolutions) > 1
    whole, other, _ = compiled(network, TARGETS["nv_full"], PER_FILTER, images=64)
    assert len(whole.facts.convolutions) == 1
    errors = [float(np.sqrt(np.mean((values - expected) ** 2))) for values in (result, other)]
    assert errors[0] <= 1.01 * errors[1]


@pytest.mark.parametrize("mode", [PER_KERNEL, PER_FILTER])
@pytest.mark.parametrize("last", [[], [ReLU()], [ReLU(0.1)]])
def test_what_is_cut_may_join_another_tensor(mode: QuantizationMode, last: Sequence[Operation]) -> None:
    rng = np.random.default_rng(13)
    for channels in (64, 300):
        layers = [
            Layer("other", Convolution(random_weights(rng, 20, channels, 16, 16), None), ("data",)),
            Layer("big", Convolution(random_weights(rng, 20, channels, 16, 16), None), ("data",)),
            Layer("sum", Eltwise("sum"), ("other", "big")),
            *(Layer("last", operation, ("sum",)) for operation in last),
        ]
        network = assemble("n", [Tensor("data", (channels, 16, 16), "data")], layers)
        follows(network, TARGETS["nv_small"], mode, 4.0, 0.998)


def test_inner_products_of_many_inputs() -> None:
    rng = np.random.default_rng(14)
    network = chain((98, 16, 16), InnerProduct(random_weights(rng, 12, 98 * 256), None))
    for mode in QuantizationMode:
        follows(network, TARGETS["nv_small"], mode, 4.0, 0.998)


# Memory


def random_graph(rng: np.random.Generator) -> Network:
    """Convolutions, poolings, sums and concatenations of what was written before, as in nets that people make."""
    layers, known = [Layer("l0", convolution(rng, 24, 3), ("data",))], [("l0", 24, 48)]
    for number in range(1, 14):
        name, channels, size = known[int(rng.integers(max(0, len(known) - 4), len(known)))]
        alike = [entry for entry in known if entry[1:] == (channels, size)]
        level = [entry for entry in known if entry[2] == size][-3:]
        output = f"l{number}"
        kind = rng.choice(["convolution", "convolution", "pooling", "sum", "concat"])
        if kind == "pooling" and size > 6:
            layers.append(Layer(output, Pooling("max", (2, 2), (2, 2)), (name,)))
            size //= 2
        elif kind == "sum":
            layers.append(Layer(output, Eltwise("sum"), (name, alike[int(rng.integers(len(alike)))][0])))
        elif kind == "concat":
            layers.append(Layer(output, Concat(), tuple(entry[0] for entry in level)))
            channels = sum(entry[1] for entry in level)
        else:
            outputs = int(rng.choice([8, 24, 32, 64]))
            layers.append(Layer(output, convolution(rng, outputs, channels, int(rng.choice([1, 3]))), (name,)))
            channels = outputs
        known.append((output, channels, size))
    return assemble("graph", [Tensor("data", (3, 48, 48), "data")], layers)


def complete_at_start(common: NDArray[np.void], index: int) -> set[int]:
    """Operations of a task that are certain to be complete when the firmware enables operation `index`."""

    def waited_for(operation: int) -> list[int]:
        event = int(DependencyEvent.OP_COMPLETED)
        edges = [[(int(c["index"]), int(c["event"])) for c in entry["consumers"]] for entry in common]
        return [writer for writer, consumers in enumerate(edges) if (operation, event) in consumers]

    found: set[int] = set()
    left = waited_for(index)
    while left:
        done = left.pop()
        if done in found:
            continue
        found.add(done)
        unit = common["op_type"]
        # A unit completes operations in order, and an SDP's after the convolution that feeds it.
        left += [*waited_for(done), *(i for i in range(done) if unit[i] == unit[done])]
        left += [int(common[done]["fused_parent"]["index"])] if common[done]["fused_parent"]["index"] >= 0 else []
    return found


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("seed", range(6))
def test_convolutions_that_divide_the_buffer_differently_do_not_overlap(
    target: Target, mode: QuantizationMode | None, seed: int
) -> None:
    """Seen on NVIDIA's C-model with NVIDIA's firmware: it hangs in graphs 0 to 3 on nv_full where they do."""
    network = random_graph(np.random.default_rng(seed))
    table = CalibrationTable(dict.fromkeys(network.tensors, 0.05))
    loadable = compile_network(network, table, target, INT8 if mode else FP16, mode).loadable
    blobs = {name: blob.data for name, blob in loadable.blob_by_name.items()}
    common = np.frombuffer(blobs["task-0-dep_graph"], structs.COMMON_OP)
    raw = blobs["task-0-op_list"]
    banks = {
        index: (int(fields["data_bank"]), int(fields["weight_bank"]))
        for index, entry in enumerate(common)
        if entry["op_type"] == Engine.CONV
        for fields in np.frombuffer(raw, structs.OPERATIONS[Engine.CONV], 1, index * structs.OPERATION_BYTES)
    }
    for before, index in itertools.pairwise(banks):
        if banks[before] != banks[index]:
            assert before in complete_at_start(common, index), (before, index)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_activations_take_little_more_than_what_is_live(target: Target) -> None:
    serial = 0
    for seed in range(20):
        network = random_graph(np.random.default_rng(seed))
        table = CalibrationTable(dict.fromkeys(network.tensors, 0.1))
        compilation = compile_network(network, table, target, INT8)
        # The emulator warns of accesses that the dependency graph leaves unordered.
        assert decode(parse_loadable(compilation.data), target).warnings == ()
        facts = compilation.facts
        # Pools are whole pages.
        assert facts.dram_bytes["activations"] <= max(1.2 * facts.live_bytes, facts.live_bytes + 4096)
        serial += facts.serial
    assert 0 < serial < 20
