"""Searched scales: never worse, within the trials, and better where the table is wrong."""

import numpy as np
import pytest

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.run import run, run_tensors
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.execution.sqnr import sqnr
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode
from nvdla_quant.quantization.search import Found, fp32_scores, quantized_feed, search
from nvdla_quant.quantization.steps import with_steps
from nvdla_quant.table.table import CalibrationTable
from tests.networks.builder import Builder
from tests.networks.heads import unlike_heads
from tests.unit.quantization.test_refine import images_of, small_network, table_of

NV_SMALL = TARGETS["nv_small"]
NETWORK = small_network()
IMAGES = images_of(NETWORK, 32, 0)
TABLE = table_of(NETWORK, IMAGES)
(SCORES,) = fp32_scores(NETWORK, IMAGES)


def found(table: CalibrationTable, mode: QuantizationMode, trials: int, **options: frozenset[str]) -> Found:
    feed = quantized_feed(IMAGES, "data")
    return search(NETWORK, table, NV_SMALL, mode, feed, [SCORES], trials=trials, **options)


def value(one: Found, mode: QuantizationMode) -> float:
    """SQNR of the scores of what was found, compiled and run anew."""
    compiled = compile_network(with_steps(NETWORK, one.steps), one.table, NV_SMALL, Precision.INT8, mode)
    inputs = quantized_feed(IMAGES, "data")(one.table, compiled.loadable.inputs[0].c)
    values = run(decode(compiled.loadable, NV_SMALL), inputs).reshape(len(IMAGES), -1)
    return sqnr(SCORES, values.astype(np.float32) * np.float32(compiled.facts.outputs[0].scale))


@pytest.mark.parametrize("mode", list(QuantizationMode))
def test_a_scale_that_is_wrong_is_found(mode: QuantizationMode) -> None:
    """The first convolution's output is clipped at an eighth of its range: 6 moves by the root of 2 lead back."""
    wrong = CalibrationTable({**TABLE.scales, "relu1": TABLE["relu1"] / 8})
    one = found(wrong, mode, 400)
    assert one.settled
    assert one.kept[-1].sqnr > one.first + 5
    assert value(one, mode) == pytest.approx(one.kept[-1].sqnr, abs=1e-6)
    assert one.table["relu1"] > 4 * wrong["relu1"]
    assert [trial.number for trial in one.kept] == sorted({trial.number for trial in one.kept})


def test_trials_end_it_and_what_was_found_stays() -> None:
    wrong = CalibrationTable({**TABLE.scales, "relu1": TABLE["relu1"] / 8})
    counts = []
    feed = quantized_feed(IMAGES, "data")
    one = search(
        *(NETWORK, wrong, NV_SMALL, QuantizationMode.PER_KERNEL, feed, [SCORES]),
        trials=12,
        progress=lambda done, total: counts.append((done, total)),
    )
    assert (one.trials, one.settled) == (12, False)
    assert counts == [(number, 12) for number in range(2, 13)]
    assert value(one, QuantizationMode.PER_KERNEL) == pytest.approx(one.kept[-1].sqnr if one.kept else one.first)


def test_a_single_trial_is_where_it_begins() -> None:
    one = found(TABLE, QuantizationMode.PER_FILTER, 1)
    assert (one.kept, one.table, one.trials, one.settled) == ((), TABLE, 1, False)
    assert not one.steps.layers


def test_a_pinned_scale_stays() -> None:
    wrong = CalibrationTable({**TABLE.scales, "data": TABLE["data"] / 4})
    assert found(wrong, QuantizationMode.PER_KERNEL, 60, pinned=frozenset({"data"})).table["data"] == wrong["data"]
    assert found(wrong, QuantizationMode.PER_KERNEL, 60).table["data"] > wrong["data"]


def test_layers_that_only_the_compiler_folds_are_left() -> None:
    """Of a network as it was trained: the folded convolution has the name of a Scale, and its weights no place."""
    builder = Builder("as-is", (4, 8, 8), seed=1)
    builder.relu("relu", builder.conv_norm("conv", "data", 6, 3))
    network = builder.build()
    images = images_of(network, 8, 0)
    feed = quantized_feed(images, "data")
    table = CalibrationTable(dict.fromkeys(network.tensors, 0.05))
    one = search(network, table, NV_SMALL, QuantizationMode.PER_FILTER, feed, fp32_scores(network, images), trials=30)
    assert not one.steps.layers
    assert {trial.kind for trial in one.kept} <= {"tensor"}


def test_several_outputs_count_alike() -> None:
    """A concatenation that no single operation writes, and scores before a softmax, against the loadable's own."""
    network = unlike_heads()
    images = images_of(network, 8, 0)
    table, feed = table_of(network, images), quantized_feed(images, "data")
    exact = fp32_scores(network, images)
    one = search(network, table, NV_SMALL, QuantizationMode.PER_FILTER, feed, exact, trials=20)
    compiled = compile_network(with_steps(network, one.steps), one.table, NV_SMALL, Precision.INT8, "per-filter")
    program = decode(compiled.loadable, NV_SMALL)
    kept: list[np.ndarray] = []
    inputs = feed(one.table, compiled.loadable.inputs[0].c)
    before = [operation.index for operation in program.before_softmax]
    results = run_tensors(program, {"data": inputs}, on_step=lambda _, values, __: kept.append(values), steps=before)
    scores = Reference(network, ["scores"]).run(images)["scores"].reshape(8, -1)
    boxes = Reference(network, ["boxes"]).run(images)["boxes"]
    values = [
        sqnr(boxes, results["boxes"] * np.float32(one.table["boxes"])),
        sqnr(scores, np.concatenate(kept).reshape(8, -1)[:, :10] * np.float32(one.table["scores"])),
    ]
    assert one.last == pytest.approx(np.mean(values), abs=1e-4)
    assert one.last >= one.first
