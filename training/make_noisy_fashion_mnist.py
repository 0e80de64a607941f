"""Write noisy versions of Fashion-MNIST images that ship, for the denoising network: pixels without labels.

Usage: ``python training/make_noisy_fashion_mnist.py resources/fashion-mnist resources/noisy-fashion-mnist``

To each pixel a normal number of deviation 40 (of 255) is added; the sum is clipped to 0 to 255 and rounded to the
nearest multiple of 5, which are 52 levels: finer ones would be noise that no packer makes smaller. (Of 16 levels,
entropy calibration clips the input at the first: all that it clips falls on a level, so both distributions agree.) The
test images are the first 120 official ones; those to calibrate on are the first 40 calibration images, four of each
class.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
from make_fashion_mnist import xz
from make_mnist import idx_bytes
from numpy.typing import NDArray

from nvdla_quant.images.datasets import read_idx

SEED = 20240
DEVIATION = 40.0
STEP = 5
"""Between two levels: 255 / 51."""
COUNTS = {"t10k": 120, "calibration": 40}


def noisy(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pixels of the same shape, with noise, clipped and rounded to multiples of `STEP`."""
    sums = images + rng.normal(0, DEVIATION, images.shape)
    return (np.rint(sums.clip(0, 255) / STEP) * STEP).astype(np.uint8)


def main() -> None:
    """Write t10k-images-idx3-ubyte.xz and calibration-images-idx3-ubyte.xz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the images that ship")
    parser.add_argument("folder", type=Path, help="where to write")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    for part, count in COUNTS.items():
        name = f"{part}-images-idx3-ubyte.xz"
        plain = idx_bytes(noisy(read_idx(arguments.source / name, "images", 3)[:count], rng))
        packed = xz(plain)
        (arguments.folder / name).write_bytes(packed)
        print(f"{hashlib.sha256(packed).hexdigest()}  {name} ({count} images, {len(packed)} bytes)")


if __name__ == "__main__":
    main()
