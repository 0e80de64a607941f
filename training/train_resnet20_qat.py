r"""Train the shipped ResNet-20 a few epochs on with its int8 steps in place, and export it as quantized ONNX.

Usage::

    python training/train_resnet20_qat.py /usr/share/datasets/fashion-mnist --output resnet20-qat.onnx

BatchNorm is folded into the convolutions first. Then every tensor that NVDLA writes and all weights pass through
PyTorch's fake quantization: symmetric int8, the scale of a tensor one 127th of its largest magnitude in some training
images, that of a filter one 127th of its largest weight. Both of PyTorch's exporters make pairs of QuantizeLinear and
DequantizeLinear of them: the one by TorchScript writes OUTPUT, the newer one ``OUTPUT-dynamo``.

The number of epochs is fixed, the last weights are kept, and nothing is chosen by the accuracy on the test images:
onnxruntime measures it on the exported file, before and after training.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from train_resnet20 import BATCH, BLOCKS, SEED, TASKS, WEIGHT_DECAY, Block, Normalised, ResNet20, augment, rate

from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import BatchNorm, Convolution, InnerProduct, Network, Scale

TASK = TASKS["fashion-mnist"]
SHIPPED = Path(__file__).resolve().parents[1] / "resources" / "resnet20-fashion-mnist"
EPOCHS = 2
LEARNING_RATE = 0.004
"""A 25th of what the weights were trained with: they are to move by steps of int8, not to be learned anew."""
MOMENTUM = 0.9
CALIBRATION = 1024
"""Training images that the scales of tensors are taken from."""
OPSETS = {False: 13, True: 18}
"""Of both exporters: the first that has scales a channel, and the first that the newer one writes."""
LOW, HIGH = -128, 127


class Steps(nn.Module):
    """Rounds a tensor to multiples of a scale; while it observes, it notes the largest magnitude and rounds nothing."""

    scale: Tensor
    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.0))
        self.register_buffer("zero", torch.tensor(0, dtype=torch.int32))
        self.observing = True

    def forward(self, values: Tensor) -> Tensor:
        """Multiples of the scale, -128 to 127 of it."""
        if self.observing:
            self.scale = torch.maximum(self.scale, values.detach().abs().max() / HIGH)
            return values
        return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero, LOW, HIGH)


def filter_scales(weight: Tensor) -> Tensor:
    """Return a 127th of the largest weight of each filter."""
    return weight.detach().abs().flatten(1).amax(1) / HIGH


class Layer(nn.Module):
    """A convolution, or a fully connected layer, with int8 weights; ReLU, if asked for; int8 results."""

    scales: Tensor
    zeros: Tensor

    def __init__(self, inner: nn.Conv2d | nn.Linear, relu: bool) -> None:
        super().__init__()
        self.inner, self.relu, self.steps = inner, relu, Steps()
        self.register_buffer("scales", filter_scales(inner.weight))
        self.register_buffer("zeros", torch.zeros(len(inner.weight), dtype=torch.int32))

    def freeze(self) -> None:
        """Take the scales of the weights as they are now: a file has them as constants, not how they are computed."""
        self.scales = filter_scales(self.inner.weight)

    def forward(self, values: Tensor) -> Tensor:
        """Results, rounded once."""
        if self.training:
            self.freeze()
        weight = torch.fake_quantize_per_channel_affine(self.inner.weight, self.scales, self.zeros, 0, LOW, HIGH)
        if isinstance(self.inner, nn.Conv2d):
            result = functional.conv2d(values, weight, self.inner.bias, self.inner.stride, self.inner.padding)
        else:
            result = functional.linear(values, weight, self.inner.bias)
        rounded_result: Tensor = self.steps(functional.relu(result) if self.relu else result)
        return rounded_result


class QuantizedBlock(nn.Module):
    """`Block` with int8 steps behind each convolution and behind the sum."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.first, self.second = Layer(fold(block.first), True), Layer(fold(block.second), False)
        self.shortcut = None if block.shortcut is None else Layer(fold(block.shortcut), False)
        self.steps = Steps()

    def forward(self, images: Tensor) -> Tensor:
        """Sum of both branches, clamped at zero."""
        inner = self.second(self.first(images))
        outer = images if self.shortcut is None else self.shortcut(images)
        result: Tensor = self.steps(functional.relu(inner + outer))
        return result


class QuantizedResNet20(nn.Module):
    """`ResNet20` without BatchNorm, and with int8 steps."""

    def __init__(self, model: ResNet20) -> None:
        super().__init__()
        self.input, self.stem = Steps(), Layer(fold(model.stem), True)
        self.blocks = nn.Sequential(*(QuantizedBlock(block) for block in model.blocks if isinstance(block, Block)))
        self.pooled, self.fc = Steps(), Layer(model.fc, False)

    def forward(self, images: Tensor) -> Tensor:
        """Scores before Softmax, ``(n, 10)``."""
        features = self.blocks(self.stem(self.input(images)))
        scores: Tensor = self.fc(self.pooled(functional.adaptive_avg_pool2d(features, 1)).flatten(1))
        return scores


@torch.no_grad()
def fold(part: Normalised) -> nn.Conv2d:
    """Return the convolution that computes what convolution and BatchNorm compute."""
    conv, norm = part.conv, part.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)  # type: ignore[arg-type]
    folded.weight.copy_(conv.weight * gain[:, None, None, None])
    assert folded.bias is not None
    folded.bias.copy_(norm.bias - norm.running_mean * gain)
    return folded


