r"""Train a ResNet-20 (He et al. 2016, section 4.2) in Caffe's form: convolution, BatchNorm, Scale, in-place ReLU.

Usage::

    python training/train_resnet20.py fashion-mnist /usr/share/datasets/fashion-mnist \
        --output resources/resnet20-fashion-mnist
    python training/train_resnet20.py cifar10 cifar10-jpeg.npz --output resources/resnet20-cifar10

The official training images are trained on, all of them; nothing is chosen by the test images: the number of epochs
is fixed, the last weights are kept, and the accuracy on the test images is measured once, at the end. After each epoch
the state is saved beside the output, so that a run that was cut off goes on with the same command.
"""

import argparse
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from nvdla_quant.images.datasets import IdxRecord, open_dataset
from nvdla_quant.network import graph
from nvdla_quant.network.caffe import writer as caffe_writer
from nvdla_quant.network.shapes import assemble

SEED = 20240
BATCH = 128
LEARNING_RATE = 0.1
WARM_UP = 0.1
"""Share of all steps in which the rate rises to its peak."""
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
EPSILON = 1e-5
"""Of BatchNorm; PyTorch's and Caffe's own default."""
STAGES = (16, 32, 64)
BLOCKS = 3

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Pixels, ``(n, h, w, channels)``, and labels."""


@dataclass(frozen=True)
class Task:
    """What is trained on, and how its pixels become the network's input: ``(pixel - mean) * scale``.

    Attributes
    ----------
    mean : tuple of float
        One for each channel of the input, in its order (B, G, R).
    scale : float
        Factor.
    epochs : int
        Times that each image is seen.
    shift : int
        Most pixels by which an image is shifted each way; half of all are mirrored too.
    read : Callable
        Returns training and test images of a path.
    rounded : bool
        Whether the kernels end as numbers of float16, so that the file packs to little more than half.
    """

    mean: tuple[float, ...]
    scale: float
    epochs: int
    shift: int
    read: Callable[[Path], tuple[Images, Images]]
    rounded: bool = False


def read_fashion_mnist(folder: Path) -> tuple[Images, Images]:
    """Read the four IDX files."""

    def part(prefix: str) -> Images:
        names = (folder / f"{prefix}-images-idx3-ubyte.gz", folder / f"{prefix}-labels-idx1-ubyte.gz")
        dataset = open_dataset(IdxRecord(*names))
        return np.stack(dataset.load(range(len(dataset)))), dataset.labels.astype(np.int64)

    return part("train"), part("t10k")


def read_cifar10(path: Path) -> tuple[Images, Images]:
    """Read an npz of concatenated JPEG files, their lengths and their labels, as B, G, R."""

    def part(archive: np.lib.npyio.NpzFile, prefix: str) -> Images:
        packed = archive[f"{prefix}_bytes"].tobytes()
        ends = np.cumsum(archive[f"{prefix}_len"], dtype=np.int64)
        starts = ends - archive[f"{prefix}_len"]
        pixels = [Image.open(io.BytesIO(packed[a:b])).convert("RGB") for a, b in zip(starts, ends, strict=True)]
        return np.stack(pixels)[..., ::-1].copy(), archive[f"{prefix}_y"].astype(np.int64)

    with np.load(path) as archive:
        return part(archive, "train"), part(archive, "test")


TASKS = {
    "fashion-mnist": Task((73.0,), 0.01, 20, 2, read_fashion_mnist),
    "cifar10": Task((114.0, 123.0, 125.0), 0.016, 200, 4, read_cifar10, rounded=True),
}


class Normalised(nn.Module):
    """Convolution without bias and batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, EPSILON)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Normalised result."""
        result: Tensor = self.norm(self.conv(images))
        return result


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = Normalised(inputs, outputs, 3, stride)
        self.second = Normalised(outputs, outputs, 3, 1)
        self.shortcut = Normalised(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None

    def forward(self, images: Tensor) -> Tensor:
        """Sum of both branches, clamped at zero."""
        inner = self.second(functional.relu(self.first(images)))
        return functional.relu(inner + (images if self.shortcut is None else self.shortcut(images)))


class ResNet20(nn.Module):
    """A convolution, nine blocks in three stages, global average pooling, a fully connected layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = Normalised(channels, STAGES[0], 3, 1)
        self.blocks = nn.ModuleList()
        inputs = STAGES[0]
        for stage, outputs in enumerate(STAGES):
            for number in range(BLOCKS):
                self.blocks.append(Block(inputs, outputs, 2 if stage and not number else 1))
                inputs = outputs
        self.fc = nn.Linear(inputs, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Scores before Softmax, ``(n, 10)``."""
        features = functional.relu(self.stem(images))
        for block in self.blocks:
            features = block(features)
        scores: Tensor = self.fc(features.mean((2, 3)))
        return scores


def augment(images: Tensor, shift: int) -> Tensor:
    """Shift each image of ``(n, h, w, c)`` by up to `shift` pixels each way (zeros come in) and mirror half of them."""
    count, height, width, _ = images.shape
    padded = functional.pad(images, (0, 0, shift, shift, shift, shift))
    rows = torch.randint(2 * shift + 1, (count, 1)) + torch.arange(height)
    columns = torch.randint(2 * shift + 1, (count, 1)) + torch.arange(width)
    mirrored = torch.rand(count, 1) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    indices = (torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :])
    return padded[tuple(index.to(images.device) for index in indices)]


def rate(step: int, steps: int) -> float:
    """Return the share of the peak rate: it rises along a line, then falls to zero along half a cosine."""
    rising = int(steps * WARM_UP)
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


@torch.no_grad()
def correct(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Count the images whose highest score is the label's."""
    model.eval()
    parts = zip(images.split(500), labels.split(500), strict=True)
    return sum(int((model(x.movedim(3, 1)).argmax(1) == y).sum()) for x, y in parts)


def round_kernels(model: nn.Module) -> None:
    """Round the weights of convolutions and of the last layer to float16's numbers, in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data = module.weight.data.half().float()


def train(model: nn.Module, task: Task, images: Tensor, labels: Tensor, state: Path) -> None:
    """Gradient descent with Nesterov's momentum; goes on from `state` where that exists.

    Random numbers are the CPU's, wherever the images are.
    """
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)
    steps = task.epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=False)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["random"])
        first = saved["epoch"]
    for epoch in range(first + 1, task.epochs + 1):
        model.train()
        total, right = torch.zeros(2, device=images.device)
        start = time.monotonic()
        for batch in torch.randperm(len(images)).to(images.device).split(BATCH):
            inputs, truth = augment(images[batch], task.shift).movedim(3, 1), labels[batch]
            scores = model(inputs)
            loss = functional.cross_entropy(scores, truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(batch)
            right += (scores.argmax(1) == truth).sum()
        share = 100 * float(right) / len(images)
        seconds = time.monotonic() - start
        print(f"epoch {epoch}: loss {float(total) / len(images):.4f}, {share:.2f} % right, {seconds:.0f} s", flush=True)
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
        saved = {name: part.state_dict() for name, part in parts.items()}
        partial = state.with_suffix(".partial")
        torch.save(saved | {"random": torch.get_rng_state(), "epoch": epoch}, partial)
        partial.replace(state)


class Layers:
    """Layers in order, and the blob of each: what works in place keeps the blob of what it reads."""

    def __init__(self) -> None:
        self.layers: list[graph.Layer] = []
        self.blobs: dict[str, str] = {}

    def add(self, name: str, operation: graph.Operation, *inputs: str, in_place: bool = False) -> str:
        """Append a layer; return its name."""
        self.layers.append(graph.Layer(name, operation, inputs))
        self.blobs[name] = self.blobs[inputs[0]] if in_place else name
        return name

    def normalised(self, name: str, module: Normalised, source: str, relu: bool) -> str:
        """Append a convolution, what normalises it and, if asked for, a ReLU; return the last one's name."""
        conv, norm = module.conv, module.norm
        stride, pad = conv.stride[0], int(conv.padding[0])
        operation = graph.Convolution(as_array(conv.weight), None, (stride, stride), (pad, pad), group=conv.groups)
        last = self.add(name, operation, source)
        statistics = graph.BatchNorm(as_array(norm.running_mean), as_array(norm.running_var), EPSILON)
        last = self.add(f"{name}_bn", statistics, last, in_place=True)
        last = self.add(f"{name}_scale", graph.Scale(as_array(norm.weight), as_array(norm.bias)), last, in_place=True)
        return self.add(f"{name}_relu", graph.ReLU(), last, in_place=True) if relu else last


def as_array(values: Tensor | None) -> graph.Weights:
    """Float32 values on the CPU."""
    assert values is not None
    return values.detach().cpu().numpy().astype(np.float32)


def as_network(model: ResNet20, shape: tuple[int, int, int]) -> graph.Network:
    """Put the trained weights into layers as Caffe's residual networks have them."""
    rows = Layers()
    last = rows.normalised("conv1", model.stem, "data", relu=True)
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        prefix = f"res{index // BLOCKS + 2}{'abc'[index % BLOCKS]}"
        inner = rows.normalised(f"{prefix}_branch2a", block.first, last, relu=True)
        inner = rows.normalised(f"{prefix}_branch2b", block.second, inner, relu=False)
        if block.shortcut is not None:
            last = rows.normalised(f"{prefix}_branch1", block.shortcut, last, relu=False)
        last = rows.add(prefix, graph.Eltwise("sum"), last, inner)
        last = rows.add(f"{prefix}_relu", graph.ReLU(), last, in_place=True)
    size = shape[1] // 4
    last = rows.add("pool", graph.Pooling("average", (size, size)), last)
    last = rows.add("fc", graph.InnerProduct(as_array(model.fc.weight), as_array(model.fc.bias)), last)
    rows.add("prob", graph.Softmax(), last)
    return assemble("ResNet-20", (graph.Tensor("data", shape, "data"),), rows.layers, rows.blobs)


def run(
    description: str | None,
    create: Callable[[int], nn.Module],
    describe: Callable[..., graph.Network],
    stem: str,
) -> None:
    """Train what `create` makes for the channels of a task; write deploy.prototxt and ``<stem>.caffemodel``.

    The command line is the same for every network; `describe` puts a trained one, with a shape, into layers.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS, help="what to train on")
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files, or cifar10-jpeg.npz")
    parser.add_argument("--output", type=Path, required=True, help="folder for the network")
    parser.add_argument("--device", default="cpu", help="PyTorch's name of the device; cuda is much faster")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    arguments = parser.parse_args()
    task = TASKS[arguments.task]
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)
    start = time.monotonic()
    (pixels, labels), (test_pixels, test_labels) = task.read(arguments.data)

    def as_input(values: NDArray[np.uint8]) -> Tensor:
        values = values.reshape(*values.shape[:3], -1)
        return torch.from_numpy((values.astype(np.float32) - np.float32(task.mean)) * np.float32(task.scale))

    model = create(len(task.mean)).to(arguments.device, memory_format=torch.channels_last)
    arguments.output.mkdir(parents=True, exist_ok=True)
    state = arguments.output / "training.pt"
    train(model, task, *(part.to(arguments.device) for part in (as_input(pixels), torch.from_numpy(labels))), state)
    model.to("cpu")
    if task.rounded:
        round_kernels(model)
    right = correct(model, as_input(test_pixels), torch.from_numpy(test_labels))
    print(f"test images: {right}/{len(test_labels)} correct, {time.monotonic() - start:.0f} s", flush=True)
    network = describe(model, (len(task.mean), *pixels.shape[1:3]))
    caffe_writer.write_prototxt(network, arguments.output / "deploy.prototxt")
    caffe_writer.write_caffemodel(network, arguments.output / f"{stem}.caffemodel")
    state.unlink()


if __name__ == "__main__":
    run(__doc__, ResNet20, as_network, "resnet20")
