"""``nvdla-quant convert``."""

import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nvdla_quant.cli.options import CutAt, InputShape, existing, shape_of
from nvdla_quant.jobs.files import atomic_path, write_json
from nvdla_quant.network.caffe.rewrites import for_caffe
from nvdla_quant.network.files import import_onnx, read_model, write_model
from nvdla_quant.network.graph import Network
from nvdla_quant.network.onnx.written import as_onnx
from nvdla_quant.network.passes import prepare


class Format(StrEnum):
    """What is written."""

    CAFFE = "caffe"
    ONNX = "onnx"


def command(
    onnx: Annotated[Path, typer.Option(help="The ONNX file: read, or written with --to onnx.")],
    prototxt: Annotated[Path, typer.Option(help="The prototxt: written, or read with --to onnx.")],
    caffemodel: Annotated[Path, typer.Option(help="The caffemodel: written, or read with --to onnx.")],
    to: Annotated[Format, typer.Option(help="What is written of what the other options name.")] = Format.CAFFE,
    input_shape: InputShape = None,
    cut_at: CutAt = None,
    preparation: Annotated[str, typer.Option(help="fold: BatchNorm and Scale into convolutions; as-is.")] = "as-is",
    names: Annotated[Path | None, typer.Option(help="Also write what each tensor is called in the ONNX file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
) -> None:
    """Write an ONNX model as Caffe's files, or with --to onnx a Caffe model as ONNX."""
    caffe = [prototxt, caffemodel]
    given, made = ([onnx], caffe) if to is Format.CAFFE else (caffe, [onnx])
    for path in given:
        _check_given(path, to)
    if len({path.absolute() for path in (onnx, *caffe)}) < 3:
        raise typer.BadParameter("two of --onnx, --prototxt and --caffemodel name one file; give three")
    for path in made:
        if path.exists() and not force:
            raise typer.BadParameter(f"{path} is there already; --force writes over it, --to says what is written")
    if to is Format.CAFFE:
        imported = import_onnx(onnx, shape_of(input_shape), cut_at or ())
        network, called = imported.network, dict(imported.names)
        for remark in imported.remarks:
            print(f"note: {remark}", file=sys.stderr)
    elif input_shape is not None:
        raise typer.BadParameter("--input-shape goes with an ONNX file that is read; a prototxt has the shape in it")
    else:
        network = as_onnx(read_model(caffe, cut_at=cut_at or ()))
        called = {name: name for name in network.tensors}
    prepared = prepare(network, preparation)
    _write(for_caffe(prepared) if to is Format.CAFFE else prepared, made)
    if names is not None:
        write_json(names, {name: called[name] for name in prepared.tensors if name in called})


def _check_given(path: Path, to: Format) -> None:
    """Refuse a file that is not there, in a direction that may not be the one that was meant."""
    try:
        existing(path)
    except typer.BadParameter as error:
        other = Format.ONNX if to is Format.CAFFE else Format.CAFFE
        raise typer.BadParameter(f"{error.message}; or was --to {other} meant?") from error


def _write(network: Network, files: list[Path]) -> None:
    with ExitStack() as stack:
        write_model(network, [stack.enter_context(atomic_path(path)) for path in files])
