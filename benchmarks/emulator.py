"""Images a second of the emulator, and of onnxruntime's own int8 on the same network, in the same run on one thread.

usage: python benchmarks/emulator.py [--loadable FILE --prototxt FILE --caffemodel FILE] [--batch N] [--seconds S]

Without files: the shipped LeNet, compiled here by the built-in compiler for nv_small, int8 per-filter. onnxruntime runs
the network quantized as it recommends for speed: static QDQ, uint8 activations, int8 weights for each channel. Both
read the same number of random images; what they compute does not matter to their speed. The emulator does more: it
gives the very bits of the hardware.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Before numpy and onnxruntime start their threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from nvdla_quant.calibration.cpu import Calibrator, calibrate
from nvdla_quant.compiler import compile_network
from nvdla_quant.emulator.program import Program, decode
from nvdla_quant.emulator.run import run
from nvdla_quant.hardware import NV_SMALL, Precision, QuantizationMode
from nvdla_quant.loadable.reader import parse_loadable, read_loadable
from nvdla_quant.network.caffe import read_network
from nvdla_quant.network.graph import Network
from nvdla_quant.reference import to_onnx
from nvdla_quant.table.fix import fix_table

LENET = Path(__file__).resolve().parents[1] / "resources" / "lenet-mnist"
CALIBRATION_IMAGES = 16
PASSES = 5
"""Each side is timed this often, in turns, and the median taken: other work on the machine hits both."""


class _Images(CalibrationDataReader):
    """Hands calibration images to onnxruntime, one at a time."""

    def __init__(self, name: str, images: NDArray[np.float32]) -> None:
        self._left: Iterator[dict[str, NDArray[np.float32]]] = ({name: image[None]} for image in images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._left, None)


def compiled(network: Network, images: NDArray[np.float32]) -> Program:
    """Return `network` as a program, compiled for nv_small by the built-in compiler."""
    cache = calibrate(network, images, Calibrator("minmax"))
    table, _ = fix_table(network, network, cache)
    compilation = compile_network(network, table, NV_SMALL, Precision.INT8, QuantizationMode.PER_FILTER)
    return decode(parse_loadable(compilation.data))


def session(network: Network, images: NDArray[np.float32]) -> onnxruntime.InferenceSession:
    """Return `network` quantized by onnxruntime, ready to run on one thread."""
    onnxruntime.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, quantized = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "quantized"))
        model = to_onnx(network)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "n"
        onnx.save(model, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Images(network.only_input.name, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(quantized.read_bytes(), options, providers=["CPUExecutionProvider"])


def rate(work: Callable[[], object], images: int, seconds: float) -> float:
    """Return images a second of `work`, which computes `images` of them, over about `seconds`."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        work()
        done += images
    return done / elapsed


def main() -> None:
    """Time both and print one line each."""
    parser = argparse.ArgumentParser(description="Speed of the emulator against onnxruntime's int8.")
    parser.add_argument("--loadable", type=Path, help="default: compiled from the network")
    parser.add_argument("--prototxt", type=Path, default=LENET / "deploy.prototxt")
    parser.add_argument("--caffemodel", type=Path, default=LENET / "lenet.caffemodel")
    parser.add_argument("--batch", type=int, default=32, help="images at once, on both sides")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each of the passes")
    options = parser.parse_args()

    network = read_network(options.prototxt, options.caffemodel)
    rng = np.random.default_rng(0)
    floats = rng.random((options.batch, *network.only_input.shape), np.float32)
    start = time.perf_counter()
    if options.loadable is None:
        program = compiled(network, floats[:CALIBRATION_IMAGES])
    else:
        program = decode(read_loadable(options.loadable))
    bytes_ = rng.integers(-128, 128, (options.batch, *program.inputs[0].shape)).astype(np.int8)
    decoded = time.perf_counter()
    run(program, bytes_, batch=options.batch)
    print(
        f"{network.name} on {program.target.name}: ready in {decoded - start:.2f} s, first batch in "
        f"{time.perf_counter() - decoded:.2f} s"
    )
    quantized = session(network, floats[:CALIBRATION_IMAGES])
    feed = {network.only_input.name: floats}
    quantized.run(None, feed)
    ours, theirs = [], []
    for _ in range(PASSES):
        ours.append(rate(lambda: run(program, bytes_, batch=options.batch), options.batch, options.seconds))
        theirs.append(rate(lambda: quantized.run(None, feed), options.batch, options.seconds))
    emulator, onnx_int8 = statistics.median(ours), statistics.median(theirs)
    print(f"emulator             {emulator:10.1f} images/s")
    print(f"onnxruntime int8 QDQ {onnx_int8:10.1f} images/s")
    print(f"ratio                {emulator / onnx_int8:10.3f}")
    print(f"peak memory of both  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:10.1f} MiB (Linux)")


if __name__ == "__main__":
    main()
