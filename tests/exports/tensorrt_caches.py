"""Take calibration caches of exported networks by TensorRT's ONNX parser, on a machine with a GPU.

Usage, from the repository's root, with Python 3.8 to 3.10, numpy and TensorRT 8.5.3.1 (no other package is needed;
memory on the GPU comes from whatever `nvdla_quant.calibration.device_memory` finds)::

    python -m tests.exports.tensorrt_caches FOLDER NETWORK.onnx ...

writes ``FOLDER/<network>.<entropy|minmax>.cache`` as TensorRT wrote it, and ``FOLDER/<network>.layers.txt``: the layers
that its parser made, each with the names of its outputs. Images are noise from a seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nvdla_quant.calibration.tensorrt import _without_external_libraries, import_tensorrt, make_calibrator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

METHODS = {"entropy": "tensorrt-entropy", "minmax": "tensorrt-minmax"}
SEED = 20251
IMAGES = 64
BATCH = 8
"""Where the number of images is open."""


class Noise:
    """Images as `make_calibrator` takes them: a coarse pattern and fine grain, about as large as normalised pixels."""

    def __init__(self, shape: Sequence[int], batch_size: int) -> None:
        random = np.random.default_rng(SEED)
        channels, height, width = shape
        coarse = random.standard_normal((IMAGES, channels, 4, 4)).repeat(height // 4, 2).repeat(width // 4, 3)
        fine = random.standard_normal((IMAGES, channels, height, width))
        self.pixels = (coarse + 0.3 * fine).astype(np.float32)
        self.batch_size = batch_size

    def batches(self) -> Iterator[tuple[Any, int]]:
        """Yield each batch, and how many images it holds."""
        for first in range(0, IMAGES, self.batch_size):
            yield self.pixels[first : first + self.batch_size], self.batch_size


def layers(network: Any) -> str:
    """Return a line for each layer: its number, type, name and outputs."""
    rows = []
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        outputs = [layer.get_output(i).name for i in range(layer.num_outputs)]
        rows.append("\t".join([str(number), str(layer.type).split(".")[-1], layer.name, *outputs]))
    return "\n".join(rows) + "\n"


def calibrate(trt: Any, model: Path, method: str, folder: Path) -> str:
    """Build an int8 engine, whose cache the calibrator writes; return the parser's layers."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.read_bytes()):
        said = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise SystemExit(f"{model}: TensorRT's parser does not take it: {said}")
    source = network.get_input(0)
    batch = BATCH if source.shape[0] < 0 else source.shape[0]
    whole = (batch, *source.shape[1:])
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 30)
    _without_external_libraries(trt, config)
    profile = builder.create_optimization_profile()
    profile.set_shape(source.name, whole, whole, whole)
    config.add_optimization_profile(profile)
    config.set_calibration_profile(profile)
    config.set_flag(trt.BuilderFlag.INT8)
    cache = folder / f"{model.stem}.{method}.cache"
    config.int8_calibrator = make_calibrator(trt, METHODS[method], Noise(whole[1:], batch), batch, cache)
    if builder.build_serialized_network(network, config) is None:
        raise SystemExit(f"{model}: no engine was built; TensorRT's messages above say why")
    print(f"{cache.name}: {len(cache.read_text().splitlines()) - 1} entries", flush=True)
    return layers(network)


def main() -> None:
    """Take the caches of all networks by both methods."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files go; caches that are there are taken again")
    parser.add_argument("models", nargs="+", type=Path, help="networks that take images as NCHW, at most opset 17")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    trt = import_tensorrt()
    print("TensorRT", trt.__version__, flush=True)
    for model in arguments.models:
        for method in METHODS:
            stale = arguments.folder / f"{model.stem}.{method}.cache"
            if stale.is_file():
                stale.unlink()  # TensorRT would take it in place of the images.
            made = calibrate(trt, model, method, arguments.folder)
        (arguments.folder / f"{model.stem}.layers.txt").write_text(made)


if __name__ == "__main__":
    main()
