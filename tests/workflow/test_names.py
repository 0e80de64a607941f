"""Names and places that cannot work are refused in words."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def test_a_checkout_in_a_folder_with_a_colon(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> None:
    """`PYTHONPATH` separates folders by colons, with no escape (Python's manual, "Command line and environment")."""
    checkout = new_checkout()
    (checkout / "config.yaml").write_text(yaml.safe_dump(tiny_config))
    moved = shutil.move(checkout, checkout.with_name("12:30"))
    result = run(moved, "-n")
    assert result.returncode != 0
    assert "cannot name a folder with a colon; move the checkout" in result.stdout + result.stderr
