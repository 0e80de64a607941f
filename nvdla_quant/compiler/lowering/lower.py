"""First stage: the network as a short list of steps that the hardware has units for.

Layers that only rename (dropout, flatten) vanish. What an SDP can do behind a convolution is fused into it: joining
another tensor, slopes of negative values, a function from a table, ReLU. A fused step writes the tensor of its last
layer, so the scale of that layer counts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

import numpy as np

from nvdla_quant.compiler.lowering.operations import (
    Combination,
    ConvolutionStep,
    Derived,
    Function,
    Join,
    Lowered,
    NormalisationStep,
    Origin,
    Part,
    PointStep,
    PoolingStep,
    PowerStep,
    SoftmaxStep,
    Step,
)
from nvdla_quant.errors import CompileError
from nvdla_quant.hardware.cbuf import round_up
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.network.graph import (
    GELU,
    LRN,
    BatchNorm,
    Clip,
    Concat,
    Convolution,
    Deconvolution,
    Dropout,
    Eltwise,
    Flatten,
    Gather,
    HardSigmoid,
    HardSwish,
    InnerProduct,
    Layer,
    Network,
    Pooling,
    Power,
    PReLU,
    ReLU,
    Reshape,
    Scale,
    Sigmoid,
    Softmax,
    Swish,
    Tabulated,
    TanH,
    Tensor,
    Weights,
)
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth
from nvdla_quant.network.passes import affine_of
from nvdla_quant.network.views import is_joined_alone, sole_reader, viewed
from nvdla_quant.support.check import image_inputs, runs_from_table

INPUT = -1
"""Step that an input of the network is complete behind: none."""
PRODUCT_RANGE = 127.0
"""Steps of the product of two scales in one step of an intermediate product: its range holds any two int8 values."""


def lower(network: Network, target: Target, precision: Precision) -> Lowered:
    """Turn `network` into steps.

    Parameters
    ----------
    network : Network
        Accepted by `support.check`: every layer is one that the hardware can run.
    target, precision : Target, Precision
        What it is compiled for.

    Raises
    ------
    CompileError
        A network in which nothing is computed.
    """
    return _Lowering(network, target, precision).result()


class _Lowering:
    def __init__(self, network: Network, target: Target, precision: Precision) -> None:
        self._network, self._target, self._precision = network, target, precision
        self._images = image_inputs(network)
        self._atom = target.feature_atom_bytes // (2 if precision is Precision.FP16 else 1)
        self._outputs = tuple(dict.fromkeys(viewed(network, tensor.name) for tensor in network.outputs))
        self._steps: list[Step] = []
        self._writer: dict[str, int] = {}
        self._complete: dict[str, int] = {}
        self._inside: dict[str, Part] = {}
        self._added: dict[str, Tensor] = {}
        self._derived: dict[str, Derived] = {}

    def result(self) -> Lowered:
        network = self._network
        for layer in network.layers:
            self._add(layer)
        inputs = tuple(tensor.name for tensor in network.inputs)
        if copied := set(inputs) & set(self._outputs):
            raise CompileError(f"network {network.name!r}: output {min(copied)!r} is an input, nothing is computed")
        names = {*inputs, *self._complete}
        tensors = {name: tensor for name, tensor in {**network.tensors, **self._added}.items() if name in names}
        parts = {name: self._part(name) for name in self._inside}
        return Lowered(tuple(self._steps), tensors, inputs, self._outputs, self._images, parts, self._derived)

    def _add(self, layer: Layer) -> None:
        operation = layer.operation
        names = tuple(viewed(self._network, name) for name in layer.inputs)
        match operation:
            case Dropout() | Flatten() | Reshape():
                pass
            case Convolution():
                self._convolution(layer, operation, names[0])
            case Deconvolution():
                self._append(_deconvolution(layer, operation, names[0]))
            case InnerProduct():
                cube = self._network.tensors[names[0]].chw
                weights = operation.weights.reshape(-1, *cube)
                whole = Origin((0, len(weights)), (0, cube[0]))
                self._append(
                    ConvolutionStep(
                        (layer.name,),
                        names[0],
                        layer.name,
                        weights,
                        operation.bias,
                        origin=whole,
                        scales=operation.scales,
                    )
                )
            case ReLU(negative_slope=0.0):
                self._relu(layer, names[0])
            case ReLU():
                self._slopes(layer, names[0], np.array([operation.negative_slope], np.float32))
            case Clip(low=0.0, high=None):
                self._relu(layer, names[0])
            case Clip():
                self._clip(layer, operation, names[0])
            case PReLU():
                self._slopes(layer, names[0], operation.slope)
            case Eltwise():
                self._eltwise(layer, operation, names)
            case Pooling():
                self._append(_pooling(layer.name, operation, names[0]))
            case Concat():
                self._concat(layer, names)
            case Gather():
                self._gather(layer, operation, names[0])
            case Crop():
                self._crop(layer, operation, names[0])
            case SpaceToDepth() | DepthToSpace():
                raise AssertionError("`passes.for_hardware` makes convolutions of them")
            case Softmax():
                self._append(SoftmaxStep((layer.name,), names[0], layer.name))
            case LRN():
                self._append(NormalisationStep((layer.name,), names[0], layer.name, operation))
            case Sigmoid() | TanH() | HardSigmoid() | HardSwish() | Swish() | GELU():
                self._function(layer, operation, names[0])
            case Power() if operation.power != 1:
                if runs_from_table(operation, self._target, self._precision):
                    self._function(layer, operation, names[0])
                else:
                    self._append(PowerStep((layer.name,), names[0], layer.name, operation))
            case BatchNorm() | Scale() | Power():
                channels = self._network.tensors[layer.name].chw[0]
                factor, offset = (np.broadcast_to(part, (channels,)) for part in affine_of(operation) or ())
                affine = factor.astype(np.float32), offset.astype(np.float32)
                self._append(PointStep((layer.name,), names[0], layer.name, affine=affine))
            case _:
                assert_never(operation)

    def _append(self, step: Step) -> None:
        self._writer[step.output] = self._complete[step.output] = len(self._steps)
        self._steps.append(step)

    def _convolution(self, layer: Layer, operation: Convolution, source: str) -> None:
        weights, dilation = operation.weights, operation.dilation
        if source in self._images:
            # Pixels of a kernel row become channels, so a dilated row has to be written out with its zeros.
            weights, dilation = dilate(weights, dilation), (1, 1)
        shape = operation.stride, operation.pad, dilation, operation.group
        whole = Origin((0, len(weights)), (0, weights.shape[1] * operation.group))
        given = (layer.name,), source, layer.name, weights, operation.bias
        self._append(ConvolutionStep(*given, *shape, origin=whole, scales=operation.scales))

    def _fusable(self, tensor: str) -> tuple[int, ConvolutionStep | PointStep] | None:
        """Step that writes `tensor`, where its SDP may do more before anything else reads the tensor."""
        index = self._writer.get(tensor)
        if index is None or tensor in self._added or sole_reader(self._network, tensor) is None:
            return None
        step = self._steps[index]
        if not isinstance(step, ConvolutionStep | PointStep) or step.ended:
            return None
        # A negative coefficient is computed with its sign turned round until the very end.
        return None if step.join is not None and step.join.gain < 0 else (index, step)

    @staticmethod
    def _is_bare(step: ConvolutionStep | PointStep) -> bool:
        """Whether a step is a convolution with the SDP's second unit to spare."""
        return isinstance(step, ConvolutionStep) and step.join is None and step.slopes is None

    def _extend(self, index: int, step: ConvolutionStep | PointStep) -> None:
        del self._writer[self._steps[index].output], self._complete[self._steps[index].output]
        self._writer[step.output] = self._complete[step.output] = index
        self._steps[index] = step

    def _relu(self, layer: Layer, source: str) -> None:
        found = self._fusable(source)
        if found is None or found[1].slopes is not None:
            self._append(PointStep((layer.name,), source, layer.name, relu=True))
            return
        index, step = found
        self._extend(index, replace(step, layers=(*step.layers, layer.name), output=layer.name, relu=True))

    def _clip(self, layer: Layer, operation: Clip, source: str) -> None:
        """Fuse bounds of 0 and more where the SDP's second unit is free; others take passes of their own.

        A unit has one operation before its multiplier, and in int8 a bound that is not 0 takes a finer unit than the
        source's steps. So two such bounds are two passes there.
        """
        name, low, high = layer.name, operation.low, operation.high
        if low == 0:
            found = self._fusable(source)
            if found is not None and self._is_bare(found[1]):
                index, step = found
                self._extend(index, replace(step, layers=(*step.layers, name), output=name, relu=True, most=high))
            else:
                self._append(PointStep((name,), source, name, relu=True, most=high))
            return
        if low is not None and high is not None and self._precision is Precision.INT8:
            raised = self._temporary(layer, f"{name}#raised", Derived((name,)))
            self._append(PointStep((name,), source, raised, least=low))
            source, low = raised, None
        self._append(PointStep((name,), source, name, least=low, most=high))

    def _slopes(self, layer: Layer, source: str, slopes: Weights) -> None:
        slopes = np.broadcast_to(slopes, self._network.tensors[layer.name].chw[:1])
        found = self._fusable(source)
        if found is None or not self._is_bare(found[1]):
            self._append(PointStep((layer.name,), source, layer.name, slopes=slopes))
            return
        index, step = found
        self._extend(index, replace(step, layers=(*step.layers, layer.name), output=layer.name, slopes=slopes))

    def _function(self, layer: Layer, operation: Tabulated | Power, source: str) -> None:
        function = Function(operation, source)
        found = self._fusable(source)
        if found is None or not isinstance(found[1], ConvolutionStep):
            self._append(PointStep((layer.name,), source, layer.name, function=function))
            return
        index, step = found
        self._extend(index, replace(step, layers=(*step.layers, layer.name), output=layer.name, function=function))

    def _eltwise(self, layer: Layer, operation: Eltwise, names: tuple[str, ...]) -> None:
        """Join two tensors at a time, what is between in tensors of its own; tensors of one pixel come last."""
        names = tuple(sorted(names, key=lambda name: self._is_spread(layer, name)))
        gains = operation.coefficients or (1.0,) * len(names)
        kind: Combination = "product" if operation.operation == "prod" else operation.operation
        first, gain = names[0], gains[0]
        for number, (second, other) in enumerate(zip(names[1:], gains[1:], strict=True), start=1):
            output = layer.name
            if number < len(names) - 1:
                every = (first, second) if kind == "product" else (*names, layer.name)
                factor = PRODUCT_RANGE if kind == "product" else max(1.0, *map(abs, gains))
                derived = Derived(every, "product" if kind == "product" else "largest", factor)
                output = self._temporary(layer, f"{layer.name}#{number}", derived)
            self._join(layer, output, kind, (first, gain), (second, other))
            first, gain = output, 1.0

    def _is_spread(self, layer: Layer, name: str) -> bool:
        """Whether one pixel of a factor multiplies all of the others'."""
        return self._network.tensors[name].chw != self._network.tensors[layer.name].chw

    def _temporary(self, layer: Layer, name: str, derived: Derived) -> str:
        self._added[name] = replace(self._network.tensors[layer.name], name=name)
        self._derived[name] = derived
        return name

    def _join(
        self,
        layer: Layer,
        output: str,
        kind: Combination,
        first: tuple[str, float],
        second: tuple[str, float],
    ) -> None:
        if first[1] == 0 or (self._precision is Precision.FP16 and second[1] != 1):
            first, second = second, first
        (source, gain), (other, factor) = first, second
        if factor == 0:
            self._append(PointStep((layer.name,), source, output, gain=gain))
            return
        if self._precision is Precision.FP16 and factor != 1:
            # No converter: a coefficient of the second tensor takes a pass of its own.
            scaled = self._temporary(layer, f"{output}#scaled", Derived((other,)))
            self._append(PointStep((layer.name,), other, scaled, gain=factor))
            other, factor = scaled, 1.0
        found = None if kind == "product" or output != layer.name else self._joinable((source, gain), (other, factor))
        if found is None:
            spread = kind == "product" and self._is_spread(layer, other)
            join = Join(other, kind, factor, spread)
            self._append(PointStep((layer.name,), source, output, gain=gain, join=join))
            return
        index, step, (other, factor) = found
        joined = replace(step, layers=(*step.layers, layer.name), output=output, join=Join(other, kind, factor))
        self._extend(index, joined)

    def _joinable(self, *pair: tuple[str, float]) -> tuple[int, ConvolutionStep, tuple[str, float]] | None:
        """Convolution that can take the other tensor in: the last one that is complete by the time it runs."""
        candidates = []
        for (branch, gain), other in (pair, pair[::-1]):
            found = self._fusable(branch)
            if found is None or (self._precision is Precision.FP16 and other[1] != 1) or gain == 0:
                continue
            index, step = found
            # The other branch is read while the convolution runs, so it must be complete by then.
            complete = self._complete.get(other[0], INPUT) < index and branch != other[0]
            free = isinstance(step, ConvolutionStep) and not (step.join or step.slopes is not None or step.transposed)
            if complete and free:
                assert isinstance(step, ConvolutionStep)
                scaled = step if gain == 1 else _scaled(step, gain)
                candidates.append((index, scaled, other))
        return max(candidates, key=lambda candidate: candidate[0], default=None)

    def _concat(self, layer: Layer, names: tuple[str, ...]) -> None:
        """Let the inputs be written where they stand in the output; copy those that cannot be.

        Each input has atoms of its own. Where it does not end with an atom, a convolution that multiplies by one puts
        the channels next to each other.
        """
        atom = self._atom
        counts = [self._network.tensors[name].chw[0] for name in names]
        gaps = any(count % atom for count in counts[:-1])
        whole = layer.name
        if gaps:
            whole = self._temporary(layer, f"{layer.name}#apart", Derived((layer.name,)))
        channel = 0
        places: list[int] = []
        for number, (name, count) in enumerate(zip(names, counts, strict=True)):
            part = name
            if names.count(name) > 1 or not self._placeable(name):
                part = f"{layer.name}#{number}"
                self._added[part] = replace(self._network.tensors[name], name=part)
                self._append(PointStep((layer.name,), name, part))
            self._inside[part] = Part(whole, channel, channel + count)
            places += range(channel, channel + count)
            channel += round_up(count, atom) if number < len(names) - 1 else count
        self._complete[whole] = len(self._steps) - 1
        if gaps:
            tensor = self._added[whole]
            self._added[whole] = replace(tensor, shape=(channel, *tensor.chw[1:]))
            self._append(gather((layer.name,), whole, layer.name, places, channel))

    def _gather(self, layer: Layer, operation: Gather, source: str) -> None:
        """Let channels that stand next to each other in whole atoms be read where they are; copy others.

        What is bound as the network's output has memory of its own.
        """
        first, count = operation.channels[0], len(operation.channels)
        total = self._network.tensors[source].chw[0]
        end = first + count
        together = operation.channels == tuple(range(first, end))
        atoms = first % self._atom == 0 and (end % self._atom == 0 or end == total)
        if together and atoms and layer.name not in self._outputs:
            self._inside[layer.name] = Part(source, first, end)
            self._complete[layer.name] = self._complete.get(source, INPUT)
        else:
            self._append(gather((layer.name,), source, layer.name, operation.channels, total))

    def _crop(self, layer: Layer, operation: Crop, source: str) -> None:
        """Let rows and columns be read where they are; copy an output, what is joined, and one pixel of several atoms.

        Of one pixel the SDP takes all atoms one behind the other, whatever the tensor, so a convolution copies it.
        """
        channels, height, width = self._network.tensors[layer.name].chw
        pixel = (height, width) == (1, 1) and channels > self._atom
        copied = pixel or layer.name in self._outputs or is_joined_alone(self._network, layer.name)
        name = f"{layer.name}#inside" if copied else layer.name
        self._inside[name] = Part(source, 0, channels, operation.rows[0], column=operation.columns[0])
        self._complete[name] = self._complete.get(source, INPUT)
        if copied:
            self._added[name] = replace(self._network.tensors[layer.name], name=name)
        if pixel:
            self._append(gather((layer.name,), name, layer.name, range(channels), channels))
        elif copied:
            self._append(PointStep((layer.name,), name, layer.name))

    def _placeable(self, tensor: str) -> bool:
        """Whether `tensor` can be written into another, at the other's scale."""
        if tensor in self._inside or tensor in self._outputs or tensor not in self._complete:
            return False
        index = self._writer.get(tensor)
        # Neither pooling, which keeps its input's scale, nor the CPU, which knows no surfaces.
        return index is None or isinstance(self._steps[index], ConvolutionStep | PointStep)

    def _part(self, tensor: str) -> Part:
        """Resolve concatenations in concatenations, and parts of parts."""
        part = self._inside[tensor]
        while outer := self._inside.get(part.whole):
            first, end = outer.first + part.first, outer.first + part.end
            part = Part(outer.whole, first, end, outer.row + part.row, column=outer.column + part.column)
        return part


