"""The table of layers in docs/compiler.md is what `check` and the compiler do."""

import importlib.util
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


def test_the_documentation_has_the_table_that_is_printed() -> None:
    """``python benchmarks/layers.py`` prints it; making it also compares `check` with the compiler, cell by cell."""
    spec = importlib.util.spec_from_file_location("layers", CHECKOUT / "benchmarks" / "layers.py")
    assert spec is not None
    assert spec.loader is not None
    layers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layers)
    assert layers.table() in (CHECKOUT / "docs" / "compiler.md").read_text(encoding="utf-8")
