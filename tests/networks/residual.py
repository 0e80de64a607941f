"""Networks with shortcuts: ResNet, MobileNet, DenseNet, U-Net."""

from collections.abc import Sequence

from nvdla_quant.network.graph import Network
from tests.networks.builder import Builder


def _block(builder: Builder, name: str, source: str, outputs: int, stride: int) -> str:
    """Residual block of two 3x3 convolutions."""
    inner = builder.conv_norm(f"{name}a", source, outputs, 3, stride)
    return _joined(builder, name, source, builder.conv_norm(f"{name}b", inner, outputs, 3, relu=False), stride)


def _bottleneck(builder: Builder, name: str, source: str, outputs: int, stride: int) -> str:
    """Residual block of 1x1, 3x3 and 1x1 convolutions, a quarter as wide inside; the stride is the first one's."""
    narrow = max(outputs // 4, 1)
    inner = builder.conv_norm(f"{name}a", source, narrow, 1, stride)
    inner = builder.conv_norm(f"{name}b", inner, narrow, 3)
    return _joined(builder, name, source, builder.conv_norm(f"{name}c", inner, outputs, 1, relu=False), stride)


def _joined(builder: Builder, name: str, source: str, inner: str, stride: int) -> str:
    """Sum with the shortcut, a 1x1 convolution where the shape changes, and ReLU."""
    if builder.shape(source) == builder.shape(inner):
        shortcut = source
    else:
        shortcut = builder.conv_norm(f"{name}s", source, builder.channels(inner), 1, stride, relu=False)
    return builder.relu(f"{name}_relu", builder.eltwise(f"{name}_sum", "sum", shortcut, inner))


def _classified(builder: Builder, source: str, classes: int) -> Network:
    """Global average, fully connected, Softmax."""
    builder.softmax(builder.fc("fc", builder.global_average("pool", source), classes))
    return builder.build()


def resnet20(side: int = 32, width: float = 1.0, seed: int | None = 0) -> Network:
    """ResNet-20 for CIFAR (He et al. 2016, section 4.2): 9 blocks of 16, 32 and 64 channels, 41 MMAC."""
    builder = Builder("ResNet-20", (3, side, side), width, seed)
    last = builder.conv_norm("conv", "data", builder.wide(16), 3)
    for stage, outputs in enumerate((16, 32, 64)):
        for number in range(3):
            last = _block(builder, f"res{stage}{number}", last, builder.wide(outputs), 2 if stage and not number else 1)
    return _classified(builder, last, 10)


def resnet18(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """ResNet-18 (He et al. 2016, table 1): 8 blocks of 64 to 512 channels, 1.8 GMAC at 224."""
    builder = Builder("ResNet-18", (3, side, side), width, seed)
    last = builder.conv_norm("conv", "data", builder.wide(64), 7, 2)
    last = builder.pool("pool1", last, "max", 3, 2)
    for stage, outputs in enumerate((64, 128, 256, 512)):
        for number in range(2):
            last = _block(builder, f"res{stage}{number}", last, builder.wide(outputs), 2 if stage and not number else 1)
    return _classified(builder, last, builder.wide(1000))


def resnet50(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """ResNet-50 (He et al. 2016, table 1): 16 bottleneck blocks of 256 to 2048 channels, 3.9 GMAC at 224."""
    builder = Builder("ResNet-50", (3, side, side), width, seed)
    last = builder.conv_norm("conv", "data", builder.wide(64), 7, 2)
    last = builder.pool("pool1", last, "max", 3, 2)
    for stage, (outputs, blocks) in enumerate(((256, 3), (512, 4), (1024, 6), (2048, 3))):
        for number in range(blocks):
            stride = 2 if stage and not number else 1
            last = _bottleneck(builder, f"res{stage}{number}", last, builder.wide(outputs), stride)
    return _classified(builder, last, builder.wide(1000))


def mobilenet1(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """MobileNet v1 (Howard et al. 2017): 28 layers with weights, depthwise and 1 x 1 in turn, a 1 x 1 at the end."""
    builder = Builder("MobileNet v1", (3, side, side), width, seed)
    last = builder.conv_norm("conv1", "data", builder.wide(32), 3, 2)
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for number, (outputs, stride) in enumerate(blocks, start=2):
        inputs = builder.channels(last)
        last = builder.conv_norm(f"conv{number}_dw", last, inputs, 3, stride, group=inputs)
        last = builder.conv_norm(f"conv{number}_sep", last, builder.wide(outputs), 1)
    builder.softmax(builder.conv("fc7", builder.global_average("pool6", last), builder.wide(1000), 1))
    return builder.build()


def mobilenet2(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """MobileNet v2 (Sandler et al. 2018) with ReLU for ReLU6: narrow sums without activation, wide depthwise layers."""
    builder = Builder("MobileNet v2", (3, side, side), width, seed)
    last = builder.conv_norm("conv1", "data", builder.wide(32), 3, 2)
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (expansion, outputs, count, first) in enumerate(stages):
        for number in range(count):
            name, source = f"block{stage}{number}", last
            inner = builder.channels(source) * expansion
            if expansion > 1:
                last = builder.conv_norm(f"{name}_expand", last, inner, 1)
            last = builder.conv_norm(f"{name}_dw", last, inner, 3, 1 if number else first, group=inner)
            # Small beside what they are added to, as trained ones are: else 17 blocks are beyond int8.
            size = 0.3 if number else 1.0
            last = builder.conv_norm(f"{name}_project", last, builder.wide(outputs), 1, relu=False, size=size)
            if builder.shape(source) == builder.shape(last):
                last = builder.eltwise(f"{name}_sum", "sum", source, last)
    return _classified(builder, builder.conv_norm("conv_last", last, builder.wide(1280), 1), builder.wide(1000))


def _dense_layer(builder: Builder, name: str, source: str, growth: int, bottleneck: bool) -> str:
    """BatchNorm, ReLU and convolution, behind a 1x1 bottleneck where asked for; beside what it read."""
    last = builder.relu(f"{name}_relu1", builder.norm(f"{name}_n1", source))
    if bottleneck:
        last = builder.conv(f"{name}_conv1", last, 4 * growth, 1, bias=False)
        last = builder.relu(f"{name}_relu2", builder.norm(f"{name}_n2", last))
    return builder.concat(name, source, builder.conv(f"{name}_conv", last, growth, 3, bias=False))


def _dense(builder: Builder, last: str, blocks: Sequence[int], growth: int, bottleneck: bool, classes: int) -> Network:
    """Dense blocks; between them a 1x1 convolution, which halves bottlenecked channels, and an average of 2 x 2.

    A narrower network is as much shallower, down to a quarter: its depth is what takes time.
    """
    blocks = tuple(max(2, round(count * max(0.25, builder.width))) for count in blocks)
    for block, count in enumerate(blocks, start=1):
        for number in range(1, count + 1):
            last = _dense_layer(builder, f"block{block}_{number}", last, growth, bottleneck)
        last = builder.relu(f"relu{block}", builder.norm(f"n{block}", last))
        if block < len(blocks):
            outputs = builder.channels(last) // (2 if bottleneck else 1)
            last = builder.conv(f"transition{block}", last, outputs, 1, bias=False)
            if min(builder.chw(last)[1:]) > 1:
                last = builder.pool(f"transition{block}_pool", last, "average", 2, 2)
    return _classified(builder, last, classes)


def densenet40(side: int = 32, width: float = 1.0, seed: int | None = 0) -> Network:
    """DenseNet-40 for CIFAR (Huang et al. 2017): three blocks of 12 layers, each adding 12 channels."""
    builder = Builder("DenseNet-40", (3, side, side), width, seed)
    last = builder.conv("conv1", "data", builder.wide(16), 3)
    return _dense(builder, last, (12, 12, 12), builder.wide(12), bottleneck=False, classes=10)


def densenet121(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """DenseNet-121 (Huang et al. 2017, table 1): growth 32, bottlenecks, transitions that halve."""
    builder = Builder("DenseNet-121", (3, side, side), width, seed)
    last = builder.conv_norm("conv1", "data", builder.wide(64), 7, 2)
    last = builder.pool("pool1", last, "max", 3, 2, 1)
    return _dense(builder, last, (6, 12, 24, 16), builder.wide(32), bottleneck=True, classes=builder.wide(1000))


def unet(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """U-Net (Ronneberger et al. 2015), padded, half as wide: deconvolution, Concat, convolutions; no Softmax."""
    builder = Builder("U-Net", (3, side, side), width, seed)
    last, skipped = "data", []
    for level, outputs in enumerate((32, 64, 128, 256, 512)):
        if level:
            skipped.append(last)
            last = builder.pool(f"pool{level}", last, "max", 2, 2)
        last = builder.conv_relu(f"down{level}a", last, builder.wide(outputs), 3)
        last = builder.conv_relu(f"down{level}b", last, builder.wide(outputs), 3)
    for level, skip in reversed(list(enumerate(skipped))):
        outputs = builder.channels(skip)
        last = builder.concat(f"cat{level}", skip, builder.deconv(f"up{level}", last, outputs, 2, 2))
        last = builder.conv_relu(f"up{level}a", last, outputs, 3)
        last = builder.conv_relu(f"up{level}b", last, outputs, 3)
    builder.conv("score", last, 2, 1)
    return builder.build()
