"""Networks of a few layers, compiled and run on the emulator beside fp32.

Tables hold the largest magnitude of each tensor over the images / 127, made consistent.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from nvdla_quant.compiler.compile import Compilation, compile_network
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.run import run
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode, Target
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.network.graph import Convolution, Layer, Network, Operation, Tensor
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.consistency import unify
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.verification.judgement.verdicts import Judgement
from tests.profiles import has_turn, targets
from tests.verified import Case, case_of, minmax_table, smooth_images

INT8, FP16 = Precision.INT8, Precision.FP16
PER_KERNEL, PER_FILTER = QuantizationMode
# In the short form each target has one of the modes: each mode has a target with a look-up table and one without.
VARIANTS = [
    *(
        pytest.param(target, mode, id=f"{name}-{mode}")
        for number, (name, target) in enumerate(targets().items())
        for turn, mode in enumerate(QuantizationMode, number // 2)
        if has_turn(number + turn, 2)
    ),
    pytest.param(TARGETS["nv_full"], None, id="nv_full-fp16"),
]
WITH_TABLES = [variant for variant in VARIANTS if variant.values[0].has_lut]  # type: ignore[union-attr]

Floats = NDArray[np.float64]


def random_weights(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)


def convolution(rng: np.random.Generator, outputs: int, inputs: int, size: int = 3) -> Convolution:
    bias = rng.normal(0, 0.3, outputs).astype(np.float32)
    return Convolution(random_weights(rng, outputs, inputs, size, size), bias, pad=(size // 2, size // 2))


def chain(shape: tuple[int, ...], *operations: Operation) -> Network:
    layers = [Layer(f"l{i}", operation, (f"l{i - 1}" if i else "data",)) for i, operation in enumerate(operations)]
    return assemble("layers", [Tensor("data", shape, "data")], layers)


def two_branches(rng: np.random.Generator, shape: tuple[int, int, int], last: Operation, count: int = 2) -> Network:
    """`count` convolutions of one input, joined."""
    layers = [Layer(f"c{i}", convolution(rng, shape[0], shape[0]), ("data",)) for i in range(count)]
    layers.append(Layer("join", last, tuple(layer.name for layer in layers)))
    return assemble("branches", [Tensor("data", shape, "data")], layers)


def table_of(network: Network, images: NDArray[np.float32]) -> CalibrationTable:
    names = [network.only_input.name, *(layer.name for layer in network.layers)]
    tensors = Reference(network, names).run(images)
    scales = {name: max(float(np.abs(values).max()), 1e-3) / 127 for name, values in tensors.items()}
    return unify(network, CalibrationTable(scales))[0]


def compiled(
    network: Network, target: Target, mode: QuantizationMode | None, images: int = 4, seed: int = 9
) -> tuple[Compilation, Floats, Floats]:
    """(compilation, emulated output, fp32 output of the same quantized images), both (n, c, h, w) in real values."""
    rng = np.random.default_rng(seed)
    steps = np.clip(np.rint(rng.normal(0, 40, (images, *network.only_input.shape))), -128, 127)
    scale = np.float32(1 / 32)
    real = steps.astype(np.float32) * scale
    table = table_of(network, real)
    table = CalibrationTable({**table.scales, "data": float(scale)})
    table, _ = unify(network, table, frozenset({"data"}))
    compilation = compile_network(network, table, target, INT8 if mode else FP16, mode)
    program = decode(parse_loadable(compilation.data), target)
    assert program.warnings == ()
    port = program.inputs[0]
    padded = np.zeros((images, *port.shape), port.dtype)
    padded[:, : steps.shape[1]] = (steps if mode else real).reshape(images, steps.shape[1], *port.shape[1:])
    result = run(program, padded).astype(np.float64) * compilation.facts.outputs[0].scale
    name = network.only_output.name
    return compilation, result, Reference(network, [name]).run(real)[name].reshape(result.shape).astype(np.float64)


def case(network: Network, target: Target, mode: QuantizationMode | None) -> Case:
    """The network with a table over smooth images, compiled."""
    images = smooth_images(network.only_input.chw, 4)
    return case_of(network, minmax_table(network, images), images, target, INT8 if mode else FP16, mode)


def is_called_right(network: Network, target: Target, mode: QuantizationMode | None) -> None:
    verdict = case(network, target, mode).verify().verdict
    assert verdict.verdict is Judgement.OK, verdict


def follows(
    network: Network,
    target: Target,
    mode: QuantizationMode | None,
    steps: float = 1.0,
    correlation: float = 0.999,
    half: float = 2.0**-8,
) -> Compilation:
    """Hold a network to fp32: the largest error in output steps (fp16: of the largest output) and the correlation."""
    compilation, result, expected = compiled(network, target, mode)
    found = float(np.corrcoef(result.ravel(), expected.ravel())[0, 1])
    assert found >= correlation
    largest = float(np.abs(expected).max())
    allowed = steps * compilation.facts.outputs[0].scale if mode else half * largest
    assert np.abs(result - expected).max() <= allowed, (np.abs(result - expected).max() / allowed, found)
    return compilation
