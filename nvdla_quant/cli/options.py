"""What commands have in common: options, files that must be there, a progress bar."""

import difflib
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import typer
from numpy.typing import NDArray

from nvdla_quant.errors import DatasetError
from nvdla_quant.hardware.targets import NV_FULL, TARGETS, QuantizationMode
from nvdla_quant.network.files import ONNX_SUFFIX, read_model, read_structure
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare

if TYPE_CHECKING:
    from rich.progress import Progress


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


def _shape(text: str | None) -> str | None:
    """Refuse what is no shape of a network's input."""
    if text is None or re.fullmatch(r"[1-9][0-9]*(,[1-9][0-9]*){1,3}", text):
        return text
    raise typer.BadParameter(f"{text!r}: expected the sizes of all axes, the batch 1, joined by commas: 1,3,224,224")


Prototxt = Annotated[
    Path | None, typer.Option("--prototxt", callback=existing, help="The deploy prototxt of a Caffe model.")
]
Caffemodel = Annotated[
    Path | None,
    typer.Option("--caffemodel", callback=existing, help="The trained weights of a Caffe model."),
]
Onnx = Annotated[
    Path | None, typer.Option("--onnx", callback=existing, help="The network as ONNX, in place of the Caffe model.")
]
InputShape = Annotated[
    str | None,
    typer.Option(
        callback=_shape, metavar="SIZES", help="Of an ONNX model that leaves its input's shape open: 1,3,224,224."
    ),
]
CutAt = Annotated[
    list[str] | None,
    typer.Option(
        "--cut-at",
        metavar="TENSOR",
        help="End the network at this tensor, and drop what is behind; once for each output, in their order.",
    ),
]
Output = Annotated[Path, typer.Option("--output", help="The file to write.")]
LoadableFile = Annotated[
    Path, typer.Argument(metavar="LOADABLE", callback=existing, help="A .nvdla file, NVIDIA's or ours.")
]
DEFAULT_TARGET = NV_FULL.name
"""What `compile` and `check` take where nothing is said, as nvdla_compiler does."""
ConfigTarget = Annotated[
    str,
    typer.Option(
        "--configtarget",
        metavar="NAME|SPEC",
        help=f"Hardware: {', '.join(TARGETS)}, or the path of a specification in nvdla/hw's syntax (*.spec).",
    ),
]
RunTarget = Annotated[
    str | None,
    typer.Option(
        "--configtarget",
        metavar="NAME|SPEC",
        help="Hardware, as `compile` takes it; default: the shipped one that the loadable fits.",
    ),
]
ComputePrecision = Annotated[LoadablePrecision, typer.Option("--cprecision", help="Precision of the loadable.")]
Mode = Annotated[
    QuantizationMode,
    typer.Option("--quantizationMode", help="How weights share scales (int8): one for a layer, or each."),
]
WeightStepsFile = Annotated[
    Path | None,
    typer.Option(
        "--weight-steps",
        callback=existing,
        help="Weights as int8 steps and biases that take the place of the network's: what refine or search wrote.",
    ),
]
MaxMacs = Annotated[
    int, typer.Option("--max-macs", min=0, help="Refuse what asks for more multiplications, a loadable for an image.")
]
MaxMemory = Annotated[
    int, typer.Option("--max-memory", min=0, help="Refuse what uses more bytes of memory, or declares so many.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def network_of(
    prototxt: Path | None,
    caffemodel: Path | None,
    onnx: Path | None,
    input_shape: str | None,
    cut_at: Sequence[str] | None,
) -> Network:
    """Return the network that a command was given, with its weights: as ONNX, or as Caffe's files."""
    check_one_network(prototxt, caffemodel, onnx, input_shape)
    if onnx is not None:
        return read_model([onnx], shape_of(input_shape), cut_at or ())
    if prototxt is None or caffemodel is None:
        given, missing = ("--prototxt", "--caffemodel") if caffemodel is None else ("--caffemodel", "--prototxt")
        raise typer.BadParameter(f"{given} without {missing}: a Caffe model is both")
    return read_model([prototxt, caffemodel], cut_at=cut_at or ())


def with_weights(network: Network, weight_steps: Path | None) -> Network:
    """Return a network with the weights and biases of a file of ``--weight-steps``, which belong to its folded form."""
    if weight_steps is None:
        return network
    from nvdla_quant.quantization.steps import with_steps_of

    return with_steps_of(prepare(network, "fold"), weight_steps)


def structure_of(
    prototxt: Path | None, onnx: Path | None, input_shape: str | None, cut_at: Sequence[str] | None
) -> Network:
    """Return the network that a command was given, of a Caffe model its structure alone."""
    check_one_network(prototxt, None, onnx, input_shape)
    if onnx is not None:
        return read_model([onnx], shape_of(input_shape), cut_at or ())
    return read_structure([cast(Path, prototxt)], cut_at or ())


def check_one_network(
    prototxt: Path | None, caffemodel: Path | None, onnx: Path | None, input_shape: str | None
) -> None:
    """Refuse no network, and two."""
    caffe = prototxt is not None or caffemodel is not None
    if caffe and onnx is not None:
        raise typer.BadParameter("--onnx and a Caffe model: give one network, --onnx or --prototxt and --caffemodel")
    if not caffe and onnx is None:
        raise typer.BadParameter("no network: give --onnx FILE, or --prototxt FILE and --caffemodel FILE")
    if prototxt is not None and prototxt.suffix == ONNX_SUFFIX:
        raise typer.BadParameter(f"--prototxt {prototxt} is called as an ONNX model; give it by --onnx")
    if input_shape is not None and onnx is None:
        raise typer.BadParameter("--input-shape goes with --onnx; a prototxt has the shape in it")


def shape_of(text: str | None) -> tuple[int, ...] | None:
    """Return the shape that ``--input-shape`` gives."""
    return None if text is None else tuple(map(int, text.split(",")))


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
