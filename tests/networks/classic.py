"""Classifiers without shortcuts: AlexNet, CaffeNet, VGG-16, GoogLeNet, SqueezeNet, NIN, BVLC's two for CIFAR-10."""

from nvdla_quant.network.graph import Dropout, Network
from tests.networks.builder import Builder


def _alexnet(name: str, side: int, width: float, seed: int | None, normalised_first: bool) -> Network:
    builder = Builder(name, (3, side, side), width, seed)

    def reduced(number: int, source: str) -> str:
        if normalised_first:
            return builder.pool(f"pool{number}", builder.lrn(f"norm{number}", source), "max", 3, 2)
        return builder.lrn(f"norm{number}", builder.pool(f"pool{number}", source, "max", 3, 2))

    last = reduced(1, builder.conv_relu("conv1", "data", builder.wide(96, 2), 11, 4, pad=0))
    last = reduced(2, builder.conv_relu("conv2", last, builder.wide(256, 2), 5, group=2))
    last = builder.conv_relu("conv3", last, builder.wide(384, 2), 3)
    last = builder.conv_relu("conv4", last, builder.wide(384, 2), 3, group=2)
    last = builder.conv_relu("conv5", last, builder.wide(256, 2), 3, group=2)
    return _fully_connected(builder, builder.pool("pool5", last, "max", 3, 2))


def _fully_connected(builder: Builder, last: str) -> Network:
    """Two wide layers with Dropout, the classes, Softmax."""
    for number in (6, 7):
        last = builder.relu(f"relu{number}", builder.fc(f"fc{number}", last, builder.wide(4096)))
        last = builder.add(f"drop{number}", Dropout(), last)
    builder.softmax(builder.fc("fc8", last, builder.wide(1000)))
    return builder.build()


def alexnet(side: int = 227, width: float = 1.0, seed: int | None = 0) -> Network:
    """AlexNet (Krizhevsky et al. 2012): two groups, normalisation before pooling."""
    return _alexnet("AlexNet", side, width, seed, normalised_first=True)


def caffenet(side: int = 227, width: float = 1.0, seed: int | None = 0) -> Network:
    """CaffeNet: AlexNet with pooling before normalisation."""
    return _alexnet("CaffeNet", side, width, seed, normalised_first=False)


def vgg16(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """VGG-16 (Simonyan, Zisserman 2015) with fc6, fc7 and fc8: 138 million weights."""
    builder = Builder("VGG-16", (3, side, side), width, seed)
    last = "data"
    for stage, (outputs, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for number in range(1, count + 1):
            last = builder.conv_relu(f"conv{stage}_{number}", last, builder.wide(outputs), 3)
        last = builder.pool(f"pool{stage}", last, "max", 2, 2)
    return _fully_connected(builder, last)


INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Channels of each module (Szegedy et al. 2015): 1x1; before and of 3x3; before and of 5x5; behind a pooling."""


def googlenet(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """GoogLeNet (inception v1): nine modules of four branches, the 4d's first of 112 channels."""
    builder = Builder("GoogLeNet", (3, side, side), width, seed)
    last = builder.conv_relu("conv1", "data", builder.wide(64), 7, 2)
    last = builder.lrn("norm1", builder.pool("pool1", last, "max", 3, 2))
    last = builder.conv_relu("conv2_reduce", last, builder.wide(64), 1)
    last = builder.lrn("norm2", builder.conv_relu("conv2", last, builder.wide(192), 3))
    last = builder.pool("pool2", last, "max", 3, 2)
    for name, counts in INCEPTION.items():
        one, before_three, three, before_five, five, pooled = map(builder.wide, counts)
        branches = (
            builder.conv_relu(f"{name}_1x1", last, one, 1),
            builder.conv_relu(f"{name}_3x3", builder.conv_relu(f"{name}_3x3_reduce", last, before_three, 1), three, 3),
            builder.conv_relu(f"{name}_5x5", builder.conv_relu(f"{name}_5x5_reduce", last, before_five, 1), five, 5),
            builder.conv_relu(f"{name}_proj", builder.pool(f"{name}_pool", last, "max", 3, 1, 1), pooled, 1),
        )
        last = builder.concat(f"{name}_output", *branches)
        if name in ("3b", "4e"):
            last = builder.pool(f"pool{name[0]}", last, "max", 3, 2)
    last = builder.add("drop", Dropout(), builder.global_average("pool5", last))
    builder.softmax(builder.fc("classifier", last, builder.wide(1000)))
    return builder.build()


def _squeezenet(
    name: str, side: int, width: float, seed: int | None, first: tuple[int, int], pools: tuple[int, int]
) -> Network:
    """SqueezeNet; `first` is kernels and size of the first layer, `pools` the modules that poolings follow."""
    builder = Builder(name, (3, side, side), width, seed)
    outputs, kernel = first
    last = builder.conv_relu("conv1", "data", builder.wide(outputs), kernel, 2, pad=0)
    last = builder.pool("pool1", last, "max", 3, 2)
    for number, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64), start=2):
        inner = builder.conv_relu(f"fire{number}_squeeze", last, builder.wide(squeezed), 1)
        expanded = builder.wide(4 * squeezed)
        one = builder.conv_relu(f"fire{number}_1x1", inner, expanded, 1)
        three = builder.conv_relu(f"fire{number}_3x3", inner, expanded, 3)
        last = builder.concat(f"fire{number}", one, three)
        if number in pools:
            last = builder.pool(f"pool{number}", last, "max", 3, 2)
    last = builder.conv_relu("conv10", builder.add("drop9", Dropout(), last), builder.wide(1000), 1)
    builder.softmax(builder.global_average("pool10", last))
    return builder.build()


