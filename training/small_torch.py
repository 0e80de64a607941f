"""Train a small network by PyTorch on the 1,000 calibration images of Fashion-MNIST that ship, and export it as ONNX.

Usage, from the repository's root, in an environment with torch, onnx and onnxscript::

    python training/small_torch.py downloads/small.onnx            # torch.onnx.export's default, dynamo=True
    python training/small_torch.py downloads/small.onnx --script   # dynamo=False, by TorchScript

Half a minute. The network is an example of what goes in, as docs/onnx.md shows it, not one to be used.
"""

import argparse
import gzip
import lzma
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

SEED = 20240
EPOCHS = 30
BATCH = 50
LEARNING_RATE = 0.003
DATA = Path(__file__).resolve().parents[1] / "resources" / "fashion-mnist"


def read() -> tuple[Tensor, Tensor]:
    """Return images, ``(n, 1, 28, 28)`` of 0 to 1, and labels."""
    pixels = np.frombuffer(
        lzma.decompress((DATA / "calibration-images-idx3-ubyte.xz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(
        gzip.decompress((DATA / "calibration-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
    )
    images = torch.from_numpy(pixels.astype(np.float32) / np.float32(255)).reshape(-1, 1, 28, 28)
    return images, torch.from_numpy(labels.astype(np.int64))


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU, maximum."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))


def make() -> nn.Module:
    """Three blocks, an average and ten classes."""
    blocks = block(1, 16), block(16, 32), block(32, 64)
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Minimise the cross entropy of all images."""
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval()


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the ONNX file")
    parser.add_argument("--script", action="store_true", help="export with dynamo=False")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    images, labels = read()
    model = make()
    train(model, images, labels)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    example, path = (images[:2],), str(arguments.output)
    if arguments.script:
        torch.onnx.export(model, example, path, dynamo=False, input_names=["image"], dynamic_axes={"image": {0: "n"}})
    else:
        torch.onnx.export(model, example, path, input_names=["image"], dynamic_shapes=({0: "n"},))


if __name__ == "__main__":
    main()
