"""Make the calibration table that a compiler takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.network.files import read_model, read_structure
from nvdla_quant.network.graph import Network
from nvdla_quant.table import fix
from nvdla_quant.table.changes import write_changes
from nvdla_quant.table.foreign import read_cache_of
from nvdla_quant.table.table import write_table


def fix_table(
    files: Sequence[str], prepared: Sequence[str], cache: str, table: str, changes: str, options: Mapping[str, Any]
) -> None:
    """Give a network's `cache` the layer names of its `prepared` form and consistent scales; write what changed."""
    network, form = read_structure(files), _form(prepared)
    fixed, changed = fix.fix_table(network, form, read_cache_of(network, Path(cache)), **options)
    write_table(fixed, Path(table))
    write_changes(changed, Path(changes))


def _form(prepared: Sequence[str]) -> Network:
    """Return the prepared network; with its weights where both of Caffe's files are given.

    Layers that an ONNX model has in Caffe alone take scales that follow from their factors.
    """
    return read_model(prepared) if len(prepared) > 1 else read_structure(prepared)
