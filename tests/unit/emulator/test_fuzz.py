"""A short run of the fuzzer; ``python -m tests.fuzz_loadables`` runs as long as one likes."""

from pathlib import Path

from tests.fuzz_loadables import fuzz, read_corpus


def test_damaged_loadables_end_in_a_result_or_a_clean_error(repository: Path, tmp_path: Path) -> None:
    corpus = read_corpus([repository / "tests" / "data"])
    assert len(corpus) >= 6
    outcome = fuzz(corpus, 400, seed=0, keep=tmp_path / "failures")
    assert not outcome.failed, outcome.endings
    assert {"ran", "LoadableError", "EmulationError"} <= set(outcome.endings), "the mutations have lost their variety"
