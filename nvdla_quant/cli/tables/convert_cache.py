"""``nvdla-quant convert-cache``."""

from pathlib import Path
from typing import Annotated

import typer

from nvdla_quant.cli.options import Output, existing
from nvdla_quant.table.foreign import read_scales
from nvdla_quant.table.table import write_table


def command(
    cache: Annotated[
        Path, typer.Argument(metavar="CACHE", callback=existing, help="A calibration cache, or a table in JSON.")
    ],
    output: Output,
) -> None:
    """Write a calibration cache, or another table whose numbers mean the same, as JSON, names as they are."""
    write_table(read_scales(cache), output)
