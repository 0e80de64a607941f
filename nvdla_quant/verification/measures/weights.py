"""Whether the weights in a loadable are the network's: each kernel must be the float kernel times one factor, rounded.

The factor is free, so it does not matter how a compiler scaled the weights (a scale a layer or a filter, BatchNorm
folded or not): a kernel is right where one factor explains every weight of it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.emulator.decode.program import Program
from nvdla_quant.emulator.integer.sdp_run import weights_of
from nvdla_quant.emulator.operations import ConvOperation
from nvdla_quant.emulator.weights import unpack_weights
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.network.graph import Convolution, InnerProduct, Layer, Network
from nvdla_quant.network.views import viewed

ROUNDING = 0.51
"""Steps that an int8 weight may lie off: half a step, and what the float32 reciprocals of scales cost (0.002 of a
step in NVIDIA's and our loadables)."""
HALF_ROUNDING = 2.0**-10.5
"""Relative error of a weight in half precision: 2**-11 rounded to nearest, 2**-10 cut off."""
HALF_TINY = 2.0**-24
"""Smallest half."""
WRONG_STEPS = 1.0
"""Beyond this many steps (fp16: times `HALF_ROUNDING`) from the likeliest factor a single weight counts as wrong."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WeightCheck:
    """The weights of one convolution beside the network's.

    Attributes
    ----------
    layer : str
        The network's layer.
    operation : int
        Number of the first operation that has them.
    float_weights : NDArray[float64]
        (kernels, height, width, channels).
    weights : NDArray[float64]
        The same from the loadable, in its own steps.
    factors : NDArray[float64]
        Real value of one step of each kernel, (kernels,); NaN where no factor fits at all.
    leeway : NDArray[float64]
        Relative error that the factors may have: several may fit small kernels.
    wrong : NDArray[bool]
        Weights that are not the network's.
    """

    layer: str
    operation: int
    float_weights: Floats
    weights: Floats
    factors: Floats
    leeway: Floats
    wrong: NDArray[np.bool_]

    @property
    def is_right(self) -> bool:
        """Whether every weight is the network's."""
        return not self.wrong.any()

    @property
    def real(self) -> Floats:
        """The loadable's weights in the network's units."""
        return self.weights * self.factors[:, None, None, None]


def float_weights(network: Network, layer: Layer) -> Floats | None:
    """Return a layer's weights as (kernels, height, width, channels); None where it is no plain convolution."""
    match layer.operation:
        case Convolution():
            return layer.operation.weights.transpose(0, 2, 3, 1).astype(np.float64)
        case InnerProduct():
            channels, height, width = network.tensors[viewed(network, layer.inputs[0])].chw
            kernels = layer.operation.weights.reshape(-1, channels, height, width)
            return kernels.transpose(0, 2, 3, 1).astype(np.float64)
    return None


def check_weights(
    program: Program, network: Network, layer: Layer, convolutions: tuple[tuple[int, ConvOperation], ...]
) -> WeightCheck | None:
    """Compare the weights of `layer` with those of the convolutions that compute it.

    Parameters
    ----------
    program : Program
        The loadable.
    network : Network
        With its weights, groups written out (`passes.write_out_groups`).
    layer : Layer
        A convolution or inner product.
    convolutions : tuple[tuple[int, ConvOperation], ...]
        (first kernel, convolution): parts of the output.

    Returns
    -------
    WeightCheck or None
        None where the two cannot be laid side by side (a deconvolution, another window, weights that are computed).
    """
    expected = float_weights(network, layer)
    computed = {id(operation.source) for operation in program.operations if operation.index in program.computed}
    if expected is None or any(id(operation) in computed for _, operation in convolutions):
        return None
    found = np.full(expected.shape, np.nan)
    for first, operation in convolutions:
        kernels = unpacked(program, operation).astype(np.float64)
        part = found[first : first + len(kernels)]
        if kernels.shape[1:3] != part.shape[1:3] or kernels.shape[3] < part.shape[3] or len(part) != len(kernels):
            return None
        part[:] = kernels[..., : part.shape[3]]
    half = convolutions[0][1].precision is Precision.FP16
    index = convolutions[0][1].index
    return compared(layer.name, index, expected, found, half)


def compared(layer: str, operation: int, expected: Floats, found: Floats, half: bool) -> WeightCheck:
    """Compare weights, (kernels, height, width, channels), of a convolution with the network's."""
    own, there = (part.reshape(len(expected), -1).astype(np.float32) for part in (expected, found))
    fitted = fit(own, there, half)
    wrong = wrong_weights(fitted, own, there, half).reshape(expected.shape)
    return WeightCheck(layer, operation, expected, found, fitted.factors, fitted.leeway, wrong)


def unpacked(program: Program, operation: ConvOperation) -> NDArray[Any]:
    """Return the weights of a convolution, (kernels, height, width, channels), in the loadable's steps."""
    packed = weights_of(operation, program.constant, program.target)
    return unpack_weights(operation, packed, program.target)


@dataclass(frozen=True, eq=False)
class Fit:
    """Factors that explain the kernels of a convolution, (kernels,) each.

    Attributes
    ----------
    factors : NDArray[float64]
        The likeliest real value of one step, with its sign; 0 for a kernel of zeros, NaN where none fits at all.
    least, most : NDArray[float64]
        All that explain every weight, without the sign; most is infinite where nothing bounds it.
    fits : NDArray[bool]
        Whether there is any.
    empty : NDArray[bool]
        Kernels of zeros: whatever stands there is multiplied away or not, which its outputs tell.
    """

    factors: Floats
    least: Floats
    most: Floats
    fits: NDArray[np.bool_]
    empty: NDArray[np.bool_]

    @property
    def leeway(self) -> Floats:
        """Relative error that the factors may have: several may fit small kernels."""
        with np.errstate(invalid="ignore"):
            share = (self.most - self.least) / (self.most + self.least)
        known = self.fits & ~self.empty & np.isfinite(self.most) & (self.most > 0)
        return np.where(known, share, 0.0)

    def explained_by(self, factors: Floats, slack: float) -> NDArray[np.bool_]:
        """Return which kernels these factors explain too, up to a relative error."""
        size = np.abs(factors)
        inside = (size >= self.least * (1 - slack)) & (size <= self.most * (1 + slack))
        signed = (np.sign(factors) == np.sign(self.factors)) | (self.factors == 0)
        explained: NDArray[np.bool_] = self.empty | (inside & signed)
        return explained


def fit(expected: NDArray[np.float32], found: NDArray[np.float32], half: bool, beyond: float = np.inf) -> Fit:
    """Find the factor of each kernel of ``(kernels, weights)`` arrays: the network's over what stands there.

    int8: 127 and -127 may stand for weights that are up to `beyond` steps larger.
    """
    count = len(expected)
    bounds = np.empty((count, 4))
    margins = ROUNDING, HALF_ROUNDING, beyond
    _bounds(np.ascontiguousarray(expected), np.ascontiguousarray(found), half, *margins, bounds)
    least, most, sign, possible = bounds.T
    empty = np.asarray(~expected.any(axis=1), np.bool_)
    fits = (possible > 0) & (least <= most)
    factors = np.where(np.isfinite(most), (least + most) / 2, least)
    lost = ~fits & ~empty
    if lost.any():
        real = expected[lost].astype(np.float64) * sign[lost, None]
        factors[lost] = _likely_factor(real, found[lost].astype(np.float64))
    return Fit(np.where(empty, 0.0, factors * sign), least, most, fits | empty, empty)


def wrong_weights(fitted: Fit, expected: NDArray[Any], found: NDArray[Any], half: bool) -> NDArray[np.bool_]:
    """Return which weights of ``(kernels, weights)`` arrays are not the network's by the factors of `fit`."""
    wrong = np.zeros(expected.shape, np.bool_)
    lost = np.flatnonzero(~fitted.fits)
    if not len(lost):
        return wrong
    found = found[lost].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        off = np.abs(expected[lost].astype(np.float64) / fitted.factors[lost, None] - found)
        margin = np.maximum(np.abs(found) * HALF_ROUNDING, HALF_TINY)
        single = ~(off <= (2 * margin if half else WRONG_STEPS))
    # No single weight stands out, yet no factor fits all: the whole kernel is in doubt.
    wrong[lost] = single | ~single.any(axis=1)[:, None]
    return wrong


@jit
def _bounds(
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    half: bool,
    rounding: float,
    half_rounding: float,
    beyond: float,
    bounds: Floats,
) -> None:
    """Fill in, for each kernel, (least factor, largest, its sign, whether there can be one)."""
    kernels, count = expected.shape
    for kernel in range(kernels):
        product = 0.0
        for i in range(count):
            product += float(expected[kernel, i]) * float(found[kernel, i])
        sign = -1.0 if product < 0 else 1.0
        least, most, possible = 0.0, np.inf, 1.0
        for i in range(count):
            step = float(found[kernel, i])
            real = float(expected[kernel, i]) * sign
            if not np.isfinite(step):
                possible = 0.0
                break
            margin = max(abs(step) * half_rounding, HALF_TINY) if half else rounding
            low, high = step - margin, step + margin
            if not half:
                low = step - beyond if step <= -127 else low
                high = step + beyond if step >= 127 else high
            # real <= high * factor and real >= low * factor, for one positive factor.
            if high > 0:
                least = max(least, real / high)
            elif high < 0:
                most = min(most, real / high)
            elif real > 0:
                possible = 0.0
            if low < 0:
                least = max(least, real / low)
            elif low > 0:
                most = min(most, real / low)
            elif real < 0:
                possible = 0.0
        bounds[kernel, 0] = least
        bounds[kernel, 1] = most
        bounds[kernel, 2] = sign
        bounds[kernel, 3] = possible


def _likely_factor(real: Floats, found: Floats) -> Floats:
    """Return the factor that most of the larger weights agree on: a few wrong weights do not move a median."""
    large = np.abs(found) >= np.nanmax(np.abs(found), axis=1, keepdims=True) / 4
    ratios = np.where(large & np.isfinite(found) & (found != 0), real / found, np.nan)
    found_any = np.isfinite(ratios).any(axis=1)
    result = np.full(len(real), np.nan)
    result[found_any] = np.nanmedian(ratios[found_any], axis=1)
    return result
