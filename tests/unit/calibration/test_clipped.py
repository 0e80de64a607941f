"""The trap of relative entropy: a network that it ruins and squared error keeps, and the warning that says so."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.calibration import clipped
from nvdla_quant.calibration.clipped import Clipped, collapses, consistent, find_clipped, lost_energy, scores_sqnr
from nvdla_quant.calibration.cpu import Calibration, Calibrator, MeasuringMethod, calibrate, calibrate_and_judge
from nvdla_quant.calibration.histogram import BINS, Histogram
from nvdla_quant.calibration.rounded import STEPS
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.execution.simulated import Simulation
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.images.preprocess import Preprocessing, normalise
from nvdla_quant.images.sets import calibration_images
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare
from nvdla_quant.table.fix import fix_table
from nvdla_quant.table.table import CalibrationTable
from tests.networks.builder import Builder
from tests.networks.peaks import peak_network, peaks

Array = NDArray[np.float32]


METHODS: tuple[MeasuringMethod, ...] = ("entropy", "minmax", "mse", "cosine")


def agreement(network: Network, calibration: Calibration, mode: QuantizationMode) -> float:
    """Share of other images whose top class in int8 is that in fp32."""
    table, _ = fix_table(network, prepare(network, "as-is"), calibration.cache)
    images = peaks(1000, 2)
    exact, int8 = (
        run.run(images)["fc"].reshape(len(images), -1).argmax(axis=1)
        for run in (Reference(network, ["fc"]), Simulation(network, table, mode, ["fc"]))
    )
    return float(np.mean(exact == int8))


@pytest.mark.parametrize("mode", list(QuantizationMode))
def test_squared_error_keeps_a_heavy_tailed_network_that_entropy_ruins(mode: QuantizationMode) -> None:
    """Entropy clips both peaks to the same value: half of the images agree then, and all by the others."""
    network, images = peak_network(), peaks(64, 1)
    calibrations = {method: calibrate_and_judge(network, images, Calibrator(method)) for method in METHODS}
    shares = {method: agreement(network, calibration, mode) for method, calibration in calibrations.items()}
    assert shares["mse"] >= 0.99
    assert shares["cosine"] >= 0.99
    assert shares["entropy"] <= 0.95


@pytest.mark.parametrize("softmax", [False, True])
def test_the_warning_names_tensors_and_what_to_do(softmax: bool) -> None:
    found = calibrate_and_judge(peak_network(softmax), peaks(64, 1), Calibrator("entropy"))
    # The worst first. The convolution has no step of its own in int8; the pooling has its input's.
    assert [warning.split(":")[0] for warning in found.warnings] == ["tensor 'relu'", "tensor 'data'"]
    for warning in found.warnings:
        numbers = re.match(
            r".*: clipped at (.*), which takes (.*)% of its energy; its SQNR is (.*) dB, and (.*) dB at (.*), of least "
            r"squared error; 2 tensors clipped so: the scores of the network have (.*) dB instead of (.*) dB; "
            "calibrate with method mse, or with more images",
            warning,
        )
        assert numbers is not None
        threshold, lost, sqnr, best_sqnr, best, scores, best_scores = map(float, numbers.groups())
        assert (threshold < 20 < best, lost > 50) == (True, True)
        assert sqnr < 10 < 20 < best_sqnr
        assert scores < 10 < 30 < best_scores


@pytest.mark.parametrize("calibrator", [Calibrator("mse"), Calibrator("cosine"), Calibrator("minmax")])
def test_methods_that_see_the_cost_are_not_judged(calibrator: Calibrator) -> None:
    assert calibrate_and_judge(peak_network(), peaks(64, 1), calibrator).warnings == ()


def test_percentiles_are_judged() -> None:
    """One value in 256 is a peak: 99.9 % keep most of them, 99 % none."""
    network, images = peak_network(), peaks(64, 1)
    found = [calibrate_and_judge(network, images, Calibrator("percentile", 64, share)) for share in (99.9, 99.0)]
    assert [bool(one.warnings) for one in found] == [False, True]


@pytest.mark.parametrize("calibrator", [*map(Calibrator, METHODS), Calibrator("percentile", 64, 99.0)])
def test_judging_changes_no_scale_and_threads_change_no_word(calibrator: Calibrator) -> None:
    network, images = peak_network(), peaks(20, 3)
    judged = calibrate_and_judge(network, images, calibrator)
    assert judged.cache == calibrate(network, images, calibrator)
    assert judged == calibrate_and_judge(network, images, calibrator, threads=3)


RESOURCES = "resources"
SHIPPED = {
    "lenet-mnist": ("lenet", {"calibration_pool": 500}, Preprocessing(channels="gray", scale=1 / 256)),
    "resnet20-fashion-mnist": ("resnet20", {}, Preprocessing(channels="gray", mean=(73.0,), scale=0.01)),
}
"""As in the default configuration."""


def shipped(repository: Path, model: str, count: int) -> tuple[Network, Array]:
    """A network that ships, and its calibration images."""
    folder = repository / RESOURCES
    name, more, preprocessing = SHIPPED[model]
    network = read_network(folder / model / "deploy.prototxt", folder / model / f"{name}.caffemodel")
    files = {
        "lenet": {"images": "mnist/images-idx3-ubyte.gz", "labels": "mnist/labels-idx1-ubyte.gz"},
        "resnet20": {
            "images": "fashion-mnist/calibration-images-idx3-ubyte.xz",
            "labels": "fashion-mnist/calibration-labels-idx1-ubyte.gz",
        },
    }[name]
    source = {"format": "idx", **{key: str(folder / path) for key, path in files.items()}}
    key = "source" if more else "calibration_source"
    record = {key: source, "pool_seed": 0, **more}
    chosen = calibration_images(record, preprocessing, network.only_input.chw, count=count, seed=0)
    return network, normalise(chosen.pixels, preprocessing)


@pytest.mark.parametrize(
    ("model", "count", "first"),
    [
        ("lenet-mnist", 500, None),
        ("lenet-mnist", 8, "conv1"),  # Loses a point of top-1, with 4 images ResNet-20 ten (docs/verify.md).
        ("resnet20-fashion-mnist", 500, None),
        ("resnet20-fashion-mnist", 8, None),  # Loses none.
        ("resnet20-fashion-mnist", 4, "data"),
    ],
)
def test_the_shipped_networks_are_warned_of_where_they_lose_accuracy(
    repository: Path, model: str, count: int, first: str | None
) -> None:
    network, images = shipped(repository, model, count)
    warnings = calibrate_and_judge(network, images, Calibrator("entropy"), threads=2).warnings
    assert bool(warnings) == (first is not None)
    assert len(warnings) <= clipped.TOLD
    assert first is None or warnings[0].startswith(f"tensor {first!r}: clipped at ")


def histograms(network: Network, images: Array) -> dict[str, Histogram]:
    found = {}
    for name, values in Reference(network, list(network.tensors)).run(images).items():
        found[name] = Histogram()
        found[name].add(values)
        found[name].end_batch()
    return found


def table_of(thresholds: Mapping[str, float]) -> CalibrationTable:
    return CalibrationTable({name: value / STEPS for name, value in thresholds.items()})


def thresholds_of(taken: Mapping[str, Histogram], share: float) -> dict[str, float]:
    return {name: one.range * share for name, one in taken.items()}


def test_tensors_are_found_where_ten_times_the_noise_is() -> None:
    network, images = peak_network(), peaks(16, 5)
    taken = histograms(network, images)
    whole = thresholds_of(taken, 1.0)
    assert find_clipped(network, taken, table_of(whole)) == ()
    (one,) = find_clipped(network, taken, table_of({**whole, "relu": taken["relu"].range * 0.3}))
    assert isinstance(one, Clipped)
    assert (one.tensor, one.threshold) == ("relu", pytest.approx(taken["relu"].range * 0.3))
    assert one.best_sqnr - one.sqnr >= clipped.LOSS
    assert one.lost == pytest.approx(lost_energy(taken["relu"], one.threshold))
    # What fusion swallows, and what has its input's scale, is nothing to warn of.
    assert find_clipped(network, taken, table_of({**whole, "conv": 1e-3, "pool": 1e-3})) == ()
    # Nor is a threshold that is too large: it rounds coarsely, as in a group of tensors, and clips nothing.
    assert find_clipped(network, taken, table_of({**whole, "relu": taken["relu"].range * 50})) == ()
    # Nor is a tensor that nothing is known of.
    assert find_clipped(network, {}, table_of(whole)) == ()


def test_scores_are_those_of_the_clipped_network() -> None:
    """By hand: only the input is rounded, and the network is nearly the identity."""
    network, images = peak_network(), peaks(16, 5)
    taken = histograms(network, images)
    half = {**thresholds_of(taken, 1.0), "data": 10.0}
    exact = Reference(network, ["fc"]).run(images)["fc"]
    step = np.float32(10 / 127)
    made = Reference(network, ["fc"]).run(np.clip(np.round(images / step), -128, 127) * step)["fc"]
    suspects = (Clipped("data", 10.0, 0.0, taken["data"].range, 40.0, 0.5),)
    chosen, best = scores_sqnr(network, images, half, suspects)
    assert chosen == pytest.approx(10 * np.log10((exact**2).sum() / ((made - exact) ** 2).sum()), rel=1e-3)
    assert best > 30


@pytest.mark.parametrize(
    ("chosen", "best", "warned"),
    [(19.9, 40.0, True), (20.1, 40.0, False), (19.9, 29.8, False), (np.inf, np.inf, False)],
)
def test_it_is_the_scores_that_count(monkeypatch: pytest.MonkeyPatch, chosen: float, best: float, warned: bool) -> None:
    network, images = peak_network(), peaks(16, 5)
    taken = histograms(network, images)
    monkeypatch.setattr(clipped, "scores_sqnr", lambda *_: (chosen, best))
    assert bool(collapses(network, images, taken, thresholds_of(taken, 0.2))) == warned


def test_no_image_is_computed_where_no_tensor_loses_much(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = peak_network(), peaks(16, 5)
    taken = histograms(network, images)
    monkeypatch.delattr(clipped, "Reference")
    assert collapses(network, images, taken, thresholds_of(taken, 1.0)) == ()


def test_a_group_takes_its_largest_scale() -> None:
    """Both branches of a sum have one scale: one that was clipped alone is not in the table."""
    builder = Builder("sum", (4, 4, 4))
    branches = builder.conv("a", "data", 4, 1), builder.conv("b", "data", 4, 1)
    builder.fc("fc", builder.eltwise("s", "sum", *branches), 3)
    network = builder.build()
    images = np.random.default_rng(0).normal(0, 1, (8, 4, 4, 4)).astype(np.float32)
    taken = histograms(network, images)
    whole = thresholds_of(taken, 1.0)
    assert consistent(network, {**whole, "a": 0.01}).scales["a"] == pytest.approx(whole["b"] / STEPS)
    assert collapses(network, images, taken, {**whole, "a": 0.01}) == ()
    assert collapses(network, images, taken, {**whole, "a": 0.01, "b": 0.01}) != ()


def test_of_several_outputs_the_worst_counts() -> None:
    builder = Builder("two", (4, 4, 4))
    last = builder.conv_relu("c", "data", 4, 1)
    builder.fc("a", last, 3)
    builder.fc("b", "data", 3)
    network = builder.build()
    images = np.random.default_rng(0).normal(0, 1, (8, 4, 4, 4)).astype(np.float32)
    taken = histograms(network, images)
    whole = thresholds_of(taken, 1.0)
    # Only `a` reads it; `b` alone is exact.
    suspects = (Clipped("c_relu", 0.1, 0.0, whole["c_relu"], 40.0, 0.9),)
    chosen, best = scores_sqnr(network, images, {**whole, "c_relu": 0.1}, suspects)
    assert 0 < chosen < 3
    assert 30 < best < np.inf


@given(st.dictionaries(st.integers(1, BINS - 1), st.integers(1, 50), min_size=1, max_size=6), st.floats(0.1, 2 * BINS))
def test_lost_energy_by_points(counts: dict[int, int], threshold: float) -> None:
    histogram = Histogram()
    histogram.range = float(BINS)
    for index, count in counts.items():
        histogram.counts[index] = count
    places = np.concatenate([index + (np.arange(500) + 0.5) / 500 for index in counts])
    weights = np.repeat(list(counts.values()), 500)
    lost = 1 - (weights * np.minimum(places, threshold) ** 2).sum() / (weights * places**2).sum()
    assert lost_energy(histogram, threshold) == pytest.approx(lost, abs=1e-5)
