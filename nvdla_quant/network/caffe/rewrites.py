"""Express a network by layers that Caffe has: what ONNX can say and Caffe cannot, said otherwise.

Each rewrite computes the same but for rounding, and the last of its layers has the name of the one that it replaces, so
that every tensor keeps its name. What cannot be said is refused by name, all of it at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatchmethod
from math import pi, prod, sqrt

import numpy as np

from nvdla_quant.errors import UnsupportedError
from nvdla_quant.network.findings import Finding
from nvdla_quant.network.graph import (
    GELU,
    Clip,
    Convolution,
    Deconvolution,
    Eltwise,
    Gather,
    HardSigmoid,
    HardSwish,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pair,
    Pooling,
    Power,
    ReLU,
    Reshape,
    Scale,
    Sigmoid,
    Swish,
    TanH,
    convolution_size,
    pooling_size,
)
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth
from nvdla_quant.network.passes import convolving
from nvdla_quant.network.shapes import assemble

RULE = "caffe"
"""Rule of the findings: Caffe cannot express the layer."""


def for_caffe(network: Network) -> Network:
    """Return a network that computes what `network` does, of layers that Caffe has; itself where it is one already.

    Raises
    ------
    UnsupportedError
        Caffe cannot express some layers; the message names all.
    """
    rewritten, findings = _rewritten(network)
    if findings:
        each = "; ".join(f"layer {found.layer!r}: {found.message} ({found.rewrite})" for found in findings)
        raise UnsupportedError(f"network {network.name!r} cannot be written in Caffe: {each}")
    return rewritten


def not_in_caffe(network: Network) -> tuple[Finding, ...]:
    """Return the layers that `for_caffe` refuses, in network order."""
    return _rewritten(network)[1]


def _rewritten(network: Network) -> tuple[Network, tuple[Finding, ...]]:
    making, layers, findings = _Making(network), list[Layer](), []
    for layer in network.layers:
        try:
            layers += making.of(layer.operation, layer)
        except _NoCaffeError as error:
            findings.append(Finding(layer.name, RULE, "error", error.message, error.rewrite))
            layers.append(layer)
    if findings or list(map(id, layers)) == list(map(id, network.layers)):
        return network, tuple(findings)
    return assemble(network.name, network.inputs, layers, making.blobs(layers)), ()


class _NoCaffeError(Exception):
    """Caffe cannot express a layer."""

    def __init__(self, message: str, rewrite: str) -> None:
        super().__init__(message)
        self.message, self.rewrite = message, rewrite


class _Making:
    """The layers that take the place of each layer of a network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._taken = {*network.tensors, *(tensor.blob for tensor in network.tensors.values())}

    def blobs(self, layers: Sequence[Layer]) -> Mapping[str, str]:
        """Return the blob of each layer: its old one, unless it wrote in place and what reads the blob is another."""
        held = {name: tensor.blob for name, tensor in self._network.tensors.items()}
        found: dict[str, str] = {}
        for layer in layers:
            blob = held.get(layer.name, layer.name)
            was_read = layer.name not in held or layer.inputs == self._network.by_name[layer.name].inputs
            shared = sum(other == blob for other in held.values()) > 1
            found[layer.name] = blob if was_read or not shared else self._fresh(layer.name)
        return found

    def _fresh(self, name: str) -> str:
        """Return `name`, made one that nothing in the network has."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def _add(self, made: list[Layer], layer: Layer, what: str, operation: Operation, *inputs: str) -> str:
        """Append a further layer to those `made` in the place of `layer`; return its name."""
        made.append(Layer(self._fresh(f"{layer.name}_{what}"), operation, inputs))
        return made[-1].name

    def _shape(self, layer: Layer) -> tuple[int, int, int]:
        """Return channels, height and width of what a layer reads."""
        return self._network.tensors[layer.inputs[0]].chw

    def _line(self, layer: Layer, scale: float, shift: float = 0.0) -> Scale:
        """Return scale * x + shift of what `layer` reads: a Scale, since of a Power nvdla_compiler reads no shift."""
        channels = self._network.tensors[layer.inputs[0]].shape[:1]
        return Scale(np.full(channels, scale, np.float32), np.full(channels, shift, np.float32) if shift else None)

    @singledispatchmethod
    def of(self, operation: Operation, layer: Layer) -> list[Layer]:
        """Return the layers that take the place of `layer`: itself where Caffe has its operation."""
        return [layer]

    @of.register
    def _(self, operation: Convolution, layer: Layer) -> list[Layer]:
        if operation.far is None:
            return [layer]
        return [replace(layer, operation=_convolution(operation, self._shape(layer)[1:]))]

    @of.register
    def _(self, operation: Deconvolution, layer: Layer) -> list[Layer]:
        return [layer] if operation.far is None else [replace(layer, operation=_deconvolution(operation))]

    @of.register
    def _(self, operation: Pooling, layer: Layer) -> list[Layer]:
        size, output = self._shape(layer)[1:], self._network.tensors[layer.name].chw[1:]
        if operation.method == "max":
            return self._maximum(operation, layer, size, output)
        if all(sides == (0, 0) for sides in operation.sides):
            operation = replace(operation, area="padded")  # Which is the image then.
        if plain := _one_window(operation, size, output) or _in_caffe(operation, size):
            return _changed(layer, plain)
        if operation.area == "padded" and _divides_alike(operation, size, output):
            return [replace(layer, operation=self._mean(operation, layer))]
        return self._weighted_mean(operation, layer, size, output)

    def _maximum(self, operation: Pooling, layer: Layer, size: Pair, output: Pair) -> list[Layer]:
        """Pad both sides alike and round up; a convolution that copies takes away the windows that this has added."""
        if plain := _in_caffe(replace(operation, area="padded"), size):
            return _changed(layer, plain)
        axes = zip(size, output, operation.kernel, operation.stride, operation.sides, strict=True)
        found = [axis for axis in (_even(*axis) for axis in axes) if axis is not None]
        if len(found) < 2:
            raise _NoCaffeError(
                f"Pooling of {operation.kernel} by {operation.stride} pads {operation.sides[0]} above and below, "
                f"{operation.sides[1]} on the left and right, and rounds {operation.rounding}; Caffe pads both sides "
                "alike, by less than the kernel, and rounds up",
                "pad in the layer before, or choose a kernel and a stride with which it comes out the same",
            )
        rows, columns = found
        pooling = Pooling("max", operation.kernel, operation.stride, (rows.pad, columns.pad))
        if not rows.spare and not columns.spare:
            return [replace(layer, operation=pooling)]
        made: list[Layer] = []
        wide = self._add(made, layer, "wide", pooling, *layer.inputs)
        weights = np.zeros((self._shape(layer)[0], 1, rows.spare + 1, columns.spare + 1), np.float32)
        weights[:, :, rows.first, columns.first] = 1
        return [*made, Layer(layer.name, Convolution(weights, None, group=len(weights)), (wide,))]

    def _mean(self, operation: Pooling, layer: Layer) -> Convolution:
        """Return a convolution of each channel by itself that averages the padded image."""
        channels, *size = self._shape(layer)
        weights = np.full((channels, 1, *operation.kernel), 1 / prod(operation.kernel), np.float32)
        convolution = Convolution(weights, None, operation.stride, operation.pad, group=channels, far=operation.far)
        return _convolution(convolution, (size[0], size[1]))

    def _weighted_mean(self, operation: Pooling, layer: Layer, size: Pair, output: Pair) -> list[Layer]:
        """Average by other divisors than Caffe's: divide the average by the same average of an image of ones.

        Ones where the average is over the image alone; where it is over the padded image, padding counts as well.
        """
        if operation.area == "padded":
            raise _NoCaffeError(
                f"Pooling averages over padding {operation.sides} of both axes, and some windows reach beyond it",
                "pad both sides alike, or leave the padding out of the average (count_include_pad=0)",
            )
        made: list[Layer] = []
        averaging: Pooling | Convolution
        if plain := _in_caffe(replace(operation, area="padded"), size):
            averaging = plain
        elif _divides_alike(operation, size, output):
            averaging = self._mean(operation, layer)
        else:
            sides = [
                (near, max(far, (n - 1) * s + k - near - i))
                for (near, far), n, s, k, i in zip(
                    operation.sides, output, operation.stride, operation.kernel, size, strict=True
                )
            ]
            wide = replace(operation, far=(sides[0][1], sides[1][1]), rounding="down")
            averaging = self._mean(wide, layer)
        ones = self._add(made, layer, "ones", self._line(layer, 0.0, 1.0), *layer.inputs)
        share = self._add(made, layer, "share", averaging, ones)
        factor = self._add(made, layer, "factor", Power(-1.0), share)
        mean = self._add(made, layer, "mean", averaging, *layer.inputs)
        return [*made, Layer(layer.name, Eltwise("prod"), (mean, factor))]

    @of.register
    def _(self, operation: Clip, layer: Layer) -> list[Layer]:
        made: list[Layer] = []
        return self._clipped(made, layer, layer.inputs[0], operation.low, operation.high)

    def _clipped(
        self, made: list[Layer], layer: Layer, source: str, low: float | None, high: float | None
    ) -> list[Layer]:
        """Return `made` and layers that clip `source`: by ReLU below, and by ReLU of the distance from `high` above."""
        steps: list[tuple[str, Operation]] = []
        if low is not None:
            steps += [("above", self._line(layer, 1.0, -low))] if low else []
            steps += [("low", ReLU())]
        shift = low or 0.0
        if high is not None:
            steps += [
                ("below", self._line(layer, -1.0, high - shift)),
                ("high", ReLU()),
                ("back", self._line(layer, -1.0, high)),
            ]
        elif shift:
            steps += [("back", self._line(layer, 1.0, shift))]
        return self._chain(made, layer, source, steps)

    def _chain(
        self, made: list[Layer], layer: Layer, source: str, steps: Sequence[tuple[str, Operation]]
    ) -> list[Layer]:
        """Return `made` and layers behind one another, the last of which writes the layer's tensor."""
        for what, operation in steps[:-1]:
            source = self._add(made, layer, what, operation, source)
        return [*made, Layer(layer.name, steps[-1][1], (source,))]

    @of.register
    def _(self, operation: HardSigmoid, layer: Layer) -> list[Layer]:
        made: list[Layer] = []
        line = self._add(made, layer, "line", self._line(layer, operation.alpha, operation.beta), *layer.inputs)
        return self._clipped(made, layer, line, 0.0, 1.0)

    @of.register
    def _(self, operation: HardSwish, layer: Layer) -> list[Layer]:
        made: list[Layer] = []
        line = self._add(made, layer, "line", self._line(layer, 1 / 6, 0.5), *layer.inputs)
        gate = self._clipped(made, replace(layer, name=self._fresh(f"{layer.name}_gate")), line, 0.0, 1.0)
        return [*gate, Layer(layer.name, Eltwise("prod"), (*layer.inputs, gate[-1].name))]

    @of.register
    def _(self, operation: Swish, layer: Layer) -> list[Layer]:
        made: list[Layer] = []
        gate = self._add(made, layer, "gate", Sigmoid(), *layer.inputs)
        return [*made, Layer(layer.name, Eltwise("prod"), (*layer.inputs, gate))]

    @of.register
    def _(self, operation: GELU, layer: Layer) -> list[Layer]:
        if not operation.approximate:
            raise _NoCaffeError(
                "GELU takes the error function, which Caffe has not",
                "train or export it with approximate='tanh', which it can express",
            )
        made: list[Layer] = []
        cube = self._add(made, layer, "cube", Power(3.0), *layer.inputs)
        slopes = (_single(sqrt(2 / pi)), _single(sqrt(2 / pi) * 0.044715))
        inner = self._add(made, layer, "inner", Eltwise("sum", slopes), *layer.inputs, cube)
        bent = self._add(made, layer, "bent", TanH(), inner)
        share = self._add(made, layer, "share", self._line(layer, 0.5, 0.5), bent)
        return [*made, Layer(layer.name, Eltwise("prod"), (*layer.inputs, share))]

    @of.register
    def _(self, operation: Gather, layer: Layer) -> list[Layer]:
        shape = self._network.tensors[layer.inputs[0]].shape
        chosen = np.zeros((len(operation.channels), shape[0]), np.float32)
        chosen[np.arange(len(chosen)), operation.channels] = 1
        if len(shape) == 1:
            return [replace(layer, operation=InnerProduct(chosen, None))]
        return [replace(layer, operation=Convolution(chosen[:, :, None, None], None))]

    @of.register
    def _(self, operation: Crop, layer: Layer) -> list[Layer]:
        """Copy by a kernel that is as much larger than a pixel as is cut; Caffe's own needs a tensor of the size."""
        channels, height, width = self._shape(layer)
        (top, rows), (left, columns) = operation.rows, operation.columns
        weights = np.zeros((channels, 1, height - rows + 1, width - columns + 1), np.float32)
        weights[:, :, top, left] = 1
        return [replace(layer, operation=Convolution(weights, None, group=channels))]

    @of.register
    def _(self, operation: SpaceToDepth | DepthToSpace, layer: Layer) -> list[Layer]:
        found = convolving(operation, self._shape(layer)[0])
        assert found is not None, "of these two it is something"
        return [replace(layer, operation=found)]

    @of.register
    def _(self, operation: Eltwise, layer: Layer) -> list[Layer]:
        made: list[Layer] = []
        if operation.operation == "min":
            negated = [self._add(made, layer, "negated", self._line(layer, -1.0), name) for name in layer.inputs]
            largest = self._add(made, layer, "largest", Eltwise("max"), *negated)
            return [*made, Layer(layer.name, self._line(layer, -1.0), (largest,))]
        output = self._network.tensors[layer.name]
        inputs = [self._spread(made, layer, name, output.shape) for name in layer.inputs]
        return [*made, replace(layer, inputs=tuple(inputs))] if made else [layer]

    def _spread(self, made: list[Layer], layer: Layer, name: str, shape: tuple[int, ...]) -> str:
        """Return a tensor of this shape with the pixel that `name` has everywhere: a deconvolution by ones."""
        given = self._network.tensors[name].shape
        if given == shape:
            return name
        channels, height, width = shape
        if len(given) == 1:
            name = self._add(made, layer, "pixel", Reshape((channels, 1, 1)), name)
        ones = np.ones((channels, 1, height, width), np.float32)
        return self._add(made, layer, "spread", Deconvolution(ones, None, group=channels), name)


