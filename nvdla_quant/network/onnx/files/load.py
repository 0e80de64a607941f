"""Load an ONNX file: nothing outside of its folder is read, and what it claims is checked before it is believed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.onnx.files.cut import cut_graph
from nvdla_quant.network.onnx.files.soundness import check_graph, expanded_nodes
from nvdla_quant.network.onnx.files.tensors import MOST_BYTES, Folder, check_tensor, read_external, value_names

OLDEST_OPSET = 7
"""Broadcasting is as it is today, and BatchNormalization has no training mode in its attributes any more."""
MOST_NODES = 10_000
"""Nodes of a graph, subgraphs and inlined functions counted: classifiers have hundreds."""


@dataclass(frozen=True)
class Loaded:
    """A model that is sound, its external data within it.

    Attributes
    ----------
    model : ModelProto
        The model; all tensors are in it.
    tensors : frozenset[str]
        Names of all tensors of the file.
    opset : int
        Version of the ONNX operators.
    files : tuple[Path, ...]
        Files that were read: the model, then those with external data.
    """

    model: onnx.ModelProto
    tensors: frozenset[str]
    opset: int
    files: tuple[Path, ...]


def load(path: Path, cut_at: Sequence[str] = ()) -> Loaded:
    """Read and check a model.

    Parameters
    ----------
    path : Path
        An ``.onnx`` file. External data lies in its folder or below.
    cut_at : Sequence[str], optional
        Values that the graph is to end at, see `cut.cut_graph`; what is dropped is not looked at.

    Raises
    ------
    NetworkError
        It is no ONNX model, or one that contradicts itself; the message names the file, the place and what to do.
    UnsupportedError
        It is sound, and of a version or a size that is not read.
    """
    model = parse(path)
    tensors = value_names(model)
    try:
        if cut_at:
            cut_graph(model, cut_at)
        opset = _opset(model)
        count = expanded_nodes(model)
        if count > MOST_NODES:
            raise UnsupportedError(
                f"{count} nodes, subgraphs and functions counted, expected at most {MOST_NODES}; export the inference "
                "graph alone, without loops that are unrolled"
            )
        folder = Folder(path.parent)
        for where, tensor in tensors_of(model):
            check_tensor(where, tensor)
            read_external(where, tensor, folder)
        check_graph(model.graph)
        _check_operators(model)
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: {error}") from error
    except NetworkError as error:
        raise NetworkError(f"{path}: {error}") from error
    return Loaded(model, tensors, opset, (path, *folder.read))


def parse(path: Path) -> onnx.ModelProto:
    """Read a model's message; nothing is looked at but that it is one.

    Raises
    ------
    NetworkError
        It is no file, or no ONNX model.
    UnsupportedError
        It is too large.
    """
    try:
        if not path.is_file():
            raise NetworkError(f"{path}: {'not a file' if path.exists() else 'no such file'}, expected an ONNX model")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UnsupportedError(f"{path}: {size} bytes, more than the {MOST_BYTES} that a protobuf message can have")
        content = path.read_bytes()
    except OSError as error:
        raise NetworkError(f"{path}: cannot be read: {error.strerror}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NetworkError(
            f"{path}: not an ONNX model, or cut off ({error}); compare its size with the original's"
        ) from error
    if (text := _undecodable(model)) is not None:
        raise NetworkError(f"{path}: not an ONNX model, or damaged: the text {text[:40]!r} is not UTF-8")
    if not model.HasField("graph") or not model.graph.node:
        raise NetworkError(f"{path}: holds no graph with nodes; expected an ONNX model (.onnx)")
    return model


def _undecodable(message: Message) -> bytes | None:
    """Return a text of the message that is not UTF-8, which protobuf hands over as bytes; None where there is none."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        for item in (value,) if isinstance(value, str | bytes | Message) else value:
            if isinstance(item, bytes):
                return item
            if isinstance(item, Message) and (found := _undecodable(item)) is not None:
                return found
    return None


def _opset(model: onnx.ModelProto) -> int:
    """Return the version of the ONNX operators that the model uses, checked."""
    versions: list[int] = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    if not versions and model.ir_version < 3:  # The specification's default, of files older than the field.
        versions = [1]
    if len(versions) != 1:
        raise NetworkError(f"{len(versions)} versions of the ONNX operators (opset_import), expected one")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= versions[0] <= newest:
        raise UnsupportedError(
            f"opset {versions[0]}, expected {OLDEST_OPSET} to {newest} (onnx {onnx.__version__}); export it with "
            "another opset, or convert it with onnx.version_converter"
        )
    return versions[0]


def _check_operators(model: onnx.ModelProto) -> None:
    """Check attributes and arities against the operators' definitions; what is of no known domain is told later."""
    ends = [item.type.tensor_type for item in (*model.graph.input, *model.graph.output) if item.HasField("type")]
    open_ = [end for end in ends if not end.HasField("shape")]
    for end in open_:  # The checker asks for a shape, which nothing here needs of outputs, and inputs may be given.
        end.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError, DecodeError, UnicodeDecodeError) as error:
        raise NetworkError(f"onnx.checker refuses it: {one_line(error)}; export it again") from error
    finally:
        for end in open_:
            end.ClearField("shape")


def one_line(error: Exception, most: int = 400) -> str:
    """Return the message of an error of onnx as one line."""
    text = " ".join(str(error).split())
    text = text.partition(" ==> Context:")[0] if " ==> Context:" in text[most:] else text
    return text if len(text) <= most else f"{text[:most]}..."


def tensors_of(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield every tensor of the model with what to call it.

    Raises
    ------
    UnsupportedError
        One is sparse.
    """
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)
    if model.training_info:
        raise UnsupportedError("it holds training_info; export the inference graph alone")


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    if graph.sparse_initializer:
        raise UnsupportedError(
            f"initialiser {graph.sparse_initializer[0].values.name!r} is a sparse tensor; store it as a dense one"
        )
    yield from ((f"initialiser {tensor.name!r}", tensor) for tensor in graph.initializer)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for attribute in node.attribute:
        where = f"node {node_name(node)!r} ({node.op_type}), attribute {attribute.name!r}"
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise UnsupportedError(f"{where} is a sparse tensor; store it as a dense one")
        if attribute.HasField("t"):
            yield where, attribute.t
        yield from ((where, tensor) for tensor in attribute.tensors)
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _graph_tensors(graph)


def node_name(node: onnx.NodeProto) -> str:
    """Return what to call a node: its name, else its first output."""
    return node.name or next(iter(node.output), "")
