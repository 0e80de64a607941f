"""Scales that must agree, since the hardware cannot change a scale between some layers.

Sources: nvdla/sw's compiler enforces none of these (measured: a pooling entry that differs from its input's is simply
wrong by that factor), and the hardware's pooling, concatenation and element-wise units have no rescaling of their own
(docs/hardware/calibration-table.md, "Scales that must agree").
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nvdla_quant.errors import TableError
from nvdla_quant.network.graph import Network
from nvdla_quant.network.moves import Crop
from nvdla_quant.network.views import MOVES, VIEWS, is_joined_alone, viewed
from nvdla_quant.table.changes import Change
from nvdla_quant.table.table import SOFTMAX_SCALE, CalibrationTable

Feeding = Literal["quantized", "stock-runtime"]
"""Who makes the int8 input: us, ``round(x / scale)``, or `nvdla_runtime`, ``floor(p * 127 / 255 + 0.5)`` of pixel p."""

STOCK_PIXEL_SCALE = 255 / 127
"""Pixel levels in one int8 step as `nvdla_runtime` stores images; it ignores ``--mean`` and ``--normalize`` in int8."""


_MOVED = {"Gather": "gather", "Crop": "crop", "SpaceToDepth": "blocks", "DepthToSpace": "blocks"}
"""Rule by the kind of layer, of those whose values are some of their input's."""


@dataclass(frozen=True)
class Bond:
    """Tensors that one layer needs at one scale.

    Attributes
    ----------
    rule : str
        ``pooling``, ``gather``, ``crop``, ``blocks``, ``concat`` or ``eltwise``.
    layer : str
        The layer.
    sources : tuple[str, ...]
        Tensors that it reads, with views resolved.
    output : str or None
        Its own tensor, where that is bound too.
    """

    rule: str
    layer: str
    sources: tuple[str, ...]
    output: str | None

    @property
    def members(self) -> tuple[str, ...]:
        """All tensors that are bound."""
        return self.sources if self.output is None else (*self.sources, self.output)


def bonds(network: Network) -> tuple[Bond, ...]:
    """Return what must agree in `network`, in network order.

    Pooling: the output is at the input's scale. Gather, Crop, SpaceToDepth and DepthToSpace: likewise, since their
    values are read where they stand, or are copied as they are; but a Crop that Concats alone read is rescaled on the
    way there. Concat: all inputs and the output. Element-wise sum, maximum and minimum: the inputs. Each input is the
    tensor that the layer reads, hence the last fused one of its branch; Dropout, Flatten and Reshape are looked
    through.
    """
    found = []
    for layer in network.layers:
        sources = tuple(dict.fromkeys(viewed(network, name) for name in layer.inputs))
        if layer.kind == "Pooling":
            found.append(Bond("pooling", layer.name, sources, layer.name))
        elif isinstance(layer.operation, Crop) and is_joined_alone(network, layer.name):
            continue
        elif isinstance(layer.operation, MOVES):
            found.append(Bond(_MOVED[layer.kind], layer.name, sources, layer.name))
        elif layer.kind == "Concat":
            found.append(Bond("concat", layer.name, sources, layer.name))
        elif layer.kind == "Eltwise" and layer.operation.operation != "prod":  # type: ignore[union-attr]
            found.append(Bond("eltwise", layer.name, sources, None))
    return tuple(found)


def unify(
    network: Network, table: CalibrationTable, pinned: frozenset[str] = frozenset()
) -> tuple[CalibrationTable, tuple[Change, ...]]:
    """Make the scales of `table` consistent for the hardware.

    Tensors that are bound to one another, through any number of layers, form a group. The group's scale is that of
    its pinned tensor; else the largest one of its tensors, since a smaller one would clip, those of poolings and of
    values that only move left out, since they take their input's. A final Softmax gets 1/127. Entries that fusion
    swallows stay as they are.

    Parameters
    ----------
    network : Network
        The network that will be compiled.
    table : CalibrationTable
        One scale for each network input and each layer but Dropout, Flatten and Reshape.
    pinned : frozenset[str]
        Tensors whose scale is given from outside: an input that a stock runtime feeds.

    Returns
    -------
    CalibrationTable
        The same entries, in the same order; applying `unify` again changes nothing.
    tuple[Change, ...]
        The scales that changed, in network order.

    Raises
    ------
    TableError
        An entry is missing, or two pinned tensors of one group differ.
    """
    check_complete(network, table)
    every_bond = bonds(network)
    keepers = {bond.output for bond in every_bond if bond.rule in ("pooling", *_MOVED.values())}
    scales = dict(table.scales)
    changes: dict[str, Change] = {}
    for group in _groups(every_bond):
        decider = _decider(group, table, keepers, pinned)
        for name in group:
            if scales[name] != table[decider]:
                bond = _closest(every_bond, name)
                reason = f"{bond.rule} {bond.layer} needs {' = '.join(bond.members)}; the scale of {decider} decides"
                changes[name] = Change(name, "", scales[name], table[decider], bond.rule, reason)
                scales[name] = table[decider]
    for output in network.outputs:
        name = viewed(network, output.name)
        if name in network.by_name and network.by_name[name].kind == "Softmax" and scales[name] != SOFTMAX_SCALE:
            reason = "a smaller scale than 1/127 saturates and ties the top classes, a larger one loses resolution"
            changes[name] = Change(name, "", scales[name], SOFTMAX_SCALE, "softmax", reason)
            scales[name] = SOFTMAX_SCALE
    return CalibrationTable(scales), tuple(changes[name] for name in network.tensors if name in changes)


