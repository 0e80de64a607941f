"""Make the calibration table that a compiler takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.network.files import read_structure
from nvdla_quant.table import fix
from nvdla_quant.table.changes import write_changes
from nvdla_quant.table.foreign import read_cache_of
from nvdla_quant.table.table import write_table


def fix_table(
    files: Sequence[str], prepared: Sequence[str], cache: str, table: str, changes: str, options: Mapping[str, Any]
) -> None:
    """Give a network's `cache` the layer names of its `prepared` form and consistent scales; write what changed."""
    network, form = read_structure(files), read_structure(prepared)
    fixed, changed = fix.fix_table(network, form, read_cache_of(network, Path(cache)), **options)
    write_table(fixed, Path(table))
    write_changes(changed, Path(changes))
