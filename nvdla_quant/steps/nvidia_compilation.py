"""Compile with NVIDIA's compiler."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.compiler.nvdla_compiler import NvdlaCompiler
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.jobs.files import write_bytes, write_json
from nvdla_quant.network.files import read_model
from nvdla_quant.table.table import read_table


def compile_with_nvdla_compiler(
    files: Sequence[str],
    table: str | None,
    loadable: str,
    report: str,
    target: str | Mapping[str, str],
    options: Mapping[str, Any],
    backend: Mapping[str, Any],
) -> None:
    """Compile as `compilation.compile_loadable` does, with what `backend` describes: ``backends.nvdla_compiler``."""
    network = read_model(files)
    scales = read_table(Path(table)) if table else None
    compiler = NvdlaCompiler.from_config(backend)
    data, said = compiler.compile(network, scales, target_of(target), **options)
    write_bytes(loadable, data)
    write_json(report, said)
