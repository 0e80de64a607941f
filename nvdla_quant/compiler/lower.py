"""First stage: the network as a short list of steps that the hardware has units for.

Layers that only rename (dropout, flatten) vanish. What an SDP can do behind a convolution is fused into it: the sum
with another tensor, the ReLU. A fused step writes the tensor of its last layer, so the scale of that layer counts.
"""

from dataclasses import replace
from typing import assert_never

import numpy as np

from nvdla_quant.compiler.operations import (
    ConvolutionStep,
    Lowered,
    Part,
    PointStep,
    PoolingStep,
    SoftmaxStep,
    Step,
)
from nvdla_quant.errors import CompileError
from nvdla_quant.network.graph import (
    LRN,
    BatchNorm,
    Concat,
    Convolution,
    Deconvolution,
    Dropout,
    Eltwise,
    Flatten,
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
    TanH,
    Tensor,
    Weights,
)
from nvdla_quant.network.support import image_inputs
from nvdla_quant.network.views import sole_reader, viewed


def lower(network: Network) -> Lowered:
    """Turn `network` into steps.

    Parameters
    ----------
    network : Network
        Accepted by `support.check`: every layer is one that the hardware can run.

    Raises
    ------
    CompileError
        A layer that `support.check` refuses, or a network in which nothing is computed.
    """
    return _Lowering(network).result()


class _Lowering:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._images = image_inputs(network)
        self._outputs = tuple(dict.fromkeys(viewed(network, tensor.name) for tensor in network.outputs))
        self._steps: list[Step] = []
        self._writer: dict[str, int] = {}
        self._complete: dict[str, int] = {}
        self._inside: dict[str, tuple[str, int]] = {}
        self._copies: dict[str, Tensor] = {}

    def result(self) -> Lowered:
        network = self._network
        for layer in network.layers:
            self._add(layer)
        inputs = tuple(tensor.name for tensor in network.inputs)
        if copied := set(inputs) & set(self._outputs):
            raise CompileError(f"network {network.name!r}: output {min(copied)!r} is an input, nothing is computed")
        names = {*inputs, *self._complete}
        tensors = {name: tensor for name, tensor in {**network.tensors, **self._copies}.items() if name in names}
        parts = {name: self._part(name, tensors[name].chw[0]) for name in self._inside}
        return Lowered(tuple(self._steps), tensors, inputs, self._outputs, self._images, parts)

    def _add(self, layer: Layer) -> None:
        operation = layer.operation
        names = tuple(viewed(self._network, name) for name in layer.inputs)
        match operation:
            case Dropout() | Flatten() | Reshape():
                pass
            case Convolution():
                self._convolution(layer, names[0])
            case InnerProduct():
                cube = self._network.tensors[names[0]].chw
                weights = operation.weights.reshape(-1, *cube)
                self._append(ConvolutionStep((layer.name,), names[0], layer.name, weights, operation.bias))
            case ReLU():
                self._relu(layer, names[0])
            case Eltwise():
                self._sum(layer, names[0], names[1])
            case Pooling():
                pooling = operation.method, operation.kernel, operation.stride, operation.pad
                self._append(PoolingStep((layer.name,), names[0], layer.name, *pooling))
            case Concat():
                self._concat(layer, names)
            case Softmax():
                self._append(SoftmaxStep((layer.name,), names[0], layer.name))
            case Deconvolution() | PReLU() | Sigmoid() | TanH() | BatchNorm() | Scale() | Power() | LRN():
                raise CompileError(f"layer {layer.name!r}: the compiler has no step for {layer.kind}")
            case _:
                assert_never(operation)

    def _append(self, step: Step) -> None:
        self._writer[step.output] = self._complete[step.output] = len(self._steps)
        self._steps.append(step)

    def _convolution(self, layer: Layer, source: str) -> None:
        operation = layer.operation
        assert isinstance(operation, Convolution)
        weights, dilation = operation.weights, operation.dilation
        if source in self._images:
            # Pixels of a kernel row become channels, so a dilated row has to be written out with its zeros.
            weights, dilation = _dilate(weights, dilation), (1, 1)
        self._append(
            ConvolutionStep(
                (layer.name,), source, layer.name, weights, operation.bias, operation.stride, operation.pad, dilation
            )
        )

    def _fusable(self, tensor: str) -> int | None:
        """Step that writes `tensor`, where its SDP may do more before anything else reads the tensor."""
        index = self._writer.get(tensor)
        if index is None or sole_reader(self._network, tensor) is None:
            return None
        step = self._steps[index]
        return index if isinstance(step, ConvolutionStep | PointStep) and not step.relu else None

    def _extend(self, index: int, step: ConvolutionStep | PointStep) -> None:
        del self._writer[self._steps[index].output], self._complete[self._steps[index].output]
        self._writer[step.output] = self._complete[step.output] = index
        self._steps[index] = step

    def _relu(self, layer: Layer, source: str) -> None:
        index = self._fusable(source)
        if index is None:
            self._append(PointStep((layer.name,), source, layer.name, relu=True))
            return
        step = self._steps[index]
        assert isinstance(step, ConvolutionStep | PointStep)
        self._extend(index, replace(step, layers=(*step.layers, layer.name), output=layer.name, relu=True))

    def _sum(self, layer: Layer, first: str, second: str) -> None:
        candidates = []
        for branch, other in ((first, second), (second, first)):
            index = self._fusable(branch)
            step = None if index is None else self._steps[index]
            # The other branch is read while the convolution runs, so it must be complete by then.
            complete = index is not None and self._complete.get(other, -1) < index
            if index is not None and complete and isinstance(step, ConvolutionStep) and step.addend is None:
                candidates.append((index, step, other))
        if not candidates:
            self._append(PointStep((layer.name,), first, layer.name, addend=second))
            return
        index, step, other = max(candidates, key=lambda candidate: candidate[0])
        self._extend(index, replace(step, layers=(*step.layers, layer.name), output=layer.name, addend=other))

    def _concat(self, layer: Layer, names: tuple[str, ...]) -> None:
        """Let the inputs be written where they stand in the output; copy those that cannot be."""
        channel = 0
        for number, name in enumerate(names):
            count = self._network.tensors[name].chw[0]
            part = name
            if names.count(name) > 1 or not self._placeable(name):
                part = f"{layer.name}#{number}"
                self._copies[part] = replace(self._network.tensors[name], name=part)
                self._append(PointStep((layer.name,), name, part))
            self._inside[part] = (layer.name, channel)
            channel += count
        self._complete[layer.name] = len(self._steps) - 1

    def _placeable(self, tensor: str) -> bool:
        """Whether `tensor` can be written into another, at the other's scale."""
        if tensor in self._inside or tensor in self._outputs or tensor not in self._complete:
            return False
        index = self._writer.get(tensor)
        # Neither pooling, which keeps its input's scale, nor the CPU, which knows no surfaces.
        return index is None or isinstance(self._steps[index], ConvolutionStep | PointStep)

    def _part(self, tensor: str, channels: int) -> Part:
        """Resolve concatenations in concatenations."""
        first, whole = 0, tensor
        while whole in self._inside:
            whole, channel = self._inside[whole]
            first += channel
        return Part(whole, first, first + channels)


def _dilate(weights: Weights, dilation: tuple[int, int]) -> Weights:
    """Kernels with the zeros of `dilation` written out."""
    if dilation == (1, 1):
        return weights
    kernels, channels, height, width = weights.shape
    spread = np.zeros(
        (kernels, channels, (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1), dtype=weights.dtype
    )
    spread[:, :, :: dilation[0], :: dilation[1]] = weights
    return spread
