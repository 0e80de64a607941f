"""Train the LeNet-5 that ships, in Caffe's shapes, on MNIST images that are not among the shipped ones.

Usage: ``python training/train_lenet.py package/src/digits --output resources/lenet-mnist``

The digits are the JSON files of the Node package mnist (10,000 images). Every image whose pixels equal a shipped
one is removed before anything else, so the shipped images (``resources/mnist``) are never trained on. Of the rest a
seeded twentieth of each digit is held out to watch the training. Nothing is chosen by the shipped images: the number
of epochs is fixed, the last weights are kept, and the accuracy on the shipped images is measured once, at the end.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nvdla_quant.images.datasets import IdxRecord, open_dataset
from nvdla_quant.network import graph
from nvdla_quant.network.caffe import writer as caffe_writer

SEED = 20240
HELD_OUT = 0.05
BATCH = 50
PIXEL_SCALE = 1 / 256
"""Network input = pixel / 256, as in Caffe's own LeNet."""
LEARNING_RATE = 0.02
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
DROPOUT = 0.5
SHIFT, ROTATION, STRETCH = 2.0, math.radians(12), 0.12
"""Augmentation, uniform: pixels each way, radians each way, relative size of each axis."""


class LeNet(nn.Module):
    """Two convolutions, two fully connected layers; the dropout between them exists only while training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.ip1 = nn.Linear(50 * 4 * 4, 500)
        self.ip2 = nn.Linear(500, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Scores before Softmax (n, 10) of inputs (n, 1, 28, 28)."""
        features = functional.max_pool2d(self.conv1(images), 2)
        features = functional.max_pool2d(self.conv2(features), 2)
        hidden = functional.relu(self.ip1(features.flatten(1)))
        scores: Tensor = self.ip2(functional.dropout(hidden, DROPOUT, self.training))
        return scores


def read_digits(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 28, 28) and labels (n,) of 0.json to 9.json, which store pixel / 255 rounded to three places."""
    images, labels = [], []
    for digit in range(10):
        values = np.array(json.loads((folder / f"{digit}.json").read_text())["data"], np.float64)
        images.append(np.rint(values * 255).astype(np.uint8).reshape(-1, 28, 28))
        labels.append(np.full(len(images[-1]), digit, np.int64))
    return np.concatenate(images), np.concatenate(labels)


def without(images: NDArray[np.uint8], excluded: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of `images` equal none of `excluded`, pixel by pixel."""
    seen = {image.tobytes() for image in excluded}
    return np.array([image.tobytes() not in seen for image in images])


def held_out(labels: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mark a random `share` of each class."""
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[rng.choice(members, round(len(members) * share), replace=False)] = True
    return chosen


def augment(images: Tensor) -> Tensor:
    """Shift, rotate and stretch each image of (n, 1, 28, 28) at random, bilinearly, with zeros outside."""

    def uniform(limit: float) -> Tensor:
        return (torch.rand(len(images)) * 2 - 1) * limit

    angle, stretch_x, stretch_y = uniform(ROTATION), 1 + uniform(STRETCH), 1 + uniform(STRETCH)
    half = images.shape[-1] / 2
    row_x = torch.stack((stretch_x * angle.cos(), -stretch_x * angle.sin(), uniform(SHIFT / half)), 1)
    row_y = torch.stack((stretch_y * angle.sin(), stretch_y * angle.cos(), uniform(SHIFT / half)), 1)
    grid = functional.affine_grid(torch.stack((row_x, row_y), 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


@torch.no_grad()
def correct(model: LeNet, images: Tensor, labels: Tensor) -> int:
    """Count the images whose highest score is the label's."""
    model.eval()
    return sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True))


