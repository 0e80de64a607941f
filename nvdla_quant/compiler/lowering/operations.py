"""What the stages of the compiler hand to each other.

*Steps* are what the network asks for, fused as the hardware can run it; *programs* say how an SDP computes a step;
*operations* are what one hardware unit runs, in order, with windows of surfaces instead of whole tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.loadable.structs import Activation, Engine, SdpAlu, SdpMode, SdpType
from nvdla_quant.network.graph import LRN, Pair, Power, Tabulated, Tensor, Weights

Combination = Literal["sum", "max", "min", "product"]
"""What is made of two tensors."""


@dataclass(frozen=True)
class Join:
    """A second tensor of an element-wise operation.

    Attributes
    ----------
    tensor : str
        The tensor.
    kind : {"sum", "max", "min", "product"}
        What is computed.
    gain : float
        Coefficient of the tensor in a sum; not zero, and 1 in fp16.
    spread : bool
        Whether the tensor has one pixel that all pixels are multiplied by.
    """

    tensor: str
    kind: Combination = "sum"
    gain: float = 1.0
    spread: bool = False


@dataclass(frozen=True)
class Origin:
    """Which weights of a layer a step has, times a factor: what a claim says of it.

    Attributes
    ----------
    kernels, channels : Pair
        From the first up to, not with, the last; channels are those of the layer's input, all groups together.
    rows, columns : tuple[int, ...] or None
        Which taps of the kernels, in this order, dilation written out; None for all, as the layer has them.
    factor : float
        Factor of weights and bias.
    """

    kernels: Pair
    channels: Pair
    rows: tuple[int, ...] | None = None
    columns: tuple[int, ...] | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Function:
    """A function of one value, from a table: what it is, and the tensor whose scale its input has."""

    operation: Tabulated | Power
    source: str


@dataclass(frozen=True, eq=False)
class ConvolutionStep:
    """Convolution or inner product, with what is fused behind it, in this order.

    Attributes
    ----------
    layers : tuple[str, ...]
        Layers that it computes; the last one's table entry is the scale of the output.
    source, output : str
        Tensors.
    weights : Weights
        (outputs, inputs / group, height, width).
    bias : Weights or None
        (outputs,).
    stride, dilation : Pair
        As in the network.
    pad : Pair
        Rows above and columns on the left.
    group : int
        Number of groups.
    transposed : bool
        Deconvolution; `weights` are those of the network with outputs and inputs exchanged.
    join : Join or None
        Tensor of the output's shape that is joined.
    slopes : Weights or None
        (outputs,), factors of negative values.
    function : Function or None
        What a table computes.
    relu : bool
        Whether max(0, x) comes last.
    most : float or None
        Upper bound behind that; what is in its place in the SDP (`join`, `slopes`) is absent then.
    origin : Origin or None
        Which weights of the first layer these are; None where they are no layer's but put channels together.
    kernels : Pair or None
        Which outputs of the layer it makes; None where `origin` says so, or where it makes all.
    scales : Weights or None
        (outputs,), the scales that the weights came with; None where the compiler chooses them.
    """

    layers: tuple[str, ...]
    source: str
    output: str
    weights: Weights
    bias: Weights | None
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    group: int = 1
    transposed: bool = False
    join: Join | None = None
    slopes: Weights | None = None
    function: Function | None = None
    relu: bool = False
    most: float | None = None
    origin: Origin | None = None
    kernels: Pair | None = None
    scales: Weights | None = None

    @property
    def extent(self) -> Pair:
        """Rows and columns that one kernel spans."""
        height, width = self.weights.shape[2:]
        return (height - 1) * self.dilation[0] + 1, (width - 1) * self.dilation[1] + 1

    @property
    def ended(self) -> bool:
        """Whether the SDP can do nothing more behind what is fused."""
        return self.relu or self.function is not None


@dataclass(frozen=True, eq=False)
class PointStep:
    """Element-wise work on a tensor in memory, in this order; without any, it brings the tensor to another scale.

    Attributes
    ----------
    layers, source, output
        As of a convolution.
    gain : float
        Factor of all values.
    affine : tuple[Weights, Weights] or None
        Factor and offset of each channel.
    join, slopes, function, relu, most
        As of a convolution.
    least : float or None
        Lower bound, where it is not the 0 of `relu`.
    """

    layers: tuple[str, ...]
    source: str
    output: str
    gain: float = 1.0
    affine: tuple[Weights, Weights] | None = None
    join: Join | None = None
    slopes: Weights | None = None
    function: Function | None = None
    relu: bool = False
    least: float | None = None
    most: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the SDP can do nothing more behind what is fused."""
        return self.relu or self.function is not None or self.least is not None or self.most is not None


@dataclass(frozen=True)
class InterleaveStep:
    """Copy the columns of a tensor to every `stride`-th column of another, from column `first` on."""

    layers: tuple[str, ...]
    source: str
    output: str
    first: int
    stride: int


@dataclass(frozen=True)
class NormalisationStep:
    """Local response normalisation across channels."""

    layers: tuple[str, ...]
    source: str
    output: str
    operation: LRN


@dataclass(frozen=True)
class PowerStep:
    """(shift + scale * x) ** power on the CPU."""

    layers: tuple[str, ...]
    source: str
    output: str
    operation: Power


@dataclass(frozen=True)
class PoolingStep:
    """Pooling; the output keeps the scale of the source.

    Attributes
    ----------
    layers, source, output
        As of a convolution.
    method, kernel, stride, area
        As in the network.
    pad, far : Pair
        Rows and columns of padding before and after.
    """

    layers: tuple[str, ...]
    source: str
    output: str
    method: Literal["max", "average"]
    kernel: Pair
    stride: Pair
    pad: Pair
    far: Pair
    area: Literal["padded", "image"]


