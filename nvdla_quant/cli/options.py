"""What commands have in common: options, files that must be there, a progress bar."""

import difflib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from nvdla_quant.errors import DatasetError

if TYPE_CHECKING:
    from rich.progress import Progress


class TargetName(StrEnum):
    """Hardware configurations."""

    NV_FULL = "nv_full"
    NV_LARGE = "nv_large"
    NV_SMALL = "nv_small"


class LoadablePrecision(StrEnum):
    """Precisions of a loadable."""

    FP16 = "fp16"
    INT8 = "int8"


def existing(path: Path | None) -> Path | None:
    """Refuse a file to read that is not there, before anything is done; the option's name goes before the message."""
    if path is None or path.is_file():
        return path
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; give the path of a file in it")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{path}: no such file, nor the folder {path.parent}; check the path")
    close = difflib.get_close_matches(path.name, sorted(other.name for other in path.parent.iterdir()), 1)
    hint = f" (did you mean {path.parent / close[0]}?)" if close else ""
    raise typer.BadParameter(f"{path}: no such file{hint}; check the path, which starts at the working directory")


Prototxt = Annotated[Path, typer.Option("--prototxt", callback=existing, help="The network's deploy prototxt.")]
Caffemodel = Annotated[Path, typer.Option("--caffemodel", callback=existing, help="The network's trained weights.")]
Output = Annotated[Path, typer.Option("--output", help="The file to write.")]
LoadableFile = Annotated[
    Path, typer.Argument(metavar="LOADABLE", callback=existing, help="A .nvdla file, NVIDIA's or ours.")
]
ConfigTarget = Annotated[TargetName, typer.Option("--configtarget", help="Hardware configuration.")]
RunTarget = Annotated[
    TargetName | None,
    typer.Option("--configtarget", help="Hardware; default: nv_small where feature atoms are 8 bytes, else nv_full."),
]
ComputePrecision = Annotated[LoadablePrecision, typer.Option("--cprecision", help="Precision of the loadable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_array(path: Path) -> NDArray[Any]:
    """Read the array in an ``.npy`` file."""
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: not a readable .npy array ({error})") from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{path}: an .npz archive, expected one array in an .npy file")
    return array


def bar_of(what: str) -> "Progress":
    """Return a progress bar on standard error, which shows nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
