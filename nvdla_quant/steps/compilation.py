"""Compile with this package's compiler."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.hardware.spec import target_of
from nvdla_quant.jobs.files import write_bytes, write_json
from nvdla_quant.network.files import read_model
from nvdla_quant.quantization.steps import with_steps_of
from nvdla_quant.table.table import read_table


def compile_loadable(
    files: Sequence[str],
    table: str | None,
    weights: str | None,
    loadable: str,
    report: str,
    target: str | Mapping[str, str],
    options: Mapping[str, Any],
) -> None:
    """Compile a prepared network for a target; write the `loadable` and a `report` with the claim.

    Parameters
    ----------
    files : Sequence[str]
        Those of the prepared network.
    table : str or None
        Its fixed calibration table; fp16 has none.
    weights : str or None
        A ``weights.steps.npz`` whose weights and biases take the place of its own.
    loadable, report : str
        What is written.
    target : str or Mapping
        The hardware, see `target_of`.
    options : Mapping
        Precision, quantization mode and objective.
    """
    from nvdla_quant.compiler.compile import compile_network

    network = with_steps_of(read_model(files), weights)
    scales = read_table(Path(table)) if table else None
    compilation = compile_network(network, scales, target_of(target), **options)
    write_bytes(loadable, compilation.data)
    write_json(report, compilation.report)
