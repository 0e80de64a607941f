"""Tables whose steps are large beside their function's bend: right as they are, and each fault in them is found."""

from collections.abc import Callable

import numpy as np
import pytest

from nvdla_quant.compiler.numbers.luts import evaluate, function_table
from nvdla_quant.compiler.numbers.quantize import ADDEND_SHIFT
from nvdla_quant.hardware.targets import NV_FULL, Precision, QuantizationMode
from nvdla_quant.loadable import structs
from nvdla_quant.network.graph import GELU, HardSigmoid, HardSwish, Power, Sigmoid, Swish, Tabulated, TanH
from nvdla_quant.verification.judgement.verdicts import Judgement
from nvdla_quant.verification.measures.tolerance import LARGEST
from tests.networks.builder import Builder
from tests.verified import Case, compiled_case, with_bytes

FUNCTIONS = (Sigmoid(), TanH(), HardSigmoid(), HardSwish(), Swish(), GELU(), GELU(True), Power(2.0, 1.0, -0.5))

SHIFTED = 4
"""Entries: so many are more than the steps that a table may cost, where its function is straight, too."""


def coarse(operation: Tabulated | Power, outputs: int) -> Case:
    """Return a function of a convolution's values, which reach far: what the table reads is finer than its entries."""
    builder = Builder("coarse", (24, 6, 6))
    builder.add("f", operation, builder.conv("c", "data", outputs, 1, gain=26.0))
    return compiled_case(builder.build(), NV_FULL, Precision.INT8, QuantizationMode.PER_KERNEL)


@pytest.mark.parametrize("outputs", [1, 16])
@pytest.mark.parametrize("operation", FUNCTIONS, ids=repr)
def test_a_coarse_table_is_no_defect_of_a_loadable(operation: Tabulated | Power, outputs: int) -> None:
    """Found by random networks: of one channel it was called a wrong factor, of several a wrong result."""
    case = coarse(operation, outputs)
    verification = case.verify()
    assert verification.verdict.verdict in (Judgement.OK, Judgement.TABLE), verification.verdict
    assert max(row["local_error"] for row in verification.rows) < 2


def test_lines_between_entries_are_far_from_the_function() -> None:
    """So the cases above are what they are said to be."""
    case = coarse(TanH(), 16)
    assert case.table is not None
    source, output = case.table["c"], case.table["f"]
    middles = (np.arange(-128, 128) + 0.5) * source
    ends = np.arange(-128, 129) * source
    lines = np.interp(middles, ends, evaluate(TanH(), ends))
    assert np.abs(lines - evaluate(TanH(), middles)).max() > 2 * LARGEST * output


def lut_of(content: bytearray) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    return np.frombuffer(content, structs.LUT, 1)


def an_entry(content: bytearray) -> None:
    lut_of(content)["linear_only_table"][0, 128] += 2000


def entries_that_are_shifted(content: bytearray) -> None:
    table = lut_of(content)["linear_only_table"]
    table[0] = np.roll(table[0], SHIFTED)


def wider_intervals(content: bytearray) -> None:
    lut_of(content)["linear_only_offset"] += 1


def narrower_intervals(content: bytearray) -> None:
    lut_of(content)["linear_only_offset"] -= 1


def another_beginning(content: bytearray) -> None:
    lut = lut_of(content)
    lut["linear_only_start"] += np.uint64(SHIFTED << int(lut["linear_only_offset"][0]))


def entries_beyond(content: bytearray) -> None:
    lut = lut_of(content)
    lut["hybrid_priority"] = 0
    lut["linear_exp_table"] = 0


FAULTS = (an_entry, entries_that_are_shifted, wider_intervals, narrower_intervals, another_beginning, entries_beyond)


@pytest.mark.parametrize("outputs", [1, 16])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("operation", [TanH(), HardSwish()], ids=repr)
def test_faults_of_a_coarse_table_are_found(
    operation: Tabulated, fault: Callable[[bytearray], None], outputs: int
) -> None:
    case = with_bytes(coarse(operation, outputs), "task-0-lut_list", fault)
    assert case.verify().verdict.verdict is Judgement.MISCOMPILED


def test_a_table_that_is_coarser_than_it_has_to_be_is_a_defect() -> None:
    """Its entries are the function's at places as wide apart as it says: that excuses nothing."""
    case = coarse(TanH(), 16)
    assert case.table is not None
    source, output = case.table["c"], case.table["f"]

    def coarser(content: bytearray) -> None:
        made = function_table(TanH(), source * 2.0**-ADDEND_SHIFT, 4 * source, output)
        content[: structs.LUT.itemsize] = made.tobytes()

    assert with_bytes(case, "task-0-lut_list", coarser).verify().verdict.verdict is Judgement.MISCOMPILED
