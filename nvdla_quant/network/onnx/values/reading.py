"""A network while it is read from an ONNX graph: tensors, layers, and what each ONNX value is in terms of them."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.graph import (
    BatchNorm,
    Clip,
    Concat,
    Dropout,
    Eltwise,
    Flatten,
    Gather,
    HardSigmoid,
    Layer,
    Network,
    Operation,
    Pooling,
    Power,
    ReLU,
    Reshape,
    Scale,
    Sigmoid,
    Softmax,
    Tensor,
)
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth
from nvdla_quant.network.onnx.values.layouts import View, along, blocks_of, channels_of, is_batch, plain
from nvdla_quant.network.onnx.values.names import Names
from nvdla_quant.network.onnx.values.nodes import MOST_ELEMENTS, shape_of
from nvdla_quant.network.problems import Problem
from nvdla_quant.network.shapes import assemble
from nvdla_quant.network.shapes import shape_of as result_shape

MOVED = (
    "its axes are exchanged in a way that NVDLA cannot: a tensor is channels of whole images; keep NCHW or NHWC "
    "throughout"
)


class Pending(Protocol):
    """What a node does, put off until its only reader has said whether it takes it into itself."""

    def emit(self, reading: "Reading") -> None:
        """Add it as layers of its own."""


class Reading:
    """The network so far; what is wrong is kept, so that all of it can be told at once.

    Attributes
    ----------
    batch : int
        Images in a batch of the file; the first axis of every value.
    problems : list[Problem]
        What cannot be read.
    unread : list[ir.Node]
        Nodes that cannot.
    remarks : list[str]
        What the user should know.
    names : dict[str, str]
        Name of the ONNX value of each of our tensors that is one.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.problems: list[Problem] = []
        self.unread: list[ir.Node] = []
        self.remarks: list[str] = []
        self.names: dict[str, str] = {}
        self._free = Names()
        self._inputs: list[Tensor] = []
        self._layers: list[Layer] = []
        self._tensors: dict[str, Tensor] = {}
        self._views: dict[str, View] = {}
        self._pending: dict[str, Pending] = {}
        self._ghosts: set[str] = set()

    # What values are.

    def is_known(self, value: ir.Value) -> bool:
        """Whether a value could be read."""
        return value.name in self._views or value.name in self._pending

    def view(self, value: ir.Value) -> View:
        """Return where a value lies, once what is pending for it is a layer.

        Raises
        ------
        UnsupportedError
            It is a constant.
        """
        name = value.name or ""
        if name in self._pending:
            self._pending.pop(name).emit(self)
        if name not in self._views:
            raise UnsupportedError(f"reads the constant {name!r}, expected what the network computes from its input")
        return self._views[name]

    def origin(self, name: str) -> str:
        """Return the ONNX value whose tensor an ONNX value is a view of; itself where it is none, or of no value."""
        view = self._views.get(name)
        return name if view is None else self.names.get(view.source, name)

    def pending(self, value: ir.Value | None) -> Pending | None:
        """Return what is put off for a value; who takes it into itself calls `take` as well."""
        return None if value is None else self._pending.get(value.name or "")

    def take(self, value: ir.Value) -> None:
        """Forget what was put off for a value, as its only reader does it."""
        del self._pending[value.name or ""]

    def put_off(self, value: ir.Value, what: Pending) -> None:
        """Wait for the reader of a value; where it is none or several, do not."""
        if value.is_graph_output() or len(value.uses()) != 1:
            what.emit(self)
        else:
            self._pending[value.name or ""] = what

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of one of our tensors."""
        return self._tensors[tensor].shape

    def is_input(self, tensor: str) -> bool:
        """Whether one of our tensors is an input."""
        return any(tensor == item.name for item in self._inputs)

    def is_whole(self, view: View) -> bool:
        """Whether a value has the axes of our tensor, after the batch."""
        return view.axes == plain((self.batch, *self.shape(view.source)))

    def is_nonnegative(self, value: ir.Value) -> bool:
        """Whether nothing in a value is below 0, as far as the layers before it say."""
        return _is_nonnegative(self.view(value).source, {layer.name: layer for layer in self._layers})

    # Results of nodes.

    def show(self, value: ir.Value, view: View) -> None:
        """Let `value` be a view of one of our tensors.

        Raises
        ------
        NetworkError
            Its shape is another one than onnx has inferred.
        """
        expected = shape_of(value) if value.shape is not None and _is_static(value) else view.shape
        if view.shape != expected:
            raise NetworkError(f"writes {value.name!r} of shape {view.shape}, expected {expected} as onnx infers")
        self._views[value.name or ""] = view

    def emit(
        self,
        value: ir.Value,
        operation: Operation,
        *sources: str,
        axis: int = 1,
        view: View | None = None,
    ) -> None:
        """Add the layer that writes `value`, and has its name.

        Parameters
        ----------
        value : ir.Value
            The ONNX value.
        operation : Operation
            What the layer does.
        *sources : str
            Our tensors that it reads.
        axis : int
            Axis of the channels in the ONNX value.
        view : View, optional
            A view whose axes `value` has, whatever they are; `axis` then means nothing.
        """
        shape = result_shape(operation, [self.shape(source) for source in sources])
        name = self._add(value.name or "", operation, sources, shape)
        if view is not None:
            self.show(value, View(name, view.axes, view.moved))
        else:
            full = shape_of(value) if _is_static(value) else (self.batch, *shape)
            if prod(full) != self.batch * prod(shape):
                raise NetworkError(f"writes {value.name!r} of shape {full}, which does not hold {shape} an image")
            self.show(value, View(name, along(full, axis), moved=axis != 1))

    def inner(self, value: ir.Value, what: str, operation: Operation, *sources: str) -> str:
        """Add a layer that is the first part of what writes `value`, and return its name.

        A view is no part: it shares the scale of what it shows rather than that of what reads it.
        """
        shape = result_shape(operation, [self.shape(source) for source in sources])
        name = self._free.take(f"{value.name}_{what}")
        self._tensors[name] = Tensor(name, shape, value.name or name)
        is_view = isinstance(operation, Flatten | Reshape)
        self._layers.append(Layer(name, operation, sources, inner=not is_view))
        return name

    def add_input(self, name: str, shape: tuple[int, ...], axes: View | None = None) -> str:
        """Add an input of the network, and return its name."""
        ours = self._free.take(name)
        self._inputs.append(Tensor(ours, shape, name))
        self._tensors[ours] = self._inputs[-1]
        self.names[ours] = name
        self._views[name] = (
            View(ours, plain((self.batch, *shape))) if axes is None else View(ours, axes.axes, moved=True)
        )
        return ours

    def _add(self, onnx_name: str, operation: Operation, sources: Sequence[str], shape: tuple[int, ...]) -> str:
        name = self._free.take(onnx_name)
        self._tensors[name] = Tensor(name, shape, onnx_name)
        self._layers.append(Layer(name, operation, tuple(sources)))
        self.names[name] = onnx_name
        return name

    # Values as tensors.

    def elements(self, value: ir.Value) -> View:
        """Return a view of a tensor for what works on each element by itself, whatever the axes."""
        self.settle(value)
        return self.view(value)

    def settle(self, value: ir.Value) -> None:
        """Make a layer of the network's own flattening or reshaping, which other layers than inner products read.

        It keeps the name of the ONNX value. Views with other axes than a tensor of ours has stay views.
        """
        view = self.view(value)
        sizes = view.shape[1:]
        if self.is_whole(view) or len(sizes) not in (1, 3):
            return
        if not view.is_contiguous:
            self._settle_moved(value, view)
            return
        if view.moved:
            return
        if is_batch(view.axes[0], self.batch, prod(sizes)) and self._free.is_free(value.name or ""):
            operation = Flatten() if len(sizes) == 1 else Reshape(sizes)
            self._views.pop(value.name or "")
            self.emit(value, operation, view.source)

    def _settle_moved(self, value: ir.Value, view: View) -> None:
        """Make a layer of an exchange of pixels and channels; other orders of axes stay views.

        So do channels in another order, unless what reads them is an output: that could have no layer for them.
        """
        if not self._free.is_free(value.name or ""):
            return
        ends = 1, len(view.axes) - 1
        first, last = (self._channels(view, axis) for axis in ends)
        if first is not None and first[0] is not None and last is None:
            if any(output.is_graph_output() for use in value.uses() for output in use.node.outputs):
                self._imaged(value, 1)
            return
        if first is not None or last is not None:
            return
        for axis in ends:
            if operation := self._exchange(view, axis):
                self._views.pop(value.name or "")
                self.emit(value, operation, view.source, axis=axis)
                return

    def has_image(self, value: ir.Value, axis: int) -> bool:
        """Whether `image` can return something."""
        return self._channels(self.view(value), axis) is not None

    def _channels(self, view: View, axis: int) -> tuple[NDArray[np.int64] | None, int] | None:
        elements = prod(self.shape(view.source))
        if axis == 0 or not is_batch(view.axes[0], self.batch, elements):
            return None
        return channels_of(view, axis, elements)

    def image(self, value: ir.Value, axis: int = 1, *, vectors: bool = False) -> str:
        """Return one of our tensors that is `value`, its channels along `axis`, its other axes pixels.

        Parameters
        ----------
        value : ir.Value
            The ONNX value.
        axis : int
            Axis of its channels.
        vectors : bool
            Whether a vector does where the image is one pixel.

        Raises
        ------
        UnsupportedError
            Its elements lie in an order that no tensor of ours has.
        """
        if not vectors:
            self.settle(value)
        return self._imaged(value, axis, vectors)

    def _imaged(self, value: ir.Value, axis: int, vectors: bool = False) -> str:
        view = self.view(value)
        axis = range(len(view.axes))[axis]
        found = self._channels(view, axis)
        if found is None:
            return self._blocks(value, view, axis)
        numbers, pixels = found
        sizes = [size for index, size in enumerate(view.shape) if index not in (0, axis)]
        tensor = self._as_image(value, view.source, prod(self.shape(view.source)) // pixels, sizes, vectors)
        if numbers is None:
            return tensor
        return self._moved(value, axis, Gather(tuple(int(number) for number in numbers)), tensor)

    def _blocks(self, value: ir.Value, view: View, axis: int) -> str:
        """Return a tensor that is `value`, of which blocks of pixels became channels, or channels blocks of pixels."""
        operation = self._exchange(view, axis)
        if operation is None:
            raise UnsupportedError(f"reads {value.name!r} of shape {view.shape}, {MOVED}")
        return self._moved(value, axis, operation, view.source)

    def _exchange(self, view: View, axis: int) -> SpaceToDepth | DepthToSpace | None:
        shape = self.shape(view.source)
        return blocks_of(view, axis, shape) if is_batch(view.axes[0], self.batch, prod(shape)) else None

    def _moved(self, value: ir.Value, axis: int, operation: Operation, tensor: str) -> str:
        """Add the layer that moves values of `tensor`, for `value`, and return the layer's tensor."""
        view = self.view(value)
        if axis == 1 and len(view.axes) in (2, 4) and self._free.is_free(value.name or ""):
            self._views.pop(value.name or "")
            self.emit(value, operation, tensor)
            return self._views[value.name or ""].source
        return self.inner(value, "channels" if isinstance(operation, Gather) else "blocks", operation, tensor)

    def _as_image(self, value: ir.Value, tensor: str, channels: int, sizes: Sequence[int], vectors: bool) -> str:
        """Return a tensor with the elements of `tensor` as this many channels of images of these sizes."""
        shape = self.shape(tensor)
        if not sizes:
            fits = shape in ((channels,), (channels, 1, 1))
            return tensor if fits else self.inner(value, "flat", Flatten(), tensor)
        if len(sizes) > 2:
            sizes = [size for size in sizes if size > 1]
        height, width = (*sizes, 1, 1)[:2] if len(sizes) <= 2 else (prod(sizes[:-1]), sizes[-1])
        if shape == (channels, height, width) or (vectors and shape == (channels,) and height * width == 1):
            return tensor
        return self.inner(value, "image", Reshape((channels, height, width)), tensor)

    # What could not be read.

    def fail(self, node: ir.Node | None, problem: Problem) -> None:
        """Keep what is wrong with a node, where it is one's."""
        self.problems.append(problem)
        if node is not None:
            self.unread.append(node)

    def stand_in(self, source: ir.Value | None, value: ir.Value) -> None:
        """Let something of the right shape be the result of a node that could not be read, so that others can be.

        It is a layer that does nothing where the node keeps the shape of what it reads; any other is a tensor from
        nowhere, and what depends on it is not in the network in the end.
        """
        name = value.name or ""
        if self.is_known(value) or not name or not _is_static(value):
            return
        shape = shape_of(value)
        if not shape or shape[0] != self.batch or min(shape) < 1 or prod(shape) > MOST_ELEMENTS:
            return
        if source is not None and self.is_known(source) and name not in self._tensors:
            view = self.view(source)
            if view.shape == shape and self.is_whole(view):
                self.emit(value, Dropout(), view.source, view=view)
                return
        ghost = self._free.take(f"{name}_unread")
        sizes = shape[1:] if len(shape) in (2, 4) else (prod(shape[1:]),)
        self._tensors[ghost] = Tensor(ghost, sizes, name)
        self._ghosts.add(ghost)
        self._views[name] = View(ghost, plain(shape))

    # The end.

    def output(self, value: ir.Value) -> str:
        """Let a value be an output of the network, and return the tensor of our own that it is.

        With another order of axes if need be.
        """
        self.settle(value)
        view = self.view(value)
        if not self.is_whole(view) and not view.is_contiguous:
            found = self._channels(view, len(view.axes) - 1)
            if found is None or found[0] is not None:
                return self.image(value)
            self.remarks.append(
                f"output {value.name!r}: {view.shape[1:]} in the file, channels last; here "
                f"{self.shape(view.source)}, channels first"
            )
        if self.names[view.source] != value.name:
            self.remarks.append(f"output {value.name!r}: it is the tensor {view.source!r} here")
        return view.source

    def network(self, name: str) -> Network | None:
        """Return what could be read; None where that is nothing."""
        if not self._inputs or not self._layers:
            return None
        blobs = {tensor.name: tensor.blob for tensor in self._tensors.values()}
        missing, layers = set(self._ghosts), []
        for layer in self._layers:
            if missing & set(layer.inputs):
                missing.add(layer.name)
            else:
                layers.append(layer)
        return assemble(name, self._inputs, layers, blobs) if layers else None

    def preprocessing(self) -> Mapping[str, tuple[str, ...]]:
        """Return the layers that shift and scale the values of each input before anything else does, if any do."""
        found = {}
        for tensor in self._inputs:
            last, names = tensor.name, []
            while len(users := [layer for layer in self._layers if last in layer.inputs]) == 1:
                if not isinstance(users[0].operation, Scale | Power | BatchNorm):
                    break
                last = users[0].name
                names.append(last)
            if names:
                found[tensor.name] = tuple(names)
        return found


def _is_nonnegative(tensor: str, layers: Mapping[str, Layer]) -> bool:
    """Whether a tensor has no value below 0, by the operations that write it and those before them."""
    waiting = [tensor]
    while waiting:
        layer = layers.get(waiting.pop())
        match layer.operation if layer is not None else None:
            case ReLU(negative_slope=0.0) | Sigmoid() | HardSigmoid() | Softmax():
                continue
            case Clip(low=low) if low is not None and low >= 0:
                continue
            case Pooling() | Concat() | Gather() | Crop() | SpaceToDepth() | DepthToSpace():
                waiting.extend(layer.inputs if layer is not None else ())
            case Flatten() | Reshape() | Eltwise(operation="prod" | "max" | "min"):
                waiting.extend(layer.inputs if layer is not None else ())
            case Eltwise(coefficients=()):
                waiting.extend(layer.inputs if layer is not None else ())
            case _:
                return False
    return True


def _is_static(value: ir.Value) -> bool:
    return value.shape is not None and all(isinstance(dim, int) for dim in value.shape)
