"""Images a second of the emulator, and of onnxruntime's own int8 on the same networks, in the same run on one thread.

usage: python -m benchmarks.emulator [NETWORK ...] [--batch N] [--seconds S] [--target T] [--only int8|fp16]

int8 is timed with each way that this processor has to compute convolutions, and the fastest with two threads too. fp16,
which only nv_full has, is timed in both modes, beside int8 on nv_full.

Networks: lenet (the shipped one), resnet20 (CIFAR size), resnet18 and resnet50 (224 x 224); all where none is named.
Each is compiled by the built-in compiler, int8 per-filter. onnxruntime runs it quantized as it recommends for speed:
static QDQ, uint8 activations, int8 weights for each channel. Both read the same number of random images; what they
compute does not matter to their speed. The emulator does more: it gives the very bits of the hardware.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
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
from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.decode.program import Program, decode
from nvdla_quant.emulator.integer.kernels import possible_kernels
from nvdla_quant.emulator.operations import ConvOperation, Fp16
from nvdla_quant.emulator.run import run
from nvdla_quant.hardware.targets import NV_FULL, TARGETS, Precision, QuantizationMode, Target
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import Network
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.network.passes import prepare
from nvdla_quant.table.fix import fix_table
from tests.kernels import using
from tests.networks.residual import resnet18, resnet20, resnet50

LENET = Path(__file__).resolve().parents[1] / "resources" / "lenet-mnist"
CALIBRATION_IMAGES = 16
C_MODEL_RATES = {("LeNet-5", "nv_full"): 30.0, ("LeNet-5", "nv_small"): 6.6, ("ResNet-20", "nv_small"): 1.0}
C_MODEL_RATES |= {("ResNet-18", "nv_full"): 0.2}
"""Images a second that were quoted for NVIDIA's C-model, one thread of another machine."""
PASSES = 5
"""Each side is timed this often, in turns, and the median taken: other work on the machine hits both."""
SHARED_SECONDS = 0.2
"""Work of each of two threads, roughly; one thread does all of it."""


class _Images(CalibrationDataReader):
    """Hands calibration images to onnxruntime, one at a time."""

    def __init__(self, name: str, images: NDArray[np.float32]) -> None:
        self._left: Iterator[dict[str, NDArray[np.float32]]] = ({name: image[None]} for image in images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._left, None)


def compiled(network: Network, images: NDArray[np.float32], target: Target) -> Program:
    """Return `network` as a program for `target`, compiled by the built-in compiler."""
    cache = calibrate(network, images, Calibrator("minmax", batch_size=1))
    prepared = prepare(network, "fold")
    table, _ = fix_table(network, prepared, cache)
    compilation = compile_network(prepared, table, target, Precision.INT8, QuantizationMode.PER_FILTER)
    return decode(parse_loadable(compilation.data), target)


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


