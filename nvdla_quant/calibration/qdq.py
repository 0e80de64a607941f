"""Take the scales of a quantized ONNX file as a calibration cache: nothing is measured, no images are needed.

A file need not say the scale of every tensor. onnxruntime leaves out what it computes in float between quantized
operators, TensorRT's Model-Optimizer quantizes what convolutions read alone. What the hardware writes and the file does
not say follows from what it says, or is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nvdla_quant.errors import CacheError, TableError
from nvdla_quant.network.graph import Clip, Eltwise, Network, Pooling, ReLU, Sigmoid, Softmax, TanH
from nvdla_quant.network.quantized import Range
from nvdla_quant.network.views import VIEWS, viewed
from nvdla_quant.table.bounds import scale_of
from nvdla_quant.table.cache import CalibrationCache, our_header
from nvdla_quant.table.changes import Change
from nvdla_quant.table.consistency import bonds
from nvdla_quant.table.fusion import fused_end
from nvdla_quant.table.naming import tensor_names
from nvdla_quant.table.table import SOFTMAX_SCALE

QdqRanges = Literal["refuse", "cover"]
"""What becomes of ranges that int8 around 0 does not have: an error, or the least such range that holds them."""
STEPS = 127
"""int8 steps from 0 to the largest magnitude that is aimed at."""
HEADER = "QuantizeLinear"
"""How the header of our cache names where the scales are from."""


@dataclass(frozen=True)
class Taken:
    """The scales of a file.

    Attributes
    ----------
    cache : CalibrationCache
        One entry for each tensor, as any calibrator's.
    changes : tuple[Change, ...]
        Where each is from: rule ``file`` as it stands there, ``cover`` where it holds a range that is not symmetric,
        any other where the file says none.
    """

    cache: CalibrationCache
    changes: tuple[Change, ...]

    @property
    def covered(self) -> tuple[Change, ...]:
        """The ranges that were not symmetric."""
        return tuple(change for change in self.changes if change.rule == "cover")


def take_scales(network: Network, ranges: Mapping[str, Sequence[Range]], handling: QdqRanges = "refuse") -> Taken:
    """Return the scales of a network that was read from a quantized file.

    Parameters
    ----------
    network : Network
        As it was read.
    ranges : Mapping[str, Sequence[Range]]
        What the file quantizes tensors to, see `network.onnx.reader.Imported`.
    handling : {"refuse", "cover"}
        ``cover`` takes max(|low|, |high|) / 127 of ranges that are not those of int8 around 0, and the largest where
        readers of a tensor have their own.

    Raises
    ------
    CacheError
        The file quantizes nothing; ranges are not symmetric, or several of a tensor; or the hardware writes tensors
        that have none. The message names all of them.
    """
    if not ranges:
        raise CacheError(
            f"network {network.name!r}: no activation goes through QuantizeLinear, so that the file has no scales; "
            "give the quantized model, or calibrate with images (method entropy, minmax, mse, cosine or percentile)"
        )
    if handling == "refuse":
        _check_ranges(network, ranges)
    names = tensor_names(network)
    found: dict[str, Change] = {}
    for name, given in ranges.items():
        found[name] = _given(name, names.get(name, ""), given)
    _follow(network, found)
    needed = [name for name in names if name not in network.by_name or not _is_view(network, name)]
    _check_complete(network, [name for name in needed if name not in found])
    entries = tuple((names[name], found[name].scale_after) for name in needed)
    return Taken(CalibrationCache(our_header(HEADER), entries), tuple(found[name] for name in needed))


def _is_view(network: Network, name: str) -> bool:
    return isinstance(network.by_name[name].operation, VIEWS)


def _check_ranges(network: Network, ranges: Mapping[str, Sequence[Range]]) -> None:
    """Refuse what one symmetric scale is not, all at once."""
    uneven = [name for name, given in ranges.items() if not all(item.is_symmetric for item in given)]
    several = [name for name, given in ranges.items() if name not in uneven and len(given) > 1]
    if not uneven and not several:
        return
    parts = []
    if uneven:
        told = ", ".join(f"{name!r} ({' and '.join(map(_told, ranges[name]))})" for name in uneven)
        parts.append(
            f"{len(uneven)} of {len(ranges)} tensors are not quantized to int8 around 0, which alone NVDLA computes "
            f"with: {told}"
        )
    if several:
        told = ", ".join(f"{name!r} ({' and '.join(map(_told, ranges[name]))})" for name in several)
        parts.append(f"{len(several)} tensors have several scales, of which hardware writes one: {told}")
    raise CacheError(
        f"network {network.name!r}: {'; '.join(parts)}; quantize symmetrically (onnxruntime: ActivationSymmetric, with "
        "activation_type QInt8), or take the least symmetric range that holds each (qdq_ranges: cover; --qdq-ranges "
        "cover)"
    )


def _told(given: Range) -> str:
    return f"{given.type} with zero point {given.zero_point}, {given.low:.6g} to {given.high:.6g}"


def _given(name: str, entry: str, given: Sequence[Range]) -> Change:
    """Return the scale that the file says, or that holds what it says."""
    if len(given) == 1 and given[0].is_symmetric:
        return Change(name, entry, given[0].scale, given[0].scale, "file", "the scale of its QuantizeLinear")
    scale = max(item.scale if item.is_symmetric else max(abs(item.low), abs(item.high)) / STEPS for item in given)
    largest = max(given, key=lambda item: item.scale)
    return Change(name, entry, largest.scale, scale, "cover", f"holds {' and '.join(map(_told, given))}")


def _follow(network: Network, found: dict[str, Change]) -> None:
    """Add the scales that follow from others, until none does any more."""
    names = tensor_names(network)

    def add(name: str, scale: float, rule: str, reason: str) -> None:
        if name not in found and name in names:
            found[name] = Change(name, names[name], scale, scale, rule, reason)

    before = -1
    while len(found) > before:
        before = len(found)
        for layer in network.layers:
            source, operation = viewed(network, layer.inputs[0]), layer.operation
            if (end := fused_end(network, layer.name)) in found:
                add(layer.name, found[end].scale_after, "fused", f"one operation with {end}, whose scale counts")
            if isinstance(operation, ReLU | Clip) and source in found:
                add(layer.name, found[source].scale_after, "bound", f"it has no larger values than {source}")
            elif isinstance(operation, Softmax) and not network.consumers[layer.name]:
                add(layer.name, SOFTMAX_SCALE, "softmax", "probabilities are up to 1")
        for bond in bonds(network):
            operation = network.by_name[bond.layer].operation
            if bond.output is not None and found.keys() >= set(bond.sources):
                scale = max(found[name].scale_after for name in bond.sources)
                add(bond.output, scale, bond.rule, f"{bond.rule} {bond.layer} cannot rescale what it reads")
            # An average is smaller than what it is of, so that it does not say how large that is.
            averages = isinstance(operation, Pooling) and operation.method != "max"
            if bond.output in found and bond.output is not None and not averages:
                for name in bond.sources:
                    scale = found[bond.output].scale_after
                    add(name, scale, bond.rule, f"{bond.rule} {bond.layer} writes it at the scale of {bond.output}")
    if _bound(network, found):
        _follow(network, found)


def _bound(network: Network, found: dict[str, Change]) -> bool:
    """Add the scale of the first operation that what it reads bounds, and tell whether there is one."""
    names, scales = tensor_names(network), {name: change.scale_after for name, change in found.items()}
    for layer in network.layers:
        name = fused_end(network, layer.name)
        if name in found or name not in names or not _is_bounded(network, name, scales):
            continue
        try:
            scale = scale_of(network, name, scales)
        except TableError:
            continue  # Told with the others that lack one.
        sources = ", ".join(_known_before(network, name, scales))
        found[name] = Change(name, names[name], scale, scale, "bound", f"it holds whatever {sources} hold")
        return True
    return False


_BOUNDED = (ReLU, Clip, Sigmoid, TanH, Eltwise)


def _is_bounded(network: Network, name: str, scales: Mapping[str, float]) -> bool:
    """Whether a tensor is made of tensors with scales by operations that say how large it is."""
    if name in scales:
        return True
    layer = network.by_name.get(name)
    if layer is None or not isinstance(layer.operation, (*_BOUNDED, *VIEWS)):
        return False
    return all(_is_bounded(network, source, scales) for source in layer.inputs)


def _known_before(network: Network, name: str, scales: Mapping[str, float]) -> list[str]:
    """Return the tensors with scales that a bounded tensor is made of."""
    if name in scales:
        return [name]
    parts = [_known_before(network, source, scales) for source in network.by_name[name].inputs]
    return list(dict.fromkeys(part for found in parts for part in found))


def _check_complete(network: Network, missing: Sequence[str]) -> None:
    """Refuse tensors without a scale, of each fused operation the last."""
    ends = list(dict.fromkeys(fused_end(network, name) for name in missing))
    if not ends:
        return
    told = ", ".join(
        f"{name!r} ({network.by_name[name].kind})" if name in network.by_name else f"{name!r} (input)" for name in ends
    )
    raise CacheError(
        f"network {network.name!r}: the hardware writes {len(ends)} tensors in int8 that the file does not quantize, "
        f"nor does their scale follow from others: {told}; quantize the outputs of these operators too (onnxruntime: "
        "op_types_to_quantize; Model-Optimizer: output quantizers), or calibrate with images (method entropy, minmax, "
        "mse, cosine or percentile)"
    )
