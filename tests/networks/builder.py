"""Builds networks layer by layer, with He-random weights from a seed."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from nvdla_quant.network.graph import (
    LRN,
    BatchNorm,
    Concat,
    Convolution,
    Deconvolution,
    Eltwise,
    Gather,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pair,
    Pooling,
    PReLU,
    ReLU,
    Rounding,
    Scale,
    Softmax,
    Tensor,
    Weights,
)
from nvdla_quant.network.shapes import assemble, output_shape


def pair(size: int | Pair) -> Pair:
    """Return the same size along both axes, or the pair that is given."""
    return (size, size) if isinstance(size, int) else size


class Builder:
    """Adds layers one behind the other; each method returns the name of the tensor that it wrote.

    Parameters
    ----------
    name : str
        Name of the network.
    shape : tuple[int, ...]
        Shape of its only input, ``data``.
    width : float
        Factor of every channel count that `wide` gives.
    seed : int or None
        Seed of the weights. None: all are zero and take no memory, for questions that shapes alone answer.
    """

    def __init__(self, name: str, shape: tuple[int, ...], width: float = 1.0, seed: int | None = 0) -> None:
        self.name, self.width = name, width
        self.layers: list[Layer] = []
        self.input = Tensor("data", shape, "data")
        self._shapes: dict[str, tuple[int, ...]] = {"data": shape}
        self._rng = None if seed is None else np.random.default_rng(seed)

    def build(self) -> Network:
        """Return the network."""
        return assemble(self.name, [self.input], self.layers)

    def wide(self, count: int, multiple: int = 1) -> int:
        """Return `count` times the width, as a multiple of `multiple` and not 0."""
        return max(1, round(count * self.width / multiple)) * multiple

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._shapes[name]

    def chw(self, name: str) -> tuple[int, int, int]:
        """Channels, height and width of a tensor."""
        return Tensor(name, self._shapes[name], name).chw

    def channels(self, name: str) -> int:
        """Channels of a tensor."""
        return self.chw(name)[0]

    def add(self, name: str, operation: Operation, *inputs: str) -> str:
        """Any layer."""
        layer = Layer(name, operation, inputs)
        self._shapes[name] = output_shape(layer, [self._shapes[source] for source in inputs])
        self.layers.append(layer)
        return name

    def normal(self, shape: tuple[int, ...], deviation: float, mean: float = 0.0) -> Weights:
        """Normally distributed values, in float32 all along: a large layer's are not held twice."""
        if self._rng is None:
            return np.broadcast_to(np.float32(0), shape)
        values = self._rng.standard_normal(shape, np.float32)
        values *= np.float32(deviation)
        values += np.float32(mean)
        return values

    def uniform(self, count: int, low: float, high: float) -> Weights:
        """Values between two bounds, one a channel."""
        if self._rng is None:
            return np.broadcast_to(np.float32(low), (count,))
        return self._rng.uniform(low, high, count).astype(np.float32)

    def conv(
        self,
        name: str,
        source: str,
        outputs: int,
        kernel: int | Pair,
        stride: int | Pair = 1,
        *,
        pad: int | Pair | None = None,
        far: Pair | None = None,
        group: int = 1,
        dilation: int | Pair = 1,
        bias: bool = True,
        gain: float = 1.0,
    ) -> str:
        """Convolution; padded so that a stride of 1 keeps the size, where `pad` is not given.

        Weights are normal with variance 2 / inputs of an output (He et al. 2015) times the square of `gain`.
        """
        kernel, dilation = pair(kernel), pair(dilation)
        if pad is None:
            height, width = (((k - 1) * d + 1) // 2 for k, d in zip(kernel, dilation, strict=True))
            pad = (height, width)
        shape = (outputs, self.channels(source) // group, *kernel)
        weights = self.normal(shape, gain * float(np.sqrt(2 / np.prod(shape[1:]))))
        added = self.normal((outputs,), 0.05) if bias else None
        return self.add(name, Convolution(weights, added, pair(stride), pair(pad), dilation, group, far), source)

    def conv_relu(self, name: str, source: str, outputs: int, kernel: int, stride: int = 1, **more: int) -> str:
        """Convolution and ReLU; `more` as of `conv`."""
        return self.relu(f"{name}_relu", self.conv(name, source, outputs, kernel, stride, **more))  # type: ignore[arg-type]

    def conv_norm(
        self,
        name: str,
        source: str,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        group: int = 1,
        relu: bool = True,
        size: float = 1.0,
    ) -> str:
        """Convolution, BatchNorm, Scale to about `size` and, if asked for, ReLU."""
        last = self.norm(name, self.conv(name, source, outputs, kernel, stride, group=group, bias=False), size)
        return self.relu(f"{name}_relu", last) if relu else last

    def deconv(
        self,
        name: str,
        source: str,
        outputs: int,
        kernel: int | Pair,
        stride: int | Pair,
        *,
        pad: int | Pair = 0,
        far: Pair | None = None,
        group: int = 1,
        dilation: int | Pair = 1,
        bias: bool = True,
        gain: float = 1.0,
    ) -> str:
        """Transposed convolution; an output takes a stride-th of the kernel along each axis."""
        kernel, stride = pair(kernel), pair(stride)
        inputs = self.channels(source)
        taps = inputs // group * max(1.0, float(np.prod(kernel)) / float(np.prod(stride)))
        weights = self.normal((inputs, outputs // group, *kernel), gain * float(np.sqrt(2 / taps)))
        added = self.normal((outputs,), 0.05) if bias else None
        operation = Deconvolution(weights, added, stride, pair(pad), pair(dilation), group, far)
        return self.add(name, operation, source)

    def fc(self, name: str, source: str, outputs: int, *, bias: bool = True, gain: float = 1.0) -> str:
        """Inner product over everything that `source` holds."""
        inputs = int(np.prod(self.shape(source)))
        weights = self.normal((outputs, inputs), gain * float(np.sqrt(2 / inputs)))
        return self.add(name, InnerProduct(weights, self.normal((outputs,), 0.05) if bias else None), source)

    def norm(self, name: str, source: str, size: float = 1.0) -> str:
        """BatchNorm and Scale of values that have a variance around 1, to about `size`."""
        channels = self.channels(source)
        normal = BatchNorm(self.normal((channels,), 0.1), self.uniform(channels, 0.7, 1.3), 1e-5)
        scale = Scale(self.uniform(channels, 0.8 * size, 1.2 * size), self.normal((channels,), 0.05))
        return self.add(f"{name}_scale", scale, self.add(f"{name}_bn", normal, source))

    def relu(self, name: str, source: str, slope: float = 0.0) -> str:
        """ReLU, leaky where a slope is given."""
        return self.add(name, ReLU(slope), source)

    def prelu(self, name: str, source: str) -> str:
        """PReLU with a slope a channel."""
        return self.add(name, PReLU(self.uniform(self.channels(source), 0.05, 0.3)), source)

    def pool(
        self,
        name: str,
        source: str,
        method: Literal["max", "average"],
        kernel: int | Pair,
        stride: int | Pair = 1,
        pad: int | Pair = 0,
        *,
        rounding: Rounding = "up",
        far: Pair | None = None,
        area: Literal["padded", "image"] = "padded",
    ) -> str:
        """Pooling."""
        return self.add(name, Pooling(method, pair(kernel), pair(stride), pair(pad), rounding, far, area), source)

    def global_average(self, name: str, source: str) -> str:
        """Average of all pixels, as ``global_pooling`` has it."""
        _, height, width = self.chw(source)
        return self.pool(name, source, "average", (height, width))

    def lrn(self, name: str, source: str, size: int = 5, alpha: float = 1e-4) -> str:
        """Normalisation across channels with AlexNet's exponent."""
        return self.add(name, LRN(size, alpha, 0.75, 1.0), source)

    def gather(self, name: str, source: str, channels: Iterable[int]) -> str:
        """Some channels, in this order."""
        return self.add(name, Gather(tuple(channels)), source)

    def excited(
        self, name: str, source: str, inner: int, activation: Operation, gate: Operation, gain: float = 1.0
    ) -> str:
        """Squeeze and excitation (Hu et al. 2018): all pixels times a gate that their average makes, a channel."""
        squeezed = self.conv(f"{name}_squeeze", self.global_average(f"{name}_average", source), inner, 1, gain=gain)
        last = self.add(f"{name}_inner", activation, squeezed)
        gated = self.add(f"{name}_gate", gate, self.conv(f"{name}_excite", last, self.channels(source), 1))
        return self.eltwise(name, "prod", gated, source)

    def concat(self, name: str, *sources: str) -> str:
        """Concatenation of channels."""
        return self.add(name, Concat(), *sources)

    def eltwise(
        self, name: str, kind: Literal["sum", "max", "min", "prod"], *sources: str, coefficients: tuple[float, ...] = ()
    ) -> str:
        """Element-wise sum, maximum, minimum or product."""
        return self.add(name, Eltwise(kind, coefficients), *sources)

    def softmax(self, source: str) -> str:
        """Softmax that ends the network."""
        return self.add("prob", Softmax(), source)
