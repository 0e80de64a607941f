"""What the stages of the compiler hand to each other.

*Steps* are what the network asks for, fused as the hardware can run it; *programs* say how an SDP computes a step;
*operations* are what one hardware unit runs, in order, with windows of surfaces instead of whole tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.loadable.structs import Engine, SdpMode, SdpType
from nvdla_quant.network.graph import Pair, Tensor, Weights


@dataclass(frozen=True, eq=False)
class ConvolutionStep:
    """Convolution or inner product, with what is fused behind it.

    Attributes
    ----------
    layers : tuple[str, ...]
        Layers that it computes; the last one's table entry is the scale of the output.
    source, output : str
        Tensors.
    weights : Weights
        (outputs, inputs, height, width).
    bias : Weights or None
        (outputs,).
    stride, pad, dilation : Pair
        As in the network.
    addend : str or None
        Tensor of the output's shape that is added before the activation (``Eltwise``).
    relu : bool
        Whether max(0, x) comes last.
    """

    layers: tuple[str, ...]
    source: str
    output: str
    weights: Weights
    bias: Weights | None
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    addend: str | None = None
    relu: bool = False


@dataclass(frozen=True)
class PointStep:
    """Element-wise work on a tensor in memory: add another tensor, max(0, x), rescale."""

    layers: tuple[str, ...]
    source: str
    output: str
    addend: str | None = None
    relu: bool = False


@dataclass(frozen=True)
class PoolingStep:
    """Pooling; the output keeps the scale of the source."""

    layers: tuple[str, ...]
    source: str
    output: str
    method: Literal["max", "average"]
    kernel: Pair
    stride: Pair
    pad: Pair


@dataclass(frozen=True)
class SoftmaxStep:
    """Softmax on the CPU."""

    layers: tuple[str, ...]
    source: str
    output: str


Step = ConvolutionStep | PointStep | PoolingStep | SoftmaxStep


@dataclass(frozen=True)
class Part:
    """Channels of a tensor that another tensor stands in: concatenation without copying.

    Attributes
    ----------
    whole : str
        Tensor that has a place of its own.
    first, end : int
        Its channels.
    """

    whole: str
    first: int
    end: int


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
        Tensors that stand inside of a concatenated one; they have its scale.
    """

    steps: tuple[Step, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    images: frozenset[str]
    parts: Mapping[str, Part]

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
    """One X unit of an SDP: add (operand << shift), multiply, >> truncate, ReLU.

    Attributes
    ----------
    kind, mode : SdpType, SdpMode
        What it computes, and how many operands it has.
    shift, truncate : int
        Left shift of the addend; right shift of the product.
    multiplier : int
        Multiplier where `mode` is per layer.
    relu : bool
        Whether max(0, x) comes last.
    operands : NDArray or None
        Per kernel: one a channel, or (addend, multiplier) pairs; int16 or float16.
    tensor : str or None
        Per point: the tensor that is added.
    """

    kind: SdpType
    mode: SdpMode
    shift: int = 0
    truncate: int = 0
    multiplier: int = 1
    relu: bool = False
    operands: NDArray[np.generic] | None = None
    tensor: str | None = None


@dataclass(frozen=True, eq=False)
class SdpProgram:
    """How an SDP gets from its source to its destination; `converter` is None in fp16."""

    x1: SdpUnit | None
    x2: SdpUnit | None
    converter: Converter | None


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
    pad_top: int
    pad_bottom: int


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
class CpuOperation:
    """One softmax on the CPU."""

    step: int
    source: Window
    destination: Window


Operation = ConvOperation | SdpOperation | PdpOperation | CpuOperation

ENGINE_OF: dict[type[Operation], Engine] = {
    ConvOperation: Engine.CONV,
    SdpOperation: Engine.SDP,
    PdpOperation: Engine.PDP,
}
"""Unit that runs an operation; `CpuOperation` has none."""