def measure_fp16(network: Network, batch: int, seconds: float) -> None:
    """Time int8, fast fp16 and exact fp16 on `network` for nv_full, and print one line."""
    rng = np.random.default_rng(0)
    floats = rng.random((batch, *network.only_input.shape), np.float32)
    int8 = compiled(network, floats[:CALIBRATION_IMAGES], NV_FULL)
    compilation = compile_network(prepare(network, "fold"), None, NV_FULL, Precision.FP16, None)
    fp16 = decode(parse_loadable(compilation.data), NV_FULL)
    integers = rng.integers(-128, 128, (batch, *int8.inputs[0].shape)).astype(np.int8)
    halves = rng.random((batch, *fp16.inputs[0].shape)).astype(np.float16)
    sources = (operation.source for operation in fp16.operations)
    macs = sum(source.multiplications for source in sources if isinstance(source, ConvOperation))
    # About a second of work, and all of the batch where that is not more.
    few = halves[: min(batch, max(1, 10**8 // macs))]
    works: dict[str, tuple[Callable[[], object], int]] = {
        "int8": (lambda: run(int8, integers, batch=batch), batch),
        "fast": (lambda: run(fp16, halves, batch=batch, fp16=Fp16.FAST), batch),
        "exact": (lambda: run(fp16, few, batch=batch, fp16=Fp16.EXACT), len(few)),
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    for work, _ in works.values():
        work()
    for _ in range(PASSES):
        for name, (work, images) in works.items():
            rates[name].append(rate(work, images, seconds))
    whole, fast, exact = (statistics.median(rates[name]) for name in ("int8", "fast", "exact"))
    print(f"{network.name:10} {whole:10.1f} {fast:10.1f} {whole / fast:11.2f} {exact:10.2f} {exact * macs / 1e6:15.0f}")


def measure(network: Network, target: Target, batch: int, seconds: float) -> None:
    """Time both on `network` and print one line for each way of the emulator."""
    rng = np.random.default_rng(0)
    floats = rng.random((batch, *network.only_input.shape), np.float32)
    program = compiled(network, floats[:CALIBRATION_IMAGES], target)
    bytes_ = rng.integers(-128, 128, (batch, *program.inputs[0].shape)).astype(np.int8)
    programs = {kernel: replace(program) for kernel in possible_kernels()}
    for kernel, own in programs.items():
        with using(kernel):
            run(own, bytes_, batch=batch)  # Weights are laid out now, for this way.
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    quantized = session(network, floats[:CALIBRATION_IMAGES])
    feed = {network.only_input.name: floats}
    quantized.run(None, feed)
    ours: dict[str, list[float]] = {kernel: [] for kernel in programs}
    theirs: list[float] = []
    best = programs[possible_kernels()[0]]
    batches = 2 * max(4, round(SHARED_SECONDS * rate(partial(run, best, bytes_, batch=batch), 1, SHARED_SECONDS)))
    many = np.concatenate([bytes_] * batches)
    shared: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(PASSES):
        for kernel, own in programs.items():
            ours[kernel].append(rate(partial(run, own, bytes_, batch=batch), batch, seconds))
        for threads, rates in shared.items():
            rates.append(rate(partial(run, best, many, threads=threads), len(many), seconds))
        theirs.append(rate(partial(quantized.run, None, feed), batch, seconds))
    onnx_int8 = statistics.median(theirs)
    faster = statistics.median(shared[2]) / statistics.median(shared[1])
    quoted = C_MODEL_RATES.get((network.name, target.name))
    for kernel, rates in ours.items():
        emulator = statistics.median(rates)
        multiple = f"{emulator / quoted:10.0f}" if quoted else f"{'-':>10}"
        threads = f"{faster:10.2f}" if programs[kernel] is best else f"{'-':>10}"
        speeds = f"{emulator:10.1f} {onnx_int8:12.1f} {emulator / onnx_int8:8.3f}"
        print(f"{network.name:10} {kernel:8} {speeds} {threads} {multiple} {memory:8.0f}")


def main() -> None:
    """Time both on each network."""
    networks: dict[str, Callable[[], Network]] = {
        "lenet": lambda: read_network(LENET / "deploy.prototxt", LENET / "lenet.caffemodel"),
        "resnet20": resnet20,
        "resnet18": resnet18,
        "resnet50": resnet50,
    }
    parser = argparse.ArgumentParser(description="Speed of the emulator against onnxruntime's int8.")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(networks))
    parser.add_argument("--batch", type=int, default=32, help="images at once, on both sides")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each of the passes")
    parser.add_argument("--target", choices=list(TARGETS), default="nv_small")
    parser.add_argument("--only", choices=["int8", "fp16"], help="one of the two tables")
    options = parser.parse_args()
    if unknown := set(options.networks) - set(networks):
        parser.error(f"no network is called {', '.join(sorted(unknown))}; there are {', '.join(networks)}")

    print(f"target {options.target}, batch {options.batch}, one thread; medians of {PASSES} passes in turns")
    if options.only != "fp16":
        print(
            "network    kernel     emulator  onnxruntime    ratio  2 threads  x C-model  MiB (peak, compiler included)"
        )
        for name in options.networks or networks:
            measure(networks[name](), TARGETS[options.target], options.batch, options.seconds)
        print(
            "x C-model: multiple of NVIDIA's C-model at the rates quoted for another machine; 2 threads: times one's\n"
        )
    if options.only != "int8":
        print("nv_full          int8  fp16 fast  int8 / fast  fp16 exact  exact, 10^6 MAC/s")
        for name in options.networks or networks:
            measure_fp16(networks[name](), options.batch, options.seconds)


if __name__ == "__main__":
    main()
