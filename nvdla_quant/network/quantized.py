"""What came quantized: ranges of activations, and weights that are whole numbers times a scale for each output.

Weights stay that through rewrites.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.network.graph import Deconvolution, Layer, Learned, Network, Weights

_Learned = TypeVar("_Learned", bound=Learned)


@dataclass(frozen=True)
class Range:
    """What one QuantizeLinear maps an activation to.

    Attributes
    ----------
    scale : float
        Real value of one step.
    zero_point : int
        Integer that stands for 0.
    lowest, highest : int
        Least and largest integer.
    type : str
        ONNX's name of the integers' type.
    """

    scale: float
    zero_point: int
    lowest: int
    highest: int
    type: str

    @property
    def low(self) -> float:
        """Least real value."""
        return (self.lowest - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """Largest real value."""
        return (self.highest - self.zero_point) * self.scale

    @property
    def is_symmetric(self) -> bool:
        """Whether these are NVDLA's integers: int8 around 0."""
        return self.zero_point == 0 and self.type == "INT8"


def output_count(operation: Learned) -> int:
    """Return how many outputs an operation with weights has."""
    if isinstance(operation, Deconvolution):
        return int(operation.weights.shape[1]) * operation.group
    return len(operation.weights)


def along_outputs(operation: Learned, values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return one value for each output in a shape that multiplies the weights of `operation`."""
    shape = operation.weights.shape
    if not isinstance(operation, Deconvolution):
        return values.reshape(-1, *[1] * (len(shape) - 1))
    outputs = values.reshape(operation.group, 1, shape[1])
    return np.broadcast_to(outputs, (operation.group, shape[0] // operation.group, shape[1])).reshape(*shape[:2], 1, 1)


def steps_of(operation: Learned) -> NDArray[np.int32]:
    """Return the weights of an operation with scales as multiples of them."""
    assert operation.scales is not None, "weights that came quantized"
    # In double precision: the quotient of a product rounded to float32 is then next to the whole number.
    return np.rint(operation.weights / along_outputs(operation, operation.scales.astype(np.float64))).astype(np.int32)


def dequantized(steps: NDArray[np.integer | np.floating], scales: NDArray[np.floating]) -> Weights:
    """Return integers times scales as ONNX's DequantizeLinear does: in float32, rounded once."""
    return steps.astype(np.float32) * scales.astype(np.float32)


def rescaled(operation: _Learned, factors: NDArray[np.float64]) -> _Learned:
    """Return `operation` with its weights times a factor for each output, computed in double precision.

    Where the weights came quantized they stay the same integers, or their negatives, and the scales take the factor.
    An output that is multiplied by zero keeps its scale, since zero is none.
    """
    if operation.scales is None:
        weights = operation.weights.astype(np.float64) * along_outputs(operation, factors)
        return replace(operation, weights=weights.astype(np.float32))
    scales = np.where(factors == 0, operation.scales, operation.scales * np.abs(factors)).astype(np.float32)
    steps = steps_of(operation) * along_outputs(operation, np.sign(factors)).astype(np.int32)
    weights = dequantized(steps, along_outputs(operation, scales))
    return replace(operation, weights=weights, scales=scales)


def quantized_layers(network: Network) -> tuple[Layer, ...]:
    """Return the layers whose weights came quantized."""
    return tuple(
        layer for layer in network.layers if isinstance(layer.operation, Learned) and layer.operation.scales is not None
    )
