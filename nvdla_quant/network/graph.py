"""The network as this package sees it: named layers in order, each writing one tensor of its own.

Caffe's in-place layers become ordinary layers: each layer writes a tensor with the layer's own name, so a
tensor has one writer and a scale has one meaning. The Caffe blob that a tensor lived in is kept, since
TensorRT names its tensors after blobs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth

Weights = NDArray[np.float32]
Pair = tuple[int, int]
"""(vertical, horizontal), in pixels."""
Rounding = Literal["up", "down"]
"""How a pooling rounds the size of its output where its windows leave a rest."""


@dataclass(frozen=True)
class Tensor:
    """One activation of one image.

    Attributes
    ----------
    name : str
        Unique in the network: the name of the layer that writes it, or of the input blob.
    shape : tuple[int, ...]
        Shape without the batch: ``(channels, height, width)`` or ``(features,)``.
    blob : str
        Caffe blob that held it.
    """

    name: str
    shape: tuple[int, ...]
    blob: str

    @property
    def chw(self) -> tuple[int, int, int]:
        """Shape as channels, height, width; a vector is 1 x 1 pixels of `features` channels."""
        if len(self.shape) == 3:
            return self.shape
        return (prod(self.shape), 1, 1)


class _Padded:
    """What has padding: `pad` is the rows above and the columns on the left, `far` those below and on the right.

    `far` is None where it is `pad`, as always in Caffe.
    """

    pad: Pair
    far: Pair | None

    def __post_init__(self) -> None:
        """Have one way to say that both sides are alike."""
        if self.far == self.pad:
            object.__setattr__(self, "far", None)

    @property
    def sides(self) -> tuple[Pair, Pair]:
        """Padding (before, after) along the height and along the width."""
        after = self.pad if self.far is None else self.far
        return (self.pad[0], after[0]), (self.pad[1], after[1])


@dataclass(frozen=True, eq=False)
class Convolution(_Padded):
    """2-D convolution; `weights` is (outputs, inputs / group, height, width), `bias` (outputs,).

    `scales` (outputs,) says that the weights came quantized: each is a whole number from -128 to 128 times its
    output's scale, rounded to float32 (128 only where a negative factor was folded into -128). A compiler uses these
    scales instead of choosing some. None where the weights are any floats.
    """

    kind: ClassVar[str] = "Convolution"
    weights: Weights
    bias: Weights | None
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    group: int = 1
    far: Pair | None = None
    scales: Weights | None = None


@dataclass(frozen=True, eq=False)
class Deconvolution(_Padded):
    """Transposed convolution; `weights` is (inputs, outputs / group, height, width) as in Caffe.

    Padding takes rows and columns of the output away. A negative `far` appends some, which is ONNX's
    ``output_padding``. `scales` (outputs,) as of a convolution, all groups in order.
    """

    kind: ClassVar[str] = "Deconvolution"
    weights: Weights
    bias: Weights | None
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    group: int = 1
    far: Pair | None = None
    scales: Weights | None = None


@dataclass(frozen=True, eq=False)
class InnerProduct:
    """Fully connected layer over the flattened input; `weights` is (outputs, inputs in C, H, W order).

    `scales` (outputs,) as of a convolution.
    """

    kind: ClassVar[str] = "InnerProduct"
    weights: Weights
    bias: Weights | None
    scales: Weights | None = None


Learned = Convolution | Deconvolution | InnerProduct
"""Operations that multiply by learned weights."""


@dataclass(frozen=True)
class Pooling(_Padded):
    """Pooling, with the output size of `pooling_size`.

    `rounding` is ``down`` where the file says so (``round_mode: FLOOR``, ``ceil_mode = 0``) and that makes a
    difference. `kernel` is the whole input of a global pooling.

    Averages divide by what of the window lies on `area`: the ``padded`` image (Caffe, ONNX's ``count_include_pad``), or
    the ``image`` alone.
    """

    kind: ClassVar[str] = "Pooling"
    method: Literal["max", "average"]
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    rounding: Rounding = "up"
    far: Pair | None = None
    area: Literal["padded", "image"] = "padded"


@dataclass(frozen=True)
class ReLU:
    """max(0, x), or x * negative_slope below zero."""

    kind: ClassVar[str] = "ReLU"
    negative_slope: float = 0.0


@dataclass(frozen=True, eq=False)
class PReLU:
    """ReLU with a learned slope a channel (or one for all)."""

    kind: ClassVar[str] = "PReLU"
    slope: Weights


@dataclass(frozen=True)
class Sigmoid:
    """1 / (1 + exp(-x))."""

    kind: ClassVar[str] = "Sigmoid"


@dataclass(frozen=True)
class TanH:
    """Hyperbolic tangent."""

    kind: ClassVar[str] = "TanH"


@dataclass(frozen=True)
class Clip:
    """min(max(x, low), high); at least one of the bounds is there, and `low` is below `high`."""

    kind: ClassVar[str] = "Clip"
    low: float | None
    high: float | None


@dataclass(frozen=True)
class HardSigmoid:
    """max(0, min(1, alpha * x + beta))."""

    kind: ClassVar[str] = "HardSigmoid"
    alpha: float = 0.2
    beta: float = 0.5


@dataclass(frozen=True)
class HardSwish:
    """x * max(0, min(1, x / 6 + 1 / 2))."""

    kind: ClassVar[str] = "HardSwish"


@dataclass(frozen=True)
class Swish:
    """x / (1 + exp(-x)), also called SiLU."""

    kind: ClassVar[str] = "Swish"


@dataclass(frozen=True)
class GELU:
    """x times the normal distribution's share below x; `approximate`: by a hyperbolic tangent.

    That is x / 2 * (1 + erf(x / sqrt(2))), or x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))), as ONNX's
    ``Gelu``.
    """

    kind: ClassVar[str] = "GELU"
    approximate: bool = False


Tabulated = Sigmoid | TanH | HardSigmoid | HardSwish | Swish | GELU
"""Operations that the hardware has a look-up table for: functions of one value."""
TABULATED: tuple[type[Tabulated], ...] = get_args(Tabulated)


@dataclass(frozen=True)
class Softmax:
    """Softmax over the channels."""

    kind: ClassVar[str] = "Softmax"


@dataclass(frozen=True)
class Dropout:
    """Identity at test time."""

    kind: ClassVar[str] = "Dropout"


@dataclass(frozen=True)
class Flatten:
    """(C, H, W) to (C*H*W,)."""

    kind: ClassVar[str] = "Flatten"


@dataclass(frozen=True)
class Reshape:
    """Another view of the same elements; `shape` is the shape without the batch, resolved."""

    kind: ClassVar[str] = "Reshape"
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """(x - mean) / sqrt(variance + eps), a channel; already divided by Caffe's moving-average factor."""

    kind: ClassVar[str] = "BatchNorm"
    mean: Weights
    variance: Weights
    eps: float


