"""What the built-in compiler makes: time, size, and how close the compiled network is to fp32.

usage: python -m benchmarks.compiler [GOLDEN_DIR]

Seconds to compile ResNet-18 and ResNet-50 at 224 x 224, with random weights. Then the shipped LeNet over 500 test
images and, where GOLDEN_DIR (default: ../shared/golden beside the checkout) exists, its networks, over their 16 test
images. Tables: min-max over the calibration images, scales unified. The correlation is that of the tensor before
Softmax with fp32, plain and with each class's mean over the fp32 calibration images subtracted, which leaves what tells
images apart; agreement is that of the top class.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.calibration.cpu import Calibrator, calibrate
from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.run import run
from nvdla_quant.errors import CompileError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode, Target
from nvdla_quant.images.preprocess import Preprocessing, normalise
from nvdla_quant.images.sets import calibration_images, test_images
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare
from nvdla_quant.table.fix import fix_table
from nvdla_quant.table.table import CalibrationTable
from tests.networks.residual import resnet18, resnet50

CHECKOUT = Path(__file__).resolve().parents[1]
Images = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A network and its images, in its own domain."""

    name: str
    network: Network
    calibration: Images
    test: Images


def lenet() -> Case:
    """Return the shipped network with 500 calibration and 500 test images."""
    folder = CHECKOUT / "resources"
    network = read_network(folder / "lenet-mnist" / "deploy.prototxt", folder / "lenet-mnist" / "lenet.caffemodel")
    files = {key: str(folder / "mnist" / f"{key}-idx{axes}-ubyte.gz") for key, axes in (("images", 3), ("labels", 1))}
    record = {"source": {"format": "idx", **files}, "calibration_pool": 500, "pool_seed": 0, "test_images": 500}
    preprocessing, shape = Preprocessing("gray", scale=1 / 256), network.only_input.chw
    calibration = calibration_images(record, preprocessing, shape, count=500, seed=0)
    test = test_images(record, preprocessing, shape, 10, shard=0, shards=1)
    return Case("lenet (shipped)", network, *(normalise(part.pixels, preprocessing) for part in (calibration, test)))


def golden(folder: Path) -> Case:
    """Return a network of the developers' golden data."""
    network = read_network(folder / "deploy.prototxt", folder / "model.caffemodel")
    with np.load(folder / "images.npz") as images:
        return Case(folder.name, network, *(images[key].astype(np.float32) for key in ("calibration", "test")))


def row(case: Case, target: Target, precision: Precision, mode: QuantizationMode | None) -> str:
    """Compile `case`, run it, and return a line of the table."""
    prepared = prepare(case.network, "fold")
    table, _ = fix_table(case.network, prepared, calibrate(case.network, case.calibration, Calibrator("minmax")))
    start = time.perf_counter()
    compilation = compile_network(prepared, table, target, precision, mode)
    data = compilation.data
    seconds = time.perf_counter() - start

    program = decode(compilation.loadable, target)
    channels, dtype = program.inputs[0].shape[0], program.inputs[0].dtype
    inputs = case.test if precision is Precision.FP16 else np.rint(case.test / table[case.network.only_input.name])
    padded = np.zeros((len(inputs), channels, *inputs.shape[2:]), dtype)
    padded[:, : inputs.shape[1]] = inputs if precision is Precision.FP16 else np.clip(inputs, -128, 127)
    before = program.before_softmax
    kept: list[NDArray[np.generic]] = []
    result = run(program, padded, on_step=lambda operation, values, _: _keep(kept, operation is before, values))
    logits = np.concatenate(kept) if before is not None else result
    found = logits.reshape(len(logits), -1).astype(np.float32)

    name = (case.network.logits or case.network.only_output).name
    reference = Reference(case.network, [name])
    expected = reference.run(case.test)[name].reshape(found.shape)
    mean = reference.run(case.calibration)[name].reshape(len(case.calibration), -1).mean(axis=0)
    scale = compilation.facts.before_softmax[0] or compilation.facts.outputs[0]
    found = found * np.float32(scale.scale)
    plain = np.corrcoef(found.ravel(), expected.ravel())[0, 1]
    centred = np.corrcoef((found - mean).ravel(), (expected - mean).ravel())[0, 1]
    agree = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    kind = f"int8 {mode}" if mode else "fp16"
    figures = f"{seconds:7.3f} {len(data):9d} {plain:8.4f} {centred:8.4f} {agree:6.3f}"
    return f"{case.name:20} {target.name:9} {kind:16} {figures}"


def compile_times() -> None:
    """Print seconds, bytes, runs of the convolution core and activation bytes of two networks of ImageNet's size."""
    for network in (resnet18(), resnet50()):
        prepared = prepare(network, "fold")
        table = CalibrationTable(dict.fromkeys(prepared.tensors, 0.05))
        for target in TARGETS.values():
            start = time.perf_counter()
            compilation = compile_network(prepared, table, target, Precision.INT8, QuantizationMode.PER_FILTER)
            size, facts = len(compilation.data), compilation.facts
            seconds = time.perf_counter() - start
            activations = f"activations {facts.dram_bytes['activations']} live {facts.live_bytes}"
            print(
                f"{network.name:20} {target.name:9} {seconds:7.3f} {size:9d} runs {facts.units['CONV']} {activations}"
            )


def _keep(kept: list[NDArray[np.generic]], wanted: bool, values: NDArray[np.generic]) -> None:
    if wanted:
        kept.append(values.copy())


def main() -> None:
    """Print one line for each network, target and mode."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT.parent / "shared" / "golden"
    cases = [lenet(), *(golden(path) for path in sorted((folder / "models").glob("*/")))]
    compile_times()
    print("network              target    variant          seconds     bytes    plain  centred  agree")
    for case in cases:
        for target in TARGETS.values():
            variants: list[tuple[Precision, QuantizationMode | None]] = [(Precision.INT8, m) for m in QuantizationMode]
            if Precision.FP16 in target.precisions:
                variants.append((Precision.FP16, None))
            for precision, mode in variants:
                try:
                    print(row(case, target, precision, mode))
                except CompileError as error:
                    kind = f"int8 {mode}" if mode else "fp16"
                    print(f"{case.name:20} {target.name:9} {kind:16} refused: {error}"[:160])


if __name__ == "__main__":
    main()
