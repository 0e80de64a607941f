"""Calibration: hand-worked histograms and entropies, and TensorRT's own caches."""

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.calibration.cpu import Calibrator, MeasuringMethod, calibrate, carry_poolings, measure
from nvdla_quant.calibration.entropy import LEVELS, entropy_threshold, relative_entropies
from nvdla_quant.calibration.histogram import BINS, Histogram
from nvdla_quant.calibration.percentile import percentile_threshold
from nvdla_quant.calibration.rounded import STEPS
from nvdla_quant.errors import ConfigError, DatasetError, NetworkError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.network.caffe.reader import read_network, read_structure
from nvdla_quant.network.graph import Network
from nvdla_quant.table.cache import read_cache
from tests.caffe_networks import layer, prototxt, randomized

Array = NDArray[np.float32]


def filled(counts: dict[int, int], bin_width: float = 1.0) -> Histogram:
    histogram = Histogram()
    histogram.range = BINS * bin_width
    for index, count in counts.items():
        histogram.counts[index] = count
    return histogram


def occupied(histogram: Histogram) -> dict[int, int]:
    return {int(index): int(histogram.counts[index]) for index in np.flatnonzero(histogram.counts)}


def values(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


def add(histogram: Histogram, batch: Array) -> None:
    histogram.add(batch)
    histogram.end_batch()


def test_the_first_batch_sets_the_range_and_a_larger_value_doubles_it() -> None:
    histogram = Histogram()
    add(histogram, values(0, 1, -2, 4))
    assert (histogram.range, histogram.bin_width) == (4.0, 4 / 2048)
    # The end of the range belongs to the last bin.
    assert occupied(histogram) == {0: 1, 512: 1, 1024: 1, 2047: 1}
    add(histogram, values(-5))
    assert histogram.range == 8.0
    assert occupied(histogram) == {0: 1, 256: 1, 512: 1, 1023: 1, 1280: 1}
    add(histogram, values(40).reshape(1, 1, 1))
    assert histogram.range == 64.0
    assert histogram.counts.sum() == 6


def test_zeros_do_not_set_the_range() -> None:
    histogram = Histogram()
    add(histogram, np.zeros((2, 3), np.float32))
    add(histogram, np.zeros(0, np.float32))
    assert (histogram.range, occupied(histogram)) == (0.0, {0: 6})
    add(histogram, values(1e-44, -1e-37))
    assert histogram.range == 0.0
    add(histogram, values(3))
    assert (histogram.range, occupied(histogram)) == (3.0, {0: 8, 2047: 1})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        Histogram().add(values(1, bad))


@settings(max_examples=30)
@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=50), st.integers(1, 10))
def test_no_value_is_lost(numbers: list[float], batch: int) -> None:
    histogram = Histogram()
    for start in range(0, len(numbers), batch):
        add(histogram, values(*numbers[start : start + batch]))
    assert histogram.counts.sum() == len(numbers)
    assert histogram.range == 0 or max(map(abs, numbers)) <= histogram.range


def test_entropy_by_hand() -> None:
    """Bins 1, 2, 127 and 2047 hold 3, 1, 4 and 2.

    128 bins, a level each: P = .3, .1, (4 + 2) / 10 and Q = 3/8, 1/8, 4/8. 2048 bins, 16 a level: P = .3, .1, .4, .2,
    and bins 1 and 2 share a level, so that Q = .2, .2, .4, .2. Every other candidate clips into an empty bin.
    """
    histogram = filled({0: 1000, 1: 3, 2: 1, 127: 4, 2047: 2}, bin_width=0.5)
    divergence = relative_entropies(histogram.counts)
    assert np.flatnonzero(np.isfinite(divergence)).tolist() == [0, 2048 - 128]
    assert divergence[0] == pytest.approx(0.4 * np.log(0.8) + 0.6 * np.log(1.2), abs=1e-12)
    assert divergence[-1] == pytest.approx(0.3 * np.log(1.5) + 0.1 * np.log(0.5), abs=1e-12)
    assert entropy_threshold(histogram) == 128.5 * 0.5


def test_of_equally_good_thresholds_the_smallest_wins() -> None:
    # One bin other than 0: Q equals P from the candidate that just keeps it to the one that keeps all.
    assert entropy_threshold(filled({0: 5, 1023: 7})) == 1024.5
    # All bins are needed where the largest value is in the last one: 2048.5 / 2048, as in the article's `data` entry.
    assert entropy_threshold(filled({2047: 1}, 1 / 2048)) == 2048.5 / 2048