@dataclass(frozen=True, eq=False)
class Scale:
    """x * gamma + beta, a channel."""

    kind: ClassVar[str] = "Scale"
    gamma: Weights
    beta: Weights | None


@dataclass(frozen=True)
class Power:
    """(shift + scale * x) ** power."""

    kind: ClassVar[str] = "Power"
    power: float = 1.0
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Eltwise:
    """Element-wise combination of two or more inputs; `coefficients` only with ``sum``.

    Of the inputs of a ``prod``, those of one pixel multiply all pixels of the others.
    """

    kind: ClassVar[str] = "Eltwise"
    operation: Literal["sum", "max", "min", "prod"]
    coefficients: tuple[float, ...] = ()


@dataclass(frozen=True)
class Concat:
    """Concatenation along the channels."""

    kind: ClassVar[str] = "Concat"


@dataclass(frozen=True)
class Gather:
    """Some channels of the input, in this order: a slice, one part of a split, or a shuffle."""

    kind: ClassVar[str] = "Gather"
    channels: tuple[int, ...]


@dataclass(frozen=True)
class LRN:
    """Local response normalisation across channels: x / (k + alpha / n * sum of squares) ** beta."""

    kind: ClassVar[str] = "LRN"
    local_size: int
    alpha: float
    beta: float
    k: float


Operation = (
    Convolution
    | Deconvolution
    | InnerProduct
    | Pooling
    | ReLU
    | PReLU
    | Sigmoid
    | TanH
    | Clip
    | HardSigmoid
    | HardSwish
    | Swish
    | GELU
    | Softmax
    | Dropout
    | Flatten
    | Reshape
    | BatchNorm
    | Scale
    | Power
    | Eltwise
    | Concat
    | Gather
    | Crop
    | SpaceToDepth
    | DepthToSpace
    | LRN
)


@dataclass(frozen=True)
class Layer:
    """One layer: it reads the tensors `inputs` and writes the tensor that has its own name.

    `inner` marks a layer that is the first half of one in the file, of which two were made: only the other half has
    its name, and no calibration cache knows its tensor.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    inner: bool = False

    @property
    def kind(self) -> str:
        """Caffe's type of the layer."""
        return self.operation.kind