def _single(number: float) -> float:
    return float(np.float32(number))


def _in_caffe(pooling: Pooling, size: Pair) -> Pooling | None:
    """Return a pooling by Caffe's words; None where it pads unevenly, or leaves out what rounding up would have.

    Newer versions of Caffe can round down, which no other program that reads its files understands.
    """
    if pooling.area == "image" or any(near != far for near, far in pooling.sides):
        return None
    axes = list(zip(size, pooling.kernel, pooling.stride, pooling.pad, strict=True))
    if any(pooling_size(*axis, pooling.rounding) != pooling_size(*axis, "up") for axis in axes):
        return None
    return replace(pooling, far=None, rounding="up")


def _changed(layer: Layer, operation: Pooling | Convolution) -> list[Layer]:
    """Return the layer with another operation; itself where that says the same."""
    return [layer] if layer.operation == operation else [replace(layer, operation=operation)]


def _convolution(operation: Convolution, size: Pair) -> Convolution:
    """Return the convolution padded alike on both sides, by a larger kernel with zeros where need be."""
    axes = [
        _wider(*axis)
        for axis in zip(
            size, operation.weights.shape[2:], operation.stride, operation.dilation, operation.sides, strict=True
        )
    ]
    (top, above, below), (left, before, after) = axes
    weights = np.pad(operation.weights, ((0, 0), (0, 0), (above, below), (before, after)))
    return replace(operation, weights=weights, pad=(top, left), far=None)


