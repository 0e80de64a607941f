"""Write CIFAR-10's binary files from a copy that holds the images as JPEG.

Usage: ``python training/make_cifar10.py cifar10-jpeg.npz downloads/cifar10-jpeg``

The copy is lossy, so accuracies on these files are not those on the original ones; `training/README.md` says where they
were used. A record is the label and the planes red, green, blue of 32 x 32 bytes.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from train_resnet20 import read_cifar10

BATCHES = 5


def records(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    """Join labels and planes; `pixels` are (n, 32, 32, 3) in the order B, G, R."""
    planes = pixels[..., ::-1].transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1).tobytes()


def main() -> None:
    """Write data_batch_1.bin to data_batch_5.bin and test_batch.bin; the copy has the classes one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("copy", type=Path, help="cifar10-jpeg.npz")
    parser.add_argument("folder", type=Path, help="where to write")
    arguments = parser.parse_args()
    (pixels, labels), test = read_cifar10(arguments.copy)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for batch in range(BATCHES):
        part = slice(batch, None, BATCHES)
        (arguments.folder / f"data_batch_{batch + 1}.bin").write_bytes(records(pixels[part], labels[part]))
    (arguments.folder / "test_batch.bin").write_bytes(records(*test))


if __name__ == "__main__":
    main()
