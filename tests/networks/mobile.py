"""Networks for telephones as they come from ONNX: bounds, functions of one value, gates, channels by number."""

import numpy as np

from nvdla_quant.network.graph import Clip, HardSigmoid, HardSwish, Network, Operation, ReLU, Sigmoid, Swish
from tests.networks.builder import Builder


def _convolved(
    builder: Builder,
    name: str,
    source: str,
    outputs: int,
    kernel: int,
    activation: Operation,
    *,
    stride: int = 1,
    group: int = 1,
) -> str:
    """Convolution, BatchNorm, Scale and an activation."""
    last = builder.conv_norm(name, source, outputs, kernel, stride, group=group, relu=False)
    return builder.add(f"{name}_act", activation, last)


def _inverted(
    builder: Builder,
    name: str,
    source: str,
    inner: int,
    outputs: int,
    kernel: int,
    activation: Operation,
    *,
    stride: int = 1,
    gate: Operation | None = None,
) -> str:
    """Inverted residual (Sandler et al. 2018): wide within, narrow between; with a gate, squeeze and excitation too."""
    last = _convolved(builder, f"{name}_expand", source, inner, 1, activation)
    last = _convolved(builder, f"{name}_dw", last, inner, kernel, activation, stride=stride, group=inner)
    if gate is not None:
        last = builder.excited(f"{name}_se", last, max(8, inner // 4), ReLU(), gate)
    adds = stride == 1 and builder.channels(source) == outputs
    # Small beside what they are added to, as trained ones are.
    last = builder.conv_norm(f"{name}_project", last, outputs, 1, relu=False, size=0.3 if adds else 1.0)
    return builder.eltwise(f"{name}_sum", "sum", source, last) if adds else last


def mobilenet2_relu6(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """MobileNet v2 (Sandler et al. 2018) with ReLU6, and TensorFlow's padding of the first convolution."""
    builder = Builder("MobileNet v2, ReLU6", (3, side, side), width, seed)
    six = Clip(0.0, 6.0)
    first = builder.conv("conv1", "data", builder.wide(32), 3, 2, pad=0, far=(1, 1), gain=2.5)
    last = builder.add("conv1_act", six, first)
    stages = ((6, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (expansion, outputs, count, stride) in enumerate(stages):
        for number in range(count):
            inner, name = builder.channels(last) * expansion, f"block{stage}{number}"
            last = _inverted(builder, name, last, inner, builder.wide(outputs), 3, six, stride=1 if number else stride)
    last = builder.global_average("pool", _convolved(builder, "conv_last", last, builder.wide(1280), 1, six))
    builder.softmax(builder.fc("fc", last, builder.wide(1000)))
    return builder.build()


def mobilenet3(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """MobileNet v3, small (Howard et al. 2019, table 2): hard swish, and gates of a hard sigmoid."""
    builder = Builder("MobileNet v3, small", (3, side, side), width, seed)
    relu, swish, gate = ReLU(), HardSwish(), HardSigmoid(1 / 6)
    last = _convolved(builder, "conv1", "data", builder.wide(16), 3, swish, stride=2)
    blocks: tuple[tuple[int, int, int, bool, Operation, int], ...] = (
        (3, 16, 16, True, relu, 2),
        (3, 72, 24, False, relu, 2),
        (3, 88, 24, False, relu, 1),
        (5, 96, 40, True, swish, 2),
        *[(5, 240, 40, True, swish, 1)] * 2,
        (5, 120, 48, True, swish, 1),
        (5, 144, 48, True, swish, 1),
        (5, 288, 96, True, swish, 2),
        *[(5, 576, 96, True, swish, 1)] * 2,
    )
    for number, (kernel, inner, outputs, gated, activation, stride) in enumerate(blocks):
        shape = builder.wide(inner), builder.wide(outputs), kernel
        used = gate if gated else None
        last = _inverted(builder, f"block{number}", last, *shape, activation, stride=stride, gate=used)
    last = builder.global_average("pool", _convolved(builder, "conv_last", last, builder.wide(576), 1, swish))
    last = builder.add("fc1_act", swish, builder.fc("fc1", last, builder.wide(1024)))
    builder.softmax(builder.fc("fc2", last, builder.wide(1000)))
    return builder.build()


def efficientnet(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """EfficientNet B0 (Tan and Le 2019, table 1): swish, and gates of a sigmoid."""
    builder = Builder("EfficientNet B0", (3, side, side), width, seed)
    swish, gate = Swish(), Sigmoid()
    last = _convolved(builder, "conv1", "data", builder.wide(32), 3, swish, stride=2)
    stages = ((1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2), (6, 5, 112, 3, 1))
    stages += ((6, 5, 192, 4, 2), (6, 3, 320, 1, 1))
    for stage, (expansion, kernel, outputs, count, stride) in enumerate(stages):
        for number in range(count):
            inner, by = builder.channels(last) * expansion, 1 if number else stride
            shape = inner, builder.wide(outputs), kernel
            last = _inverted(builder, f"block{stage}{number}", last, *shape, swish, stride=by, gate=gate)
    last = builder.global_average("pool", _convolved(builder, "conv_last", last, builder.wide(1280), 1, swish))
    builder.softmax(builder.fc("fc", last, builder.wide(1000)))
    return builder.build()


def shufflenet2(side: int = 224, width: float = 1.0, seed: int | None = 0) -> Network:
    """ShuffleNet v2 (Ma et al. 2018, table 5): a half of the channels goes by, and all are shuffled."""
    builder = Builder("ShuffleNet v2", (3, side, side), width, seed)
    last = builder.conv_norm("conv1", "data", builder.wide(24), 3, 2)
    last = builder.pool("pool1", last, "max", 3, 2, 1)
    for stage, (half, count) in enumerate(((58, 4), (116, 8), (232, 4))):
        for number in range(count):
            last = _shuffled(builder, f"unit{stage}{number}", last, builder.wide(half), number == 0)
    last = builder.global_average("pool", builder.conv_norm("conv5", last, builder.wide(1024), 1))
    builder.softmax(builder.fc("fc", last, builder.wide(1000)))
    return builder.build()


def _shuffled(builder: Builder, name: str, source: str, half: int, first: bool) -> str:
    """One unit; the first of a stage halves the image and reads all channels in both branches."""
    left, right, stride = source, source, 2 if first else 1
    if first:
        channels = builder.channels(source)
        dw = builder.conv_norm(f"{name}_dw0", source, channels, 3, 2, group=channels, relu=False)
        left = builder.conv_norm(f"{name}_left", dw, half, 1)
    else:
        left = builder.gather(f"{name}_near", source, range(half))
        right = builder.gather(f"{name}_far", source, range(half, 2 * half))
    right = builder.conv_norm(f"{name}_in", right, half, 1)
    right = builder.conv_norm(f"{name}_dw", right, half, 3, stride, group=half, relu=False)
    whole = builder.concat(f"{name}_both", left, builder.conv_norm(f"{name}_out", right, half, 1))
    return builder.gather(name, whole, np.arange(2 * half).reshape(2, half).T.ravel().tolist())
