"""A few mutations of ONNX files; ``benchmarks/onnx_fuzz.py`` reads many."""

from pathlib import Path

from tests.fuzz_onnx import fuzz


def test_mutations_end_in_a_network_or_a_clean_error(tmp_path: Path) -> None:
    ends = fuzz(tmp_path, seed=7, count=200)
    assert set(ends) <= {"read", "NetworkError", "UnsupportedError", "LayersError", "WeightsError"}
    assert min(ends["read"], ends["NetworkError"]) > 20
