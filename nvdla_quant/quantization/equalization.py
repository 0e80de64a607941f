"""Cross-layer equalization: the channels between two layers brought to like ranges, without changing what is computed.

Where a function f between two layers has ``f(s x) = s f(x)`` for s > 0, dividing an output of the first layer by s and
multiplying what the second one takes it by with s changes nothing. Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction" (arXiv:1906.04721), section 4.1, choose s so that the weights of both layers have the
same range in each channel, which is what one scale for a whole layer needs (equation 11)::

    s[i] = sqrt(r1[i] * r2[i]) / r2[i]

with r1[i] the largest magnitude of the first layer's weights of output i, and r2[i] of the second's of input i. Several
layers in a row are taken two at a time, again and again, until nothing moves.

Two things limit s from below, that is, how far a channel may grow:

- A ReLU6 is no such function: its bound would have to move with each channel, and hardware has one for a tensor. A
  channel that stays below the bound on every image is scaled as long as it goes on to; one that reaches it is left.
- A channel of small weights and a large bias would grow beyond all others, and the whole tensor's step with it. The
  paper takes such biases into the next layer (section 4.1.3), which is exact only while the channel stays above them.
  Here no channel grows beyond the largest value of its tensor on the images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.network.graph import (
    Clip,
    Convolution,
    Dropout,
    Flatten,
    InnerProduct,
    Layer,
    Network,
    Pooling,
    PReLU,
    ReLU,
    Reshape,
)
from nvdla_quant.network.shapes import assemble

SETTLED = 1e-3
"""Largest relative change of a range in a round after which the next ones are not worth it."""

ROUNDS = 200
"""Rounds at most; twelve layers in a row took 30."""

NEGLIGIBLE = 1e-12
"""Product of the ranges on both sides of a channel, over the largest of its tensor, below which it carries nothing:
training by weight decay leaves channels whose weights are all but zero."""

HEADROOM = 1.25
"""How far below a bound a channel stays after scaling, times its largest value in any image."""

_ACTIVATIONS = (ReLU, PReLU, Clip)

_PLAIN = (ReLU, PReLU, Pooling, Dropout)
"""Operations that commute with the scaling of a channel."""


@dataclass(frozen=True)
class Link:
    """Two layers, and the tensors between them that nothing else reads.

    Attributes
    ----------
    first, second : str
        The layers.
    between : tuple[str, ...]
        Layers between them, in order.
    bound : str or None
        The one of these that has an upper bound.
    """

    first: str
    second: str
    between: tuple[str, ...] = ()
    bound: str | None = None


@dataclass(frozen=True)
class Change:
    """What equalizing did to a link: a row of ``equalization.tsv``.

    Attributes
    ----------
    first, second : str
        The layers.
    channels : int
        Channels between the layers.
    scaled : int
        Those that were scaled.
    spread_before, spread_after : float
        Largest over smallest range of a channel in the weights of the first layer, of channels that carry anything.
    remark : str
        What became of a bound.
    """

    first: str
    second: str
    channels: int
    scaled: int
    spread_before: float
    spread_after: float
    remark: str


@dataclass(frozen=True)
class Equalized:
    """A network that computes the same, and what was changed."""

    network: Network
    changes: tuple[Change, ...]


def links_of(network: Network) -> tuple[Link, ...]:
    """Return the pairs of layers between which channels may be scaled, in the network's order.

    A pair ends where several layers read a tensor, where it is an output, and at weights that came quantized.
    """
    found = (_link(network, layer) for layer in network.layers if _is_scalable(layer))
    return tuple(link for link in found if link is not None)


def watched_tensors(network: Network) -> tuple[str, ...]:
    """Return the tensors whose largest magnitudes `equalize` asks for: what a bound reads, or else what is stored."""
    return tuple(_watched(network, link) for link in links_of(network))


def equalize(network: Network, largest: Mapping[str, NDArray[np.floating]]) -> Equalized:
    """Bring the ranges of weights on both sides of each link together.

    Parameters
    ----------
    network : Network
        With its weights, normalisation folded.
    largest : Mapping[str, NDArray]
        Largest magnitude of each channel over the calibration images, (channels,), of `watched_tensors`.

    Returns
    -------
    Equalized
        Names, shapes and results are as before, but for rounding, and for values at a bound beyond what was measured.
    """
    links = links_of(network)
    weights = {name: _grouped(network, name) for link in links for name in (link.first, link.second)}
    factors = {link: np.ones(_outputs(network, link.first)) for link in links}
    free = {link: _free(network, link, largest[_watched(network, link)]) for link in links}
    floors = {link: _floor(network, link, largest[_watched(network, link)]) for link in links}
    live = {link: _live(weights, link) for link in links}
    before = {link: _spread(weights[link.first], live[link]) for link in links}
    for _ in range(ROUNDS):
        moved = 0.0
        for link in links:
            own, other = _output_ranges(weights[link.first]), _input_ranges(weights[link.second])
            moving = free[link] & live[link]
            ratio = np.ones_like(own)
            ratio[moving] = np.sqrt(own[moving] * other[moving]) / other[moving]
            # The floor is that of the product of all rounds.
            ratio = np.where(moving, np.maximum(ratio, floors[link] / factors[link]), 1.0)
            factors[link] *= ratio
            _scale_outputs(weights[link.first], 1 / ratio)
            _scale_inputs(weights[link.second], ratio)
            moved = max(moved, float(np.abs(np.log(ratio)).max(initial=0)))
        if moved < SETTLED:
            break
    changes = tuple(
        Change(
            link.first,
            link.second,
            len(factors[link]),
            int((factors[link] != 1).sum()),
            before[link],
            _spread(weights[link.first], live[link]),
            _remark(network, link, free[link]),
        )
        for link in links
    )
    return Equalized(_rescaled(network, factors), changes)


def _link(network: Network, first: Layer) -> Link | None:
    """Return the pair that begins with a layer; None where none does."""
    between: list[str] = []
    bound: str | None = None
    layer = first
    while True:
        readers = network.consumers[layer.name]
        if len(readers) != 1:
            return None
        (layer,) = readers
        operation = layer.operation
        if _is_scalable(layer):
            return Link(first.name, layer.name, tuple(between), bound)
        if isinstance(operation, Clip) and operation.low == 0 and bound is None:
            bound = layer.name if operation.high is not None else None
        elif not isinstance(operation, _PLAIN) and not _is_flattening(network, layer):
            return None
        between.append(layer.name)


def _is_scalable(layer: Layer) -> bool:
    operation = layer.operation
    return isinstance(operation, Convolution | InnerProduct) and operation.scales is None


def _is_flattening(network: Network, layer: Layer) -> bool:
    """Return whether a layer makes a vector of channels: an inner product alone can read it, channel after channel."""
    return isinstance(layer.operation, Flatten | Reshape) and len(network.tensors[layer.name].shape) == 1


def _outputs(network: Network, name: str) -> int:
    return len(_weights(network.by_name[name]))


def _weights(layer: Layer) -> NDArray[np.float32]:
    assert isinstance(layer.operation, Convolution | InnerProduct)
    return layer.operation.weights


def _grouped(network: Network, name: str) -> NDArray[np.float64]:
    """Return the magnitudes of a layer's weights as (groups, outputs / group, inputs / group, taps)."""
    layer = network.by_name[name]
    weights = np.abs(_weights(layer).astype(np.float64))
    group = layer.operation.group if isinstance(layer.operation, Convolution) else 1
    inputs = network.tensors[_channels_of(network, layer)].chw[0] // group
    return weights.reshape(group, len(weights) // group, inputs, -1)


def _channels_of(network: Network, layer: Layer) -> str:
    """Return the tensor whose channels a layer's inputs are: before what makes a vector of them."""
    name = layer.inputs[0]
    while name in network.by_name and isinstance(network.by_name[name].operation, Flatten | Reshape | Dropout):
        name = network.by_name[name].inputs[0]
    return name


def _output_ranges(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    ranges: NDArray[np.float64] = weights.max(axis=(2, 3)).ravel()
    return ranges


def _input_ranges(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    ranges: NDArray[np.float64] = weights.max(axis=(1, 3)).ravel()
    return ranges


def _scale_outputs(weights: NDArray[np.float64], factors: NDArray[np.float64]) -> None:
    weights *= factors.reshape(weights.shape[0], weights.shape[1], 1, 1)


def _scale_inputs(weights: NDArray[np.float64], factors: NDArray[np.float64]) -> None:
    weights *= factors.reshape(weights.shape[0], 1, weights.shape[2], 1)


def _live(weights: Mapping[str, NDArray[np.float64]], link: Link) -> NDArray[np.bool_]:
    """Return which channels of a link carry anything."""
    products = _output_ranges(weights[link.first]) * _input_ranges(weights[link.second])
    live: NDArray[np.bool_] = products > NEGLIGIBLE * products.max(initial=0)
    return live


def _spread(weights: NDArray[np.float64], live: NDArray[np.bool_]) -> float:
    """Return the largest over the smallest range of the outputs that carry anything."""
    ranges = _output_ranges(weights)[live]
    return float(ranges.max() / ranges.min()) if ranges.size else 1.0


def _watched(network: Network, link: Link) -> str:
    """Return the tensor before a link's bound; without one, what the first layer stores: behind its activation."""
    if link.bound is not None:
        return network.by_name[link.bound].inputs[0]
    activations = (name for name in link.between if isinstance(network.by_name[name].operation, _ACTIVATIONS))
    return next(activations, link.first)


def _bound(network: Network, link: Link) -> float | None:
    """Return a link's bound."""
    if link.bound is None:
        return None
    operation = network.by_name[link.bound].operation
    assert isinstance(operation, Clip)
    return operation.high


def _free(network: Network, link: Link, largest: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which channels may be scaled."""
    bound = _bound(network, link)
    return np.ones(len(largest), np.bool_) if bound is None else np.asarray(largest < bound)


def _floor(network: Network, link: Link, largest: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the smallest factor of each channel at which it grows no further than it may; at most 1."""
    bound = _bound(network, link)
    limit = float(largest.max()) if bound is None else bound / HEADROOM
    return np.minimum(largest.astype(np.float64) / limit, 1) if limit > 0 else np.ones(len(largest))


def _remark(network: Network, link: Link, free: NDArray[np.bool_]) -> str:
    bound = _bound(network, link)
    if bound is None:
        return ""
    return (
        f"bound {bound:g} of {link.bound}: {int(free.sum())} channels stay below it on the calibration images and go "
        f"on to, {int((~free).sum())} reach it and are left"
    )


def _rescaled(network: Network, factors: Mapping[Link, NDArray[np.float64]]) -> Network:
    """Return `network` with its weights and biases scaled, each rounded to float32 once."""
    out = {link.first: values for link, values in factors.items()}
    into = {link.second: values for link, values in factors.items()}
    layers = tuple(_scaled(network, layer, out.get(layer.name), into.get(layer.name)) for layer in network.layers)
    blobs = {name: tensor.blob for name, tensor in network.tensors.items()}
    return assemble(network.name, network.inputs, layers, blobs)


def _scaled(network: Network, layer: Layer, out: NDArray[np.float64] | None, into: NDArray[np.float64] | None) -> Layer:
    operation = layer.operation
    if not isinstance(operation, Convolution | InnerProduct) or (out is None and into is None):
        return layer
    group = operation.group if isinstance(operation, Convolution) else 1
    inputs = network.tensors[_channels_of(network, layer)].chw[0] // group
    weights = operation.weights.astype(np.float64).reshape(group, len(operation.weights) // group, inputs, -1)
    bias = operation.bias
    if into is not None:
        _scale_inputs(weights, into)
    if out is not None:
        _scale_outputs(weights, 1 / out)
        bias = None if bias is None else (bias / out).astype(np.float32)
    shaped = weights.reshape(operation.weights.shape).astype(np.float32)
    return replace(layer, operation=replace(operation, weights=shaped, bias=bias))
