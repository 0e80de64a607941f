"""Corrected biases and chosen roundings: against the formula, and as what a loadable then computes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nvdla_quant.calibration.cpu import Calibrator, calibrate
from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.compiler.numbers.chosen import chosen_scales
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.run import run
from nvdla_quant.errors import ConfigError, DumpError, NetworkError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.execution.simulated import Simulation
from nvdla_quant.execution.sqnr import sqnr
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode
from nvdla_quant.jobs.files import write_npz
from nvdla_quant.network.graph import Clip, Convolution, InnerProduct, Network, ReLU
from nvdla_quant.network.passes import prepare
from nvdla_quant.quantization import refine as refining
from nvdla_quant.quantization.layers import largest_held
from nvdla_quant.quantization.refine import Refinement, images_used, mean_shift, passing, refine
from nvdla_quant.quantization.rounding import nearest_steps
from nvdla_quant.quantization.search import quantized_feed
from nvdla_quant.quantization.steps import LayerSteps, WeightSteps, read_weight_steps, with_steps, write_weight_steps
from nvdla_quant.table.fix import fix_table
from nvdla_quant.table.table import CalibrationTable
from tests.networks.builder import Builder
from tests.networks.mobile import mobilenet2_relu6
from tests.networks.residual import resnet18

Array = NDArray[np.float32]
MODES = (QuantizationMode.PER_KERNEL, QuantizationMode.PER_FILTER)
NV_SMALL = TARGETS["nv_small"]


def small_network() -> Network:
    builder = Builder("small", (4, 8, 8), seed=3)
    last = builder.relu("relu1", builder.conv("conv1", "data", 8, 3))
    last = builder.relu("relu2", builder.conv("depth", last, 8, 3, group=8))
    last = builder.pool("pool", builder.conv("narrow", last, 6, 1), "average", 8)
    builder.add("fc", InnerProduct(builder.normal((5, 6), 0.5), builder.normal((5,), 0.1)), last)
    return builder.build()


def images_of(network: Network, count: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((count, *network.only_input.shape)).astype(np.float32)


def table_of(network: Network, images: Array) -> CalibrationTable:
    cache = calibrate(network, images, Calibrator("minmax", len(images)))
    return fix_table(network, network, cache)[0]


def refined(
    network: Network, mode: QuantizationMode, correction: str, rounding: str
) -> tuple[CalibrationTable, Refinement]:
    images = images_of(network, 64, 0)
    table = table_of(network, images)
    return table, refine(network, table, NV_SMALL, mode, images, correction=correction, rounding=rounding)  # type: ignore[arg-type]


def scores_of(network: Network, table: CalibrationTable, mode: QuantizationMode, images: Array) -> Array:
    """What the loadable computes, in real units."""
    compiled = compile_network(network, table, NV_SMALL, Precision.INT8, mode)
    inputs = quantized_feed(images, network.only_input.name)(table, compiled.loadable.inputs[0].c)
    values = run(decode(compiled.loadable, NV_SMALL), inputs)
    return (values.astype(np.float32) * np.float32(compiled.facts.outputs[0].scale)).reshape(len(images), -1)


@pytest.mark.parametrize("mode", MODES)
def test_the_bias_takes_back_the_shift_of_the_simulated_network(mode: QuantizationMode) -> None:
    """b' = b - (E[y_int8] - E[y_fp32]) where the ReLU behind lets fp32 pass; the first layer, as all are simulated."""
    network = small_network()
    images = images_of(network, 64, 0)
    table, found = refined(network, mode, "bias", "nearest")
    exact = Reference(network, ["conv1"]).run(images)["conv1"]
    scales = chosen_scales(network, table, NV_SMALL, mode)["conv1"]
    operation = network.by_name["conv1"].operation
    assert isinstance(operation, Convolution)
    steps = np.floor(operation.weights / scales.reshape(-1, 1, 1, 1) + 0.5).astype(np.int8)
    rounded = with_steps(network, WeightSteps({"conv1": LayerSteps(steps, scales)}))
    shown = Simulation(rounded, table, None, ["conv1"], rounded=["data"]).run(images)["conv1"]
    passed = [exact[:, channel] > 0 for channel in range(8)]
    shift = np.array([(shown[:, c].astype(np.float64) - exact[:, c])[passed[c]].mean() for c in range(8)])
    old = operation.bias if operation.bias is not None else np.zeros(8)
    bias = found.steps.layers["conv1"].bias
    assert bias is not None
    assert bias == pytest.approx(old - shift, abs=1e-6)
    assert found.steps.layers["conv1"].steps is None
    assert list(found.steps.layers) == ["conv1", "depth", "narrow", "fc"]


