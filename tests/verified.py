"""Networks, loadables and images to verify, and loadables with one thing changed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.calibration.cpu import Calibrator, calibrate
from nvdla_quant.compiler.claim.records import Claim
from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.decode.program import Program, decode
from nvdla_quant.emulator.operations import Fp16
from nvdla_quant.emulator.run import run
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.execution.simulated import Simulation
from nvdla_quant.hardware.targets import Precision, QuantizationMode, Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.reader import parse_loadable, read_loadable
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import (
    LRN,
    BatchNorm,
    Convolution,
    Eltwise,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    PReLU,
    ReLU,
    Scale,
    Softmax,
    Tensor,
)
from nvdla_quant.network.passes import prepare
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.consistency import unify
from nvdla_quant.table.fix import fix_table
from nvdla_quant.table.table import CalibrationTable, read_table
from nvdla_quant.verification import verify as verification
from nvdla_quant.verification.judgement.diagnosis import NEAR_COSINE
from nvdla_quant.verification.verify import Verification, verify

decoded = lru_cache(maxsize=16)(decode)
"""As `decode`, which takes a third of the time of verifying a small network, but once for each loadable."""


@dataclass(frozen=True)
class Case:
    """What `verify` takes."""

    loadable: Loadable
    network: Network
    table: CalibrationTable | None
    images: NDArray[np.float32]
    target: Target | None = None
    claim: Claim | None = None

    def verify(self) -> Verification:
        with patch.object(verification, "decode", decoded):
            return verify(self.loadable, self.network, self.table, self.images, self.target, self.claim)

    @property
    def program(self) -> Program:
        return decoded(self.loadable, self.target)

    def inputs(self, program: Program) -> NDArray[np.generic]:
        """The images in the device's domain."""
        port = program.inputs[0]
        fed = np.zeros((len(self.images), *port.shape), port.dtype)
        if self.table is None:
            fed[:, : self.images.shape[1]] = self.images
        else:
            steps = np.rint(self.images / self.table[self.network.only_input.name])
            fed[:, : self.images.shape[1]] = np.clip(steps, -128, 127)
        return fed

    def scores(self, fp16: Fp16 = Fp16.EXACT) -> NDArray[np.float32]:
        """What the emulator computes before a final softmax, in steps where that is int8; a row an image."""
        program = self.program
        writers = [operation.index for operation in program.before_softmax]
        kept: dict[int, list[NDArray[np.generic]]] = {index: [] for index in writers}
        result = run(
            program,
            self.inputs(program),
            fp16=fp16,
            on_step=lambda operation, values, _: kept[operation.index].append(values),
            steps=writers,
        )
        if writers:
            result = np.concatenate([np.concatenate(kept[index]) for index in writers], axis=1)
        return result.reshape(len(result), -1).astype(np.float32)


def golden_case(loadable: Path, model: Path) -> Case:
    """A golden loadable on the inputs of its vectors, taken back to the network's domain."""
    network = read_network(model / "deploy.prototxt", model / "model.caffemodel")
    own = loadable / "calibration.fixed.json"
    table = read_table(own if own.exists() else model / "calibration.fixed.json")
    with np.load(loadable / "vectors.npz") as vectors:
        inputs = vectors["input"][:, : network.only_input.chw[0]]
    scale = table[network.only_input.name] if inputs.dtype == np.int8 else 1.0
    images = inputs.astype(np.float32) * np.float32(scale)
    content = read_loadable(loadable / "loadable.nvdla")
    return Case(content, network, table if inputs.dtype == np.int8 else None, images)


