"""Loadables of several outputs: right ones are ok, and none whose outputs are swapped or wrong is."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.run import run_tensors
from nvdla_quant.errors import EmulationError, NetworkError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.structs import Engine
from nvdla_quant.network.graph import Network
from nvdla_quant.verification import verify as module
from nvdla_quant.verification.judgement.verdicts import Cause, Judgement, Verdict
from nvdla_quant.verification.measures.outputs import Output, outputs_of
from tests.networks.heads import alike_heads, many_heads, unlike_heads
from tests.verified import Case, compiled_case, correlation, with_bytes, with_field

MODES = [
    ("nv_small", Precision.INT8, QuantizationMode.PER_KERNEL),
    ("nv_small", Precision.INT8, QuantizationMode.PER_FILTER),
    ("nv_full", Precision.INT8, QuantizationMode.PER_KERNEL),
    ("nv_full", Precision.INT8, QuantizationMode.PER_FILTER),
    ("nv_full", Precision.FP16, None),
]
"""Target, precision and mode that loadables are made for."""
Mode = tuple[str, Precision, QuantizationMode | None]
in_every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, filter(None, mode))))


@cache
def made(build: Callable[[], Network], mode: Mode) -> Case:
    """A network compiled by us, and images."""
    target, *how = mode
    return compiled_case(build(), TARGETS[target], *how)


@pytest.fixture(params=["claim", "search"])
def judge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], Verdict]:
    """Judge by what the compiler claims, or by what is found without it."""
    if request.param == "claim":
        return lambda case: case.verify().verdict
    monkeypatch.setattr(module, "own_claim", lambda *_: None)
    return lambda case: replace(case, claim=None).verify().verdict


@in_every_mode
@pytest.mark.parametrize("build", [alike_heads, unlike_heads, many_heads])
def test_every_output_is_near_the_float_network(build: Callable[[], Network], mode: Mode) -> None:
    """Correlation of each with fp32: 0.99 or better, as issue 19 asks of int8 per-filter."""
    case = made(build, mode)
    verification = case.verify()
    assert (verification.verdict.verdict, verification.verdict.cause) == (Judgement.OK, None)
    program = case.program
    results = run_tensors(program, {program.inputs[0].name: case.inputs(program)})
    expected = Reference(case.network).run(case.images)
    assert list(results) == [tensor.blob for tensor in case.network.outputs]
    for name, values in results.items():
        if name.startswith("prob"):  # Steps of 1/127 are coarse for probabilities: the scores before are compared.
            continue
        assert correlation(values.reshape(len(values), -1), expected[name].reshape(len(values), -1)) > 0.99, name


@in_every_mode
@pytest.mark.parametrize("build", [alike_heads, many_heads])
def test_right_outputs_are_ok(build: Callable[[], Network], mode: Mode, judge: Callable[[Case], Verdict]) -> None:
    verdict = judge(made(build, mode))
    assert verdict.verdict is Judgement.OK
    names = {alike_heads: ["near", "far"], many_heads: ["stem_relu", "pool", "sloped", "fc_a", "fc_b"]}[build]
    assert [output.scores_layer for output in verdict.outputs] == names
    assert min(verdict.outputs, key=lambda output: output.margin).scores_layer == verdict.scores_layer
    assert verdict.margin == min(output.margin for output in verdict.outputs)
    assert [output["scores_layer"] for output in verdict.as_json()["outputs"]] == names


def _names_swapped(loadable: Loadable) -> Loadable:
    """What is called as one output holds the other."""
    first, second = loadable.outputs
    names = {first.id: second.name, second.id: first.name}
    tensors = tuple(replace(one, name=names.get(one.id, one.name)) for one in loadable.tensors)
    return replace(loadable, tensors=tensors)


def _memories_swapped(loadable: Loadable) -> Loadable:
    """Each output's descriptor stands for the other's memory: name, shape and number are what they were."""
    first, second = loadable.outputs
    swap = {first.mem_id: second, second.mem_id: first}
    memories = tuple(
        replace(one, bind_id=loadable.outputs.index(swap[one.id]), tensor_desc_id=swap[one.id].id)
        if one.id in swap
        else one
        for one in loadable.memories
    )
    tensors = {first.id: replace(first, mem_id=second.mem_id), second.id: replace(second, mem_id=first.mem_id)}
    return replace(loadable, memories=memories, tensors=tuple(tensors.get(one.id, one) for one in loadable.tensors))


@in_every_mode
@pytest.mark.parametrize("swap", [_names_swapped, _memories_swapped])
def test_swapped_outputs_are_miscompiled(
    swap: Callable[[Loadable], Loadable], mode: Mode, judge: Callable[[Case], Verdict]
) -> None:
    case = made(alike_heads, mode)
    swapped = replace(case, loadable=swap(case.loadable))
    before, after = (
        run_tensors(one.program, {one.program.inputs[0].name: one.inputs(one.program)}) for one in (case, swapped)
    )
    np.testing.assert_array_equal(before["near"], after["far"])
    np.testing.assert_array_equal(before["far"], after["near"])
    verdict = judge(swapped)
    assert (verdict.verdict, verdict.cause) == (Judgement.MISCOMPILED, Cause.OUTPUT)
    assert "output 'near' is not near, it holds far" in verdict.findings[0].evidence
    assert "output 'far' is not far, it holds near" in verdict.findings[0].evidence


@in_every_mode
def test_an_order_that_names_tell_is_none_of_a_fault(mode: Mode, judge: Callable[[Case], Verdict]) -> None:
    """Each output is what it is called, in another order than the network's: whoever reads by name is right."""
    case = made(alike_heads, mode)
    bound = {output.mem_id: number for number, output in enumerate(reversed(case.loadable.outputs))}
    memories = tuple(replace(one, bind_id=bound.get(one.id, one.bind_id)) for one in case.loadable.memories)
    turned = replace(case, loadable=replace(case.loadable, memories=memories))
    assert [output.name for output in turned.loadable.outputs] == ["far", "near"]
    assert judge(turned).verdict is Judgement.OK