def entropies_by_loops(counts: NDArray[np.int64]) -> list[float]:
    """The definition in `entropy`, bin by bin."""
    kept = [0, *(int(count) for count in counts[1:])]
    result = []
    for i in range(LEVELS, BINS + 1):
        reference = kept[:i]
        reference[-1] += sum(kept[i:])
        levels: dict[int, list[int]] = {}
        for k in range(i):
            if kept[k]:
                levels.setdefault(k * LEVELS // i, []).append(k)
        quantized = [0.0] * i
        for members in levels.values():
            for k in members:
                quantized[k] = sum(kept[m] for m in members) / len(members)
        total_p, total_q, divergence = sum(reference), sum(quantized), 0.0
        for p, q in zip(reference, quantized, strict=True):
            if p:
                divergence += p / total_p * np.log((p / total_p) / (q / total_q)) if q else np.inf
        result.append(divergence)
    return result


@pytest.mark.parametrize(("seed", "share"), [(0, 1.0), (1, 0.3), (2, 0.01)])
def test_prefix_sums_agree_with_the_definition(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    magnitudes = np.abs(rng.normal(0, 400, 20000)).astype(int)
    counts = np.bincount(magnitudes[magnitudes < BINS], minlength=BINS) * (rng.random(BINS) < share)
    counts[700] += 1
    np.testing.assert_allclose(relative_entropies(counts), entropies_by_loops(counts), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("percentile", "bins"), [(100, 2048), (90, 10), (90.5, 2048), (50, 1), (10, 1)])
def test_percentile_by_hand(percentile: float, bins: int) -> None:
    # 50 zeros, 40 values in bin 9, 10 in the last one.
    assert percentile_threshold(filled({0: 50, 9: 40, 2047: 10}, 0.25), percentile) == bins * 0.25


def test_percentile_must_be_a_share() -> None:
    with pytest.raises(ValueError, match="expected above 0 and at most 100"):
        percentile_threshold(filled({1: 1}), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "kl"}, "method is 'kl'"),
        ({"method": "entropy", "batch_size": 0}, "batch_size is 0"),
        ({"method": "entropy", "percentile": 99.9}, "percentile is 99.9 with method 'entropy'"),
        ({"method": "mse", "percentile": 99.9}, "percentile is 99.9 with method 'mse'"),
        ({"method": "percentile"}, "percentile is None with method 'percentile'"),
        ({"method": "percentile", "percentile": 101}, "percentile is 101"),
    ],
)
def test_impossible_calibrators(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Calibrator(**arguments)  # type: ignore[arg-type]


LAYERS = (
    layer("c", "Convolution", "data", "convolution_param { num_output: 4 kernel_size: 3 }"),
    layer("c_relu", "ReLU", "c", top="c"),
    layer("p1", "Pooling", "c", "pooling_param { pool: AVE kernel_size: 3 }"),
    layer("p2", "Pooling", "p1", "pooling_param { kernel_size: 2 }"),
    layer("f", "InnerProduct", "p2", "inner_product_param { num_output: 5 }"),
    layer("drop", "Dropout", "f", top="f"),
    layer("prob", "Softmax", "f"),
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    path = tmp_path_factory.mktemp("network") / "deploy.prototxt"
    path.write_text(prototxt(*LAYERS))
    return randomized(read_structure(path))


def images(network: Network, count: int = 5) -> Array:
    return np.random.default_rng(3).normal(0, 1, (count, *network.inputs[0].shape)).astype(np.float32)


def test_minmax_is_the_largest_magnitude_and_poolings_carry_their_inputs(network: Network) -> None:
    inputs = images(network)
    seen: list[tuple[int, int]] = []
    cache = calibrate(network, inputs, Calibrator("minmax", 2), progress=lambda done, all_: seen.append((done, all_)))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert cache.header.endswith("-MinMaxCalibration")
    assert not cache.header.startswith("TRT")
    assert list(cache.scales) == ["data", "(Unnamed Layer* 0) [Convolution]_output", "c", "p1", "p2", "f", "prob"]
    tensors = Reference(network, ["data", "c", "c_relu", "p1", "f"]).run(inputs)
    for entry, tensor in (("data", "data"), ("c", "c_relu"), ("f", "f")):
        assert cache.scales[entry] == pytest.approx(float(np.abs(tensors[tensor]).max()) / 127, rel=1e-6)
    assert cache.scales["p1"] == cache.scales["p2"] == cache.scales["c"]
    assert np.abs(tensors["p1"]).max() < np.abs(tensors["c_relu"]).max()


@pytest.mark.parametrize(("method", "name"), [("mse", "MseCalibration"), ("cosine", "CosineCalibration")])
def test_thresholds_of_the_rounded_tensor(network: Network, method: MeasuringMethod, name: str) -> None:
    """The header says which; thresholds lie within the values, and poolings carry their inputs'."""
    inputs = images(network)
    cache = calibrate(network, inputs, Calibrator(method, 2))
    assert cache.header.startswith("nvdla-quant-")
    assert cache.header.endswith(f"-{name}")
    largest = calibrate(network, inputs, Calibrator("minmax", 2)).scales
    assert all(0.3 * largest[key] < scale <= 1.001 * largest[key] for key, scale in cache.scales.items())
    assert cache.scales["p1"] == cache.scales["p2"] == cache.scales["c"]


def test_percentile_keeps_its_share(network: Network) -> None:
    inputs = images(network)
    thresholds = measure(network, inputs, Calibrator("percentile", 5, 75.0), ("data",))
    assert np.mean(np.abs(inputs) <= thresholds["data"]) == pytest.approx(0.75, abs=0.005)


def test_order_and_batch_size_matter_to_entropy_only_through_the_range(network: Network) -> None:
    inputs = images(network, 6)
    inputs[3] *= 3
    whole, parts = (measure(network, inputs, Calibrator("entropy", size), ("data",))["data"] for size in (6, 1))
    assert whole != parts
    assert whole == pytest.approx(parts, rel=0.5)


def test_dead_tensors_are_named(network: Network) -> None:
    with pytest.raises(NetworkError, match="tensor 'data': zero for all calibration images"):
        calibrate(network, np.zeros_like(images(network)), Calibrator("entropy"))
    with pytest.raises(NetworkError, match="tensor 'data': zero for all calibration images"):
        calibrate(network, np.zeros_like(images(network)), Calibrator("minmax"))
    with pytest.raises(NetworkError, match="tensor 'data': zero for all calibration images"):
        calibrate(network, np.zeros_like(images(network)), Calibrator("mse"))


def test_values_that_are_not_finite_are_named(network: Network) -> None:
    inputs = images(network)
    inputs[3, 0, 0, 0] = np.nan
    with pytest.raises(NetworkError, match="tensor 'data': values are not finite for images 2 to 3"):
        calibrate(network, inputs, Calibrator("entropy", 2))


def test_no_images(network: Network) -> None:
    with pytest.raises(DatasetError, match="no images"):
        calibrate(network, images(network, 0), Calibrator("entropy"))


def test_poolings_follow_through_views(network: Network) -> None:
    thresholds = {name: float(index) for index, name in enumerate(network.tensors)}
    carry_poolings(network, thresholds)
    assert thresholds["p1"] == thresholds["p2"] == thresholds["c_relu"] == 2.0


def test_the_folder_can_be_imported_by_tensorrts_python(repository: Path) -> None:
    """TensorRT's container has Python 3.8 and numpy only; the package's __init__ must ask for no more."""
    source = (repository / "nvdla_quant" / "calibration" / "__init__.py").read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def golden_images(folder: Path) -> Array:
    stored: NDArray[np.generic] = np.load(folder / "images.npz")["calibration"]
    return stored.astype(np.float32) / np.float32(256 if stored.dtype == np.uint8 else 1)


CACHES = [
    *(f"lenet-mnist/entropy2.batch{size}" for size in (16, 64, 128, 512)),
    "lenet-mnist/minmax.batch64",
    "lenet-digits/entropy2.batch64",
    "resnet-digits/entropy2.batch64",
    "resnet-digits/entropy2.batch512",
    "resnet-digits/minmax.batch64",
]


@pytest.mark.parametrize("which", CACHES)
def test_golden_caches(shared: Path, which: str) -> None:
    """TensorRT 8.5.3.1 on an H100, same images in the same batches.

    A last bit of an activation can move a value to the next bin, or a range to its double, so that a few entries may
    choose another threshold. Where this was written, all agree but two of `resnet-digits` in batches of 512.
    """
    path = shared / "golden" / "tensorrt" / f"{which}.cache"
    network = read_network(path.parent / "deploy.prototxt", path.parent / "model.caffemodel")
    theirs = read_cache(path)
    calibrator = Calibrator("minmax" if "minmax" in which else "entropy", int(path.stem.split("batch")[1]))
    ours = calibrate(network, golden_images(path.parent), calibrator)
    assert list(ours.scales) == list(theirs.scales)
    ratio = np.array([ours.scales[name] / scale for name, scale in theirs.entries])
    if calibrator.method == "minmax":
        np.testing.assert_allclose(ratio, 1, rtol=1e-5)
        return
    assert np.median(ratio) == pytest.approx(1, abs=1e-5)
    assert np.mean(np.abs(ratio - 1) < 1e-5) >= 0.9
    assert np.mean(np.abs(ratio - 1) < 0.1) >= 0.98
    assert 0.65 < ratio.min() <= ratio.max() < 1.4


def test_golden_poolings_before_fusion(shared: Path) -> None:
    """The first entropy calibrator gives a pooling a threshold of its own: the same search on its own values."""
    folder = shared / "golden" / "tensorrt" / "lenet-digits"
    network = read_network(folder / "deploy.prototxt", folder / "model.caffemodel")
    theirs = read_cache(folder / "entropy.batch64.cache").scales
    ours = measure(network, golden_images(folder), Calibrator("entropy", 64), ("pool1", "pool2"))
    assert {name: threshold / STEPS for name, threshold in ours.items()} == pytest.approx(
        {name: theirs[name] for name in ours}, rel=1e-5
    )
