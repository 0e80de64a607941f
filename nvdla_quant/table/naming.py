"""Names of the tensors in a cache that TensorRT took through one of its parsers, and the layers they belong to.

The Caffe parser names a tensor after its blob where its layer is the last writer of that blob. Every other tensor keeps
the default ``(Unnamed Layer* i) [Type]_output``, i counting TensorRT's layers. So ``conv1`` in a cache is the output of
the last in-place layer on blob ``conv1``, not of the layer called conv1. (Measured on public caches and on our own;
docs/hardware/calibration-table.md, "Names", has an example.) The ONNX parser keeps the file's names, and has names of
its own for the layers that it adds.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from nvdla_quant.errors import CacheError
from nvdla_quant.network.graph import Network
from nvdla_quant.network.views import MOVES, VIEWS, sole_reader, viewed
from nvdla_quant.table.cache import CalibrationCache
from nvdla_quant.table.changes import Change
from nvdla_quant.table.fusion import FUSED_AFTER, FUSION_STARTS
from nvdla_quant.table.table import SOFTMAX_SCALE, CalibrationTable

_ALIASES = frozenset({"Dropout", "Flatten"})
"""Layers that the parser drops: their top is the tensor of their bottom."""

_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Convolution": ("Convolution",),
        "Deconvolution": ("Deconvolution",),
        "InnerProduct": ("Fully Connected",),
        "Pooling": ("Pooling",),
        "ReLU": ("Activation",),
        "Sigmoid": ("Activation",),
        "TanH": ("Activation",),
        "PReLU": ("Constant", "Parametric ReLU"),
        "Softmax": ("SoftMax",),
        "Reshape": ("Shuffle",),
        "BatchNorm": ("Scale",),
        "Scale": ("Scale",),
        "Power": ("Scale",),
        "Eltwise": ("ElementWise",),
        "Concat": ("Concatenation",),
        "LRN": ("LRN",),
        "Clip": ("Activation",),
        "HardSigmoid": ("Activation",),
        "HardSwish": ("Activation",),
        "Swish": ("Activation",),
        "GELU": ("Activation",),
        "Gather": ("Gather",),
        "Crop": ("Slice",),
        "SpaceToDepth": ("Shuffle",),
        "DepthToSpace": ("Shuffle",),
    }
)
"""TensorRT's layers of each Caffe layer; the last writes the layer's tensor. The names of PReLU's are not measured.

Those from Clip on are no layers of Caffe, so only our own caches have names for them."""

_ADDED = re.compile(r"ONNXTRT_|\w+__\d+\Z")
"""What TensorRT's ONNX parser adds to a file's tensors, unnamed ones apart: broadcasts and shuffles of its own
(public caches of TensorRT 6.0 to 10.3)."""

_UNNAMED = re.compile(r"\(Unnamed Layer\* \d+\) \[(?P<type>[^\]]*)\]_output\Z")
_BEFORE_FUSION = re.compile(r"TRT-\d+-(EntropyCalibration2|MinMaxCalibration)\Z|nvdla-quant-")
_AFTER_FUSION = re.compile(r"TRT-\d+-EntropyCalibration\Z|\d+ [0-9a-f]{16} [0-9a-f]{16}\Z")
"""The legacy calibrator's header is no name: a number, cutoff and quantile as float64 (TensorRT 8.5.3.1, measured)."""


def tensor_names(network: Network) -> Mapping[str, str]:
    """Return the name in a cache of every tensor of `network` that has one, in the cache's order.

    Parameters
    ----------
    network : Network
        The network as calibrated: before anything is folded or rewritten.

    Returns
    -------
    Mapping[str, str]
        Cache name by tensor name (layer name, or blob name of an input). Dropout and Flatten have none of their own,
        nor has the first half of a layer that was read as two. Of a network from ONNX, names are the file's, and
        whatever shows the elements of another tensor has none.

    Raises
    ------
    CacheError
        A layer overwrites the blob of a network input: the cache would have one name for two tensors.
    """
    if network.onnx is not None:
        shown = {layer.name for layer in network.layers if layer.inner or isinstance(layer.operation, VIEWS)}
        return MappingProxyType(
            {tensor: network.onnx.names[tensor] for tensor in network.tensors if tensor not in shown}
        )
    names = {tensor.name: tensor.name for tensor in network.inputs}
    holder = {tensor.blob: tensor.name for tensor in network.inputs}
    index = 0
    for layer in network.layers:
        blob = network.tensors[layer.name].blob
        if layer.inner:  # The parser makes one layer of both.
            continue
        if layer.kind in _ALIASES:
            holder[blob] = holder[network.tensors[layer.inputs[0]].blob]
            continue
        types = _TYPES[layer.kind]
        index += len(types)
        names[layer.name] = f"(Unnamed Layer* {index - 1}) [{types[-1]}]_output"
        holder[blob] = layer.name
    # The parser renames in the order of a std::map of blobs: of two blobs on one tensor the last in byte order wins.
    for blob in sorted(holder, key=str.encode):
        names[holder[blob]] = blob
    owners: dict[str, str] = {}
    for tensor, name in names.items():
        if name in owners:
            raise CacheError(
                f"layer {tensor!r}: writes blob {name!r} of a network input in place, so that a calibration cache has "
                f"one name for it and {owners[name]!r}; give the layer's top another name in the prototxt"
            )
        owners[name] = tensor
    return MappingProxyType(names)


