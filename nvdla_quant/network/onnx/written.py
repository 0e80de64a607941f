"""Write a network as an ONNX file that reads back as the same network.

ONNX has no word for some layers: a Scale is a Mul and an Add, Caffe's average at the border a product with a map. So
the file says beside its graph, in the model's metadata, which layers the nodes stand for, and a digest of the graph.
Any program that runs ONNX reads the graph; reading the file back takes the layers where the digest is the graph's, so
that an edited file is read like anybody else's.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from nvdla_quant.errors import NetworkError
from nvdla_quant.network.graph import Layer, Learned, Network, OnnxTensors, Operation, Tensor
from nvdla_quant.network.onnx.writer import Graph
from nvdla_quant.network.quantized import along_outputs, dequantized
from nvdla_quant.network.shapes import assemble

if TYPE_CHECKING:
    import onnx

LAYERS = "nvdla_quant.layers"
"""Key of the model's metadata that holds the layers, as JSON."""
DIGEST = "nvdla_quant.graph.sha256"
"""Key of the digest of the graph that the layers belong to."""
LARGEST = 2**31 - 1
"""Bytes that a protobuf message can have."""

_KINDS = {operation.__name__: operation for operation in get_args(Operation)}


def write_onnx(network: Network, path: Path) -> None:
    """Write a network with its weights: opset 17, any batch size, values named as our tensors.

    The same network gives the same bytes.

    Raises
    ------
    NetworkError
        The file would be larger than protobuf can read.
    """
    size = sum(array.nbytes for layer in network.layers for array in _arrays(layer.operation).values())
    content = b"" if size > LARGEST else model_of(network).SerializeToString(deterministic=True)
    if max(size, len(content)) > LARGEST:
        raise NetworkError(
            f"{path}: network {network.name!r} has {size} bytes of weights; an ONNX file in one piece holds less than "
            "2 GiB, and NVDLA's address space no more than that either"
        )
    path.write_bytes(content)


def as_onnx(network: Network) -> Network:
    """Return a network of Caffe's as the ONNX file has it: each tensor by itself, under its layer's name.

    So that names in a calibration cache are those of the values in the file.
    """
    layers = tuple(replace(layer, inner=False) for layer in network.layers)
    tensors = {name: replace(tensor, blob=name) for name, tensor in network.tensors.items()}
    inputs = tuple(tensors[tensor.name] for tensor in network.inputs)
    return Network(network.name, inputs, layers, tensors)


def model_of(network: Network) -> "onnx.ModelProto":
    """Return what `write_onnx` writes."""
    graph = Graph(network, quantized=True)
    model = graph.model()
    inputs = [{"name": tensor.name, "blob": tensor.blob, "shape": tensor.shape} for tensor in network.inputs]
    layers = [_described(network, layer, graph.held.get(layer.name, {})) for layer in network.layers]
    described = {"name": network.name, "inputs": inputs, "layers": layers}
    model.metadata_props.add(key=LAYERS, value=json.dumps(described, allow_nan=False))
    model.metadata_props.add(key=DIGEST, value=_digest(model))
    return model


def read_written(path: Path) -> Network | str | None:
    """Return the network that a file was written from; what to say where it was edited since; None for any other file.

    Raises
    ------
    NetworkError
        The file says which layers it holds, but not in this way.
    """
    from nvdla_quant.network.onnx.files.load import parse

    try:
        model = parse(path)
    except NetworkError:
        return None  # Whoever reads it as any other file says the same.
    try:
        return as_written(model)
    except NetworkError as error:
        raise NetworkError(f"{path}: {error}") from error


def as_written(model: "onnx.ModelProto") -> Network | str | None:
    """Return what `read_written` does of a model."""
    said = {entry.key: entry.value for entry in model.metadata_props}
    if LAYERS not in said:
        return None
    if said.get(DIGEST) != _digest(model):
        return (
            f"its graph was edited after nvdla-quant wrote it, so that the layers in its metadata, {LAYERS}, are not it"
        )
    try:
        return _network(model, json.loads(said[LAYERS]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NetworkError(
            f"the metadata {LAYERS} is damaged ({error!r}); remove it, or write the file again"
        ) from error


def _digest(model: "onnx.ModelProto") -> str:
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def _arrays(operation: Operation) -> dict[str, Any]:
    """Return the learned arrays of an operation, by field."""
    values = {field.name: getattr(operation, field.name) for field in fields(operation)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def _described(network: Network, layer: Layer, held: Mapping[str, str]) -> dict[str, Any]:
    """Return what JSON can hold of a layer; `held` are the names of its constants."""
    operation = layer.operation
    arrays = _arrays(operation)
    rest = {field.name: getattr(operation, field.name) for field in fields(operation) if field.name not in arrays}
    rest.pop("scales", None)  # An array or nothing.
    return {
        "name": layer.name,
        "kind": type(operation).__name__,
        "inputs": layer.inputs,
        "blob": network.tensors[layer.name].blob,
        **({"inner": True} if layer.inner else {}),
        "fields": rest,
        "arrays": {name: {"initializer": held[name], "shape": array.shape} for name, array in arrays.items()},
    }


def _dequantized(operation: Operation) -> Operation:
    """Return an operation whose weights may stand there as integers with the floats that they are."""
    if not isinstance(operation, Learned) or operation.weights.dtype.kind != "i" or operation.scales is None:
        return operation
    return replace(operation, weights=dequantized(operation.weights, along_outputs(operation, operation.scales)))


def _network(model: "onnx.ModelProto", content: Mapping[str, Any]) -> Network:
    from onnx import numpy_helper

    from nvdla_quant.network.onnx.files.tensors import value_names

    # What is to be read elsewhere is none of ours, and may lie anywhere.
    constants = (constant for constant in model.graph.initializer if not constant.external_data)
    held = {constant.name: constant for constant in constants}
    inputs = [Tensor(item["name"], tuple(item["shape"]), item["blob"]) for item in content["inputs"]]
    layers: list[Layer] = []
    for item in content["layers"]:
        arrays = {
            name: numpy_helper.to_array(held[array["initializer"]]).reshape(array["shape"])
            for name, array in item["arrays"].items()
        }
        rest = {name: tuple(value) if isinstance(value, list) else value for name, value in item["fields"].items()}
        operation = _dequantized(_KINDS[item["kind"]](**rest, **arrays))
        layers.append(Layer(item["name"], operation, tuple(item["inputs"]), item.get("inner", False)))
    blobs = {item["name"]: item["blob"] for item in content["layers"]}
    network = assemble(content["name"], inputs, layers, blobs)
    names = {name: name for name in network.tensors if name not in network.by_name or not network.by_name[name].inner}
    return replace(network, onnx=OnnxTensors(names, value_names(model) - set(names)))
