r"""Train a small MobileNetV2 (Sandler et al. 2018) for images of 32 x 32, in Caffe's form and with ReLU for ReLU6.

Usage::

    python training/train_mobilenet.py cifar10 cifar10-jpeg.npz --output resources/mobilenet-cifar10 --device cuda

Each block is a 1x1 convolution that widens, a depthwise 3x3 convolution and a 1x1 convolution without ReLU, beside a
shortcut where the shape stays. NVIDIA's compiler knows no ReLU6, so it is ReLU. Data, schedule and command line are
those of ``train_resnet20.py``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from train_resnet20 import Layers, Normalised, as_array, run

from nvdla_quant.network import graph
from nvdla_quant.network.shapes import assemble

STEM = 16
STAGES = ((1, 16, 1, 1), (4, 16, 2, 1), (4, 24, 3, 2), (4, 40, 3, 2))
"""Factor of widening, channels, blocks, stride of the first."""
HEAD = 160


class Block(nn.Module):
    """Inverted residual: widen, depthwise, narrow."""

    def __init__(self, inputs: int, outputs: int, factor: int, stride: int) -> None:
        super().__init__()
        wide = inputs * factor
        self.widen = Normalised(inputs, wide, 1, 1) if factor > 1 else None
        self.depthwise = Normalised(wide, wide, 3, stride, groups=wide)
        self.narrow = Normalised(wide, outputs, 1, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        """Return the narrow result, plus the input where the shape stays."""
        wide = images if self.widen is None else functional.relu(self.widen(images))
        result: Tensor = self.narrow(functional.relu(self.depthwise(wide)))
        return images + result if self.residual else result


class MobileNet(nn.Module):
    """A convolution, the blocks, a 1x1 convolution, global average pooling, a fully connected layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = Normalised(channels, STEM, 3, 1)
        self.blocks = nn.ModuleList()
        inputs = STEM
        for factor, outputs, count, stride in STAGES:
            for number in range(count):
                self.blocks.append(Block(inputs, outputs, factor, 1 if number else stride))
                inputs = outputs
        self.head = Normalised(inputs, HEAD, 1, 1)
        self.fc = nn.Linear(HEAD, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Scores before Softmax, ``(n, 10)``."""
        features = functional.relu(self.stem(images))
        for block in self.blocks:
            features = block(features)
        scores: Tensor = self.fc(functional.relu(self.head(features)).mean((2, 3)))
        return scores


@torch.no_grad()
def as_network(model: MobileNet, shape: tuple[int, int, int]) -> graph.Network:
    """Put the trained weights into layers as Caffe's MobileNets have them."""
    rows = Layers()
    last = rows.normalised("conv1", model.stem, "data", relu=True)
    for number, block in enumerate(model.blocks, start=1):
        assert isinstance(block, Block)
        inner = last
        if block.widen is not None:
            inner = rows.normalised(f"block{number}_expand", block.widen, inner, relu=True)
        inner = rows.normalised(f"block{number}_depthwise", block.depthwise, inner, relu=True)
        inner = rows.normalised(f"block{number}_project", block.narrow, inner, relu=False)
        last = rows.add(f"block{number}", graph.Eltwise("sum"), last, inner) if block.residual else inner
    last = rows.normalised("conv_last", model.head, last, relu=True)
    size = shape[1] // 4
    last = rows.add("pool", graph.Pooling("average", (size, size)), last)
    last = rows.add("fc", graph.InnerProduct(as_array(model.fc.weight), as_array(model.fc.bias)), last)
    rows.add("prob", graph.Softmax(), last)
    return assemble("MobileNet", (graph.Tensor("data", shape, "data"),), rows.layers, rows.blobs)


if __name__ == "__main__":
    run(__doc__, MobileNet, as_network, "mobilenet")
