"""The networks: torchvision's and timm's own classes where these can be thin, else what people write by hand.

Needs torch, torchvision and timm.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from timm.models import efficientnet
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import densenet, mobilenet, mobilenetv3, resnet, shufflenetv2, squeezenet
from torchvision.ops.misc import Conv2dNormActivation

CLASSES = 10


@dataclass(frozen=True)
class Entry:
    """One network.

    Attributes
    ----------
    make : Callable
        Returns the module; its weights are random as PyTorch has them.
    channels, side : int
        Of its input.
    """

    make: Callable[[], nn.Module]
    channels: int = 3
    side: int = 32


class LeNet(nn.Module):
    """A thin LeNet-5 as a tutorial has it: functions, `view` and Softmax in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 12, 5)
        self.fc1, self.fc2 = nn.Linear(12 * 5 * 5, 24), nn.Linear(24, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities, ``(n, 10)``."""
        features = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        features = functional.max_pool2d(functional.relu(self.conv2(features)), 2)
        features = functional.relu(self.fc1(features.view(features.size(0), -1)))
        return functional.softmax(self.fc2(functional.dropout(features, 0.5, self.training)), dim=1)


def vgg() -> nn.Module:
    """3x3 convolutions in pairs, poolings, and three fully connected layers with dropout."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (8, 8, 16):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        inputs = outputs
    layers += [nn.Flatten(), nn.Linear(16 * 4 * 4, 16), nn.ReLU(inplace=True), nn.Dropout()]
    return nn.Sequential(*layers, nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, CLASSES))


def resnet18() -> nn.Module:
    """Torchvision's ResNet-18 with an eighth of the channels and less, which it has no argument for."""
    network = resnet.ResNet(resnet.BasicBlock, [2, 2, 2, 2], num_classes=CLASSES)
    network.inplanes = 8
    network.conv1, network.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
    for number, planes in enumerate((8, 8, 12, 16), start=1):
        stride = 1 if number == 1 else 2
        setattr(network, f"layer{number}", network._make_layer(resnet.BasicBlock, planes, 2, stride))
    network.fc = nn.Linear(16, CLASSES)
    return network


