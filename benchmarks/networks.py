"""Networks to measure on: public topologies with He-initialised weights from a seed."""

import numpy as np

from nvdla_quant.network.graph import (
    BatchNorm,
    Convolution,
    Eltwise,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    ReLU,
    Scale,
    Softmax,
    Tensor,
    Weights,
)
from nvdla_quant.network.shapes import assemble


class _Builder:
    """Adds layers one behind the other; each method returns the name of the tensor that it wrote."""

    def __init__(self, seed: int) -> None:
        self.layers: list[Layer] = []
        self._rng = np.random.default_rng(seed)

    def add(self, name: str, operation: Operation, *inputs: str) -> str:
        self.layers.append(Layer(name, operation, inputs))
        return name

    def weights(self, *shape: int) -> Weights:
        """He et al. (2015): normal with variance 2 / inputs of an output."""
        return self._rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)

    def conv(self, name: str, source: str, channels: tuple[int, int], kernel: int, stride: int, relu: bool) -> str:
        """Convolution, BatchNorm, Scale and, if asked for, ReLU; padded so that a stride of 1 keeps the size."""
        inputs, outputs = channels
        pad = (kernel - 1) // 2
        weights = self.weights(outputs, inputs, kernel, kernel)
        self.add(name, Convolution(weights, None, (stride, stride), (pad, pad)), source)
        mean = self._rng.normal(0, 0.1, outputs).astype(np.float32)
        variance = self._rng.uniform(0.8, 1.2, outputs).astype(np.float32)
        self.add(f"{name}_bn", BatchNorm(mean, variance, 1e-5), name)
        gamma = self._rng.uniform(0.6, 1, outputs).astype(np.float32)
        beta = self._rng.normal(0, 0.1, outputs).astype(np.float32)
        last = self.add(f"{name}_scale", Scale(gamma, beta), f"{name}_bn")
        return self.add(f"{name}_relu", ReLU(), last) if relu else last

    def block(self, name: str, source: str, channels: tuple[int, int], stride: int) -> str:
        """Residual block of two 3x3 convolutions; the shortcut is a 1x1 convolution where the shape changes."""
        inputs, outputs = channels
        inner = self.conv(f"{name}a", source, channels, 3, stride, relu=True)
        inner = self.conv(f"{name}b", inner, (outputs, outputs), 3, 1, relu=False)
        same = stride == 1 and inputs == outputs
        shortcut = source if same else self.conv(f"{name}s", source, channels, 1, stride, relu=False)
        return self.add(f"{name}_relu", ReLU(), self.add(f"{name}_sum", Eltwise("sum"), shortcut, inner))

    def bottleneck(self, name: str, source: str, channels: tuple[int, int], stride: int) -> str:
        """Residual block of 1x1, 3x3 and 1x1 convolutions, a quarter as wide inside; the stride is the first one's."""
        inputs, outputs = channels
        narrow = outputs // 4
        inner = self.conv(f"{name}a", source, (inputs, narrow), 1, stride, relu=True)
        inner = self.conv(f"{name}b", inner, (narrow, narrow), 3, 1, relu=True)
        inner = self.conv(f"{name}c", inner, (narrow, outputs), 1, 1, relu=False)
        same = stride == 1 and inputs == outputs
        shortcut = source if same else self.conv(f"{name}s", source, channels, 1, stride, relu=False)
        return self.add(f"{name}_relu", ReLU(), self.add(f"{name}_sum", Eltwise("sum"), shortcut, inner))

    def head(self, source: str, features: int, size: int, classes: int) -> None:
        """Global average pooling, fully connected, Softmax."""
        pool = self.add("pool", Pooling("average", (size, size)), source)
        self.add("fc", InnerProduct(self.weights(classes, features), np.zeros(classes, np.float32)), pool)
        self.add("prob", Softmax(), "fc")


def resnet20(seed: int = 0) -> Network:
    """ResNet-20 for 3 x 32 x 32 (He et al. 2016, section 4.2): 9 blocks of 16, 32 and 64 channels, 41 MMAC."""
    builder = _Builder(seed)
    last = builder.conv("conv", "data", (3, 16), 3, 1, relu=True)
    inputs = 16
    for stage, outputs in enumerate((16, 32, 64)):
        for number in range(3):
            stride = 2 if stage and not number else 1
            last = builder.block(f"res{stage}{number}", last, (inputs, outputs), stride)
            inputs = outputs
    builder.head(last, 64, 8, 10)
    return assemble("ResNet-20", (Tensor("data", (3, 32, 32), "data"),), builder.layers)


def resnet18(seed: int = 0) -> Network:
    """ResNet-18 for 3 x 224 x 224 (He et al. 2016, table 1): 8 blocks of 64 to 512 channels, 1.8 GMAC."""
    builder = _Builder(seed)
    last = builder.conv("conv", "data", (3, 64), 7, 2, relu=True)
    last = builder.add("pool1", Pooling("max", (3, 3), (2, 2)), last)
    inputs = 64
    for stage, outputs in enumerate((64, 128, 256, 512)):
        for number in range(2):
            stride = 2 if stage and not number else 1
            last = builder.block(f"res{stage}{number}", last, (inputs, outputs), stride)
            inputs = outputs
    builder.head(last, 512, 7, 1000)
    return assemble("ResNet-18", (Tensor("data", (3, 224, 224), "data"),), builder.layers)


def resnet50(seed: int = 0) -> Network:
    """ResNet-50 for 3 x 224 x 224 (He et al. 2016, table 1): 16 bottleneck blocks of 256 to 2048 channels, 3.9 GMAC."""
    builder = _Builder(seed)
    last = builder.conv("conv", "data", (3, 64), 7, 2, relu=True)
    last = builder.add("pool1", Pooling("max", (3, 3), (2, 2)), last)
    inputs = 64
    for stage, (outputs, blocks) in enumerate(((256, 3), (512, 4), (1024, 6), (2048, 3))):
        for number in range(blocks):
            stride = 2 if stage and not number else 1
            last = builder.bottleneck(f"res{stage}{number}", last, (inputs, outputs), stride)
            inputs = outputs
    builder.head(last, 2048, 7, 1000)
    return assemble("ResNet-50", (Tensor("data", (3, 224, 224), "data"),), builder.layers)
