"""A short run of the fuzzer; ``python -m tests.fuzz_traces`` runs as long as one likes."""

from pathlib import Path

from tests.fuzz_traces import fuzz, read_corpus
from tests.register_programs import FOLDER


def test_damaged_traces_end_in_a_result_or_a_clean_error(tmp_path: Path) -> None:
    corpus = read_corpus([FOLDER], 1 << 17)
    assert len(corpus) == 4
    outcome = fuzz(corpus, 400, seed=0, keep=tmp_path / "failures")
    assert not outcome.failed, outcome.endings
    assert {"held", "differed", "TraceError"} <= set(outcome.endings), "the mutations have lost their variety"
