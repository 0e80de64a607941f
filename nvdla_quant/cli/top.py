"""``nvdla-quant top``."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nvdla_quant.cli.options import existing
from nvdla_quant.runtime.dimg import read_dimg


def command(
    dimg: Annotated[
        Path,
        typer.Argument(metavar="DIMG", callback=existing, help="An output.dimg of nvdla_runtime, text or binary."),
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 5,
    labels: Annotated[
        Path | None, typer.Option(callback=existing, help="A text file with one class name a line.")
    ] = None,
) -> None:
    """Print the k highest scores of a raw dump: 0-based index, value, label."""
    values = read_dimg(dimg, edited=True).reshape(-1)
    names = labels.read_text(encoding="utf-8").splitlines() if labels is not None else []
    for index in np.argsort(-values.astype(np.float64), kind="stable")[:k]:
        print(f"{index}\t{values[index]}\t{names[index] if index < len(names) else ''}".rstrip())