def _scaled(step: ConvolutionStep, gain: float) -> ConvolutionStep:
    """Return `step` with its weights and bias times `gain`."""
    return replace(
        step,
        weights=step.weights * np.float32(gain),
        bias=None if step.bias is None else step.bias * np.float32(gain),
        origin=None if step.origin is None else replace(step.origin, factor=step.origin.factor * gain),
        scales=None if step.scales is None else step.scales * np.float32(abs(gain)),
    )


def gather(layers: tuple[str, ...], source: str, output: str, places: Sequence[int], channels: int) -> ConvolutionStep:
    """Convolution of one pixel that writes, one after another, the channels `places` of the `channels` of `source`.

    Exact: weights of other channels are zero.
    """
    weights = np.zeros((len(places), channels, 1, 1), np.float32)
    weights[np.arange(len(places)), places, 0, 0] = 1
    return ConvolutionStep(layers, source, output, weights, None)


def _pooling(name: str, operation: Pooling, source: str) -> PoolingStep:
    near, far = zip(*operation.sides, strict=True)
    window = operation.method, operation.kernel, operation.stride
    return PoolingStep((name,), source, name, *window, near, far, operation.area)


def _deconvolution(layer: Layer, operation: Deconvolution, source: str) -> ConvolutionStep:
    """Step with the weights as (outputs, inputs / group, height, width)."""
    inputs, outputs, height, width = operation.weights.shape
    group = operation.group
    grouped = operation.weights.reshape(group, inputs // group, outputs, height, width).transpose(0, 2, 1, 3, 4)
    weights = dilate(grouped.reshape(group * outputs, inputs // group, height, width), operation.dilation)
    name = layer.name
    shape = operation.stride, operation.pad
    whole = Origin((0, len(weights)), (0, inputs))
    return ConvolutionStep(
        (name,),
        source,
        name,
        weights,
        operation.bias,
        *shape,
        group=group,
        transposed=True,
        origin=whole,
        scales=operation.scales,
    )


def dilate(weights: Weights, dilation: tuple[int, int]) -> Weights:
    """Kernels with the zeros of `dilation` written out."""
    if dilation == (1, 1):
        return weights
    kernels, channels, height, width = weights.shape
    spread = np.zeros(
        (kernels, channels, (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1), dtype=weights.dtype
    )
    spread[:, :, :: dilation[0], :: dilation[1]] = weights
    return spread
