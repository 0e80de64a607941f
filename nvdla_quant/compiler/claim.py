"""The claim: what the compiler says that each operation of its loadable stands for.

It holds no weights, addresses or multipliers, only which part of which layer an operation computes, from what, and what
the values mean. Verification holds it to the network and to the loadable, operation by operation, so that nobody has to
guess what an operation is for; a claim that is wrong fails there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from nvdla_quant.compiler.operations import (
    ConvolutionStep,
    ConvOperation,
    InterleaveStep,
    Join,
    Lowered,
    Operation,
    Part,
    PointStep,
    Step,
)
from nvdla_quant.compiler.quantize import table_unit
from nvdla_quant.hardware.targets import Precision, QuantizationMode, Target
from nvdla_quant.network.graph import Network, Pair, PReLU, ReLU

Taps = tuple[int, ...]

Scales = Mapping[str, float]


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
    """

    tensor: str
    channels: Pair
    rows: Pair = (0, 1)
    columns: Pair = (0, 1)


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
    """A second tensor: ``sum``, ``max`` or ``product`` with it, times `gain`."""

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
    """The function of one value that a Sigmoid, TanH or Power is; `unit` is the real value of 1 at its table."""

    kind: ClassVar[str] = "lookup"
    layer: str
    unit: float


@dataclass(frozen=True)
class Rectifying:
    """max(0, x)."""

    kind: ClassVar[str] = "rectifying"


Stage = Weighting | Gathering | Whole | Affine | Gain | Joining | Slopes | Lookup | Rectifying

STAGES: Mapping[str, type[Stage]] = {
    stage.kind: stage for stage in (Weighting, Gathering, Whole, Affine, Gain, Joining, Slopes, Lookup, Rectifying)
}


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


def claim_of(
    network: Network,
    lowered: Lowered,
    operations: Sequence[Operation],
    scales: Scales,
    made_for: tuple[Target, Precision, QuantizationMode | None],
) -> Claim:
    """Return what a loadable's operations stand for.

    Parameters
    ----------
    network : Network
        As `passes.for_hardware` leaves it.
    lowered : Lowered
        Its steps.
    operations : Sequence[Operation]
        All operations; what comes out of them stands in the loadable in this order.
    scales : Mapping[str, float]
        Real value of 1 in each tensor.
    made_for : tuple
        Target, precision and mode.
    """
    target, precision, mode = made_for
    half = precision is Precision.FP16
    runs: dict[int, list[Run]] = {}
    for number, operation in enumerate(operations):
        if isinstance(operation, ConvOperation):
            continue
        window = operation.destination
        columns = window.column, window.columns
        step = lowered.steps[operation.step]
        if isinstance(step, InterleaveStep):
            columns = 0, lowered.tensors[step.source].chw[2]
        runs.setdefault(operation.step, []).append(Run(number, (window.row, window.rows), columns))
    held = {
        name: Held(tensor.chw, scales[name]) for name, tensor in lowered.tensors.items() if name not in lowered.parts
    }
    inside = {name: _place(name, lowered) for name in lowered.parts if name in network.tensors}
    pieces = tuple(
        Piece(
            step.layers,
            _place(step.source, lowered),
            _written(step, lowered),
            tuple(_stages(step, network, lowered, scales, half)),
            tuple(runs[index]),
        )
        for index, step in enumerate(lowered.steps)
    )
    return Claim(target.name, str(precision), None if mode is None else str(mode), held, inside, pieces)


def _place(tensor: str, lowered: Lowered) -> Place:
    part = lowered.parts.get(tensor, Part(tensor, 0, lowered.tensors[tensor].chw[0]))
    return Place(part.whole, (part.first, part.end), (part.row, part.step))


def _written(step: Step, lowered: Lowered) -> Place:
    place = _place(step.output, lowered)
    return replace(place, columns=(step.first, step.stride)) if isinstance(step, InterleaveStep) else place


def _stages(step: Step, network: Network, lowered: Lowered, scales: Scales, half: bool) -> Iterator[Stage]:
    match step:
        case InterleaveStep():
            return
        case ConvolutionStep():
            yield _weighting(step)
            kernels = step.kernels if step.origin is None else step.origin.kernels
        case PointStep():
            kernels = None
            if step.affine is not None:
                yield Affine(step.layers[0])
            if step.gain != 1:
                yield Gain(step.gain)
        case _:
            yield Whole(step.layers[-1])
            return
    if step.join is not None:
        yield _joining(step.join, lowered)
    if step.slopes is not None:
        yield Slopes(_layer_of(step, network, (ReLU, PReLU)), kernels or (0, len(step.slopes)))
    if step.function is not None:
        unit = 1.0 if half else table_unit(step, scales)
        yield Lookup(_layer_of(step, network, type(step.function.operation)), unit)
    if step.relu:
        yield Rectifying()


def _weighting(step: ConvolutionStep) -> Stage:
    origin = step.origin
    if origin is None:
        return Gathering(len(step.weights), tuple(_places(step)))
    return Weighting(
        layer=step.layers[0],
        kernels=origin.kernels,
        channels=origin.channels,
        rows=origin.rows,
        columns=origin.columns,
        factor=origin.factor,
        bias=step.bias is not None,
        stride=step.stride,
        pad=step.pad,
        dilation=step.dilation,
    )


def _places(step: ConvolutionStep) -> Iterator[tuple[int, int, int, float]]:
    """Yield runs of weights of one pixel that stand on a diagonal and are equal."""
    weights = step.weights[:, :, 0, 0]
    outputs, channels = (index.tolist() for index in np.nonzero(weights))
    found = {
        (output, channel): float(weights[output, channel]) for output, channel in zip(outputs, channels, strict=True)
    }
    for (output, channel), factor in found.items():
        if found.get((output - 1, channel - 1)) == factor:
            continue
        count = 1
        while found.get((output + count, channel + count)) == factor:
            count += 1
        yield output, channel, count, factor


def _joining(join: Join, lowered: Lowered) -> Joining:
    return Joining(join.kind, join.gain, _place(join.tensor, lowered))


def _layer_of(step: ConvolutionStep | PointStep, network: Network, kinds: Any) -> str:
    """Return the layer of a step that is of some kind; a ReLU among them has a slope, since others come last."""
    found = [name for name in step.layers if isinstance(network.by_name[name].operation, kinds)]
    return found[0]
