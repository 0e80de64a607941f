"""Pack exported networks for `tests/data/exports`.

Usage, from the repository's root: ``python -m tests.exports.pack FOLDER/NETWORK.onnx ...``

writes ``NETWORK.onnx.xz`` into `tests/data/exports`, a sixth as large: large weights are rounded to a few bits, which
nothing that a test asks of a random network depends on. The rest stays as the exporter wrote it. Networks that a
calibration cache was taken of lie there as they are, since the cache holds for their very weights.
"""

import argparse
import lzma
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.exports.packed import FOLDER

LEAST = 64
"""Values of a tensor that is worth rounding."""
STEPS = 7
"""The largest magnitude of a tensor is as many steps or up to twice as many."""


def rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to multiples of a power of two, so that the lower half of each number is zeros."""
    step = 2.0 ** np.floor(np.log2(np.abs(values).max() / STEPS))
    return (np.rint(values / step) * step).astype(np.float32)


def pack(path: Path) -> Path:
    """Round what is large and pack the file; return where it lies."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1 and values.size >= LEAST and values.any():
            tensor.CopyFrom(numpy_helper.from_array(rounded(values), tensor.name))
    packed = FOLDER / f"{path.name}.xz"
    packed.write_bytes(lzma.compress(model.SerializeToString(), preset=9 | lzma.PRESET_EXTREME))
    return packed


def main() -> None:
    """Pack the files that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="networks as the exporters wrote them")
    for path in parser.parse_args().files:
        packed = pack(path)
        print(f"{packed.name}: {packed.stat().st_size:,} of {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
