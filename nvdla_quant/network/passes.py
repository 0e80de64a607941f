"""Bring a network to the form that is compiled, without changing what it computes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import ConfigError
from nvdla_quant.network.graph import (
    BatchNorm,
    Convolution,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Power,
    Scale,
    Weights,
)

PREPARATIONS = ("fold", "as-is")


@dataclass(frozen=True)
class Prepared:
    """A network in the form that is compiled.

    Attributes
    ----------
    network : Network
        What is compiled.
    absorbed : Mapping[str, str]
        For each layer that took others in, the last original layer among them: the one whose scale it now needs.
    """

    network: Network
    absorbed: Mapping[str, str]


def prepare(network: Network, preparation: str) -> Prepared:
    """Prepare `network`.

    Parameters
    ----------
    network : Network
        With or without its weights' values: structure and names come out the same.
    preparation : {"fold", "as-is"}
        ``fold`` merges BatchNorm, Scale and linear Power into the convolution or fully connected layer before them,
        where nothing else reads what that writes; ``as-is`` changes nothing.

    Raises
    ------
    ConfigError
        There is no such preparation.
    """
    if preparation not in PREPARATIONS:
        raise ConfigError(f"preparation is {preparation!r}, expected one of {', '.join(PREPARATIONS)}")
    return fold_affine(network) if preparation == "fold" else Prepared(network, MappingProxyType({}))


def fold_affine(network: Network) -> Prepared:
    """Merge ``y = x * factor + offset`` layers into the layer that computes x.

    ``(W x + b) * factor + offset = (W * factor) x + (b * factor + offset)``, computed in float64 and rounded once to
    float32. The merged layer keeps its name; readers of a layer that is gone read it instead.
    """
    layers: dict[str, Layer] = {}
    renamed: dict[str, str] = {}
    absorbed: dict[str, str] = {}
    for layer in network.layers:
        inputs = tuple(renamed.get(name, name) for name in layer.inputs)
        before = layers.get(inputs[0])
        affine = _affine(layer.operation)
        if affine is None or before is None or len(network.consumers[layer.inputs[0]]) != 1:
            layers[layer.name] = replace(layer, inputs=inputs)
            continue
        merged = _merged(before.operation, *affine)
        if merged is None:
            layers[layer.name] = replace(layer, inputs=inputs)
            continue
        layers[before.name] = replace(before, operation=merged)
        renamed[layer.name] = before.name
        absorbed[before.name] = layer.name
    kept = {tensor.name for tensor in network.inputs} | layers.keys()
    tensors = {name: tensor for name, tensor in network.tensors.items() if name in kept}
    # The merged tensor lives where the last one that it replaces lived, so that later readers find it by its blob.
    for name, last in absorbed.items():
        tensors[name] = replace(tensors[name], blob=network.tensors[last].blob)
    folded = Network(network.name, network.inputs, tuple(layers.values()), tensors)
    return Prepared(folded, MappingProxyType(absorbed))


def _affine(operation: Operation) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Factor and offset a channel (or one for all) of an operation that computes ``x * factor + offset``."""
    match operation:
        case BatchNorm():
            factor = 1 / np.sqrt(operation.variance.astype(np.float64) + operation.eps)
            return factor, -operation.mean.astype(np.float64) * factor
        case Scale():
            offset = np.zeros(1) if operation.beta is None else operation.beta.astype(np.float64)
            return operation.gamma.astype(np.float64), offset
        case Power(power=1.0):
            return np.array([operation.scale]), np.array([operation.shift])
    return None


def _merged(
    operation: Operation, factor: NDArray[np.float64], offset: NDArray[np.float64]
) -> Convolution | InnerProduct | None:
    """Return `operation` with the affine map behind it taken in, or None where it has no weights to take it into."""
    if not isinstance(operation, Convolution | InnerProduct):
        return None
    outputs = len(operation.weights)
    column = np.broadcast_to(factor, outputs).reshape(-1, *[1] * (operation.weights.ndim - 1))
    weights: Weights = (operation.weights * column).astype(np.float32)
    bias = np.zeros(outputs) if operation.bias is None else operation.bias
    return replace(operation, weights=weights, bias=(bias * factor + offset).astype(np.float32))