def match(cache: CalibrationCache, network: Network) -> tuple[CalibrationTable, tuple[Change, ...]]:
    """Key the scales of `cache` by the layers of `network`.

    A cache taken after layer fusion (EntropyCalibration without 2, the legacy calibrator's) lacks the layers that were
    fused into a later one. Such a layer takes the entry of the first later layer of its group that has one: along sole
    readers through BatchNorm, Scale, Power, activations and an element-wise combination.

    Parameters
    ----------
    cache : CalibrationCache
        Taken from `network`.
    network : Network
        The network as calibrated: before anything is folded or rewritten.

    Returns
    -------
    CalibrationTable
        Scale of each network input and of each layer but Dropout, Flatten and Reshape, in network order.
    tuple[Change, ...]
        How each name was found.

    Raises
    ------
    CacheError
        The cache has entries that are no tensors of the network, or lacks tensors; the message names them.
    """
    names = _names_by_layer(network) if cache.by_layer else tensor_names(network)
    scales = dict(cache.scales)
    if cache.by_layer:
        scales |= _scales_by_rule(network, scales)
    added = _added(cache, network, names)
    _refuse_strangers(cache, network, {*names.values(), *(change.cache_name for change in added)})
    fused = _taken_after_fusion(cache, names)
    table: dict[str, float] = {}
    changes: list[Change] = [*added]
    missing: list[str] = []
    for tensor, name in names.items():
        if tensor in network.by_name and isinstance(network.by_name[tensor].operation, VIEWS):
            if name in scales:
                changes.append(Change("", name, scales[name], scales[name], "unused", f"layer {tensor} has no scale"))
            continue
        source = tensor if name in scales else _group_entry(network, names, scales, tensor) if fused else None
        if source is None:
            zero = ", 0 there: it saw nothing but zeros" if name in cache.zeros else ""
            missing.append(f"{name!r} (of {tensor}{zero})")
            continue
        entry = names[source]
        table[tensor] = scales[entry]
        rule, reason = _how(network, tensor, source, entry, cache)
        given = entry if entry in cache.scales else ""
        changes.append(Change(tensor, given, scales[entry], scales[entry], rule, reason))
    if missing:
        raise CacheError(
            f"{cache.what}: lacks {len(missing)} of the {len(names)} tensors of the network: "
            f"{_some(missing)}; "
            + (
                "no fused layer after them has an entry either; "
                if fused
                else "a cache of this kind has one for each layer; "
            )
            + (
                "add these entries"
                if cache.is_table
                else "was it cut, or taken from another version of the network? Calibrate again"
            )
        )
    for layer in network.layers:
        if layer.inner:
            (outer,) = network.consumers[layer.name]
            # Values that move keep the scale that they have; anything else may have any, since what reads it rescales.
            kept = viewed(network, layer.inputs[0]) if isinstance(layer.operation, MOVES) else outer.name
            table[layer.name] = scale = table[kept]
            changes.append(Change(layer.name, "", scale, scale, "inner", f"the first half of layer {outer.name}"))
    return CalibrationTable({name: table[name] for name in network.tensors if name in table}), tuple(changes)


def layer_names_fit(entries: Collection[str], network: Network) -> bool:
    """Tell whether names in a table of unknown origin are layers' names, and not those of TensorRT's tensors.

    A blob may have a layer's name and be the tensor of another, the last in-place layer on it. The meaning is taken
    under which fewer entries are strange and fewer tensors lack one; TensorRT's where both are as good.
    """
    faults: list[tuple[int, int]] = []
    for names in (tensor_names(network), _names_by_layer(network)):
        by_layer = bool(faults)
        found = {*entries, *(_scales_by_rule(network, dict.fromkeys(entries, 1.0)) if by_layer else ())}
        needed = {t: n for t, n in names.items() if not (t in network.by_name and _is_view(network, t))}
        fused = not by_layer and not any(_UNNAMED.match(name) for name in entries)
        lacking = [
            tensor
            for tensor, name in needed.items()
            if name not in found and not (fused and _group_entry(network, names, dict.fromkeys(found, 1.0), tensor))
        ]
        strange = [name for name in entries if name not in names.values()]
        faults.append((len(strange), len(lacking)))
    return faults[1] < faults[0]


