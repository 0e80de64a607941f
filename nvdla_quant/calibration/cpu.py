"""Calibrate a network on the CPU: thresholds of all activations over a set of images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.calibration.entropy import entropy_threshold
from nvdla_quant.calibration.histogram import Histogram
from nvdla_quant.calibration.minmax import Largest
from nvdla_quant.calibration.percentile import percentile_threshold
from nvdla_quant.errors import ConfigError, DatasetError, NetworkError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.network.graph import Network
from nvdla_quant.network.views import viewed
from nvdla_quant.table.cache import CalibrationCache, our_header
from nvdla_quant.table.naming import tensor_names

STEPS = 127
"""int8 steps from 0 to the clipping threshold."""

HEADERS = {"entropy": "EntropyCalibration2", "minmax": "MinMaxCalibration", "percentile": "PercentileCalibration"}
"""How the header of our cache names each method; those of TensorRT's methods by TensorRT's names."""

MeasuringMethod = Literal["entropy", "minmax", "percentile"]
"""How a threshold is chosen from the activations."""

Progress = Callable[[int, int], None]
"""Called with the number of images done, and of all."""


@dataclass(frozen=True)
class Calibrator:
    """How to choose thresholds.

    Attributes
    ----------
    method : {"entropy", "minmax", "percentile"}
        ``entropy`` is TensorRT-style, see `entropy`.
    batch_size : int
        Images at once. It changes the result of ``entropy`` and, within a bin, of ``percentile``.
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


def calibrate(
    network: Network,
    images: NDArray[np.float32],
    calibrator: Calibrator,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> CalibrationCache:
    """Return the calibration cache of `network`, with TensorRT's names and order.

    A pooling takes its input's scale, as in TensorRT's caches. One batch of activations is in memory at a time.

    Parameters
    ----------
    network : Network
        The original network, before anything is folded or rewritten; with its weights.
    images : NDArray[float32], shape (n, channels, height, width)
        In the network's own domain, after preprocessing. Order matters, see `Histogram`.
    calibrator : Calibrator
        Method and batch size.
    threads : int
        Threads of onnxruntime.
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
    entries = tuple((name, thresholds[tensor] / STEPS) for tensor, name in names.items())
    return CalibrationCache(our_header(HEADERS[calibrator.method]), entries)


def measure(
    network: Network,
    images: NDArray[np.float32],
    calibrator: Calibrator,
    tensors: tuple[str, ...],
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Return the clipping threshold of each of `tensors` on its own; parameters and errors as `calibrate`."""
    if not len(images):
        raise DatasetError("calibration: no images, expected at least one; choose more calibration images")
    statistics: Mapping[str, Histogram | Largest] = {
        name: Largest() if calibrator.method == "minmax" else Histogram() for name in tensors
    }
    reference = Reference(network, tensors, threads=threads, batch_size=calibrator.batch_size)
    done = 0
    for batch in reference.batches(images):
        for name, values in batch.items():
            try:
                statistics[name].add(values)
            except ValueError as error:
                raise NetworkError(
                    f"tensor {name!r}: {error} for images {done} to {done + len(values) - 1} of the calibration; "
                    "check the weights and the preprocessing"
                ) from error
        done = min(done + calibrator.batch_size, len(images))
        if progress is not None:
            progress(done, len(images))
    return {name: _threshold(name, statistic, calibrator) for name, statistic in statistics.items()}


def carry_poolings(network: Network, thresholds: dict[str, float]) -> None:
    """Give each pooling its input's threshold, in network order so that chains follow."""
    for layer in network.layers:
        if layer.kind == "Pooling" and layer.name in thresholds:
            thresholds[layer.name] = thresholds[viewed(network, layer.inputs[0])]


def _threshold(name: str, statistic: Histogram | Largest, calibrator: Calibrator) -> float:
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
    return entropy_threshold(statistic)
