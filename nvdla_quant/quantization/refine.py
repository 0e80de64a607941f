"""Corrected biases and chosen roundings of a network's layers, one after another, on the simulated int8 network.

Each layer sees what the layers before it give once they are corrected, and is held to what it computes in fp32.

Bias correction: rounding shifts the mean of a layer's outputs, which the bias can take back. Nagel et al. (2019,
arXiv:1906.04721, section 4.2 and appendix D) measure the shift on images, before the activation::

    b' = b - (E[y_int8] - E[y_fp32])
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.numbers.chosen import chosen_scales
from nvdla_quant.errors import ConfigError
from nvdla_quant.execution.sqnr import parts, sqnr
from nvdla_quant.hardware.targets import QuantizationMode, Target
from nvdla_quant.network.graph import Convolution, InnerProduct, Layer, Network
from nvdla_quant.quantization.layers import Paths, Values, largest_held
from nvdla_quant.quantization.rounding import moments, nearest_steps, round_weights
from nvdla_quant.quantization.steps import LayerSteps, WeightSteps, with_steps
from nvdla_quant.table.consistency import check_complete
from nvdla_quant.table.table import CalibrationTable

Correction = Literal["none", "bias"]
Rounding = Literal["nearest", "adaround"]

ROOM = 800 << 20
"""Bytes of the tensors that are held, at most, where one image does not take more: it says how many images are used."""


@dataclass(frozen=True)
class Refined:
    """What became of a layer: a row of ``refinement.tsv``.

    Attributes
    ----------
    layer : str
        Its name.
    weights, flipped : int
        How many weights it has, and how many were not rounded to the nearest step.
    largest_shift : float
        Largest change of a bias, in real units.
    sqnr_before, sqnr_after : float
        SQNR of its outputs in dB before the activation, with inputs in int8: of the nearest steps and the bias as it
        was, and of what they became.
    """

    layer: str
    weights: int
    flipped: int
    largest_shift: float
    sqnr_before: float
    sqnr_after: float


@dataclass(frozen=True, eq=False)
class Refinement:
    """Weights and biases that take the place of a network's, and what changed, by layer in order."""

    steps: WeightSteps
    layers: tuple[Refined, ...]
    images: int