def train(model: LeNet, images: Tensor, labels: Tensor, watch: tuple[Tensor, Tensor], epochs: int) -> None:
    """Gradient descent with Nesterov's momentum; the rate falls from LEARNING_RATE to zero along half a cosine."""
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(1, epochs + 1):
        model.train()
        total = 0.0
        for batch in torch.randperm(len(images)).split(BATCH):
            loss = functional.cross_entropy(model(augment(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        schedule.step()
        if epoch % 10 == 0 or epoch == epochs:
            right = correct(model, *watch)
            print(f"epoch {epoch}: loss {total / len(images):.4f}, held out {right}/{len(watch[1])}", flush=True)


def as_network(model: LeNet) -> graph.Network:
    """Put the trained weights under the layer names of Caffe's LeNet-5, with Softmax at the end."""
    weights = {name: value.detach().numpy().astype(np.float32) for name, value in model.state_dict().items()}

    def parameters(name: str) -> dict[str, graph.Weights]:
        return {"weights": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}

    halve = graph.Pooling("max", (2, 2), (2, 2))
    rows: tuple[tuple[str, graph.Operation, tuple[int, ...], str], ...] = (
        ("conv1", graph.Convolution(**parameters("conv1")), (20, 24, 24), "conv1"),
        ("pool1", halve, (20, 12, 12), "pool1"),
        ("conv2", graph.Convolution(**parameters("conv2")), (50, 8, 8), "conv2"),
        ("pool2", halve, (50, 4, 4), "pool2"),
        ("ip1", graph.InnerProduct(**parameters("ip1")), (500,), "ip1"),
        ("relu1", graph.ReLU(), (500,), "ip1"),
        ("ip2", graph.InnerProduct(**parameters("ip2")), (10,), "ip2"),
        ("prob", graph.Softmax(), (10,), "prob"),
    )
    data = graph.Tensor("data", (1, 28, 28), "data")
    readers = ("data", *(row[0] for row in rows))
    layers = tuple(graph.Layer(name, operation, (readers[i],)) for i, (name, operation, _, _) in enumerate(rows))
    tensors = {"data": data} | {name: graph.Tensor(name, shape, blob) for name, _, shape, blob in rows}
    return graph.Network("LeNet-5", (data,), layers, tensors)


def as_input(images: NDArray[np.uint8]) -> Tensor:
    """Pixels (n, 28, 28) as network input (n, 1, 28, 28)."""
    return torch.from_numpy(images[:, None].astype(np.float32) * np.float32(PIXEL_SCALE))


def main() -> None:
    """Train, report, and write deploy.prototxt and lenet.caffemodel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path, help="folder of 0.json to 9.json")
    parser.add_argument("--shipped", type=Path, default=Path("resources/mnist"), help="the images to keep away from")
    parser.add_argument("--output", type=Path, required=True, help="folder for the network")
    parser.add_argument("--epochs", type=int, default=150)
    arguments = parser.parse_args()
    started = time.monotonic()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # a sum split over threads depends on their number
    torch.use_deterministic_algorithms(True)

    shipped = open_dataset(
        IdxRecord(arguments.shipped / "images-idx3-ubyte.gz", arguments.shipped / "labels-idx1-ubyte.gz")
    )
    shipped_images = np.stack(shipped.load(range(len(shipped))))[..., 0]
    images, labels = read_digits(arguments.digits)
    fresh = without(images, shipped_images)
    watch = held_out(labels[fresh], HELD_OUT, np.random.default_rng(SEED))
    train_images, train_labels = images[fresh][~watch], labels[fresh][~watch]
    print(f"{len(images)} images read, {np.sum(~fresh)} equal to one of the {len(shipped)} shipped ones and removed;")
    print(f"{len(train_labels)} to train on, {np.sum(watch)} held out to watch; {BATCH} a batch, seed {SEED}")

    model = LeNet()
    watched = as_input(images[fresh][watch]), torch.from_numpy(labels[fresh][watch])
    train(model, as_input(train_images), torch.from_numpy(train_labels), watched, arguments.epochs)
    arguments.output.mkdir(parents=True, exist_ok=True)
    network = as_network(model)
    caffe_writer.write_prototxt(network, arguments.output / "deploy.prototxt")
    caffe_writer.write_caffemodel(network, arguments.output / "lenet.caffemodel")
    right = correct(model, as_input(shipped_images), torch.from_numpy(shipped.labels))
    print(f"shipped images: {right} of {len(shipped)} correct ({right / len(shipped):.2%})")
    print(f"{time.monotonic() - started:.0f} seconds, torch {torch.__version__}")


if __name__ == "__main__":
    main()