def residual_network(seed: int = 1) -> Network:
    """Convolutions with BatchNorm and Scale, a residual sum, both poolings, a fully connected layer, Softmax."""
    rng = np.random.default_rng(seed)
    layers: list[Layer] = []

    def weights(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)

    def add(name: str, operation: Operation, *inputs: str) -> str:
        layers.append(Layer(name, operation, inputs))
        return name

    def conv(name: str, source: str, shape: tuple[int, int, int], stride: int) -> str:
        outputs, inputs, kernel = shape
        pad = (kernel - 1) // 2
        add(name, Convolution(weights(outputs, inputs, kernel, kernel), None, (stride, stride), (pad, pad)), source)
        mean, variance = rng.normal(0, 0.1, outputs), rng.uniform(0.8, 1.2, outputs)
        add(f"{name}_bn", BatchNorm(mean.astype(np.float32), variance.astype(np.float32), 1e-5), name)
        gamma, beta = rng.uniform(0.6, 1, outputs), rng.normal(0, 0.1, outputs)
        return add(f"{name}_scale", Scale(gamma.astype(np.float32), beta.astype(np.float32)), f"{name}_bn")

    first = add("relu0", ReLU(), conv("c0", "data", (16, 3, 3), 1))
    pooled = add("p0", Pooling("max", (2, 2), (2, 2)), first)
    inner = add("relua", ReLU(), conv("a", pooled, (24, 16, 3), 2))
    branch, shortcut = conv("b", inner, (24, 24, 3), 1), conv("s", pooled, (24, 16, 1), 2)
    joined = add("relu1", ReLU(), add("sum", Eltwise("sum"), shortcut, branch))
    pooled = add("p1", Pooling("average", (4, 4), (4, 4)), joined)
    scores = add("fc", InnerProduct(weights(10, 24), np.linspace(-0.5, 0.5, 10).astype(np.float32)), pooled)
    add("prob", Softmax(), scores)
    return assemble("small", [Tensor("data", (3, 16, 16), "data")], layers)


def varied_network(seed: int) -> Network:
    """What an SDP does behind a convolution and alone: slopes, sums, maxima, normalisations; an LRN and an average."""
    rng = np.random.default_rng(seed)
    layers: list[Layer] = []

    def weights(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)

    def values(size: float, count: int) -> NDArray[np.float32]:
        return rng.normal(0, size, count).astype(np.float32)

    def add(name: str, operation: Operation, *inputs: str) -> str:
        layers.append(Layer(name, operation, inputs))
        return name

    leaky = add("r0", ReLU(0.1), add("c0", Convolution(weights(12, 3, 3, 3), values(0.3, 12), pad=(1, 1)), "data"))
    variance = rng.uniform(0.01, 2, 12).astype(np.float32)
    normal = add("bn", BatchNorm(values(0.3, 12), variance, 1e-5), leaky)
    scaled = add("sc", Scale(rng.uniform(-1, 1.5, 12).astype(np.float32), values(1.0, 12)), normal)
    # Filters of very different size, with biases that are large against some of them.
    unequal = weights(16, 12, 3, 3) * np.float32(2.0) ** rng.integers(-5, 1, (16, 1, 1, 1)).astype(np.float32)
    add("c1", Convolution(unequal, values(1.0, 16), pad=(1, 1)), scaled)
    slopes = add("p1", PReLU(rng.uniform(-0.5, 1.5, 16).astype(np.float32)), "c1")
    branch = add("c2", Convolution(weights(16, 16, 1, 1), values(0.3, 16)), slopes)
    joined = add("r2", ReLU(), add("s", Eltwise("sum", (0.7, -1.3)), branch, slopes))
    larger = add("m", Eltwise("max"), add("c3", Convolution(weights(16, 16, 1, 1), values(0.3, 16)), joined), joined)
    pooled = add("p", Pooling("average", (2, 2), (2, 2)), larger)
    add("fc", InnerProduct(weights(10, 16 * 36) * 2, values(0.3, 10)), add("l", LRN(5, 1e-2, 0.75, 1.0), pooled))
    return assemble("varied", [Tensor("data", (3, 12, 12), "data")], layers)


def compiled_case(
    network: Network,
    target: Target,
    precision: Precision,
    mode: QuantizationMode | None,
    images: int = 6,
    stretched: float = 0.0,
) -> Case:
    """`network`, compiled by us with a min-max table of 32 random images, and other images.

    Each scale of the table is multiplied by a random factor from 2**-stretched to 2**stretched.
    """
    rng = np.random.default_rng(0)
    shape = network.only_input.chw
    table = minmax_table(network, rng.normal(0, 1, (32, *shape)).astype(np.float32))
    factors = 2.0 ** np.random.default_rng(1).uniform(-stretched, stretched, len(table.scales))
    scales = {name: scale * float(by) for (name, scale), by in zip(table.scales.items(), factors, strict=True)}
    table, _ = unify(network, CalibrationTable(scales))
    others = rng.normal(0, 1, (images, *shape)).astype(np.float32)
    return case_of(network, table, others, target, precision, mode)


