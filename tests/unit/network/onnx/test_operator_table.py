"""The table of operators in docs/onnx.md is what is read, and what `check` and the compiler do with it."""

import pytest

from benchmarks import operators
from nvdla_quant.network.onnx.reader import SUPPORTED
from tests.conftest import REPOSITORY

ROWS = [one for line in operators.rows() for one in operators.each(line)]
LEAST_CORRELATION = 0.999
"""docs/onnx.md says it too."""


def test_the_documentation_has_the_table_that_is_printed() -> None:
    """``python -m benchmarks.operators`` prints it."""
    assert operators.table() in (REPOSITORY / "docs" / "onnx.md").read_text(encoding="utf-8")


def test_every_operator_has_a_row_with_a_node_of_it() -> None:
    found = set()
    for row in ROWS:
        there = {
            f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            for node in operators.build(row).graph.node
        }
        assert set(row.operators) <= there
        found |= set(row.operators)
    assert found == set(SUPPORTED)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{'+'.join(row.operators)}: {row.form}")
def test_int8_is_near_to_fp32(row: operators.Row) -> None:
    assert operators.agreement(row) > LEAST_CORRELATION
