"""From a calibration cache to the fixed table: names, the prepared network's layers, feeding, agreement."""

from collections.abc import Mapping

from nvdla_quant.errors import TableError
from nvdla_quant.network.graph import Network
from nvdla_quant.network.views import VIEWS
from nvdla_quant.table.bounds import scale_of
from nvdla_quant.table.cache import CalibrationCache
from nvdla_quant.table.changes import Change
from nvdla_quant.table.consistency import Feeding, check_complete, feed, unify
from nvdla_quant.table.naming import match
from nvdla_quant.table.table import CalibrationTable


def fix_table(
    network: Network,
    prepared: Network,
    cache: CalibrationCache,
    *,
    feeding: Feeding = "quantized",
    unify_scales: bool = True,
) -> tuple[CalibrationTable, tuple[Change, ...]]:
    """Return the table that `prepared` is compiled with.

    A layer that took others in has the name of the last of them, and so its scale. A layer that a rewrite made carries
    its pooling's scale, which unifying sets, or one that holds its values (`bounds.scale_of`).

    Parameters
    ----------
    network : Network
        The original network, which the cache was taken from; weights are not needed.
    prepared : Network
        What `nvdla_quant.network.passes.prepare` made of it.
    cache : CalibrationCache
        Of any origin, TensorRT's too.
    feeding, unify_scales
        As the variant says; with ``stock-runtime``, `prepared` reads pixels.

    Returns
    -------
    CalibrationTable
        One scale for each layer of the prepared network that has one.
    tuple[Change, ...]
        Each name that was mapped and each scale that was set, with the rule.

    Raises
    ------
    CacheError
        The cache is not of this network, or lacks an entry.
    TableError
        A scale is missing or impossible after the mapping.
    """
    table, mapped = match(cache, network)
    table, carried = _carry(network, prepared, table)
    table, fed = feed(prepared, table, feeding, pixel_scale=1.0)
    unified: tuple[Change, ...] = ()
    if unify_scales:
        pinned = frozenset(tensor.name for tensor in prepared.inputs) if feeding == "stock-runtime" else frozenset()
        table, unified = unify(prepared, table, pinned)
    check_complete(prepared, table)
    return table, (*mapped, *carried, *fed, *unified)


def _made(prepared: Network, name: str, scales: Mapping[str, float]) -> tuple[float, str]:
    """Return the scale of a layer that a rewrite made, and why."""
    layer = prepared.by_name[name]
    if layer.kind != "Pooling":
        return scale_of(prepared, name, scales), "what it can pass on, by the scales of the layers around it"
    (source,) = layer.inputs
    if source not in scales:
        raise TableError(f"layer {name!r}: made by a rewrite, but {source!r} before it has no scale")
    return scales[source], f"a part of a pooling of {source}"


def _carry(network: Network, prepared: Network, table: CalibrationTable) -> tuple[CalibrationTable, tuple[Change, ...]]:
    """Return the scales of the layers that are left, and those of layers that a rewrite put before an original one."""
    scales: dict[str, float] = {}
    changes: list[Change] = []
    for name in prepared.tensors:
        if name in table.scales:
            scales[name] = table.scales[name]
        elif name not in network.tensors and not isinstance(prepared.by_name[name].operation, VIEWS):
            scales[name], reason = _made(prepared, name, {**table.scales, **scales})
            changes.append(Change(name, "", scales[name], scales[name], "rewrite", reason))
    return CalibrationTable(scales), tuple(changes)
