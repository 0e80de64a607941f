"""Read Caffe networks: a prototxt (text, structure) and a caffemodel (binary, weights).

Both the modern format (``layer``, type names) and the one before it (``layers``, type numbers) are read, inputs as
``Input`` layers or as ``input`` with ``input_dim`` or ``input_shape``. Fields that `caffe.proto` does not declare are
ignored in both files. Weights are matched by layer name, as Caffe does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from nvdla_quant.errors import NetworkError
from nvdla_quant.network import caffe_pb2 as pb
from nvdla_quant.network.caffe_layers import ADVICE, READERS, WITH_WEIGHTS, Blobs
from nvdla_quant.network.graph import Layer, Network, Tensor
from nvdla_quant.network.shapes import check_arity, output_shape

_V1_NAMES = {
    "BNLL": "BNLL",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
"""Type names that are not simply the enumerator in CamelCase."""


def read_network(prototxt: Path, caffemodel: Path) -> Network:
    """Network with its weights.

    A layer that Caffe runs in place becomes a layer like any other: see `graph`. Layers that are restricted to one
    phase, by ``phase`` or by an ``include`` or ``exclude`` rule, are dropped whichever phase it is: those of TRAIN do
    not run at test time, and those of TEST are dropped by TensorRT's Caffe parser and by nvdla_compiler. Rules by
    level or stage are taken at level 0 without stages, as Caffe does when nothing is set. The batch size in the file
    means nothing.

    Parameters
    ----------
    prototxt : Path
        Structure, as UTF-8 text.
    caffemodel : Path
        Weights, float or double.

    Raises
    ------
    NetworkError
        A file cannot be read or parsed, a layer is malformed or of an unknown type, or the two files do not belong
        together. The message names the file and the layer.
    """
    structure = _parse_text(prototxt)
    weights: dict[str, Sequence[pb.BlobProto]] = {}
    for layer in _parse_binary(caffemodel).layer:
        if layer.blobs:
            if layer.name in weights:
                raise NetworkError(
                    f"{caffemodel}: two layers named {layer.name!r} hold weights; rename one, in both files"
                )
            weights[layer.name] = layer.blobs
    try:
        return _network(structure, weights)
    except NetworkError as error:
        raise NetworkError(f"{prototxt} with {caffemodel}: {error}") from error


def read_structure(prototxt: Path) -> Network:
    """Network of a prototxt alone: its shapes are right, and all its weights are zeros that take no memory.

    Raises
    ------
    NetworkError
        As `read_network`.
    """
    structure = _parse_text(prototxt)
    try:
        return _network(structure, None)
    except NetworkError as error:
        raise NetworkError(f"{prototxt}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NetworkError(f"{path}: cannot be read: {error.strerror}") from error


def _parse_text(path: Path) -> pb.NetParameter:
    """Prototxt as a message of modern layers."""
    try:
        text = _read(path).decode("utf-8-sig")
        message = text_format.Parse(text, pb.NetParameter(), allow_unknown_field=True)
    except UnicodeDecodeError as error:
        raise NetworkError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except text_format.ParseError as error:
        raise NetworkError(f"{path}: not a Caffe prototxt at line:column {error}") from error
    except RecursionError as error:
        raise NetworkError(f"{path}: not a Caffe prototxt: braces are nested too deeply") from error
    return _modern(message, path)


def _parse_binary(path: Path) -> pb.NetParameter:
    """Caffemodel as a message of modern layers."""
    try:
        message = pb.NetParameter.FromString(_read(path))
    except (DecodeError, UnicodeDecodeError) as error:  # The latter from protobuf's implementation in Python alone.
        raise NetworkError(
            f"{path}: not a caffemodel, or cut off ({error}); compare its size with the original's"
        ) from error
    return _modern(message, path)


def _modern(message: pb.NetParameter, path: Path) -> pb.NetParameter:
    """Turn ``layers`` of the old format into ``layer``, in place."""
    if message.layer and message.layers:
        raise NetworkError(f"{path}: holds both 'layer' and 'layers'; convert it with Caffe's upgrade_net_proto_text")
    if not message.layer and not message.layers:
        raise NetworkError(f"{path}: holds no layers; expected a Caffe network")
    for old in message.layers:
        new = message.layer.add()
        for field, value in old.ListFields():
            match field.name:
                case "type":
                    name = pb.V1LayerParameter.LayerType.Name(value)
                    new.type = _V1_NAMES.get(name, "".join(word.capitalize() for word in name.split("_")))
                case "name":
                    new.name = value
                case "bottom" | "top" | "blobs" | "include" | "exclude":
                    getattr(new, field.name).extend(value)
                case _:
                    getattr(new, field.name).CopyFrom(value)
    message.ClearField("layers")
    return message


def _network(message: pb.NetParameter, weights: Mapping[str, Sequence[pb.BlobProto]] | None) -> Network:
    """Network of a modern message; `weights` holds the blobs of each layer that has any, None for placeholders."""
    inputs: list[Tensor] = []
    layers: list[Layer] = []
    tensors: dict[str, Tensor] = {}
    latest: dict[str, Tensor] = {}  # What each Caffe blob holds at this point.

    def write(layer: str, tensor: Tensor, overwrites: Sequence[str]) -> None:
        if tensor.blob in latest and tensor.blob not in overwrites:
            raise NetworkError(f"layer {layer!r}: another layer already writes its top {tensor.blob!r}")
        if tensor.name in tensors:
            raise NetworkError(f"layer {layer!r}: the name {tensor.name!r} is used twice; rename one")
        tensors[tensor.name] = latest[tensor.blob] = tensor

    for tensor in _legacy_inputs(message):
        inputs.append(tensor)
        write("input", tensor, ())
    for index, item in enumerate(message.layer):
        if not item.name:
            raise NetworkError(f"layer {index} (type {item.type!r}) has no name; give it one")
        if _restricted(item):
            continue
        if item.type == "Input":
            for tensor in _input_tensors(item):
                inputs.append(tensor)
                write(item.name, tensor, ())
            continue
        layer, tensor = _layer(item, latest, weights)
        layers.append(layer)
        write(item.name, tensor, item.bottom)
    if not inputs or not layers:
        raise NetworkError(
            f"{len(inputs)} inputs and {len(layers)} layers that run at test time, expected 1 or more of each"
        )
    return Network(message.name, tuple(inputs), tuple(layers), tensors)


def _layer(
    item: pb.LayerParameter, latest: Mapping[str, Tensor], weights: Mapping[str, Sequence[pb.BlobProto]] | None
) -> tuple[Layer, Tensor]:
    """One layer and the tensor that it writes."""
    if item.type not in READERS:
        advice = f"; {ADVICE[item.type]}" if item.type in ADVICE else ""
        raise NetworkError(
            f"layer {item.name!r}: type {item.type!r} is not supported{advice} (supported: Input, {', '.join(READERS)})"
        )
    if missing := [blob for blob in item.bottom if blob not in latest]:
        raise NetworkError(f"layer {item.name!r}: reads {missing[0]!r}, which no earlier layer writes")
    if len(item.top) != 1:
        raise NetworkError(f"layer {item.name!r} ({item.type}): {len(item.top)} tops, expected 1")
    sources = [latest[blob] for blob in item.bottom]
    shapes = [source.shape for source in sources]
    if weights is not None and item.type in WITH_WEIGHTS and item.name not in weights:
        raise NetworkError(f"layer {item.name!r} ({item.type}): the caffemodel has no weights for a layer of this name")
    check_arity(item.name, item.type, item.type in ("Eltwise", "Concat"), len(sources))
    try:
        operation = READERS[item.type](item, shapes, Blobs(None if weights is None else weights.get(item.name, ())))
    except NetworkError as error:
        raise NetworkError(f"layer {item.name!r} ({item.type}): {error}") from error
    layer = Layer(item.name, operation, tuple(source.name for source in sources))
    return layer, Tensor(item.name, output_shape(layer, shapes), item.top[0])


def _restricted(layer: pb.LayerParameter) -> bool:
    """Whether a layer belongs to one phase only, or its rules exclude it at level 0 without stages."""
    rules = [*layer.include, *layer.exclude]
    if layer.HasField("phase") or any(rule.HasField("phase") for rule in rules):
        return True
    if layer.include:
        return not any(map(_meets, layer.include))
    return any(map(_meets, layer.exclude))


def _meets(rule: pb.NetStateRule) -> bool:
    """Whether level 0 without stages meets a rule without phase."""
    above = not rule.HasField("min_level") or rule.min_level <= 0
    below = not rule.HasField("max_level") or rule.max_level >= 0
    return above and below and not rule.stage


def _input_tensors(layer: pb.LayerParameter) -> list[Tensor]:
    """Tensors of an ``Input`` layer: one shape for each top, or one for all."""
    shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
    if not layer.top or len(shapes) not in (1, len(layer.top)):
        raise NetworkError(
            f"layer {layer.name!r} (Input): {len(shapes)} shapes for {len(layer.top)} tops, expected one each"
        )
    if len(shapes) == 1:
        shapes *= len(layer.top)
    return [_input_tensor(top, shape) for top, shape in zip(layer.top, shapes, strict=True)]


def _legacy_inputs(message: pb.NetParameter) -> list[Tensor]:
    """Tensors of ``input`` with ``input_shape``, or with four ``input_dim`` each."""
    shapes = [tuple(shape.dim) for shape in message.input_shape]
    if message.input_dim:
        if shapes or len(message.input_dim) != 4 * len(message.input):
            raise NetworkError(
                f"{len(message.input_dim)} input_dim and {len(shapes)} input_shape for {len(message.input)} input, "
                "expected four input_dim or one input_shape each"
            )
        dims = message.input_dim
        shapes = [tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)]
    if len(shapes) != len(message.input):
        raise NetworkError(f"{len(shapes)} input_shape for {len(message.input)} input, expected one each")
    return [_input_tensor(name, shape) for name, shape in zip(message.input, shapes, strict=True)]


def _input_tensor(blob: str, shape: tuple[int, ...]) -> Tensor:
    if len(shape) != 4 or min(shape[1:]) < 1:
        raise NetworkError(
            f"input {blob!r} has the shape {shape}, expected (batch, channels, height, width), 1 or more each"
        )
    return Tensor(blob, shape[1:], blob)
