"""Read Caffe networks: a prototxt (text, structure) and a caffemodel (binary, weights).

Both the modern format (``layer``, type names) and the one before it (``layers``, type numbers) are read, inputs as
``Input`` layers or as ``input`` with ``input_dim`` or ``input_shape``. Fields that `caffe.proto` does not declare are
ignored in both files. Weights are matched by layer name, as Caffe does.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from nvdla_quant.errors import NetworkError, WeightsError
from nvdla_quant.network.caffe import caffe_pb2 as pb
from nvdla_quant.network.caffe.advice import advice, input_lines
from nvdla_quant.network.caffe.cut import cut_message, ends_before_unread
from nvdla_quant.network.caffe.layers import CROP, KEEPS_SHAPE, READERS, SPELLINGS, SPLIT, WITH_WEIGHTS, Blobs
from nvdla_quant.network.caffe.phases import is_restricted, phase_of
from nvdla_quant.network.cutting import ending_at
from nvdla_quant.network.graph import Dropout, Layer, Network, Operation, Tensor
from nvdla_quant.network.problems import LayersError, Problem, rule_of
from nvdla_quant.network.shapes import check_arity, shape_of

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


SUPPORTED = ("Input", *READERS, *SPELLINGS, SPLIT)
"""Layer types that are read."""


def read_network(prototxt: Path, caffemodel: Path, cut_at: Sequence[str] = ()) -> Network:
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
    cut_at : Sequence[str], optional
        Blobs or layers that the network is to end at, see `cut.cut_message`; what is behind is not looked at.

    Raises
    ------
    NetworkError
        A file cannot be read or parsed; the message names it.
    LayersError
        Layers are malformed or of unknown types, or the two files do not belong together. The message names the file
        and all of these layers, and where the network could end before they begin.
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
    return _network(structure, weights, f"{prototxt} with {caffemodel}", cut_at)


def read_structure(prototxt: Path, cut_at: Sequence[str] = ()) -> Network:
    """Network of a prototxt alone: its shapes are right, and all its weights are zeros that take no memory.

    Raises
    ------
    NetworkError, LayersError
        As `read_network`.
    """
    return _network(_parse_text(prototxt), None, str(prototxt), cut_at)


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


class _Reading:
    """A network while it is read, layer by layer.

    Attributes
    ----------
    problems : list[Problem]
        What is wrong, kept so that all of it can be told at once.
    """

    def __init__(self, message: pb.NetParameter, weights: Mapping[str, Sequence[pb.BlobProto]] | None) -> None:
        self._name = message.name
        self._weights = weights
        self._taken = {item.name for item in message.layer} | {blob for item in message.layer for blob in item.top}
        self._inputs: list[Tensor] = []
        self._layers: list[Layer] = []
        self._tensors: dict[str, Tensor] = {}
        self._latest: dict[str, Tensor] = {}  # What each Caffe blob holds at this point.
        self._unknown: set[str] = set()  # Blobs of layers that could not be read.
        self._measures: set[str] = set()  # Tensors that say how large others are.
        self._left_out: dict[str, list[pb.LayerParameter]] = {}  # Layers of one phase that write a blob, by blob.
        self.problems: list[Problem] = []
        try:
            for tensor in _legacy_inputs(message):
                self._add_input("input", tensor)
        except NetworkError as error:
            self.problems.append(Problem("", "structure", str(error)))
            self._unknown.update(message.input)

    def known(self, ends: Collection[str] = ()) -> Network | None:
        """Return what could be read, once all layers are; None where that is nothing, which is a problem then.

        `ends` are layers that the network is to end at.
        """
        if self._inputs and self._layers:
            layers = self._without_measures(ends)
            kept = {tensor.name for tensor in self._inputs} | {layer.name for layer in layers}
            tensors = {name: tensor for name, tensor in self._tensors.items() if name in kept}
            return Network(self._name, tuple(self._inputs), tuple(layers), tensors)
        if not self.problems:
            counts = f"{len(self._inputs)} inputs and {len(self._layers)} layers that run at test time"
            self.problems.append(Problem("", "structure", f"{counts}, expected 1 or more of each"))
        return None

    def _without_measures(self, ends: Collection[str]) -> list[Layer]:
        """Return the layers but those whose results only said how large others are: they are no outputs.

        Unless they are among the `ends`.
        """
        kept, measures = list(self._layers), self._measures - set(ends)
        for layer in reversed(self._layers):
            if layer.name in measures and not any(layer.name in other.inputs for other in kept):
                kept.remove(layer)
                measures.update(set(layer.inputs) - set(ends))
        return kept

    def read(self, index: int, item: pb.LayerParameter) -> None:
        """Read one layer of the file."""
        if not item.name:
            self._fail(item, "structure", f"layer {index} (type {item.type!r}) has no name; give it one")
        elif is_restricted(item):
            if not item.bottom:
                for blob in item.top:
                    self._left_out.setdefault(blob, []).append(item)
        elif item.type == "Input":
            try:
                for tensor in _input_tensors(item):
                    self._add_input(item.name, tensor)
            except NetworkError as error:
                self._fail(item, "structure", str(error))
        elif item.type != SPLIT and item.type not in READERS and item.type not in SPELLINGS:
            self._fail(item, "layer-type", f"type {item.type!r} is not supported", advice(item))
        elif self._reads_what_is_there(item):
            self._read_layer(item)

    def _reads_what_is_there(self, item: pb.LayerParameter) -> bool:
        missing = [blob for blob in item.bottom if blob not in self._latest]
        if not missing:
            return True
        for blob in missing:
            if blob in self._unknown:
                continue
            if data := self._left_out.get(blob):
                phases = ", ".join(f"{layer.name!r} of type {layer.type}{phase_of(layer)}" for layer in data)
                text = (
                    f"reads {blob!r}, which only layers of one phase (TRAIN or TEST) write, and these were left out "
                    f"({phases}): this is a file for training (train_val)"
                )
                help_ = f"give the deploy prototxt, or put an Input layer in their place: {input_lines(blob, data[0])}"
                self._fail(item, "data-layer", text, help_)
            else:
                self._fail(item, "structure", f"reads {blob!r}, which no earlier layer writes")
            self._unknown.add(blob)  # Said once.
        self._unknown.update(top for top in item.top if top not in self._latest)
        return False

    def _read_layer(self, item: pb.LayerParameter) -> None:
        sources = [self._latest[blob] for blob in item.bottom]
        if item.type == SPLIT:
            self._split(item, sources)
            return
        try:
            operations = self._operations(item, sources)
        except NetworkError as error:
            self._fail(item, rule_of(error), str(error), kind=item.type)
            return
        *before, last = operations
        if item.type == CROP:
            sources, measure = sources[:1], sources[1]
            self._measures.add(measure.name)
        reads = tuple(source.name for source in sources)
        what = "channels" if item.type == CROP else "normalized"
        for operation in before:
            layer = Layer(self._free(f"{item.name}_{what}"), operation, reads, inner=True)
            self._add_layer(item, layer, item.bottom)
            reads = (layer.name,)
        self._add_layer(item, Layer(item.name, last, reads), (*item.bottom, *(item.top if before else ())))

    def _split(self, item: pb.LayerParameter, sources: Sequence[Tensor]) -> None:
        """Let every top of a Split be its bottom."""
        if len(sources) != 1:
            self._fail(item, "structure", f"reads {len(sources)} tensors, expected 1", kind=item.type)
        elif written := [top for top in item.top if top in self._latest and top not in item.bottom]:
            text = f"another layer already writes its top {written[0]!r}"
            self.problems.append(Problem(item.name, "structure", text))
        else:
            self._latest.update(dict.fromkeys(item.top, sources[0]))

    def _operations(self, item: pb.LayerParameter, sources: Sequence[Tensor]) -> tuple[Operation, ...]:
        """Return what a layer does: one operation, or two behind one another."""
        if len(item.top) != 1:
            raise NetworkError(f"{len(item.top)} tops, expected 1")
        if item.type == CROP and len(sources) != 2:
            raise NetworkError(f"reads {len(sources)} tensors, expected 2: what it cuts, and one of the size")
        if item.type != CROP:
            check_arity(item.type in ("Eltwise", "Concat"), len(sources))
        shapes = [source.shape for source in sources]
        reader = READERS.get(item.type) or SPELLINGS[item.type]
        try:
            if self._weights is not None and item.type in WITH_WEIGHTS and item.name not in self._weights:
                raise WeightsError("the caffemodel has no weights for a layer of this name")
            blobs = Blobs(None if self._weights is None else self._weights.get(item.name, ()))
            found = reader(item, shapes, blobs)
        except WeightsError as error:
            self._fail(item, "weights", str(error), kind=item.type, is_known=True)
            found = reader(item, shapes, Blobs(None))
        return found if isinstance(found, tuple) else (found,)

    def _add_layer(self, item: pb.LayerParameter, layer: Layer, overwrites: Collection[str]) -> None:
        shapes = [self._tensors[name].shape for name in layer.inputs]
        try:
            shape = shape_of(layer.operation, shapes)
        except NetworkError as error:
            self._fail(item, rule_of(error), str(error), kind=item.type)
            return
        if self._write(item.name, Tensor(layer.name, shape, item.top[0]), overwrites):
            self._layers.append(layer)

    def _add_input(self, layer: str, tensor: Tensor) -> None:
        if self._write(layer, tensor, ()):
            self._inputs.append(tensor)

    def _write(self, layer: str, tensor: Tensor, overwrites: Collection[str]) -> bool:
        """Put `tensor` into its blob; tell whether it could."""
        if tensor.blob in self._latest and tensor.blob not in overwrites:
            self.problems.append(Problem(layer, "structure", f"another layer already writes its top {tensor.blob!r}"))
            return False
        if tensor.name in self._tensors:
            text = f"the name {tensor.name!r} is used twice; rename one"
            self.problems.append(Problem(layer, "structure", text))
            return False
        self._tensors[tensor.name] = self._latest[tensor.blob] = tensor
        return True

    def _fail(
        self,
        item: pb.LayerParameter,
        rule: str,
        message: str,
        rewrite: str = "",
        kind: str = "",
        is_known: bool = False,
    ) -> None:
        """Keep what is wrong with a layer; unless its result is known all the same, what reads it cannot be read."""
        self.problems.append(Problem(item.name, rule, message, rewrite, kind))
        if is_known:
            return
        source = self._latest.get(item.bottom[0]) if item.bottom else None
        if item.type in KEEPS_SHAPE and source is not None and len(item.top) == 1 and item.name not in self._tensors:
            stand_in = Tensor(item.name, source.shape, item.top[0])
            self._layers.append(Layer(item.name, Dropout(), (source.name,)))
            self._tensors[item.name] = self._latest[item.top[0]] = stand_in
            return
        for top in item.top:
            self._latest.pop(top, None)
            self._unknown.add(top)

    def _free(self, name: str) -> str:
        """Return `name`, made one that the file does not use."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def _network(
    message: pb.NetParameter, weights: Mapping[str, Sequence[pb.BlobProto]] | None, where: str, cut_at: Sequence[str]
) -> Network:
    """Network of a modern message; `weights` holds the blobs of each layer that has any, None for placeholders."""
    try:
        return _attempt(message, weights, where, cut_at)
    except LayersError as error:
        if not (ends := _readable(message, weights, cut_at, error)):
            raise
        raise LayersError(where, error.problems, error.known, SUPPORTED, ends) from None


