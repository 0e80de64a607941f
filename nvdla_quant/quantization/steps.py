"""Weights as int8 steps, and corrected biases, as a file beside a network: ``weights.steps.npz``.

A compiler that chose weights itself would round each to the nearest step. The file says which step it is, and of what
scale; `builtin` keeps both. Arrays by layer: ``<layer>:steps`` int8 in the shape of the weights and ``<layer>:scales``
float32 (outputs,), ``<layer>:bias`` float32 (outputs,) in real units; any of them may be missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError
from nvdla_quant.jobs.files import read_npz, write_npz
from nvdla_quant.network.graph import Learned, Network, Weights
from nvdla_quant.network.quantized import along_outputs, dequantized, output_count

_PARTS = ("steps", "scales", "bias")


@dataclass(frozen=True, eq=False)
class LayerSteps:
    """What takes the place of a layer's weights and bias.

    Attributes
    ----------
    steps : NDArray[int8] or None
        In the shape of the weights; None leaves them to the compiler.
    scales : Weights or None
        Real value of a step, (outputs,); there where `steps` are.
    bias : Weights or None
        (outputs,); None leaves it as it is.
    """

    steps: NDArray[np.int8] | None = None
    scales: Weights | None = None
    bias: Weights | None = None


@dataclass(frozen=True, eq=False)
class WeightSteps:
    """Those of a network, by layer."""

    layers: Mapping[str, LayerSteps] = field(default_factory=lambda: MappingProxyType({}))


def write_weight_steps(steps: WeightSteps, path: Path) -> None:
    """Write the file, the same bytes for the same content."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, layer in steps.layers.items():
        arrays |= {f"{name}:{part}": values for part in _PARTS if (values := getattr(layer, part)) is not None}
    write_npz(path, arrays)


def read_weight_steps(path: Path) -> WeightSteps:
    """Read the file.

    Raises
    ------
    DumpError
        It is missing or damaged.
    NetworkError
        It holds something else.
    """
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for key, values in read_npz(path).items():
        name, _, part = key.rpartition(":")
        kind = np.int8 if part == "steps" else np.float32
        if not name or part not in _PARTS or values.dtype != kind:
            raise NetworkError(
                f"{path}: array {key!r} of {values.dtype}, expected <layer>:steps of int8, <layer>:scales or "
                "<layer>:bias of float32; is it a weights.steps.npz?"
            )
        found.setdefault(name, {})[part] = values
    for name, parts in found.items():
        if ("steps" in parts) != ("scales" in parts):
            raise NetworkError(f"{path}: layer {name!r} has steps or scales, expected both or neither")
    return WeightSteps({name: LayerSteps(**parts) for name, parts in found.items()})


def with_steps_of(network: Network, path: Path | str | None) -> Network:
    """Return `network` with the weights and biases of a file, where there is one; errors as of both functions."""
    return with_steps(network, read_weight_steps(Path(path))) if path else network


def with_steps(network: Network, steps: WeightSteps) -> Network:
    """Return `network` with these weights and biases; its compiler keeps the steps as they are.

    Raises
    ------
    NetworkError
        The network has no such layer, or one of another shape.
    """
    changed: dict[str, Learned] = {}
    for name, layer in steps.layers.items():
        operation = network.by_name[name].operation if name in network.by_name else None
        if not isinstance(operation, Learned):
            raise NetworkError(
                f"weight steps: layer {name!r} is no layer with weights in network {network.name!r}; they belong to "
                "another network, or to another preparation of it"
            )
        changed[name] = _changed(name, operation, layer)
    layers = tuple(replace(one, operation=changed.get(one.name, one.operation)) for one in network.layers)
    return replace(network, layers=layers)


def _changed(name: str, operation: Learned, layer: LayerSteps) -> Learned:
    if layer.steps is not None:
        assert layer.scales is not None
        if layer.steps.shape != operation.weights.shape:
            raise NetworkError(
                f"weight steps: layer {name!r} has the shape {layer.steps.shape}, expected {operation.weights.shape}"
            )
        weights = dequantized(layer.steps, along_outputs(operation, layer.scales))
        operation = replace(operation, weights=weights, scales=layer.scales)
    if layer.bias is not None:
        outputs = output_count(operation)
        if layer.bias.shape != (outputs,):
            raise NetworkError(f"weight steps: layer {name!r} has {layer.bias.size} of bias, expected {outputs}")
        operation = replace(operation, bias=layer.bias)
    return operation
