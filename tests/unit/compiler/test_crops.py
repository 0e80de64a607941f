"""Crops: rows and columns are read where they stand, at an offset, by whatever unit comes next."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nvdla_quant.compiler.claim.file import claim_as_json, claim_from_json
from nvdla_quant.compiler.claim.records import Place
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, QuantizationMode, Target
from nvdla_quant.network.graph import (
    LRN,
    Concat,
    Deconvolution,
    Eltwise,
    Flatten,
    Gather,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    ReLU,
    Sigmoid,
    Tensor,
)
from nvdla_quant.network.moves import Crop
from nvdla_quant.network.shapes import assemble
from nvdla_quant.verification import verify as module
from nvdla_quant.verification.judgement.verdicts import Judgement
from tests.layered import VARIANTS, WITH_TABLES, case, convolution, follows, is_called_right, random_weights

RNG = np.random.default_rng(8)
CUT = Crop((2, 5), (1, 4))
FILTER = QuantizationMode.PER_FILTER


def cropped(*layers: tuple[Operation, str], shape: tuple[int, int, int] = (3, 9, 7)) -> Network:
    """A convolution of 40 channels, `conv`, one of that, `other`, and layers l0, l1, ... that read what they say."""
    found = [
        Layer("conv", convolution(RNG, 40, 3), ("data",)),
        Layer("other", convolution(RNG, 40, 40, 1), ("conv",)),
    ]
    found += [Layer(f"l{n}", operation, tuple(names.split())) for n, (operation, names) in enumerate(layers)]
    used = {name for layer in found for name in layer.inputs} | {found[-1].name}
    return assemble("cropped", [Tensor("data", shape, "data")], [layer for layer in found if layer.name in used])


NETWORKS = {
    "convolution": cropped((CUT, "conv"), (convolution(RNG, 16, 40), "l0")),
    "depthwise": cropped((CUT, "conv"), (replace(convolution(RNG, 40, 1), group=40), "l0")),
    "deconvolution": cropped((CUT, "conv"), (Deconvolution(random_weights(RNG, 40, 9, 2, 2), None, (2, 2)), "l0")),
    "inner product": cropped((CUT, "conv"), (Flatten(), "l0"), (InnerProduct(random_weights(RNG, 7, 800), None), "l1")),
    "relu": cropped((CUT, "conv"), (ReLU(), "l0")),
    "maximum": cropped((CUT, "conv"), (Pooling("max", (3, 3), (2, 2), (1, 1)), "l0")),
    "average": cropped((CUT, "conv"), (Pooling("average", (2, 2), (1, 1)), "l0")),
    "sum": cropped((CUT, "conv"), (Crop((0, 5), (3, 4)), "other"), (Eltwise("sum"), "l0 l1")),
    "joined behind a convolution": cropped(
        (CUT, "conv"),
        (Pooling("max", (5, 4), (1, 1)), "conv"),
        (convolution(RNG, 40, 40), "l1"),
        (Eltwise("sum"), "l0 l2"),
    ),
    "concat": cropped((CUT, "conv"), (Crop((4, 5), (3, 4)), "other"), (Concat(), "l0 l1")),
    "output": cropped((CUT, "conv")),
    "one pixel": cropped((Crop((3, 1), (2, 1)), "conv")),
    "one pixel, read": cropped((Crop((3, 1), (2, 1)), "conv"), (ReLU(), "l0"), (convolution(RNG, 4, 40, 1), "l1")),
    "crop of a crop": cropped((CUT, "conv"), (Crop((1, 3), (0, 2)), "l0"), (ReLU(), "l1")),
    "channels of a crop": cropped((CUT, "conv"), (Gather(tuple(range(32, 40))), "l0"), (ReLU(), "l1")),
    "crop of channels": cropped((Gather(tuple(range(32, 40))), "conv"), (CUT, "l0"), (ReLU(), "l1")),
    "crop of a concat": cropped((Concat(), "conv other"), (CUT, "l0"), (convolution(RNG, 8, 80, 1), "l1")),
    "all of it": cropped((Crop((0, 9), (0, 7)), "conv"), (ReLU(), "l0")),
    "input": assemble(
        "input",
        [Tensor("data", (3, 9, 7), "data")],
        [Layer("l0", CUT, ("data",)), Layer("l1", convolution(RNG, 16, 3), ("l0",))],
    ),
}


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_crops_follow_the_float_network(name: str, target: Target, mode: QuantizationMode | None) -> None:
    """Nothing is added to what convolutions of rounded weights and sums cost."""
    follows(NETWORKS[name], target, mode, 6.0, half=2.0**-7)


@pytest.mark.parametrize(("target", "mode"), WITH_TABLES[:1] + WITH_TABLES[-1:])
@pytest.mark.parametrize("last", [LRN(5, 0.1, 0.75, 1.0), Sigmoid()], ids=["lrn", "sigmoid"])
def test_units_with_tables_read_crops(last: Operation, target: Target, mode: QuantizationMode | None) -> None:
    follows(cropped((CUT, "conv"), (last, "l0")), target, mode, 6.0, half=2.0**-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_crops_are_called_right(name: str) -> None:
    """By turns: a target for each network."""
    target, mode = VARIANTS[list(NETWORKS).index(name) % len(VARIANTS)].values
    is_called_right(NETWORKS[name], target, mode)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["convolution", "inner product", "maximum", "output", "crop of a crop"])
def test_crops_are_found_without_a_claim(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "own_claim", lambda *_: None)
    verdict = replace(case(NETWORKS[name], NV_SMALL, FILTER), claim=None).verify().verdict
    assert verdict.verdict is Judgement.OK, verdict


def test_a_crop_costs_nothing() -> None:
    """The operations are those of the other layers, and what they read begins at row 2, column 1 of atoms of 8."""
    program = case(NETWORKS["maximum"], NV_SMALL, FILTER).program
    convolved, pooled = program.operations
    source, whole = pooled.source, convolved.destination
    assert source.shape == (40, 5, 4)
    assert (source.line_stride, source.surface_stride) == (7 * 8, 9 * 7 * 8)
    assert source.offset - whole.offset == 2 * 7 * 8 + 1 * 8


def test_a_claim_of_another_rectangle_fails() -> None:
    found = case(NETWORKS["maximum"], NV_FULL, FILTER)
    assert found.claim is not None
    assert claim_from_json(json.loads(json.dumps(claim_as_json(found.claim))), "here") == found.claim
    (piece,) = [piece for piece in found.claim.pieces if piece.layers == ("l1",)]
    assert piece.reads == Place("conv", (0, 40), (2, 1), (1, 1), (5, 4))
    for place in (
        replace(piece.reads, rows=(1, 1)),
        replace(piece.reads, columns=(2, 1)),
        replace(piece.reads, size=None),
    ):
        pieces = tuple(replace(one, reads=place) if one is piece else one for one in found.claim.pieces)
        verdict = replace(found, claim=replace(found.claim, pieces=pieces)).verify().verdict
        assert verdict.verdict is not Judgement.OK


def test_a_claim_beyond_the_tensor_fails() -> None:
    found = case(NETWORKS["maximum"], NV_FULL, FILTER)
    assert found.claim is not None
    place = Place("conv", (0, 40), (5, 1), (1, 1), (5, 4))
    pieces = tuple(replace(one, reads=place) if one.layers == ("l1",) else one for one in found.claim.pieces)
    verification = replace(found, claim=replace(found.claim, pieces=pieces)).verify()
    assert "is not inside of" in str(verification.verdict)