@torch.no_grad()
def load(model: ResNet20, network: Network) -> None:
    """Take the weights of a network that `train_resnet20.as_network` made."""

    def take(part: Normalised, name: str) -> None:
        conv, norm, scale = (network.by_name[f"{name}{end}"].operation for end in ("", "_bn", "_scale"))
        assert isinstance(conv, Convolution)
        assert isinstance(norm, BatchNorm)
        assert isinstance(scale, Scale)
        values = (conv.weights, norm.mean, norm.variance, scale.gamma, scale.beta)
        into = (part.conv.weight, part.norm.running_mean, part.norm.running_var, part.norm.weight, part.norm.bias)
        for tensor, value in zip(into, values, strict=True):
            assert tensor is not None
            tensor.copy_(torch.from_numpy(np.array(value)))

    take(model.stem, "conv1")
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        prefix = f"res{index // BLOCKS + 2}{'abc'[index % BLOCKS]}"
        take(block.first, f"{prefix}_branch2a")
        take(block.second, f"{prefix}_branch2b")
        if block.shortcut is not None:
            take(block.shortcut, f"{prefix}_branch1")
    last = network.by_name["fc"].operation
    assert isinstance(last, InnerProduct)
    model.fc.weight.copy_(torch.from_numpy(np.array(last.weights)))
    model.fc.bias.copy_(torch.from_numpy(np.array(last.bias)))


@contextmanager
def observing(model: nn.Module) -> Iterator[None]:
    """Let all tensors pass as they are, and note how large they are."""
    steps = [part for part in model.modules() if isinstance(part, Steps)]
    for part in steps:
        part.observing = True
    yield
    for part in steps:
        part.observing = False


def train(model: QuantizedResNet20, images: Tensor, labels: Tensor, epochs: int, most: int | None) -> None:
    """Gradient descent; gradients pass the rounding as if it were not there."""
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)
    steps = min(-(-len(images) // BATCH), most or len(images))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, epochs * steps))
    model.train()
    for epoch in range(1, epochs + 1):
        total, start = 0.0, time.monotonic()
        for batch in torch.randperm(len(images)).split(BATCH)[:steps]:
            loss = functional.cross_entropy(model(augment(images[batch], TASK.shift).movedim(3, 1)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(f"epoch {epoch}: loss {total / steps:.4f}, {time.monotonic() - start:.0f} s", flush=True)


def export(model: QuantizedResNet20, image: Tensor, path: Path, dynamo: bool) -> None:
    """Write QDQ ONNX; the newer exporter (of torch 2.14) takes fake quantization only where the batch size is fixed."""
    for part in model.modules():
        if isinstance(part, Layer):
            part.freeze()
    names = {"input_names": ["data"], "output_names": ["scores"]}
    free = {"external_data": False} if dynamo else {"dynamic_axes": {"data": {0: "batch"}, "scores": {0: "batch"}}}
    opset = OPSETS[dynamo]
    torch.onnx.export(model.eval(), (image,), str(path), **names, **free, opset_version=opset, dynamo=dynamo)  # type: ignore[arg-type]


def correct(path: Path, images: NDArray[np.float32], labels: NDArray[np.int64]) -> int:
    """Count the images that onnxruntime classifies correctly with the exported file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[0]
    ends = range(0, len(images), size if isinstance(size, int) else 100)
    parts = zip(np.split(images, ends[1:]), np.split(labels, ends[1:]), strict=True)
    return sum(int((session.run(None, {"data": x})[0].argmax(1) == y).sum()) for x, y in parts)


def main() -> None:
    """Load, calibrate, train, export, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="times that each image is seen")
    parser.add_argument("--steps", type=int, help="batches of an epoch, where not all")
    parser.add_argument("--device", default="cpu", help="PyTorch's name of the device; cuda is much faster")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)
    start = time.monotonic()
    (pixels, labels), (test_pixels, test_labels) = TASK.read(arguments.data)

    def as_input(values: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = values.reshape(*values.shape[:3], -1)
        return (values.astype(np.float32) - np.float32(TASK.mean)) * np.float32(TASK.scale)

    plain = ResNet20(len(TASK.mean))
    load(plain, read_network(SHIPPED / "deploy.prototxt", SHIPPED / "resnet20.caffemodel"))
    model = QuantizedResNet20(plain).to(arguments.device, memory_format=torch.channels_last)
    images, truth = torch.from_numpy(as_input(pixels)), torch.from_numpy(labels)
    images, truth = images.to(arguments.device), truth.to(arguments.device)
    with torch.no_grad(), observing(model):
        model(images[:CALIBRATION].movedim(3, 1))
    tests = np.ascontiguousarray(np.moveaxis(as_input(test_pixels), 3, 1))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)

    def measure(when: str, path: Path, dynamo: bool) -> None:
        export(model.to("cpu"), torch.from_numpy(tests[:1]), path, dynamo)
        right = correct(path, tests, test_labels)
        print(f"{when}: {path.name}: {right}/{len(tests)} correct, {time.monotonic() - start:.0f} s", flush=True)
        model.to(arguments.device)

    measure("before training", arguments.output, dynamo=False)
    train(model, images, truth, arguments.epochs, arguments.steps)
    measure("after training", arguments.output, dynamo=False)
    measure("after training", arguments.output.with_stem(f"{arguments.output.stem}-dynamo"), dynamo=True)


if __name__ == "__main__":
    main()