def squeezenet10(side: int = 227, width: float = 1.0, seed: int | None = 0) -> Network:
    """SqueezeNet 1.0 (Iandola et al. 2016): ends in a global average of 13 x 13 pixels."""
    return _squeezenet("SqueezeNet 1.0", side, width, seed, (96, 7), (4, 8))


def squeezenet11(side: int = 227, width: float = 1.0, seed: int | None = 0) -> Network:
    """SqueezeNet 1.1: ends in a global average of 14 x 14 pixels."""
    return _squeezenet("SqueezeNet 1.1", side, width, seed, (64, 3), (3, 5))


def nin(side: int = 32, width: float = 1.0, seed: int | None = 0) -> Network:
    """Network in network for CIFAR-10 (Lin et al. 2014): 1 x 1 convolutions, averages, no fully connected layer."""
    builder = Builder("NIN", (3, side, side), width, seed)
    last = builder.conv_relu("conv1", "data", builder.wide(192), 5)
    last = builder.conv_relu("cccp1", last, builder.wide(160), 1)
    last = builder.conv_relu("cccp2", last, builder.wide(96), 1)
    last = builder.pool("pool1", last, "max", 3, 2)
    for stage, kernel in ((2, 5), (3, 3)):
        last = builder.conv_relu(f"conv{stage}", last, builder.wide(192), kernel)
        last = builder.conv_relu(f"cccp{2 * stage - 1}", last, builder.wide(192), 1)
        last = builder.conv_relu(f"cccp{2 * stage}", last, 10 if stage == 3 else builder.wide(192), 1)
        if stage == 2:
            last = builder.pool("pool2", last, "average", 3, 2)
    builder.softmax(builder.global_average("pool3", last))
    return builder.build()


def cifar10_quick(side: int = 32, width: float = 1.0, seed: int | None = 0) -> Network:
    """BVLC's cifar10_quick: averages of 3 x 3 with stride 2, whose last windows leave the image."""
    builder = Builder("CIFAR10 quick", (3, side, side), width, seed)
    last = builder.conv("conv1", "data", builder.wide(32), 5)
    last = builder.relu("relu1", builder.pool("pool1", last, "max", 3, 2))
    last = builder.conv_relu("conv2", last, builder.wide(32), 5)
    last = builder.pool("pool2", last, "average", 3, 2)
    last = builder.conv_relu("conv3", last, builder.wide(64), 5)
    last = builder.pool("pool3", last, "average", 3, 2)
    builder.softmax(builder.fc("ip2", builder.fc("ip1", last, builder.wide(64)), 10))
    return builder.build()


def cifar10_full(side: int = 32, width: float = 1.0, seed: int | None = 0) -> Network:
    """BVLC's cifar10_full, with its normalisations across channels instead of within one."""
    builder = Builder("CIFAR10 full", (3, side, side), width, seed)
    last = builder.conv("conv1", "data", builder.wide(32), 5)
    last = builder.relu("relu1", builder.pool("pool1", last, "max", 3, 2))
    last = builder.lrn("norm1", last, 3, 5e-5)
    last = builder.conv_relu("conv2", last, builder.wide(32), 5)
    last = builder.lrn("norm2", builder.pool("pool2", last, "average", 3, 2), 3, 5e-5)
    last = builder.conv_relu("conv3", last, builder.wide(64), 5)
    builder.softmax(builder.fc("ip1", builder.pool("pool3", last, "average", 3, 2), 10))
    return builder.build()