def _is_view(network: Network, name: str) -> bool:
    return isinstance(network.by_name[name].operation, VIEWS)


def _names_by_layer(network: Network) -> Mapping[str, str]:
    """Return the names in a table that calls tensors after their layers."""
    return {name: name for name in network.tensors if name not in network.by_name or not network.by_name[name].inner}


def _scales_by_rule(network: Network, scales: Mapping[str, float]) -> dict[str, float]:
    """Return scales of layers that a table by layers may leave out, since what they read says them.

    A ReLU, a pooling and values that only move have no larger values than what they read, and a final Softmax has a
    scale of its own.
    """
    found: dict[str, float] = {}
    known = dict(scales)
    for layer in network.layers:
        source = viewed(network, layer.inputs[0])
        if layer.name in known or isinstance(layer.operation, VIEWS):
            continue
        keeps = layer.kind in ("ReLU", "Pooling") or isinstance(layer.operation, MOVES)
        if keeps and source in known:
            found[layer.name] = known[layer.name] = known[source]
        elif layer.kind == "Softmax" and not network.consumers[layer.name]:
            found[layer.name] = known[layer.name] = SOFTMAX_SCALE
    return found


def _added(cache: CalibrationCache, network: Network, names: Mapping[str, str]) -> list[Change]:
    """Return the entries of a cache from an ONNX file that no layer here has: the file's own, and the parser's."""
    if network.onnx is None:
        return []
    wanted, of_file = set(names.values()), {*network.onnx.names.values(), *network.onnx.others}
    found = []
    for name, scale in cache.entries:
        if name in wanted or not (name in of_file or _UNNAMED.match(name) or _ADDED.match(name)):
            continue
        reason = "no layer here has a scale of its own for it" if name in of_file else "TensorRT's parser added it"
        found.append(Change("", name, scale, scale, "unused", reason))
    return found


def _refuse_strangers(cache: CalibrationCache, network: Network, known: Collection[str]) -> None:
    """Refuse a cache that holds tensors which are not `known`; the slopes of PReLU may stand there."""
    has_slopes = any(layer.kind == "PReLU" for layer in network.layers)
    strangers = []
    for name, _ in cache.entries:
        unnamed = _UNNAMED.match(name)
        if name not in known and not (has_slopes and unnamed and unnamed["type"] == "Constant"):
            close = difflib.get_close_matches(name, known, 1)
            strangers.append(f"{name!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
    if strangers:
        kind = "a table" if cache.is_table else "a cache"
        raise CacheError(
            f"{cache.what}: {kind} of another network: {len(cache.entries) - len(strangers)} of "
            f"its {len(cache.entries)} entries match the {len(known)} tensors of network {network.name!r}; these do "
            f"not: {_some(strangers)}; "
            + ("correct the names, or " if cache.is_table else "")
            + f"give the {'prototxt' if network.onnx is None else 'ONNX file'} that was calibrated"
        )


def _taken_after_fusion(cache: CalibrationCache, names: Mapping[str, str]) -> bool:
    """Tell whether fused layers may be absent: by the header, else by the lack of all unnamed tensors."""
    if _AFTER_FUSION.match(cache.header):
        return True
    if _BEFORE_FUSION.match(cache.header):
        return False
    unnamed = {name for name in names.values() if _UNNAMED.match(name)}
    return unnamed.isdisjoint(cache.scales)


def _group_entry(network: Network, names: Mapping[str, str], scales: Mapping[str, float], tensor: str) -> str | None:
    """Return the first tensor with an entry among those that the absent `tensor` was fused into."""
    while names.get(tensor) not in scales:
        reader = sole_reader(network, tensor)
        if reader is None or tensor not in network.by_name or network.by_name[tensor].kind not in FUSION_STARTS:
            return None
        if reader.kind not in FUSED_AFTER | {"Eltwise"}:
            return None
        tensor = reader.name
    return tensor


def _how(network: Network, tensor: str, source: str, entry: str, cache: CalibrationCache) -> tuple[str, str]:
    """Return the rule that led from `tensor` to the entry of `source`, and the reason."""
    if cache.by_layer:
        if entry in cache.scales:
            return ("layer", "named by its layer") if source == tensor else ("fused", f"absent: that of {source}")
        return "absent", f"absent: a {network.by_name[tensor].kind} takes the scale of what it reads, or its own"
    if source != tensor:
        return "fused", f"absent: TensorRT fused it into {source}, whose entry it takes"
    if tensor not in network.by_name:
        return "input", "network input"
    if _UNNAMED.match(entry):
        blob = network.tensors[tensor].blob
        return "unnamed", f"a later layer overwrites blob {blob}: TensorRT's default name for this layer's output"
    return "last-writer", f"the tensor that blob {entry} ends with"


def _some(items: list[str], most: int = 8) -> str:
    """Return the first items of a list as text."""
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")
