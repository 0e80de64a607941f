"""Train the denoising autoencoder that ships, on the 60,000 training images of Fashion-MNIST.

Usage::

    python training/train_denoiser.py /usr/share/datasets/fashion-mnist --output resources/denoise-fashion-mnist

Two convolutions halve the image twice, one more works on the small one, two deconvolutions enlarge it again, all with
ReLU. Every epoch adds other noise to the images, as ``make_noisy_fashion_mnist.py`` does to the ones that ship. Nothing
is chosen by the test images: the number of epochs is fixed, the last weights are kept, and the PSNR of the shipped
noisy images is measured once, at the end.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from make_noisy_fashion_mnist import noisy
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from train_resnet20 import Layers, as_array, rate, read_fashion_mnist

from nvdla_quant.images.datasets import read_idx
from nvdla_quant.network import graph
from nvdla_quant.network.caffe import writer as caffe_writer
from nvdla_quant.network.shapes import assemble

SEED = 20240
CHANNELS = (16, 32)
"""Of the image of 14 x 14, and of that of 7 x 7."""
PIXEL_SCALE = 1 / 256
"""Network input = noisy pixel / 256; output = clean pixel / 256."""
BRIGHTNESS = 73 / 256
"""Mean of the training images, and what the last layer begins with: behind a ReLU, zero would learn nothing."""
EPOCHS = 5
BATCH = 128
LEARNING_RATE = 0.004


class Denoiser(nn.Module):
    """Clean images of noisy ones, both (n, 1, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        outer, inner = CHANNELS
        self.conv1 = nn.Conv2d(1, outer, 3, 2, 1)
        self.conv2 = nn.Conv2d(outer, inner, 3, 2, 1)
        self.conv3 = nn.Conv2d(inner, inner, 3, 1, 1)
        self.deconv1 = nn.ConvTranspose2d(inner, outer, 4, 2, 1)
        self.deconv2 = nn.ConvTranspose2d(outer, 1, 4, 2, 1)
        nn.init.constant_(self.deconv2.bias, BRIGHTNESS)

    def forward(self, images: Tensor) -> Tensor:
        """Return the images without their noise."""
        for module in self.children():
            images = functional.relu(module(images))
        return images


def as_input(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels (n, 28, 28) as network input or output (n, 1, 28, 28)."""
    return torch.from_numpy(pixels[:, None].astype(np.float32) * np.float32(PIXEL_SCALE))


def train(model: Denoiser, pixels: NDArray[np.uint8]) -> None:
    """Lower the squared difference to the clean pixels (n, 28, 28) by Adam; the rate rises, then falls to zero."""
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    steps = EPOCHS * -(-len(pixels) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    rng = np.random.default_rng(SEED)
    for epoch in range(1, EPOCHS + 1):
        start, total = time.monotonic(), 0.0
        for batch in torch.randperm(len(pixels)).split(BATCH):
            clean = pixels[batch.numpy()]
            loss = functional.mse_loss(model(as_input(noisy(clean, rng))), as_input(clean))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        print(f"epoch {epoch}: loss {total / len(pixels):.6f}, {time.monotonic() - start:.0f} s", flush=True)


def round_kernels(model: Denoiser) -> None:
    """Round the kernels to float16's numbers, in place, so that the file packs to little more than half."""
    for values in model.parameters():
        if values.ndim == 4:
            values.data = values.data.half().float()


def psnr(images: Tensor, clean: Tensor) -> float:
    """Peak signal-to-noise ratio of each image, in dB, averaged; the peak is a white pixel."""
    errors = (images - clean).square().mean((1, 2, 3))
    return float((10 * torch.log10((255 * PIXEL_SCALE) ** 2 / errors)).mean())


def as_network(model: Denoiser) -> graph.Network:
    """Put the trained weights into layers, each with a ReLU behind it: in place, but for the last, the output."""
    rows = Layers()
    last, modules = "data", dict(model.named_children())
    for number, (name, module) in enumerate(modules.items(), start=1):
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        kind = graph.Convolution if isinstance(module, nn.Conv2d) else graph.Deconvolution
        (stride, _), pad = module.stride, int(module.padding[0])
        weights, bias = as_array(module.weight), as_array(module.bias)
        last = rows.add(name, kind(weights, bias, (stride, stride), (pad, pad)), last)
        inner = number < len(modules)
        last = rows.add(f"relu{number}" if inner else "denoised", graph.ReLU(), last, in_place=inner)
    return assemble("denoiser", (graph.Tensor("data", (1, 28, 28), "data"),), rows.layers, rows.blobs)


def main() -> None:
    """Train, report, and write deploy.prototxt and denoise.caffemodel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's four official files")
    parser.add_argument("--shipped", type=Path, default=Path("resources"), help="folder of the images that ship")
    parser.add_argument("--output", type=Path, required=True, help="folder for the network")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a sum split over threads depends on their number
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    start = time.monotonic()
    (pixels, _), _ = read_fashion_mnist(arguments.data)

    model = Denoiser()
    train(model, pixels.reshape(-1, 28, 28))
    round_kernels(model)
    arguments.output.mkdir(parents=True, exist_ok=True)
    network = as_network(model)
    caffe_writer.write_prototxt(network, arguments.output / "deploy.prototxt")
    caffe_writer.write_caffemodel(network, arguments.output / "denoise.caffemodel")

    name = "t10k-images-idx3-ubyte.xz"
    images = as_input(read_idx(arguments.shipped / "noisy-fashion-mnist" / name, "images", 3))
    clean = as_input(read_idx(arguments.shipped / "fashion-mnist" / name, "images", 3)[: len(images)])
    with torch.no_grad():
        denoised = psnr(model(images), clean)
    print(f"{len(images)} test images: PSNR {psnr(images, clean):.2f} dB noisy, {denoised:.2f} dB denoised")
    print(f"{time.monotonic() - start:.0f} seconds, torch {torch.__version__}")


if __name__ == "__main__":
    main()
