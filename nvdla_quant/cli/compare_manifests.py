"""``nvdla-quant compare-manifests``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from nvdla_quant.cli.options import existing
from nvdla_quant.jobs.provenance import differences, read_manifest


def command(
    first: Annotated[Path, typer.Argument(callback=existing, help="A manifest.json.")],
    second: Annotated[Path, typer.Argument(callback=existing, help="Another, of another run or machine.")],
) -> None:
    """List the artefacts that differ between two runs, and why; exit status 1 where any does."""
    found = differences(*map(read_manifest, (first, second)))
    for name, why in found:
        print(f"{name}\t{why}")
    if found:
        raise typer.Exit(1)
    print("the artefacts of both are the same bytes", file=sys.stderr)