@pytest.mark.parametrize(
    ("activation", "between"),
    [
        (None, (-np.inf, np.inf)),
        (ReLU(), (0, np.inf)),
        (Clip(0.0, 6.0), (0, 6)),
        (Clip(None, 1.0), (-np.inf, 1)),
        (ReLU(0.1), (-np.inf, np.inf)),
    ],
)
def test_what_an_activation_lets_pass(activation: ReLU | Clip | None, between: tuple[float, float]) -> None:
    builder = Builder("one", (2, 4, 4))
    builder.conv("conv", "data", 3, 3)
    if activation is not None:
        builder.add("activation", activation, "conv")
    assert passing(builder.build(), "conv") == between


def test_the_mean_is_over_what_passes() -> None:
    """By hand: of the first channel -1 and 7 do not pass; of the second nothing does."""
    exact = np.array([[[-1.0, 2, 3, 7], [-1, -2, -3, -4]]], np.float32)[..., None]
    values = exact + np.array([9.0, 0.5, 1.5, 9], np.float32).reshape(1, 1, 4, 1)
    assert mean_shift(exact, values, (0, 6)).tolist() == [1.0, 0.0]
    assert mean_shift(exact, values).tolist() == [5.0, 5.0]


def test_a_sum_is_corrected_by_its_last_convolution() -> None:
    """The other branch's error is in it; a convolution that something else reads as well corrects itself."""
    builder = Builder("sum", (4, 8, 8), seed=2)
    stem = builder.relu("relu", builder.conv("stem", "data", 4, 3))
    first, second = builder.conv("first", stem, 4, 3), builder.conv("second", stem, 4, 3)
    joined = builder.relu("out", builder.eltwise("joined", "sum", first, second))
    third = builder.conv("third", joined, 4, 3)
    builder.eltwise("again", "sum", third, builder.relu("beside", third))
    network = builder.build()
    images = images_of(network, 32, 0)
    table, mode = table_of(network, images), QuantizationMode.PER_KERNEL
    found = refine(network, table, NV_SMALL, mode, images, correction="bias")
    assert list(found.steps.layers) == ["stem", "first", "second", "third"]
    exact = Reference(network, ["joined"]).run(images)["joined"]
    shifts = []
    for corrected in (False, True):
        steps = {
            name: LayerSteps(nearest_steps(getattr(network.by_name[name].operation, "weights"), scales), scales)  # noqa: B009
            for name, scales in chosen_scales(network, table, NV_SMALL, mode).items()
        }
        if corrected:
            steps = {name: replace(one, bias=found.steps.layers[name].bias) for name, one in steps.items()}
        rounded = with_steps(network, WeightSteps(steps))
        shown = Simulation(rounded, table, None, ["joined"]).run(images)["joined"]
        shifts.append(float(np.abs(mean_shift(exact, shown, (0, np.inf))).max()))
    # What is left is of the convolution's own rounding, which the simulation has before the sum, and hardware has not.
    assert shifts[0] > 1e-3
    assert shifts[1] < shifts[0] / 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("correction", "rounding"), [("bias", "nearest"), ("none", "adaround"), ("bias", "adaround")])
def test_loadables_come_closer_to_fp32(mode: QuantizationMode, correction: str, rounding: str) -> None:
    """On images that it was not made with: 1.7 dB per kernel; per filter 8-bit scores leave nothing to gain or lose."""
    network = small_network()
    table, found = refined(network, mode, correction, rounding)
    held_out = images_of(network, 128, 7)
    (exact,) = (values.reshape(128, -1) for values in Reference(network).run(held_out).values())
    before = sqnr(exact, scores_of(network, table, mode, held_out))
    after = sqnr(exact, scores_of(with_steps(network, found.steps), table, mode, held_out))
    assert after > before + (1.0 if mode is QuantizationMode.PER_KERNEL else -0.3)
    assert all(layer.sqnr_after >= layer.sqnr_before - 0.1 for layer in found.layers)
    assert any(layer.flipped for layer in found.layers) == (rounding == "adaround")
    assert any(layer.largest_shift for layer in found.layers) == (correction == "bias")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["nv_small", "nv_full"])