@in_every_mode
def test_a_corrupted_head_is_never_ok(mode: Mode, judge: Callable[[Case], Verdict]) -> None:
    """The first bytes of each blob of weights, biases and multipliers, one after the other: both heads' among them."""
    case = made(alike_heads, mode)
    layers = set()
    for name in [blob.name for blob in case.loadable.blobs if blob.name.startswith("tb-")]:
        verdict = judge(with_bytes(case, name, _flip))
        assert verdict.verdict in (Judgement.MISCOMPILED, Judgement.UNKNOWN), name
        layers.add(verdict.first_bad_layer)
    assert {"near", "far"} <= layers


def _flip(content: bytearray) -> None:
    content[:8] = bytes(byte ^ 0x55 for byte in content[:8])


@pytest.mark.parametrize("mode", MODES[:4], ids=lambda mode: "-".join(map(str, filter(None, mode))))
def test_a_second_output_of_another_scale_is_never_ok(mode: Mode, judge: Callable[[Case], Verdict]) -> None:
    """Half as large, by one more bit that the SDP operation of the second head alone shifts by."""
    case = made(alike_heads, mode)
    last = max(operation.index for operation in case.program.operations)
    shift = case.program.operations[-1].units[0].truncate  # type: ignore[union-attr]
    verdict = judge(with_field(case, last, Engine.SDP, "x1_op.truncate", shift + 1))
    assert verdict.verdict is Judgement.MISCOMPILED
    assert verdict.first_bad_layer == "far"


def test_a_loadable_of_another_number_of_outputs_is_refused() -> None:
    other = replace(made(alike_heads, MODES[4]), network=many_heads(), claim=None)
    with pytest.raises(NetworkError, match=r"2 outputs \(near, far\), the network 5 outputs \(stem_relu, pool"):
        other.verify()


def test_two_outputs_of_one_name_are_refused() -> None:
    """Results go by name: one would be lost."""
    case = made(alike_heads, MODES[0])
    tensors = tuple(replace(one, name="same") if one.name != "data" else one for one in case.loadable.tensors)
    program = decode(replace(case.loadable, tensors=tensors), TARGETS["nv_small"])
    with pytest.raises(EmulationError, match="outputs are same, same: two of one name"):
        run_tensors(program, {"data": case.inputs(program)})


def test_outputs_go_by_name_then_by_order() -> None:
    """Of the two that are called as an output, each is that one; the third is left, whatever it is called."""
    network = many_heads()
    found = outputs_of(["x", "prob_b", "sloped", "pool", "prob_a"], network)
    assert found == (
        Output(0, "x", "stem_relu"),
        Output(1, "prob_b", "prob_b"),
        Output(2, "sloped", "sloped"),
        Output(3, "pool", "pool"),
        Output(4, "prob_a", "prob_a"),
    )
    by_order = outputs_of(list("01234"), network)
    assert [output.tensor for output in by_order] == ["stem_relu", "pool", "sloped", "prob_a", "prob_b"]


@pytest.mark.parametrize(
    ("mode", "parts"), [(MODES[1], ["left", "right"]), (MODES[3], ["boxes"])], ids=["parts", "whole"]
)
def test_a_concatenation_is_judged_by_all_that_it_joins(mode: Mode, parts: list[str]) -> None:
    """8 channels are an atom of nv_small, so the parts are written side by side; nv_full's atom of 32 holds both."""
    verdict = made(unlike_heads, mode).verify().verdict
    assert [output.scores_layer for output in verdict.outputs] == [*parts, "scores"]