@dataclass(frozen=True)
class OnnxTensors:
    """What the tensors of a network are called in the ONNX file that it was read from.

    Attributes
    ----------
    names : Mapping[str, str]
        Name in the file by our name: of the inputs, and of each layer but the first half of a node read as two.
    others : frozenset[str]
        The file's tensors that no layer here writes: weights, and what was folded or read together with others.
    """

    names: Mapping[str, str]
    others: frozenset[str]


@dataclass(frozen=True)
class Network:
    """Layers in file order, which is an order of execution.

    Attributes
    ----------
    name : str
        Name in the file; may be empty.
    inputs : tuple[Tensor, ...]
        Network inputs; their tensor name is the blob name.
    layers : tuple[Layer, ...]
        Layers that run at test time, without ``Input``.
    tensors : Mapping[str, Tensor]
        Every tensor by name: the inputs, then one for each layer, in order.
    onnx : OnnxTensors or None
        Names in the ONNX file that it was read from; None for any other network, and for one that was made of it.
    """

    name: str
    inputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    tensors: Mapping[str, Tensor] = field(repr=False)
    onnx: OnnxTensors | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Freeze the mapping and check that each layer reads what was written before it."""
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        written = {tensor.name for tensor in self.inputs}
        for layer in self.layers:
            if layer.name in written:
                raise NetworkError(f"layer {layer.name!r}: the name is used twice; rename one of the layers")
            for name in layer.inputs:
                if name not in written:
                    raise NetworkError(f"layer {layer.name!r}: reads {name!r}, which no earlier layer writes")
            written.add(layer.name)
        if missing := written - set(self.tensors):
            raise NetworkError(f"network {self.name!r}: no shape for {', '.join(sorted(missing))}")

    @cached_property
    def by_name(self) -> Mapping[str, Layer]:
        """Layers by name."""
        return MappingProxyType({layer.name: layer for layer in self.layers})

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Layer, ...]]:
        """Layers that read each tensor, in order."""
        readers: dict[str, list[Layer]] = {name: [] for name in self.tensors}
        for layer in self.layers:
            for name in dict.fromkeys(layer.inputs):
                readers[name].append(layer)
        return MappingProxyType({name: tuple(layers) for name, layers in readers.items()})

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Tensors that no layer reads, in order."""
        return tuple(self.tensors[layer.name] for layer in self.layers if not self.consumers[layer.name])

    @property
    def only_input(self) -> Tensor:
        """The network's input, where it has exactly one; else a `NetworkError`."""
        return _only(self.inputs, f"network {self.name!r}: input")

    @property
    def only_output(self) -> Tensor:
        """The network's output, where it has exactly one; else a `NetworkError`."""
        return _only(self.outputs, f"network {self.name!r}: output")

    @property
    def logits(self) -> Tensor | None:
        """What the final Softmax reads; None where the network does not end in exactly one Softmax."""
        match self.outputs:
            case (output,) if isinstance(self.by_name[output.name].operation, Softmax):
                return self.tensors[self.by_name[output.name].inputs[0]]
        return None


def _only(tensors: tuple[Tensor, ...], what: str) -> Tensor:
    if len(tensors) != 1:
        names = ", ".join(tensor.name for tensor in tensors) or "none"
        raise NetworkError(f"{what}s are {names}, expected exactly one")
    return tensors[0]


def convolution_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1, far: int | None = None) -> int:
    """Output size of a convolution along one axis, rounded down; `far` is the padding after, `pad` where not given."""
    return (size + pad + (pad if far is None else far) - (dilation * (kernel - 1) + 1)) // stride + 1


def deconvolution_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1, far: int | None = None) -> int:
    """Output size of a transposed convolution along one axis; `far` as in `convolution_size`."""
    return stride * (size - 1) + dilation * (kernel - 1) + 1 - pad - (pad if far is None else far)


def pooling_size(
    size: int, kernel: int, stride: int, pad: int, rounding: Rounding = "up", far: int | None = None
) -> int:
    """Output size of a pooling along one axis; `far` as in `convolution_size`.

    Rounding up, as Caffe does, a last window that would start in the padding after the image is dropped, but only
    where there is padding. Rounding down, every window lies inside of the padded image, and there is none to drop.
    """
    after = pad if far is None else far
    if rounding == "down":
        return convolution_size(size, kernel, stride, pad, far=after)
    count = -((size + pad + after - kernel) // -stride) + 1
    if (pad or after) and (count - 1) * stride >= size + pad:
        count -= 1
    return count