def test_the_compiler_keeps_every_step(mode: QuantizationMode, target: str) -> None:
    network = prepare(mobilenet2_relu6(32, 0.25), "fold")
    images = images_of(network, 4, 0)
    table = table_of(network, images)
    found = refine(network, table, TARGETS[target], mode, images, rounding="adaround", correction="bias")
    compiled = compile_network(with_steps(network, found.steps), table, TARGETS[target], Precision.INT8, mode)
    kept = {one.layer: one.honoured for one in compiled.facts.weights}
    assert kept.keys() == found.steps.layers.keys()
    assert all(kept.values()), [name for name, honoured in kept.items() if not honoured]


def test_residual_networks_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    network = prepare(resnet18(32, 0.125), "fold")
    images = images_of(network, 6, 0)
    table = table_of(network, images)
    for name in ("a.npz", "b.npz"):
        found = refine(
            network, table, NV_SMALL, QuantizationMode.PER_FILTER, images, rounding="adaround", correction="bias"
        )
        write_weight_steps(found.steps, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = read_weight_steps(tmp_path / "a.npz")
    assert again.layers.keys() == found.steps.layers.keys()
    for name, layer in found.steps.layers.items():
        assert layer.steps is not None
        assert (again.layers[name].steps == layer.steps).all()
        assert (again.layers[name].bias == layer.bias).all()


def test_images_are_as_many_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network()
    assert largest_held(network) == 4 * (8 * 64 + 8 * 64)  # A convolution's output beside its input.
    assert images_used(network, 500) == 500
    monkeypatch.setattr(refining, "ROOM", 20 * 2 * largest_held(network))
    assert (images_used(network, 500), images_used(network, 10)) == (20, 10)
    monkeypatch.setattr(refining, "ROOM", 0)
    assert images_used(network, 500) == 8


def test_nothing_to_do_is_refused() -> None:
    network = small_network()
    with pytest.raises(ConfigError, match="nothing is refined; choose one"):
        refined(network, QuantizationMode.PER_KERNEL, "none", "nearest")


def test_steps_of_another_network_are_refused(tmp_path: Path) -> None:
    network = small_network()
    other = WeightSteps({"conv9": LayerSteps(bias=np.zeros(3, np.float32))})
    with pytest.raises(NetworkError, match="layer 'conv9' is no layer with weights in network 'small'"):
        with_steps(network, other)
    wrong = LayerSteps(np.zeros((8, 4, 1, 1), np.int8), np.ones(8, np.float32))
    with pytest.raises(NetworkError, match=r"layer 'conv1' has the shape \(8, 4, 1, 1\), expected \(8, 4, 3, 3\)"):
        with_steps(network, WeightSteps({"conv1": wrong}))
    with pytest.raises(NetworkError, match=r"layer 'conv1' has 3 of bias, expected 8"):
        with_steps(network, WeightSteps({"conv1": LayerSteps(bias=np.zeros(3, np.float32))}))
    write_npz(tmp_path / "images.npz", {"pixels": np.zeros(3, np.uint8)})
    with pytest.raises(NetworkError, match=r"array 'pixels' of uint8, expected <layer>:steps of int8"):
        read_weight_steps(tmp_path / "images.npz")
    write_npz(tmp_path / "half.npz", {"conv1:steps": np.zeros(3, np.int8)})
    with pytest.raises(NetworkError, match="layer 'conv1' has steps or scales, expected both or neither"):
        read_weight_steps(tmp_path / "half.npz")
    with pytest.raises(DumpError, match="not a readable npz file"):
        read_weight_steps(tmp_path / "missing.npz")


def test_weights_that_came_quantized_are_left() -> None:
    network = small_network()
    operation = network.by_name["conv1"].operation
    assert isinstance(operation, Convolution)
    given = replace(operation, weights=np.ones_like(operation.weights) / 127, scales=np.full(8, 1 / 127, np.float32))
    layers = tuple(replace(one, operation=given) if one.name == "conv1" else one for one in network.layers)
    _, found = refined(replace(network, layers=layers), QuantizationMode.PER_FILTER, "bias", "adaround")
    assert list(found.steps.layers) == ["depth", "narrow", "fc"]


def test_a_network_without_weights_of_its_own_is_refused() -> None:
    builder = Builder("none", (2, 4, 4))
    builder.relu("relu", builder.pool("pool", "data", "max", 2, 2))
    network = builder.build()
    with pytest.raises(ConfigError, match="network 'none' has no convolution and no inner product"):
        refined(network, QuantizationMode.PER_FILTER, "bias", "adaround")