def _wider(size: int, kernel: int, stride: int, dilation: int, sides: Pair) -> tuple[int, int, int]:
    """Return the padding of both sides along one axis, and the zeros before and after the kernel that it takes."""
    near, far = sides
    wanted = convolution_size(size, kernel, stride, near, dilation, far)
    found = [
        (before + after, pad, before, after)
        for before in range(max(near, far) + 1)
        for pad in [near + dilation * before]
        for after in range(max(near, far) + 1)
        if convolution_size(size, kernel + before + after, stride, pad, dilation) == wanted
    ]
    if not found:
        raise _NoCaffeError(
            f"Convolution with dilation {dilation} pads by {near} before and {far} after; Caffe pads both sides alike, "
            "and zeros in the kernel stand as far apart as the dilation",
            "pad both sides alike, or by differences that are multiples of the dilation",
        )
    _, pad, before, after = min(found)
    return pad, before, after


def _deconvolution(operation: Deconvolution) -> Deconvolution:
    """Return the deconvolution that takes as much away on both sides, by a larger kernel with zeros where need be."""
    zeros, pads = [], []
    for (near, far), dilation in zip(operation.sides, operation.dilation, strict=True):
        if (near - far) % dilation:
            raise _NoCaffeError(
                f"Deconvolution with dilation {dilation} takes {near} away before and {far} after; in Caffe it is "
                "as much on both sides, and zeros in the kernel stand as far apart as the dilation",
                "choose a padding and an output_padding whose difference is a multiple of the dilation",
            )
        pad = max(near, far)
        zeros.append(((pad - near) // dilation, (pad - far) // dilation))
        pads.append(pad)
    return replace(
        operation, weights=np.pad(operation.weights, ((0, 0), (0, 0), *zeros)), pad=(pads[0], pads[1]), far=None
    )


@dataclass(frozen=True)
class _Axis:
    """A pooling along one axis, padded alike on both sides: `spare` windows too many, `first` of them at its start."""

    pad: int
    first: int
    spare: int


def _even(size: int, output: int, kernel: int, stride: int, sides: Pair) -> _Axis | None:
    """Return a pooling along one axis that pads both sides alike and has all windows that are wanted, if one has."""
    for first, pad in enumerate(range(sides[0], kernel, stride)):
        count = pooling_size(size, kernel, stride, pad)
        spare, reaches = count - output, (count - 1) * stride - pad < size
        if spare >= first and reaches and size + 2 * pad >= kernel:
            return _Axis(pad, first, spare)
    return None


def _one_window(operation: Pooling, size: Pair, output: Pair) -> Pooling | None:
    """Return an average over the whole image and nothing else; None where it is another."""
    axes = zip(operation.kernel, operation.sides, size, strict=True)
    whole = output == (1, 1) and all(near + n <= k for k, (near, _), n in axes)
    return Pooling("average", size) if whole and operation.area == "image" else None


def _divides_alike(operation: Pooling, size: Pair, output: Pair) -> bool:
    """Whether all windows lie within the padded image, so that all averages are over as many pixels."""
    axes = zip(output, operation.stride, operation.kernel, operation.sides, size, strict=True)
    return all((n - 1) * s + k <= i + sum(sides) for n, s, k, sides, i in axes)
