"""Random targets: compiler, emulator, int8 simulation and `check` agree on any legal specification."""

import json
from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.errors import CompileError
from nvdla_quant.hardware.targets import NV_SMALL, Precision, QuantizationMode, Target
from nvdla_quant.network.graph import ReLU
from nvdla_quant.registers.program.image import make_program
from nvdla_quant.support.check import PIXEL_RULE, check
from nvdla_quant.table.table import CalibrationTable
from tests.networks.random import Drawn, Variant, drawn_case, has_long_product, networks
from tests.profiles import examples
from tests.specifications import legal_targets
from tests.unit.compiler.test_compiler_random import chain, check_layer, random_convolution
from tests.verified import cosine, float_scores, simulated_scores

MODES = st.sampled_from(list(QuantizationMode))


@settings(max_examples=examples(60))
@given(networks(longest=4), legal_targets(), MODES)
def test_random_networks_on_random_targets(drawn: Drawn, target: Target, mode: QuantizationMode) -> None:
    """What `check` lets through compiles, fits the target's buffer, and is as near the float network as int8 can be.

    Written as a program of registers it leaves the same bytes, which `make_program` checks.
    """
    case = drawn_case(drawn, Variant(target, Precision.INT8, mode))
    if case is None:
        return
    program = case.program
    assert program.warnings == ()
    assert program.target == target
    make_program(case.loadable, np.full(program.inputs[0].shape, 3, np.int8), target)
    expected = float_scores(case.network, case.images)
    found = cosine(case.scores(), expected)
    if found < 0.98 and not has_long_product(case.network):
        assert case.table is not None
        assert found >= cosine(simulated_scores(case.network, case.table, mode, case.images), expected) - 0.05


@settings(max_examples=examples(60))
@given(st.integers(0, 1 << 16), legal_targets(), MODES)
def test_random_convolutions_on_random_targets(seed: int, target: Target, mode: QuantizationMode) -> None:
    """Each output is the exact sum of products, but for what rounding explains."""
    rng = np.random.default_rng(seed)
    shape, operation = random_convolution(rng)
    network = chain(shape, operation, *([ReLU()] if rng.random() < 0.5 else []))
    assume(not any(finding.severity == "error" for finding in check(network, target, Precision.INT8)))
    images = rng.integers(-128, 128, (2, *shape)).astype(np.int8)
    try:
        check_layer(network, images, target, mode)
    except CompileError as error:
        # Only once channels are taken in parts is it known that a partial sum has one pixel.
        assert PIXEL_RULE in str(error)  # noqa: PT017


def test_compile_json_says_what_an_own_target_is() -> None:
    """The loadable cannot; of the shipped ones the name is enough."""
    network = chain((8, 6, 6), ReLU())
    own = replace(NV_SMALL, name="own", cbuf_banks=16)
    for target in (NV_SMALL, own):
        table = CalibrationTable(dict.fromkeys(("data", "l0"), 1 / 32))
        report = json.loads(json.dumps(compile_network(network, table, target, Precision.INT8).report))
        assert report["target"] == target.name
        assert ("specification" in report) == (target is own)
    assert (report["specification"]["cbuf_banks"], report["specification"]["precisions"]) == (16, ["int8"])
