"""Read an ONNX model, bring a network to the form that is compiled, write that in Caffe."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nvdla_quant.jobs.files import atomic_path, write_json, write_text
from nvdla_quant.network.caffe.rewrites import for_caffe
from nvdla_quant.network.files import import_onnx, read_model, write_model
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare
from nvdla_quant.planning.sizes import size_of


def import_network(
    model: str,
    network: str,
    names: str,
    remarks: str,
    size: str,
    input_shape: Sequence[int] | None,
    cut_at: Sequence[str],
) -> None:
    """Read an ONNX `model`, and write the `network` that every other job reads, again as ONNX.

    Parameters
    ----------
    model : str
        A file of the user's.
    network, names, remarks, size : str
        What is written: the network as it was read, its tensors' names in the model, what to know of the reading, and
        how large the tensors are.
    input_shape : Sequence[int] or None
        Shape of the input, where the model leaves it open.
    cut_at : Sequence[str]
        Values that it ends at; none where it ends as its file does.
    """
    imported = import_onnx(Path(model), None if input_shape is None else tuple(input_shape), cut_at)
    print(*imported.remarks, sep="\n")
    write_network(imported.network, [network])
    write_json(names, dict(imported.names))
    write_json(size, asdict(size_of(imported.network)))
    write_text(remarks, "".join(f"{remark}\n" for remark in imported.remarks))


def cut_network(files: Sequence[str], made: Sequence[str], cut_at: Sequence[str]) -> None:
    """Write a Caffe model in `files` to `made` as it is up to its tensors `cut_at`."""
    write_network(read_model(files, cut_at=cut_at), made)


def prepare_network(files: Sequence[str], made: Sequence[str], preparation: Mapping[str, Any]) -> None:
    """Write the form that is compiled of the network in `files` to `made`: ONNX to one file, Caffe's to two."""
    write_network(prepare(read_model(files), **preparation), made)


def convert_network(files: Sequence[str], made: Sequence[str]) -> None:
    """Write the network in `files` as Caffe's files, `made`: what Caffe lacks is said otherwise where it can be."""
    write_network(for_caffe(read_model(files)), made)


def write_network(network: Network, files: Sequence[str]) -> None:
    """Write a network whole or not at all."""
    with ExitStack() as stack:
        write_model(network, [stack.enter_context(atomic_path(path)) for path in files])
