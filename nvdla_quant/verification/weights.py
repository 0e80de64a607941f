"""Whether the weights in a loadable are the network's: each kernel must be the float kernel times one factor, rounded.

The factor is free, so it does not matter how a compiler scaled the weights (a scale a layer or a filter, BatchNorm
folded or not): a kernel is right where one factor explains every weight of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import ConvOperation
from nvdla_quant.emulator.program import Program
from nvdla_quant.emulator.sdp_run import weights_of
from nvdla_quant.emulator.weights import unpack_weights
from nvdla_quant.hardware import Precision
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
        kernels = _unpacked(program, operation)
        part = found[first : first + len(kernels)]
        if kernels.shape[1:3] != part.shape[1:3] or kernels.shape[3] < part.shape[3] or len(part) != len(kernels):
            return None
        part[:] = kernels[..., : part.shape[3]]
    half = convolutions[0][1].precision is Precision.FP16
    count = len(expected)
    factors, leeway, wrong = _fit(expected.reshape(count, -1), found.reshape(count, -1), half)
    index = convolutions[0][1].index
    return WeightCheck(layer.name, index, expected, found, factors, leeway, wrong.reshape(expected.shape))


def _unpacked(program: Program, operation: ConvOperation) -> Floats:
    packed = weights_of(operation, program.constant, program.target)
    return unpack_weights(operation, packed, program.target).astype(np.float64)


def _fit(expected: Floats, found: Floats, half: bool) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return (factor of each kernel, its relative leeway, which weights are wrong) of ``(kernels, weights)`` arrays."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sign = np.where(np.nansum(expected * found, axis=1) < 0, -1.0, 1.0)
        real = expected * sign[:, None]
        margin = np.maximum(np.abs(found) * HALF_ROUNDING, HALF_TINY) if half else np.full(found.shape, ROUNDING)
        low, high = found - margin, found + margin
        if not half:
            # What saturates may stand for anything beyond.
            low, high = np.where(found <= -127, -np.inf, low), np.where(found >= 127, np.inf, high)
        # real <= high * factor and real >= low * factor, for one positive factor.
        least = np.maximum(_largest(real / high, high > 0), _largest(real / low, low < 0))
        most = np.minimum(_smallest(real / high, high < 0), _smallest(real / low, low > 0))
        impossible = ((high == 0) & (real > 0)) | ((low == 0) & (real < 0)) | ~np.isfinite(found)
        leeway = np.where(np.isfinite(most) & (most > 0), (most - least) / (most + least), 0.0)
        fits = (least <= most) & ~impossible.any(axis=1)
        middle = np.where(np.isfinite(most), (least + most) / 2, least)
        likely = _likely_factor(real, found)
        factor = np.where(fits, middle, likely)
        off = np.abs(real / factor[:, None] - found)
        bound = 2 * margin if half else np.full(found.shape, WRONG_STEPS)
        wrong = ~fits[:, None] & ~(off <= bound)
        # No single weight stands out, yet no factor fits all: the whole kernel is in doubt.
        wrong |= (~fits & ~wrong.any(axis=1))[:, None]
    # A kernel of zeros has no factor; whatever stands there is multiplied away or not, which its outputs tell.
    empty = ~expected.any(axis=1)
    wrong[empty] = False
    return np.where(empty, 0.0, factor * sign), np.where(fits & ~empty, leeway, 0.0), wrong


def _largest(values: Floats, where: NDArray[np.bool_]) -> Floats:
    result: Floats = np.where(where, values, 0.0).max(axis=1, initial=0.0)
    return result


def _smallest(values: Floats, where: NDArray[np.bool_]) -> Floats:
    result: Floats = np.where(where, values, np.inf).min(axis=1, initial=np.inf)
    return result


def _likely_factor(real: Floats, found: Floats) -> Floats:
    """Return the factor that most of the larger weights agree on: a few wrong weights do not move a median."""
    large = np.abs(found) >= np.nanmax(np.abs(found), axis=1, keepdims=True) / 4
    ratios = np.where(large & np.isfinite(found) & (found != 0), real / found, np.nan)
    found_any = np.isfinite(ratios).any(axis=1)
    result = np.full(len(real), np.nan)
    result[found_any] = np.nanmedian(ratios[found_any], axis=1)
    return result
