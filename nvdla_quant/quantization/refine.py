"""Corrected biases and chosen roundings of a network's layers, one after another, on the simulated int8 network.

Each layer sees what the layers before it give once they are corrected, and is held to what it computes in fp32.

Bias correction: rounding shifts the mean of a layer's outputs, which the bias can take back. Nagel et al. (2019,
arXiv:1906.04721, section 4.2 and appendix D) measure the shift on images, before the activation::

    b' = b - (E[y_int8] - E[y_fp32])

Here the means are over the places that the activation lets pass in fp32: what a ReLU takes away anyway would decide
where most of a channel is negative, and moved the mean behind the ReLU away instead (ResNet-20 lost up to 2.2 dB). A
convolution that only goes into a sum is corrected by the shift of the sum, which the other branch has part in.
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
from nvdla_quant.network.graph import Clip, Convolution, Eltwise, InnerProduct, Layer, Network, ReLU
from nvdla_quant.network.views import sole_reader
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
    owners = _owners(network) if correction == "bias" else {}
    refined: dict[str, _Refining] = {}
    for number, layer in enumerate(network.layers, start=1):
        exact = paths.compute(layer, paths.exact)
        operation = layer.operation
        if isinstance(operation, Convolution | InnerProduct) and operation.scales is None and layer.name in scales:
            one = refined[layer.name] = _Refining(layer.name, operation, scales[layer.name])
            quantized = one.round(paths, layer, exact, rounding, centred=correction == "bias", seed=seed)
        else:
            quantized = paths.compute(layer, paths.quantized)
        if owner := refined.get(owners.get(layer.name, "")):
            shift = mean_shift(exact, quantized, passing(network, layer.name))
            quantized -= shift.astype(np.float32).reshape(-1, *[1] * (quantized.ndim - 2))
            owner.correct(shift)
        if layer.name in refined:
            refined[layer.name].after = sqnr(exact, quantized)
        paths.advance(layer, exact, quantized)
        if progress is not None:
            progress(number, len(network.layers))
    keeps = {name: rounding == "adaround" or name in given for name in refined}
    found = {name: one.steps(keeps[name]) for name, one in refined.items()}
    if not found:
        raise ConfigError(
            f"refine: network {network.name!r} has no convolution and no inner product whose weights are there to be "
            "rounded; those that came quantized, and deconvolutions, are left as they are"
        )
    return Refinement(WeightSteps(found), tuple(one.told for one in refined.values()), used)


class _Refining:
    """A layer while it is refined: its steps, and by how much its bias is corrected."""

    def __init__(self, name: str, operation: Convolution | InnerProduct, scales: Values) -> None:
        self._name, self._operation, self._scales = name, operation, scales
        self._chosen = nearest_steps(operation.weights, scales)
        self._flipped, self._shift = 0, np.zeros(0)
        self._before = self.after = np.inf

    def round(
        self, paths: Paths, layer: Layer, exact: Values, rounding: Rounding, *, centred: bool, seed: int
    ) -> Values:
        """Choose the steps, and return what the layer then computes of int8 inputs."""
        result = self._computed(paths, layer)
        self._before = sqnr(exact, result)
        if rounding == "adaround":
            del result  # It is as large as all that is held of a tensor.
            given = paths.quantized[layer.inputs[0]]
            sums = moments(self._operation, given, exact, centred=centred, seed=seed)
            self._chosen, self._flipped = round_weights(self._operation.weights, self._scales, sums)
            result = self._computed(paths, layer)
        return result

    def correct(self, shift: NDArray[np.float64]) -> None:
        """Take `shift` from the bias."""
        self._shift = shift

    def steps(self, keep: bool) -> LayerSteps:
        """Return what takes the place of the layer's bias and, if they are to be kept, of its weights."""
        bias = None
        if self._shift.size:
            old = np.zeros(len(self._shift)) if self._operation.bias is None else self._operation.bias
            bias = (old - self._shift).astype(np.float32)
        return LayerSteps(self._chosen, self._scales, bias) if keep else LayerSteps(bias=bias)

    @property
    def told(self) -> Refined:
        """Return what became of the layer."""
        largest = float(np.abs(self._shift).max(initial=0))
        return Refined(self._name, self._chosen.size, self._flipped, largest, self._before, self.after)

    def _computed(self, paths: Paths, layer: Layer) -> Values:
        """Return what the layer computes with the steps of int8 inputs."""
        steps = WeightSteps({self._name: LayerSteps(self._chosen, self._scales)})
        return paths.compute(with_steps(paths.network, steps).by_name[self._name], paths.quantized)


def _owners(network: Network) -> dict[str, str]:
    """Return, by the layer whose outputs are corrected, the layer whose bias takes the correction.

    That is itself, but for sums, which the last of their convolutions that goes nowhere else corrects.
    """
    owners = {layer.name: layer.name for layer in network.layers}
    for layer in network.layers:
        if isinstance(layer.operation, Eltwise) and layer.operation.operation == "sum":
            factors = layer.operation.coefficients or (1.0,) * len(layer.inputs)
            alone = [
                name
                for name, factor in zip(layer.inputs, factors, strict=True)
                if factor == 1 and name in network.by_name and sole_reader(network, name) is layer
            ]
            weighted = [name for name in alone if isinstance(network.by_name[name].operation, Convolution)]
            if weighted:
                last = max(weighted, key=list(network.tensors).index)
                owners[layer.name] = last
                del owners[last]
    return owners


def passing(network: Network, name: str) -> tuple[float, float]:
    """Return between which values the activation behind a tensor lets them pass; all, where there is none."""
    reader = sole_reader(network, name)
    match None if reader is None else reader.operation:
        case ReLU(negative_slope=0.0):
            return 0.0, np.inf
        case Clip(low=low, high=high):
            return -np.inf if low is None else low, np.inf if high is None else high
    return -np.inf, np.inf


def mean_shift(exact: Values, values: Values, between: tuple[float, float] = (-np.inf, np.inf)) -> NDArray[np.float64]:
    """Return by how much the mean of each channel of `values` is above that of `exact`, over images and places.

    Over the places where `exact` is between two values; 0 for a channel that is so nowhere.
    """
    total, count = np.zeros(exact.shape[1]), np.zeros(exact.shape[1])
    for part in parts(exact):
        difference = (values[part] - exact[part]).reshape(-1, len(total), _places(exact))
        known = exact[part].reshape(difference.shape)
        inside = (known > between[0]) & (known < between[1])
        total += np.where(inside, difference, np.float32(0)).sum((0, 2), dtype=np.float64)
        count += inside.sum((0, 2))
    return total / np.maximum(count, 1)


def _places(values: Values) -> int:
    """Return how many values an image has of each channel."""
    return prod(values.shape[2:])
