"""The claim: what the compiler says that each operation of its loadable stands for.

It holds no weights, addresses or multipliers, only which part of which layer an operation computes, from what, and what
the values mean. Verification holds it to the network and to the loadable, operation by operation, so that nobody has to
guess what an operation is for; a claim that is wrong fails there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, get_args

from nvdla_quant.network.graph import Pair

Taps = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """Where values stand in a tensor that lies in memory as a whole.

    Attributes
    ----------
    tensor : str
        The tensor.
    channels : Pair
        From the first up to, not with, the last.
    rows, columns : Pair
        The first one, and the distance to the next.
    size : Pair or None
        How many rows and columns, where they end before the tensor does.
    """

    tensor: str
    channels: Pair
    rows: Pair = (0, 1)
    columns: Pair = (0, 1)
    size: Pair | None = None


@dataclass(frozen=True)
class Weighting:
    """A convolution with weights of a layer.

    Attributes
    ----------
    layer : str
        A convolution, deconvolution or inner product of the network as `passes.for_hardware` leaves it.
    kernels, channels : Pair
        Outputs of the layer, and channels of its input (all groups together): from the first up to, not with, the last.
    rows, columns : Taps or None
        Taps of the kernels, in this order, dilation written out; None for all.
    factor : float
        Factor of weights and bias.
    bias : bool
        Whether the layer's bias is added.
    stride, pad, dilation : Pair
        (vertical, horizontal); padding before the first row and column.
    """

    kind: ClassVar[str] = "weighting"
    layer: str
    kernels: Pair
    channels: Pair
    rows: Taps | None
    columns: Taps | None
    factor: float
    bias: bool
    stride: Pair
    pad: Pair
    dilation: Pair


@dataclass(frozen=True)
class Gathering:
    """Sums of channels times factors: each of `places` is (first output, first channel, how many, factor)."""

    kind: ClassVar[str] = "gathering"
    outputs: int
    places: tuple[tuple[int, int, int, float], ...]


@dataclass(frozen=True)
class Whole:
    """A pooling, normalisation, softmax or power as the layer has it."""

    kind: ClassVar[str] = "whole"
    layer: str


@dataclass(frozen=True)
class Affine:
    """Factor and offset of each channel, of a BatchNorm, Scale or linear Power."""

    kind: ClassVar[str] = "affine"
    layer: str


@dataclass(frozen=True)
class Gain:
    """A factor of all values."""

    kind: ClassVar[str] = "gain"
    factor: float


@dataclass(frozen=True)
class Joining:
    """A second tensor, or its only pixel: ``sum``, ``max``, ``min`` or ``product`` with it, times `gain`."""

    kind: ClassVar[str] = "joining"
    how: str
    gain: float
    reads: Place


@dataclass(frozen=True)
class Slopes:
    """Factors of negative values, of a ReLU or PReLU; `kernels` are the layer's channels."""

    kind: ClassVar[str] = "slopes"
    layer: str
    kernels: Pair


@dataclass(frozen=True)
class Lookup:
    """The function of one value that a layer is (a Sigmoid, a Power); `unit` is the real value of 1 at its table."""

    kind: ClassVar[str] = "lookup"
    layer: str
    unit: float


@dataclass(frozen=True)
class Rectifying:
    """max(0, x)."""

    kind: ClassVar[str] = "rectifying"


@dataclass(frozen=True)
class Bounding:
    """Bounds of a Clip: ``low``, ``high`` or both, in `sides`."""

    kind: ClassVar[str] = "bounding"
    layer: str
    sides: tuple[str, ...]


Stage = Weighting | Gathering | Whole | Affine | Gain | Joining | Slopes | Lookup | Rectifying | Bounding

STAGES: Mapping[str, type[Stage]] = {stage.kind: stage for stage in get_args(Stage)}


@dataclass(frozen=True)
class Run:
    """One operation of a step: its number in the loadable, and (first, how many) rows and columns of what it writes."""

    operation: int
    rows: Pair
    columns: Pair


@dataclass(frozen=True)
class Piece:
    """What some operations with the same weights compute, each a part of the rows and columns.

    Attributes
    ----------
    layers : tuple[str, ...]
        Layers that it is, or is a part of; the last one is the tensor that it contributes to.
    reads, writes : Place
        Where its values come from, and where they go.
    stages : tuple[Stage, ...]
        What is computed, in this order; nothing where values are copied.
    runs : tuple[Run, ...]
        The operations.
    """

    layers: tuple[str, ...]
    reads: Place
    writes: Place
    stages: tuple[Stage, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Held:
    """A tensor that lies in memory as a whole: channels, height, width, and the real value of 1."""

    shape: tuple[int, int, int]
    scale: float


@dataclass(frozen=True)
class Claim:
    """What the operations of a loadable stand for.

    Attributes
    ----------
    target, precision : str
        What the loadable is for.
    mode : str or None
        Quantization mode; None in fp16.
    tensors : Mapping[str, Held]
        By name: the network's own, and those that are made on the way.
    inside : Mapping[str, Place]
        Tensors of the network that stand inside of others.
    pieces : tuple[Piece, ...]
        In the order of execution.
    """

    target: str
    precision: str
    mode: str | None
    tensors: Mapping[str, Held]
    inside: Mapping[str, Place]
    pieces: tuple[Piece, ...]

    def place_of(self, tensor: str) -> Place | None:
        """Return where a tensor of the network stands; None where it is nowhere in memory."""
        if tensor in self.tensors:
            return Place(tensor, (0, self.tensors[tensor].shape[0]))
        return self.inside.get(tensor)
