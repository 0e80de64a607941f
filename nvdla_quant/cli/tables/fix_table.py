"""``nvdla-quant fix-table``."""

from pathlib import Path
from typing import Annotated

import typer

from nvdla_quant.cli.options import CutAt, InputShape, Onnx, Output, Prototxt, existing, structure_of
from nvdla_quant.network.passes import prepare
from nvdla_quant.table.changes import write_changes
from nvdla_quant.table.fix import fix_table as fix
from nvdla_quant.table.foreign import read_cache_of
from nvdla_quant.table.table import write_table


def command(
    cache: Annotated[
        Path, typer.Option(callback=existing, help="A calibration cache, TensorRT's or ours, or a table in JSON.")
    ],
    output: Output,
    prototxt: Prototxt = None,
    onnx: Onnx = None,
    input_shape: InputShape = None,
    cut_at: CutAt = None,
    unify: Annotated[bool, typer.Option(help="Make scales agree that the hardware cannot change.")] = True,
    changes: Annotated[Path | None, typer.Option(help="Also write each mapping and change, as TSV.")] = None,
    preparation: Annotated[str, typer.Option(help="fold or as-is: the form that will be compiled.")] = "as-is",
) -> None:
    """Make the calibration table that a compiler takes: layer names, scales that agree."""
    network = structure_of(prototxt, onnx, input_shape, cut_at)
    table, listed = fix(network, prepare(network, preparation), read_cache_of(network, cache), unify_scales=unify)
    if changes is not None:
        write_changes(listed, changes)
    write_table(table, output)