def squeezenet11() -> nn.Module:
    """Torchvision's SqueezeNet 1.1 with an eighth of the channels; its poolings round up."""
    network = squeezenet.SqueezeNet("1_1", num_classes=CLASSES)
    fires = [(8, 2), (16, 2), None, (16, 4), (32, 4), None, (32, 6), (48, 6), (48, 8), (64, 8)]
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True)]
    inputs = 8
    for fire in fires:
        if fire is None:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        else:
            outputs, squeezed = fire
            layers.append(squeezenet.Fire(inputs, squeezed, outputs // 2, outputs // 2))
            inputs = outputs
    network.features = nn.Sequential(*layers)
    network.classifier[1] = nn.Conv2d(inputs, CLASSES, 1)
    return network


def mobilenet_v2() -> nn.Module:
    """Torchvision's MobileNetV2, thin and with fewer repeats; its width does not thin the last convolution."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 2, 2), (6, 96, 1, 1), (6, 160, 1, 2))
    setting = [list(stage) for stage in stages]  # Expansion, channels, repeats and stride.
    network = mobilenet.MobileNetV2(CLASSES, width_mult=0.1, inverted_residual_setting=setting)
    inputs = network.features[-1][0].in_channels
    network.features[-1] = Conv2dNormActivation(inputs, 64, kernel_size=1, activation_layer=nn.ReLU6)
    network.classifier[1] = nn.Linear(64, CLASSES)
    return network


def mobilenet_v3() -> nn.Module:
    """Torchvision's MobileNetV3-small, thin: squeeze and excitation, HardSwish, HardSigmoid."""
    setting, _ = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_small", width_mult=0.1)
    return mobilenet.MobileNetV3(setting, 64, num_classes=CLASSES, width_mult=0.1)


def shufflenet_v2() -> nn.Module:
    """Torchvision's ShuffleNetV2 x0.5 with a third of its channels and less."""
    return shufflenetv2.ShuffleNetV2([4, 8, 4], [8, 16, 16, 24, 48], num_classes=CLASSES)


def densenet_thin() -> nn.Module:
    """Torchvision's DenseNet of four blocks: BatchNorm and ReLU come before each convolution, behind a Concat."""
    return densenet.DenseNet(6, (2, 2, 2, 1), 12, bn_size=2, num_classes=CLASSES)


def efficientnet_lite(pad_type: str = "") -> nn.Module:
    """EfficientNet-Lite of timm's parts, thin: depthwise convolutions, ReLU6, no squeeze and excitation.

    Parameters
    ----------
    pad_type : str
        "same": as TensorFlow's, where the padding of strided convolutions is uneven.
    """
    stages = "ds_r1_k3_s1_e1_c8 ir_r2_k3_s2_e4_c8 ir_r2_k5_s2_e4_c16 ir_r1_k3_s2_e4_c16 ir_r1_k5_s1_e4_c24"
    blocks = efficientnet.decode_arch_def([[stage] for stage in stages.split()])
    network = efficientnet.EfficientNet(
        blocks, CLASSES, num_features=64, stem_size=8, act_layer=nn.ReLU6, pad_type=pad_type
    )
    assert isinstance(network, nn.Module)
    return network


class UNet(nn.Module):
    """Encoder and decoder with Concat between them; grows by a transposed convolution or by Upsample.

    Parameters
    ----------
    transposed : bool
        Which of both.
    """

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.first, self.second, self.third = self._pair(3, 8), self._pair(8, 8), self._pair(8, 16)
        self.up2: nn.Module = nn.ConvTranspose2d(16, 8, 2, 2)
        self.up1: nn.Module = nn.ConvTranspose2d(8, 8, 3, 2, padding=1, output_padding=1)
        if not transposed:
            self.up2 = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(16, 8, 1))
            self.up1 = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(8, 8, 1))
        self.back2, self.back1 = self._pair(16, 8), self._pair(16, 8)
        self.head = nn.Conv2d(8, 4, 1)

    @staticmethod
    def _pair(inputs: int, outputs: int) -> nn.Module:
        layers: list[nn.Module] = []
        for source in (inputs, outputs):
            layers += [nn.Conv2d(source, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
        return nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of four classes for each pixel."""
        first = self.first(images)
        second = self.second(functional.max_pool2d(first, 2))
        third = self.third(functional.max_pool2d(second, 2))
        back = self.back2(torch.cat([self.up2(third), second], dim=1))
        back = self.back1(torch.cat([self.up1(back), first], dim=1))
        scores: Tensor = self.head(back)
        return scores


class Assorted(nn.Module):
    """What the others lack and needs no table: preprocessing inside, dilation, uneven padding, odd poolings, Split."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1))
        self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 12, 4, 2), nn.LeakyReLU(0.1))
        self.left = nn.Sequential(nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=2), nn.PReLU(6))
        self.right = nn.Sequential(nn.Conv2d(6, 6, (1, 3), padding=(0, 1)), nn.Hardtanh(0.0, 4.0))
        self.average = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        self.included = nn.AvgPool2d(3, 2, 1, count_include_pad=True)
        self.gain = nn.Parameter(torch.rand(1, 12, 1, 1) + 0.5)
        self.last = nn.Conv2d(24, 16, 3, padding=1)
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logarithms of probabilities of images whose pixels are 0 to 255."""
        features = self.stem((images - self.mean) / self.deviation)
        left, right = features.chunk(2, dim=1)
        left, right = self.left(left), self.right(right)
        features = torch.cat([left + right, torch.maximum(left, right)], dim=1) * self.gain - 0.1
        both = torch.cat([self.average(features), self.included(features)], dim=1)  # 8 x 8 of 15 x 15, each.
        features = torch.clamp(self.last(both), min=0.0)
        pooled = torch.cat([features.mean(dim=(2, 3)), functional.adaptive_max_pool2d(features, 1).flatten(1)], dim=1)
        return functional.log_softmax(self.fc(pooled), dim=-1)


class Curves(nn.Module):
    """Functions of one value that need a table, each behind a convolution, and products of tensors."""

    def __init__(self) -> None:
        super().__init__()
        curves = (nn.Sigmoid(), nn.Tanh(), nn.SiLU(), nn.GELU(), nn.Hardswish(), nn.Hardsigmoid())
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.parts = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), curve) for curve in curves)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Scores, ``(n, 10)``."""
        features = functional.max_pool2d(self.stem(images), 2)
        for first, second in zip(self.parts[::2], self.parts[1::2], strict=True):
            features = first(features) * second(features) + features
        return self.fc(functional.adaptive_avg_pool2d(features, 1).squeeze(-1).squeeze(-1))


NETWORKS: Mapping[str, Entry] = MappingProxyType(
    {
        "lenet": Entry(LeNet, channels=1),
        "vgg": Entry(vgg),
        "resnet18": Entry(resnet18, side=64),
        "squeezenet11": Entry(squeezenet11, side=64),
        "mobilenetv2": Entry(mobilenet_v2, side=64),
        "mobilenetv3": Entry(mobilenet_v3, side=64),
        "shufflenetv2": Entry(shufflenet_v2, side=64),
        "densenet": Entry(densenet_thin, side=64),
        "efficientnetlite": Entry(efficientnet_lite, side=64),
        "efficientnetlite-same": Entry(partial(efficientnet_lite, "same"), side=64),
        "unet-transposed": Entry(partial(UNet, transposed=True)),
        "unet-nearest": Entry(partial(UNet, transposed=False)),
        "assorted": Entry(Assorted),
        "curves": Entry(Curves),
    }
)