@dataclass(frozen=True)
class SoftmaxStep:
    """Softmax on the CPU."""

    layers: tuple[str, ...]
    source: str
    output: str


Step = ConvolutionStep | PointStep | PoolingStep | InterleaveStep | NormalisationStep | SoftmaxStep | PowerStep


@dataclass(frozen=True)
class Part:
    """Channels, rows and columns of a tensor that another tensor stands in: nothing is copied.

    Attributes
    ----------
    whole : str
        Tensor that has a place of its own.
    first, end : int
        Its channels.
    row, step : int
        Its rows: `row`, and every `step`-th behind it, as many as the other tensor has.
    column : int
        The first of its columns.
    """

    whole: str
    first: int
    end: int
    row: int = 0
    step: int = 1
    column: int = 0


@dataclass(frozen=True)
class Derived:
    """Scale of a tensor that no layer writes: by those of other tensors.

    Attributes
    ----------
    tensors : tuple[str, ...]
        The others.
    kind : {"largest", "product"}
        Whether the largest of their scales counts, or their product.
    factor : float
        Factor behind that.
    """

    tensors: tuple[str, ...]
    kind: Literal["largest", "product"] = "largest"
    factor: float = 1.0


@dataclass(frozen=True)
class Lowered:
    """A network as steps.

    Attributes
    ----------
    steps : tuple[Step, ...]
        In an order of execution.
    tensors : Mapping[str, Tensor]
        Every tensor that a step reads or writes.
    inputs, outputs : tuple[str, ...]
        Names of the bindable tensors.
    images : frozenset[str]
        Inputs that are stored as pixels of four components.
    parts : Mapping[str, Part]
        Tensors that stand inside of another; they have its scale.
    derived : Mapping[str, Derived]
        Scales of tensors that no layer of the network writes.
    """

    steps: tuple[Step, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    images: frozenset[str]
    parts: Mapping[str, Part]
    derived: Mapping[str, Derived]

    @property
    def before_softmax(self) -> Mapping[str, str]:
        """For each output that a softmax writes, the tensor that it reads."""
        written = {step.output: step.source for step in self.steps if isinstance(step, SoftmaxStep)}
        return {name: written[name] for name in self.outputs if name in written}


@dataclass(frozen=True)
class Converter:
    """x * scale >> shift."""

    scale: int
    shift: int


@dataclass(frozen=True, eq=False)
class SdpUnit:
    """One X unit of an SDP: ALU with (operand << shift), multiply, >> truncate, activation.

    Attributes
    ----------
    kind, mode : SdpType, SdpMode
        What it computes, and how many operands it has.
    alu : SdpAlu
        What the ALU does.
    shift, truncate : int
        Left shift of the ALU's operand; right shift of the product.
    multiplier, addend : float
        Multiplier, and operand of the ALU, where `mode` is per layer; whole in int8.
    act : Activation
        None, max(0, x), or multiplying negative values alone (PRELU).
    operands : NDArray or None
        Per kernel: one a channel, or (addend, multiplier) pairs; int16 or float16.
    tensor : str or None
        Per point: the tensor of operands; per kernel: that of one pixel.
    """

    kind: SdpType
    mode: SdpMode
    shift: int = 0
    truncate: int = 0
    multiplier: float = 1
    act: Activation = Activation.NONE
    alu: SdpAlu = SdpAlu.SUM
    operands: NDArray[np.generic] | None = None
    tensor: str | None = None
    addend: float = 0


@dataclass(frozen=True, eq=False)
class SdpProgram:
    """How an SDP gets from its source to its destination; `converter` is None in fp16, `table` a LUT record."""

    x1: SdpUnit | None
    x2: SdpUnit | None
    converter: Converter | None
    table: np.void | None = None


@dataclass(frozen=True, eq=False)
class CdpProgram:
    """How a CDP normalises: input converter's, table, output converter's; converters are None in fp16."""

    output: Converter | None
    table: np.void


@dataclass(frozen=True)
class Window:
    """Part of a surface: rows and columns of all channels of a tensor."""

    tensor: str
    row: int
    rows: int
    column: int
    columns: int


@dataclass(frozen=True)
class ConvOperation:
    """One run of the convolution pipeline; the SDP operation behind it in the list takes the result."""

    step: int
    source: Window
    rows: int
    columns: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int


@dataclass(frozen=True)
class SdpOperation:
    """One run of the SDP; `source` is None where the convolution before it in the list feeds it."""

    step: int
    source: Window | None
    addend: Window | None
    destination: Window


@dataclass(frozen=True)
class PdpOperation:
    """One run of the PDP; `kernel` is the step's, or less at the border of an average."""

    step: int
    source: Window
    destination: Window
    kernel: Pair
    pad_left: int
    pad_right: int
    pad_top: int
    pad_bottom: int


@dataclass(frozen=True)
class CdpOperation:
    """One run of the CDP."""

    step: int
    source: Window
    destination: Window


@dataclass(frozen=True)
class CpuOperation:
    """One softmax or power on the CPU."""

    step: int
    source: Window
    destination: Window


Operation = ConvOperation | SdpOperation | PdpOperation | CdpOperation | CpuOperation

ENGINE_OF: dict[type[Operation], Engine] = {
    ConvOperation: Engine.CONV,
    SdpOperation: Engine.SDP,
    PdpOperation: Engine.PDP,
    CdpOperation: Engine.CDP,
}
"""Unit that runs an operation; `CpuOperation` has none."""
