"""A name in a path that the configuration lacks is refused in words."""

from pathlib import Path

import pytest

from tests.sweeps import run


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nv_small/int8-typo/accuracy.json", "there is no variant 'int8-typo', but fp16, int8-per-filter-entropy"),
        ("nv_small/int8-typo/loadable.nvdla", "there is no variant 'int8-typo', but fp16, int8-per-filter-entropy"),
        ("nv_small/int8-typo/verdict.json", "there is no variant 'int8-typo', but fp16, int8-per-filter-entropy"),
        ("calibration/typo/table.raw.json", "there is no calibrator 'typo', but entropy, minmax"),
        ("calibration/typo/fold-quantized/table.fixed.json", "there is no calibrator 'typo', but entropy, minmax"),
        ("images/calibration-typo.npz", "there is no calibrator 'typo', but entropy, minmax"),
    ],
)
def test_names_that_are_not_in_the_configuration(finished: Path, path: str, said: str) -> None:
    result = run(finished, "-n", f"results/tiny/noise/{path}")
    assert result.returncode != 0
    assert said in result.stdout + result.stderr
