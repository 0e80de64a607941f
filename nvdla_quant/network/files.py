"""A network from its files, whichever they are: one ONNX file, or Caffe's prototxt and caffemodel."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nvdla_quant.errors import NetworkError
from nvdla_quant.network.cutting import cut
from nvdla_quant.network.graph import Network

if TYPE_CHECKING:
    from nvdla_quant.network.onnx.reader import Imported

ONNX_SUFFIX = ".onnx"
"""How the name of an ONNX file ends within the workflow, where a prototxt may stand alone as well."""


def read_model(
    files: Sequence[Path | str], input_shape: tuple[int, ...] | None = None, cut_at: Sequence[str] = ()
) -> Network:
    """Network with its weights.

    Parameters
    ----------
    files : Sequence[Path or str]
        One ONNX file, or a prototxt and its caffemodel.
    input_shape : tuple[int, ...], optional
        Shape of the input of an ONNX file that leaves some of it open, see `onnx.reader.read_onnx`.
    cut_at : Sequence[str], optional
        Tensors that the network is to end at, its outputs in this order: values of an ONNX file, or Caffe's blobs or
        layers. What is behind them is not read.

    Raises
    ------
    NetworkError
        As the readers of the two formats.
    """
    paths = list(map(Path, files))
    if len(paths) == 1:
        return _read_onnx(paths[0], input_shape, cut_at)
    from nvdla_quant.network.caffe.reader import read_network

    prototxt, caffemodel = paths
    return read_network(prototxt, caffemodel, cut_at)


def read_structure(files: Sequence[Path | str], cut_at: Sequence[str] = ()) -> Network:
    """Network whose shapes and names are right: of an ONNX file, or of a prototxt, whose weights are zeros then.

    Parameters
    ----------
    files : Sequence[Path or str]
        One ONNX file, called ``.onnx``, or a prototxt; a caffemodel behind that is not read.
    cut_at : Sequence[str], optional
        As of `read_model`.

    Raises
    ------
    NetworkError
        As the readers of the two formats.
    """
    path = Path(files[0])
    if path.suffix == ONNX_SUFFIX:
        return _read_onnx(path, None, cut_at)
    from nvdla_quant.network.caffe import reader

    return reader.read_structure(path, cut_at)


def write_model(network: Network, files: Sequence[Path | str]) -> None:
    """Write a network with its weights, as `read_model` reads it: as ONNX to one file, as Caffe's files to two.

    Raises
    ------
    NetworkError
        As `onnx.written.write_onnx` and the writers of Caffe's files, for which `caffe.rewrites.for_caffe` makes any
        network ready.
    """
    paths = list(map(Path, files))
    if len(paths) == 1:
        from nvdla_quant.network.onnx.written import write_onnx

        write_onnx(network, paths[0])
        return
    from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt

    prototxt, caffemodel = paths
    write_prototxt(network, prototxt)
    write_caffemodel(network, caffemodel)


def import_onnx(path: Path, input_shape: tuple[int, ...] | None = None, cut_at: Sequence[str] = ()) -> "Imported":
    """Network of an ONNX file, what its tensors are called there, and what to know of how it was read.

    A file that `onnx.written.write_onnx` wrote reads back as the network that it was written from, unless somebody has
    edited its graph.

    Raises
    ------
    NetworkError
        As `onnx.reader.read_onnx`.
    """
    from nvdla_quant.network.onnx.reader import Imported
    from nvdla_quant.network.onnx.writer import OPSET, PRODUCER
    from nvdla_quant.network.onnx.written import read_written

    written = read_written(path)
    if isinstance(written, Network):
        network = _cut(written, path, cut_at)
        return Imported(network, {name: name for name in network.tensors}, (), OPSET, PRODUCER, (path,))
    return _import_foreign(path, input_shape, cut_at, written)


def _import_foreign(
    path: Path, input_shape: tuple[int, ...] | None, cut_at: Sequence[str], edited: str | None
) -> "Imported":
    """Read an ONNX file that is not as we wrote it; `edited` says so where we wrote it once."""
    from nvdla_quant.network.onnx.reader import read_onnx

    imported = read_onnx(path, input_shape, cut_at)
    return imported if edited is None else replace(imported, remarks=(*imported.remarks, edited))


def _read_onnx(path: Path, input_shape: tuple[int, ...] | None, cut_at: Sequence[str]) -> Network:
    """Network of an ONNX file; the files of the workflow itself are read without what reads any other."""
    from nvdla_quant.network.onnx.written import read_written

    written = read_written(path)
    if isinstance(written, Network):
        return _cut(written, path, cut_at)
    return _import_foreign(path, input_shape, cut_at, written).network


def _cut(network: Network, path: Path, cut_at: Sequence[str]) -> Network:
    """End a network that a file of ours holds."""
    try:
        return cut(network, cut_at) if cut_at else network
    except NetworkError as error:
        raise NetworkError(f"{path}: {error}") from error
