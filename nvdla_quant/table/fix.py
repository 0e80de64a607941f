"""From a calibration cache to the fixed table: names, preparation, feeding, agreement, in this order."""

from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import Prepared, prepare
from nvdla_quant.table.cache import CalibrationCache
from nvdla_quant.table.changes import Change
from nvdla_quant.table.consistency import Feeding, check_complete, feed, unify
from nvdla_quant.table.naming import match
from nvdla_quant.table.table import CalibrationTable


def fix_table(
    network: Network,
    cache: CalibrationCache,
    *,
    preparation: str = "fold",
    feeding: Feeding = "quantized",
    unify_scales: bool = True,
    pixel_scale: float = 1.0,
) -> tuple[CalibrationTable, tuple[Change, ...]]:
    """Return the table for compiling `network` after `preparation`.

    Parameters
    ----------
    network : Network
        The original network, which the cache was taken from; weights are not needed.
    cache : CalibrationCache
        Of any origin, TensorRT's too.
    preparation, feeding, unify_scales
        As the variant says.
    pixel_scale : float
        What preprocessing multiplies pixels by; it sets the input's scale with feeding ``stock-runtime``.

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
    prepared = prepare(network, preparation)
    table, inherited = inherit(prepared, table)
    table, fed = feed(prepared.network, table, feeding, pixel_scale)
    unified: tuple[Change, ...] = ()
    if unify_scales:
        pinned = frozenset(tensor.name for tensor in network.inputs) if feeding == "stock-runtime" else frozenset()
        table, unified = unify(prepared.network, table, pinned)
    check_complete(prepared.network, table)
    return table, (*mapped, *inherited, *fed, *unified)


def inherit(prepared: Prepared, table: CalibrationTable) -> tuple[CalibrationTable, tuple[Change, ...]]:
    """Give each prepared layer the scale of the last original layer that it absorbed."""
    scales: dict[str, float] = {}
    changes: list[Change] = []
    for name in prepared.network.tensors:
        source = prepared.absorbed.get(name, name)
        if source not in table.scales:
            continue
        scales[name] = table.scales[source]
        if source != name:
            reason = f"the layer took in those up to {source}, whose scale it has now"
            changes.append(Change(name, "", table[name], scales[name], "folded", reason))
    return CalibrationTable(scales), tuple(changes)