def feed(
    network: Network, table: CalibrationTable, feeding: Feeding, pixel_scale: float
) -> tuple[CalibrationTable, tuple[Change, ...]]:
    """Set the scale of the network input to what the feeding makes it.

    Parameters
    ----------
    network : Network
        The network that will be compiled; one input.
    table : CalibrationTable
        Scales by layer.
    feeding : {"quantized", "stock-runtime"}
        ``quantized`` leaves the table as it is.
    pixel_scale : float
        What preprocessing multiplies a pixel of 0 to 255 by: 1/256 for Caffe's LeNet, 1 for most others.

    Returns
    -------
    CalibrationTable
        The table with the input at ``255 / 127 * pixel_scale`` for ``stock-runtime``.
    tuple[Change, ...]
        The change, where there is one.

    Raises
    ------
    TableError
        The stock runtime, and a network of several inputs or none, or no entry for it.
    """
    if feeding == "quantized":
        return table, ()
    if len(network.inputs) != 1:
        names = ", ".join(tensor.name for tensor in network.inputs)
        raise TableError(
            f"network {network.name!r}: feeding 'stock-runtime' reads one image, but there are {len(network.inputs)} "
            f"inputs ({names}); use feeding 'quantized'"
        )
    name = network.inputs[0].name
    before, after = table[name], float(np.float32(STOCK_PIXEL_SCALE * pixel_scale))
    fed = CalibrationTable({**table.scales, name: after})
    if before == after:
        return fed, ()
    reason = (
        f"nvdla_runtime stores floor(p * 127 / 255 + 0.5) of pixel p, which the network reads times {pixel_scale:.9g}"
    )
    return fed, (Change(name, "", before, after, "stock-runtime", reason),)


def check_complete(network: Network, table: CalibrationTable) -> None:
    """Refuse a table without an entry for each network input and each layer but Dropout, Flatten and Reshape.

    Raises
    ------
    TableError
        Entries are missing; the message names them. (`nvdla_compiler` aborts there without naming any.)
    """
    needed = [tensor.name for tensor in network.inputs]
    needed += [layer.name for layer in network.layers if not isinstance(layer.operation, VIEWS)]
    if missing := [name for name in needed if name not in table.scales]:
        raise TableError(
            f"calibration table: no entry for {', '.join(map(repr, missing))} of network {network.name!r}, expected "
            f"one for each layer ({len(needed)}), in-place ones included; is it the table of this network?"
        )


def _groups(every_bond: Iterable[Bond]) -> list[list[str]]:
    """Return the sets of tensors that bonds connect, each in order of appearance."""
    group_of: dict[str, list[str]] = {}
    for bond in every_bond:
        merged: dict[str, None] = {}
        for name in bond.members:
            merged.update(dict.fromkeys(group_of.get(name, [name])))
        group = list(merged)
        group_of.update(dict.fromkeys(group, group))
    return list({id(group): group for group in group_of.values()}.values())


def _decider(group: list[str], table: CalibrationTable, keepers: set[str | None], pinned: frozenset[str]) -> str:
    """Return the tensor whose scale a group takes."""
    fixed = [name for name in group if name in pinned]
    if len({table[name] for name in fixed}) > 1:
        each = ", ".join(f"{name} at {table[name]:.9g}" for name in fixed)
        raise TableError(
            f"calibration table: {each} must be at one scale, since the layers between them cannot rescale, but "
            "they are given from outside; feed them alike"
        )
    candidates = fixed or [name for name in group if name not in keepers]
    return max(candidates, key=lambda name: table[name])


def _closest(every_bond: Iterable[Bond], name: str) -> Bond:
    """Return the bond that explains `name` best: its own layer's, else the first that reads it."""
    ours = [bond for bond in every_bond if name in bond.members]
    return next((bond for bond in ours if bond.output == name), ours[0])
