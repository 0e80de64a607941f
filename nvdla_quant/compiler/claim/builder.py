"""The claim of what was compiled: each step and its operations as a piece with stages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nvdla_quant.compiler.claim.records import (
    Affine,
    Bounding,
    Claim,
    Gain,
    Gathering,
    Held,
    Joining,
    Lookup,
    Piece,
    Place,
    Rectifying,
    Run,
    Slopes,
    Stage,
    Weighting,
    Whole,
)
from nvdla_quant.compiler.lowering.operations import (
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
from nvdla_quant.compiler.numbers.quantize import table_unit
from nvdla_quant.hardware.targets import Precision, QuantizationMode, Target
from nvdla_quant.network.graph import Clip, Network, PReLU, ReLU

Scales = Mapping[str, float]


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
    channels, *size = lowered.tensors[tensor].chw
    part = lowered.parts.get(tensor, Part(tensor, 0, channels))
    _, height, width = lowered.tensors[part.whole].chw
    to_the_end = [-(-(height - part.row) // part.step), width - part.column]
    given = None if size == to_the_end else (size[0], size[1])
    return Place(part.whole, (part.first, part.end), (part.row, part.step), (part.column, 1), given)


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
    if sides := _bounds(step):
        yield Bounding(_layer_of(step, network, Clip), sides)
    elif step.relu:
        yield Rectifying()


def _bounds(step: ConvolutionStep | PointStep) -> tuple[str, ...]:
    """Return which bounds of a Clip a step has; where there is a high one, `relu` is the low one."""
    least = step.least is not None if isinstance(step, PointStep) else False
    low = least or (step.relu and step.most is not None)
    return (*(["low"] if low else []), *(["high"] if step.most is not None else []))


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
