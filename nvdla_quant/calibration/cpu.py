"""Calibrate a network on the CPU: thresholds of all activations over a set of images."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from nvdla_quant.calibration.clipped import collapses
from nvdla_quant.calibration.entropy import entropy_threshold
from nvdla_quant.calibration.histogram import Histogram
from nvdla_quant.calibration.minmax import Largest
from nvdla_quant.calibration.percentile import percentile_threshold
from nvdla_quant.calibration.rounded import STEPS, cosine_threshold, mse_threshold
from nvdla_quant.calibration.stream import Progress, Statistic, stream
from nvdla_quant.errors import ConfigError, DatasetError, NetworkError
from nvdla_quant.execution.fp32 import Images, Reference
from nvdla_quant.network.graph import Network
from nvdla_quant.network.views import viewed
from nvdla_quant.table.cache import CalibrationCache, our_header
from nvdla_quant.table.naming import tensor_names

HEADERS = {
    "entropy": "EntropyCalibration2",
    "minmax": "MinMaxCalibration",
    "percentile": "PercentileCalibration",
    "mse": "MseCalibration",
    "cosine": "CosineCalibration",
}
"""How the header of our cache names each method; those of TensorRT's methods by TensorRT's names."""

MeasuringMethod = Literal["entropy", "minmax", "percentile", "mse", "cosine"]
"""How a threshold is chosen from the activations."""

_BLIND = ("entropy", "percentile")
"""Methods that do not look at what clipping costs: their thresholds are judged."""


_SEARCHES = {"entropy": entropy_threshold, "mse": mse_threshold, "cosine": cosine_threshold}
"""Searches that need nothing but a histogram."""


@dataclass(frozen=True)
class Calibrator:
    """How to choose thresholds.

    Attributes
    ----------
    method : {"entropy", "minmax", "percentile", "mse", "cosine"}
        ``entropy`` is TensorRT-style, see `entropy`; for ``mse`` and ``cosine`` see `rounded`.
    batch_size : int
        Images of a batch. It changes the result of ``entropy`` and, within a bin, of all others but ``minmax``.
    percentile : float or None
        Share of the magnitudes to keep, in per cent; ``percentile`` alone needs it, and only it.
    """

    method: MeasuringMethod
    batch_size: int = 64
    percentile: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.method not in HEADERS:
            raise ConfigError(f"calibrator: method is {self.method!r}, expected one of {', '.join(HEADERS)}")
        if self.batch_size < 1:
            raise ConfigError(f"calibrator: batch_size is {self.batch_size}, expected 1 or more")
        if (self.percentile is not None) != (self.method == "percentile"):
            raise ConfigError(
                f"calibrator: percentile is {self.percentile} with method {self.method!r}; method 'percentile' needs "
                "one, 99.99 for example, and no other method takes one"
            )
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise ConfigError(f"calibrator: percentile is {self.percentile}, expected above 0 and at most 100")


@dataclass(frozen=True)
class Calibration:
    """Scales, and what is wrong with them.

    Attributes
    ----------
    cache : CalibrationCache
        The scales.
    warnings : tuple[str, ...]
        Tensors that are clipped too far, each in a line with what to do, see `clipped`.
    """

    cache: CalibrationCache
    warnings: tuple[str, ...]


def calibrate(
    network: Network,
    images: Images,
    calibrator: Calibrator,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> CalibrationCache:
    """Return the calibration cache of `network`, with TensorRT's names and order.

    A pooling takes its input's scale, as in TensorRT's caches. Activations of a few images are in memory at a time,
    see `stream`.

    Parameters
    ----------
    network : Network
        The original network, before anything is folded or rewritten; with its weights.
    images : Images
        In the network's own domain, after preprocessing. Order matters, see `Histogram`.
    calibrator : Calibrator
        Method and batch size.
    threads : int
        Threads that share the images, then the tensors; they do not change the result.
    progress : Callable[[int, int], None], optional
        Called after each batch with the number of images done, and of all.

    Raises
    ------
    DatasetError
        No images.
    NetworkError
        A tensor is zero or not finite for all or some of the images, or the images do not fit the network.
    """
    names = tensor_names(network)
    thresholds = measure(network, images, calibrator, tuple(names), threads=threads, progress=progress)
    carry_poolings(network, thresholds)
    return _cache(calibrator, names, thresholds)


def calibrate_and_judge(
    network: Network,
    images: Images,
    calibrator: Calibrator,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> Calibration:
    """Return what `calibrate` does, and warnings where thresholds ruin the scores; parameters and errors as there."""
    names = tensor_names(network)
    statistics = _statistics(network, images, calibrator, tuple(names), threads, progress)
    thresholds = _thresholds(statistics, calibrator, threads)
    carry_poolings(network, thresholds)
    histograms = {name: one for name, one in statistics.items() if isinstance(one, Histogram)}
    judged = calibrator.method in _BLIND
    warnings = collapses(network, images, histograms, thresholds, threads=threads) if judged else ()
    return Calibration(_cache(calibrator, names, thresholds), warnings)


def measure(
    network: Network,
    images: Images,
    calibrator: Calibrator,
    tensors: tuple[str, ...],
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Return the clipping threshold of each of `tensors` on its own; parameters and errors as `calibrate`."""
    return _thresholds(_statistics(network, images, calibrator, tensors, threads, progress), calibrator, threads)


def carry_poolings(network: Network, thresholds: dict[str, float]) -> None:
    """Give each pooling its input's threshold, in network order so that chains follow."""
    for layer in network.layers:
        if layer.kind == "Pooling" and layer.name in thresholds:
            thresholds[layer.name] = thresholds[viewed(network, layer.inputs[0])]


def _cache(calibrator: Calibrator, names: Mapping[str, str], thresholds: Mapping[str, float]) -> CalibrationCache:
    """Return the cache of `thresholds`, whose tensors have the `names` of its entries."""
    entries = tuple((name, thresholds[tensor] / STEPS) for tensor, name in names.items())
    return CalibrationCache(our_header(HEADERS[calibrator.method]), entries)


def _statistics(
    network: Network,
    images: Images,
    calibrator: Calibrator,
    tensors: tuple[str, ...],
    threads: int,
    progress: Progress | None,
) -> Mapping[str, Statistic]:
    """Return what `calibrator` needs to know of each of `tensors`, over all images."""
    if not len(images):
        raise DatasetError("calibration: no images, expected at least one; choose more calibration images")
    statistics: Mapping[str, Statistic] = {
        name: Largest() if calibrator.method == "minmax" else Histogram() for name in tensors
    }
    reference = Reference(network, tensors)
    stream(reference, images, statistics, calibrator.batch_size, threads=threads, progress=progress)
    return statistics


def _thresholds(statistics: Mapping[str, Statistic], calibrator: Calibrator, threads: int) -> dict[str, float]:
    """Return the clipping threshold of each tensor."""
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda name: _threshold(name, statistics[name], calibrator), statistics)
        return dict(zip(statistics, found, strict=True))


def _threshold(name: str, statistic: Statistic, calibrator: Calibrator) -> float:
    """Return the clipping threshold of one tensor."""
    largest = statistic.value if isinstance(statistic, Largest) else statistic.range
    if not largest:
        raise NetworkError(
            f"tensor {name!r}: zero for all calibration images, so that it has no scale; check the weights and the "
            "preprocessing, or calibrate with more images"
        )
    if isinstance(statistic, Largest):
        return statistic.value
    if calibrator.percentile is not None:
        return percentile_threshold(statistic, calibrator.percentile)
    return _SEARCHES[calibrator.method](statistic)