def minmax_table(network: Network, images: NDArray[np.float32], batch_size: int = 16) -> CalibrationTable:
    """A min-max table over `images`, fixed for the network as it is."""
    cache = calibrate(network, images, Calibrator("minmax", batch_size, None))
    return fix_table(network, prepare(network, "as-is"), cache, unify_scales=True)[0]


def case_of(
    network: Network,
    table: CalibrationTable,
    images: NDArray[np.float32],
    target: Target,
    precision: Precision,
    mode: QuantizationMode | None,
) -> Case:
    """`network`, compiled by us with `table`, to be verified on `images`."""
    compilation = compile_network(network, table, target, precision, mode)
    own = table if precision is Precision.INT8 else None
    return Case(parse_loadable(compilation.data), network, own, images, target, compilation.claim)


def smooth_images(shape: tuple[int, int, int], count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random blobs of 8 x 8 pixels under noise: what a network sees varies between images, as it does in photos."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    blobs = rng.normal(0, 1, (count, channels, -(-height // 8), -(-width // 8)))
    large = np.repeat(np.repeat(blobs, 8, axis=2), 8, axis=3)[:, :, :height, :width]
    return (large + rng.normal(0, 0.5, large.shape)).astype(np.float32)


def cosine(values: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    """Cosine of the angle between two arrays; 0 where one of them is all zero."""
    a, b = (part.astype(np.float64).ravel() for part in (values, reference))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0


def correlation(values: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    """The same with the mean over images, the first axis, subtracted from both: what varies with the image."""
    return cosine(*(part.astype(np.float64) - part.astype(np.float64).mean(axis=0) for part in (values, reference)))


def float_scores(network: Network, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the float network computes before a final softmax; a row an image."""
    name = (network.logits or network.only_output).name
    return Reference(network, [name]).run(images)[name].reshape(len(images), -1)


def simulated_scores(
    network: Network, table: CalibrationTable, mode: QuantizationMode, images: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The same of the float network with int8 steps: what int8 costs, whatever compiles it."""
    name = (network.logits or network.only_output).name
    return Simulation(network, table, mode, [name]).run(images)[name].reshape(len(images), -1)


def table_is_bad(case: Case, mode: QuantizationMode | None) -> bool:
    """Whether int8 with this table is farther from the float network than a verdict allows, whatever compiles it."""
    if case.table is None or mode is None:
        return False
    simulated = simulated_scores(case.network, case.table, mode, case.images)
    return cosine(simulated, float_scores(case.network, case.images)) < NEAR_COSINE


def with_bytes(case: Case, blob: str, change: Callable[[bytearray], None]) -> Case:
    """`case` with the bytes of one blob changed."""
    (index,) = (number for number, item in enumerate(case.loadable.blobs) if item.name == blob)
    content = bytearray(case.loadable.blobs[index].data)
    change(content)
    blobs = list(case.loadable.blobs)
    blobs[index] = replace(blobs[index], data=bytes(content))
    return replace(case, loadable=replace(case.loadable, blobs=tuple(blobs)))


def with_field(case: Case, operation: int, engine: structs.Engine, path: str, value: float) -> Case:
    """`case` with one field of an operation's descriptor set; `path` is like ``x1_op.truncate``."""

    def change(content: bytearray) -> None:
        start = operation * structs.OPERATION_BYTES
        dtype = structs.OPERATIONS[engine]
        record = np.frombuffer(content, dtype, 1, start)
        for name in path.split("."):
            assert name in (record.dtype.names or ())
            if record.dtype[name].names is None:
                assert record[name][0] != value, "nothing would change"
                record[name] = value
            else:
                record = record[name]

    return with_bytes(case, "task-0-op_list", change)


def written(case: Case) -> dict[int, NDArray[np.float64]]:
    """What each operation of a case writes, by its number."""
    program = case.program
    steps: dict[int, NDArray[np.float64]] = {}
    run(
        program,
        case.inputs(program),
        on_step=lambda operation, values, _: steps.update({operation.index: values.astype(np.float64)}),
    )
    return steps


def first_change(before: dict[int, NDArray[np.float64]], after: dict[int, NDArray[np.float64]]) -> float:
    """Largest difference where two runs first differ; 0 where they do not, infinite where one wrote something else."""
    for index, values in sorted(before.items()):
        other = after.get(index)
        if other is None or other.shape != values.shape:
            return np.inf
        if not np.array_equal(values, other):
            return float(np.nan_to_num(np.abs(values - other), nan=np.inf).max())
    return 0.0
