"""Networks that people deploy, made small: each compiles, computes what it should, and is called right."""

from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import gallery
from nvdla_quant.errors import CompileError
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL, TARGETS, Precision, QuantizationMode, Target
from nvdla_quant.network.graph import TABULATED, Network
from nvdla_quant.support.check import check
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.verification.judgement.verdicts import Judgement
from tests.networks import GALLERY
from tests.profiles import has_turn
from tests.verified import (
    Case,
    case_of,
    cosine,
    float_scores,
    minmax_table,
    simulated_scores,
    smooth_images,
    table_is_bad,
)

PER_FILTER, PER_KERNEL = QuantizationMode.PER_FILTER, QuantizationMode.PER_KERNEL
INT8, FP16 = Precision.INT8, Precision.FP16
IMAGES = 4
"""Fewest whose variation counts in a verdict."""
NEAR = {INT8: 0.98, FP16: 0.9999}
"""Least cosine of the scores with the float network's, where int8 itself allows that."""

Variant = tuple[Target, Precision, QuantizationMode | None]
SMALL: Variant = (NV_SMALL, INT8, PER_FILTER)
HALF: Variant = (NV_FULL, FP16, None)
VARIANTS: dict[str, Variant] = {
    "nv_small": SMALL,
    "nv_large": (NV_LARGE, INT8, PER_KERNEL),
    "nv_full": (NV_FULL, INT8, PER_KERNEL),
    "nv_full-fp16": HALF,
}
"""Both modes, for modes change no operation; test_compiler_random.py has all of them."""


class Prepared(NamedTuple):
    """A network with a table over some images."""

    network: Network
    table: CalibrationTable
    images: NDArray[np.float32]


@cache
def prepared(name: str) -> Prepared:
    network = GALLERY[name].reduced()
    images = smooth_images(network.only_input.chw, IMAGES)
    return Prepared(network, minmax_table(network, images), images)


@cache
def compiled(name: str, variant: str) -> Case | None:
    """The case, or None where `check` says that the target cannot run it: then the compiler refuses it as well."""
    network, table, images = prepared(name)
    target, precision, mode = VARIANTS[variant]
    rules = {finding.rule for finding in check(network, target, precision) if finding.severity == "error"}
    if not rules:
        return case_of(network, table, images, target, precision, mode)
    with pytest.raises(CompileError, match="cannot be compiled for"):
        case_of(network, table, images, target, precision, mode)
    return None


@cache
def expected_scores(name: str) -> NDArray[np.float32]:
    """The float network's, for all variants."""
    network, _, images = prepared(name)
    return float_scores(network, images)


def tables(network: Network) -> set[str]:
    """Layers that need the look-up table of the SDP."""
    return {layer.name for layer in network.layers if isinstance(layer.operation, TABULATED)}


@pytest.mark.parametrize("reduced", [False, True], ids=["full", "reduced"])
@pytest.mark.parametrize("name", GALLERY)
def test_check_refuses_tables_on_nv_small_and_nothing_else(name: str, reduced: bool) -> None:
    """At full size too: without weights, since shapes alone count."""
    network = GALLERY[name].reduced(None) if reduced else GALLERY[name].full(None)
    for target in TARGETS.values():
        for precision in sorted({INT8, FP16} & target.precisions):
            found = {(item.rule, item.layer) for item in check(network, target, precision) if item.severity == "error"}
            lacking = set() if target.has_lut else tables(network)
            assert found == {("no-table", layer) for layer in lacking}, (target.name, precision)


TRIED = [
    (name, variant)
    for (i, name), (j, variant) in product(enumerate(GALLERY), enumerate(VARIANTS))
    if has_turn(i + j, 2)
]
"""In the short form half of the variants of a network, the next network the others."""


@pytest.mark.parametrize(("name", "variant"), TRIED)
def test_it_computes_its_network(name: str, variant: str) -> None:
    case = compiled(name, variant)
    if case is None:
        return
    network, table, images = prepared(name)
    _, precision, mode = VARIANTS[variant]
    expected = expected_scores(name)
    found, least = cosine(case.scores(), expected), NEAR[precision]
    if mode is not None and found < least:
        least = cosine(simulated_scores(network, table, mode, images), expected) - 0.005
    assert found >= least


@pytest.mark.parametrize(("name", "variant"), TRIED)
def test_it_is_called_right(name: str, variant: str) -> None:
    case = compiled(name, variant)
    if case is None:
        return
    verdict = case.verify().verdict
    if verdict.verdict is not Judgement.OK:
        assert verdict.verdict is Judgement.TABLE, verdict
        assert table_is_bad(case, VARIANTS[variant][2]), verdict


def test_the_command_prints_a_line_for_each_target_and_variant(capsys: pytest.CaptureFixture[str]) -> None:
    status = gallery.main(["--networks", "functions", "sum-of-three", "--images", "4", "--no-verify"])
    lines = capsys.readouterr().out.splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert status == 0
    assert head == list(gallery.HEAD)
    assert [row[:3] for row in rows] == [
        [name, target, variant]
        for name in ("functions", "sum-of-three")
        for target in ("nv_small", "nv_large", "nv_full")
        for variant in ("int8 per-kernel", "int8 per-filter", *(["fp16"] if target == "nv_full" else []))
    ]
    assert {len(row) for row in rows} == {len(head)}
    assert [row[5] for row in rows] == ["refused: no-table"] * 2 + [""] * 12
    assert all(float(row[3]) > 0.99 for row in rows if not row[5])
