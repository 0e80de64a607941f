"""Write the Fashion-MNIST images that ship: the 10,000 official test images, and 1,000 training images to calibrate on.

Usage: ``python training/make_fashion_mnist.py /usr/share/datasets/fashion-mnist resources/fashion-mnist``

The test images are the official ones, packed with xz, which takes a seventh less than gzip; their labels are the
official file. Of each class 100 training images are drawn with a seed, and written in turn (class 0 to 9, then again),
so that the first few are a sample of all.
"""

import argparse
import gzip
import lzma
import shutil
from pathlib import Path

import numpy as np
from make_mnist import idx_bytes, in_turn

from nvdla_quant.images.datasets import IdxRecord, open_dataset

SEED = 20240
EACH = 100
"""Images of each class."""


def xz(content: bytes) -> bytes:
    """Pack as small as xz can."""
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def main() -> None:
    """Write t10k-* and calibration-*."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the four official files")
    parser.add_argument("folder", type=Path, help="where to write")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    test_images = gzip.decompress((arguments.source / "t10k-images-idx3-ubyte.gz").read_bytes())
    (arguments.folder / "t10k-images-idx3-ubyte.xz").write_bytes(xz(test_images))
    shutil.copyfile(arguments.source / "t10k-labels-idx1-ubyte.gz", arguments.folder / "t10k-labels-idx1-ubyte.gz")
    dataset = open_dataset(IdxRecord(*(arguments.source / f"train-{kind}.gz" for kind in kinds)))
    rng = np.random.default_rng(SEED)
    chosen = np.concatenate([rng.choice(np.flatnonzero(dataset.labels == k), EACH, replace=False) for k in range(10)])
    chosen = chosen[in_turn(dataset.labels[chosen].astype(np.uint8))]
    images = np.stack(dataset.load(chosen)).reshape(-1, 28, 28)
    (arguments.folder / "calibration-images-idx3-ubyte.xz").write_bytes(xz(idx_bytes(images)))
    labels = gzip.compress(idx_bytes(dataset.labels[chosen].astype(np.uint8)), 9, mtime=0)
    (arguments.folder / "calibration-labels-idx1-ubyte.gz").write_bytes(labels)
    print(f"{len(images)} calibration images written to {arguments.folder}")


if __name__ == "__main__":
    main()
