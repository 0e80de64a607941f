"""What TensorRT is given of a network, decided here, where the network is known: names, input values, an ONNX model.

TensorRT's Caffe parser reads the original files of a Caffe model. Versions without it get an ONNX model whose values
have the names that the Caffe parser would have given them, so that a calibration cache is the same text whichever way
it came. Of an ONNX model, every version gets what it was read to.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nvdla_quant.images.preprocess import Preprocessing, normalise
from nvdla_quant.jobs.files import write_bytes, write_json
from nvdla_quant.network.graph import Network
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.table.naming import tensor_names

if TYPE_CHECKING:
    import onnx


def write_job(network: Network, preprocessing: Preprocessing, job: Path, model: Path) -> None:
    """Write what `nvdla_quant.calibration.tensorrt` reads.

    Parameters
    ----------
    network : Network
        The original network, with its weights; one input and one output.
    preprocessing : Preprocessing
        Its mean and scale; they become one value for each channel and pixel value.
    job : Path
        JSON: ``input``, ``shape`` (c, h, w), ``output``, ``classes``, ``names`` of the cache's entries in order, and
        ``values`` (channels, 256), the network's input for each pixel value.
    model : Path
        The network as ONNX, its values named as in a cache; the batch size is free.

    Raises
    ------
    NetworkError
        Several inputs or outputs.
    CacheError
        The network's names are ambiguous, see `tensor_names`.
    """
    names = tensor_names(network)
    pixels = np.broadcast_to(
        np.arange(256, dtype=np.uint8)[:, None, None, None], (256, preprocessing.channel_count, 1, 1)
    )
    values = normalise(pixels, preprocessing)[:, :, 0, 0].T
    source, output = network.only_input, network.only_output
    write_json(
        job,
        {
            "input": names[source.name],
            "shape": list(source.chw),
            "output": names.get(output.name, output.blob),
            "classes": output.chw[0],
            "names": list(names.values()),
            "values": [[float(value) for value in channel] for channel in values],
        },
    )
    every = {**_apart(network, names), **names}
    write_bytes(model, renamed(to_onnx(network), every).SerializeToString(deterministic=True))


def _apart(network: Network, names: Mapping[str, str]) -> dict[str, str]:
    """Return further names for tensors that have none, whose own the cache gives to another: of views, their source."""
    taken = {*names.values(), *network.tensors}
    found: dict[str, str] = {}
    for name in network.tensors:
        if name not in names and name in names.values():
            found[name] = f"{name}:view"
            while found[name] in taken:
                found[name] += ":"
            taken.add(found[name])
    return found


def renamed(model: "onnx.ModelProto", names: dict[str, str]) -> "onnx.ModelProto":
    """Return a copy of `model` whose values have other names; those that `names` lacks keep theirs."""
    from onnx import ModelProto

    copy = ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*copy.graph.input, *copy.graph.output):
        value.name = names.get(value.name, value.name)
    return copy
