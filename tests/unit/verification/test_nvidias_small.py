"""Loadables of NVIDIA's compiler that every clone has (``tests/data/nvidia``): two outputs, and a miscompiled one."""

import lzma
from dataclasses import replace

import numpy as np
import pytest

from nvdla_quant.emulator.run import run_tensors
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.hardware.targets import TARGETS
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.loadable.records import MemoryFlags
from nvdla_quant.network.graph import Network
from nvdla_quant.table.table import read_table
from nvdla_quant.verification.judgement.verdicts import Cause, Judgement
from tests.conftest import REPOSITORY
from tests.networks.nvidia import product, two_heads
from tests.verified import Case, correlation

FOLDER = REPOSITORY / "tests" / "data" / "nvidia"
HEADS = {
    "heads-nv-full-fp16": None,
    "heads-nv-small-int8-perfilter": "per-filter",
    "heads-nv-small-int8-perkernel": "per-kernel",
}
"""Quantization mode of each."""
OTHER = {"near": "far", "far": "near"}


def case(name: str, network: Network) -> Case:
    """The loadable, its table where it is int8, and random images."""
    images = np.random.default_rng(1).normal(0, 1, (8, *network.only_input.shape)).astype(np.float32)
    table = None if "fp16" in name else read_table(FOLDER / f"{network.name}.json")
    loadable = parse_loadable(lzma.decompress((FOLDER / f"{name}.nvdla.xz").read_bytes()))
    return Case(loadable, network, table, images, TARGETS["nv_full" if "nv-full" in name else "nv_small"])


def renamed(one: Case) -> Case:
    """Each output is called as the other."""
    tensors = tuple(replace(tensor, name=OTHER.get(tensor.name, tensor.name)) for tensor in one.loadable.tensors)
    return replace(one, loadable=replace(one.loadable, tensors=tensors))


def bound_the_other_way(one: Case) -> Case:
    """The application finds them in the other order, by their names."""
    memories = tuple(
        replace(memory, bind_id=1 - memory.bind_id) if memory.flags & MemoryFlags.OUTPUT else memory
        for memory in one.loadable.memories
    )
    return replace(one, loadable=replace(one.loadable, memories=memories))


@pytest.mark.parametrize("name", HEADS)
def test_two_outputs_are_right_and_called_as_the_networks(name: str) -> None:
    one = case(name, two_heads())
    verdict = one.verify().verdict
    assert (verdict.verdict, verdict.cause, verdict.mode) == (Judgement.OK, None, HEADS[name])
    assert [output.scores_layer for output in verdict.outputs] == ["near", "far"]
    results = run_tensors(one.program, {one.program.inputs[0].name: one.inputs(one.program)})
    expected = Reference(one.network).run(one.images)
    for head, values in results.items():
        assert correlation(values, expected[head]) > 0.99
        assert abs(correlation(values, expected[OTHER[head]])) < 0.2


@pytest.mark.parametrize("name", HEADS)
def test_names_count_and_order_does_not(name: str) -> None:
    one = case(name, two_heads())
    wrong = renamed(one).verify().verdict
    assert (wrong.verdict, wrong.cause) == (Judgement.MISCOMPILED, Cause.OUTPUT)
    turned = bound_the_other_way(one)
    assert [port.name for port in turned.program.outputs] == ["far", "near"]
    assert turned.verify().verdict.verdict is Judgement.OK


def test_a_product_is_miscompiled() -> None:
    """As NVIDIA's compiler does with every product in int8."""
    verification = case("product-nv-small-int8-perfilter", product()).verify()
    assert (verification.verdict.verdict, verification.verdict.cause) == (Judgement.MISCOMPILED, Cause.PRODUCT)
    assert [row["layer"] for row in verification.rows] == ["c0", "a", "e1", "fc"]