def images_used(network: Network, count: int) -> int:
    """Return how many of `count` images a refinement looks at: as many as fit into `ROOM`, and at least 8."""
    return min(count, max(8, ROOM // (2 * largest_held(network))))


def refine(
    network: Network,
    table: CalibrationTable,
    target: Target,
    mode: QuantizationMode,
    images: NDArray[np.float32],
    *,
    correction: Correction = "none",
    rounding: Rounding = "nearest",
    searched: WeightSteps | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Refinement:
    """Correct the biases and choose the roundings of a network's convolutions and inner products.

    Parameters
    ----------
    network : Network
        As it is compiled; with its weights, normalisation folded.
    table : CalibrationTable
        Its fixed table.
    target : Target
        What it is compiled for: the compiler chooses the scales of weights.
    mode : QuantizationMode
        One scale for a layer's weights, or one for each filter.
    images : NDArray[float32]
        Calibration images in the network's own domain; the first `images_used` are looked at.
    correction : {"none", "bias"}
        Whether biases are corrected.
    rounding : {"nearest", "adaround"}
        Whether roundings are chosen.
    searched : WeightSteps, optional
        Scales of some layers' weights that count instead of the compiler's choice.
    seed : int
        Of the choice of samples.
    threads : int
        Threads of onnxruntime.
    progress : callable, optional
        Called after each layer with layers done, and all.

    Returns
    -------
    Refinement
        Deconvolutions, and weights that came quantized, are left as they are.

    Raises
    ------
    ConfigError
        Nothing is to be refined, or there is nothing that could be.
    CompileError, TableError
        As `chosen_scales`.
    """
    if correction == "none" and rounding == "nearest":
        raise ConfigError("refine: correction is 'none' and rounding is 'nearest', so nothing is refined; choose one")
    check_complete(network, table)
    given = {} if searched is None else searched.layers
    scales = dict(chosen_scales(network, table, target, mode))
    scales |= {name: one.scales for name, one in given.items() if one.scales is not None}
    used = images_used(network, len(images))
    paths = Paths(network, table, np.ascontiguousarray(images[:used]), threads)
    found: dict[str, LayerSteps] = {}
    told: list[Refined] = []
    for number, layer in enumerate(network.layers, start=1):
        exact = paths.compute(layer, paths.exact)
        operation = layer.operation
        if isinstance(operation, Convolution | InnerProduct) and operation.scales is None and layer.name in scales:
            chosen = _Chosen(paths, layer, operation, exact, scales[layer.name])
            quantized = chosen.refine(correction, rounding, seed)
            kept = chosen.steps if rounding == "adaround" or layer.name in given else LayerSteps(bias=chosen.steps.bias)
            found[layer.name] = kept
            told.append(chosen.told)
        else:
            quantized = paths.compute(layer, paths.quantized)
        paths.advance(layer, exact, quantized)
        if progress is not None:
            progress(number, len(network.layers))
    if not found:
        raise ConfigError(
            f"refine: network {network.name!r} has no convolution and no inner product whose weights are there to be "
            "rounded; those that came quantized, and deconvolutions, are left as they are"
        )
    return Refinement(WeightSteps(found), tuple(told), used)


class _Chosen:
    """One layer while it is refined."""

    def __init__(
        self, paths: Paths, layer: Layer, operation: Convolution | InnerProduct, exact: Values, scales: Values
    ) -> None:
        self._paths, self._layer, self._operation, self._exact, self._scales = paths, layer, operation, exact, scales
        self.steps: LayerSteps
        self.told: Refined

    def refine(self, correction: Correction, rounding: Rounding, seed: int) -> Values:
        """Choose steps and bias, and return what the layer then computes of int8 inputs."""
        operation, scales = self._operation, self._scales
        nearest = nearest_steps(operation.weights, scales)
        result = self._computed(LayerSteps(nearest, scales))
        before = sqnr(self._exact, result)
        steps, flipped = nearest, 0
        if rounding == "adaround":
            del result  # It is as large as all that is held of a tensor.
            given = self._paths.quantized[self._layer.inputs[0]]
            sums = moments(operation, given, self._exact, centred=correction == "bias", seed=seed)
            steps, flipped = round_weights(operation.weights, scales, sums)
            result = self._computed(LayerSteps(steps, scales))
        bias = None
        if correction == "bias":
            shift = mean_shift(self._exact, result)
            old = np.zeros(len(shift)) if operation.bias is None else operation.bias
            bias = (old - shift).astype(np.float32)
            result -= shift.astype(np.float32).reshape(-1, *[1] * (result.ndim - 2))
        self.steps = LayerSteps(steps, scales, bias)
        largest = 0.0 if bias is None else float(np.abs(shift).max())
        self.told = Refined(self._layer.name, steps.size, flipped, largest, before, sqnr(self._exact, result))
        return result

    def _computed(self, steps: LayerSteps) -> Values:
        """Return what the layer computes with these steps of int8 inputs."""
        changed = with_steps(self._paths.network, WeightSteps({self._layer.name: steps}))
        return self._paths.compute(changed.by_name[self._layer.name], self._paths.quantized)


def mean_shift(exact: Values, values: Values) -> NDArray[np.float64]:
    """Return by how much the mean of each channel of `values`, over images and places, is above that of `exact`."""
    total = np.zeros(exact.shape[1])
    for part in parts(exact):
        total += (values[part] - exact[part]).reshape(-1, len(total), _places(exact)).sum((0, 2), dtype=np.float64)
    return total / (len(exact) * _places(exact))


def _places(values: Values) -> int:
    """Return how many values an image has of each channel."""
    return prod(values.shape[2:])