def _attempt(
    message: pb.NetParameter, weights: Mapping[str, Sequence[pb.BlobProto]] | None, where: str, cut_at: Sequence[str]
) -> Network:
    ends: tuple[str, ...] = ()
    if cut_at:
        try:
            message, ends = cut_message(message, cut_at)
        except NetworkError as error:
            raise NetworkError(f"{where}: {error}") from error
    reading = _Reading(message, weights)
    for index, item in enumerate(message.layer):
        reading.read(index, item)
    network = reading.known(ends)
    if reading.problems or network is None:
        raise LayersError(where, reading.problems, network, SUPPORTED)
    return ending_at(network, ends) if cut_at else network


def _readable(
    message: pb.NetParameter,
    weights: Mapping[str, Sequence[pb.BlobProto]] | None,
    cut_at: Sequence[str],
    error: LayersError,
) -> list[str]:
    """Return where a network could end so that it can be read; nothing where it cannot."""
    unread: set[str] = set()
    while new := {problem.layer for problem in error.problems} - unread:
        unread |= new
        ends = ends_before_unread(message, cut_at, unread)
        try:
            if ends:
                _attempt(message, weights, "", ends)
            return ends
        except LayersError as another:  # A reason that had hidden behind the others.
            error = another
        except NetworkError:
            return []
    return []


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
