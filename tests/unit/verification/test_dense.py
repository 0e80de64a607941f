"""A detector and a network that labels pixels, compiled and judged: every output is near the float network."""

from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import Fp16
from nvdla_quant.emulator.run import run_tensors
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode
from nvdla_quant.network.cutting import ending_at
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.verification.judgement.verdicts import Judgement
from tests.networks.dense import HEADS, detector, labeller
from tests.profiles import has_turn
from tests.verified import Case, case_of, correlation, minmax_table, smooth_images

PER_KERNEL, PER_FILTER = QuantizationMode.PER_KERNEL, QuantizationMode.PER_FILTER
MADE = [
    ("nv_small", Precision.INT8, PER_KERNEL),
    ("nv_small", Precision.INT8, PER_FILTER),
    ("nv_full", Precision.INT8, PER_KERNEL),
    ("nv_full", Precision.INT8, PER_FILTER),
    ("nv_full", Precision.FP16, None),
]
LEAST = {PER_KERNEL: 0.99, PER_FILTER: 0.99, None: 0.9999}
"""Least correlation of an output with fp32, by mode."""
Made = tuple[str, Precision, QuantizationMode | None]
Build = Callable[[], Network]


def inner(seed: int = 0) -> Network:
    """The detector cut at a tensor that its layers read too, and at its heads, these in the other order."""
    return ending_at(detector(seed=seed), ["block4", *reversed(HEADS)])


@cache
def calibrated(build: Build) -> tuple[Network, CalibrationTable, NDArray[np.float32]]:
    """A folded network, a table of 32 images, and others."""
    network = prepare(build(), "fold")
    shape = network.only_input.chw
    return network, minmax_table(network, smooth_images(shape, 32)), smooth_images(shape, 6, seed=1)


@cache
def compiled(build: Build, made: Made) -> Case:
    target, precision, mode = made
    return case_of(*calibrated(build), TARGETS[target], precision, mode)


def name_of(value: Build | Made) -> str:
    return "-".join(map(str, filter(None, value))) if isinstance(value, tuple) else value.__name__


TRIED = [
    *product((detector, labeller), MADE),
    *((inner, made) for turn, made in enumerate(MADE) if has_turn(turn, 4)),
]
"""In the short form one of each precision where outputs stand within the network, or in another order."""


@pytest.mark.parametrize(("build", "made"), TRIED, ids=name_of)
def test_every_output_is_near_and_ok(build: Build, made: Made) -> None:
    case = compiled(build, made)
    program = case.program
    results = run_tensors(program, {program.inputs[0].name: case.inputs(program)}, fp16=Fp16.FAST)
    expected = Reference(case.network).run(case.images)
    outputs = {tensor.blob: tensor.name for tensor in case.network.outputs}
    assert list(results) == list(outputs)
    for name, tensor in outputs.items():
        values, reference = results[name], expected[tensor]
        found = correlation(values.reshape(len(values), -1), reference.reshape(len(values), -1))
        assert found >= LEAST[made[2]], name
    assert case.verify().verdict.verdict is Judgement.OK
