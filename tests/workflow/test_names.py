"""Names and places that cannot work are refused in words."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sweeps import run, run_apart


def is_one_line(result: subprocess.CompletedProcess[str], said: str) -> None:
    """The one line that a user can act on is all that is said of it, and stands last."""
    assert result.returncode == 1
    assert result.stderr.rstrip().splitlines()[-1] == f"config: {said}"
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


def test_a_name_that_is_not_in_the_configuration_as_a_user_meets_it(finished: Path) -> None:
    result = run_apart(finished, "-n", "results/tiny/noise/calibration/typo/table.raw.json")
    is_one_line(result, "there is no calibrator 'typo', but entropy, minmax")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nv_small/int8-typo/accuracy.json", "there is no variant 'int8-typo', but fp16, int8-per-filter-entropy"),
        ("nv_small/int8-typo/loadable.nvdla", "there is no variant 'int8-typo', but fp16, int8-per-filter-entropy"),
        ("nv_small/int8-typo/verdict.json", "there is no variant 'int8-typo', but fp16, int8-per-filter-entropy"),
        ("calibration/typo/table.raw.json", "there is no calibrator 'typo', but entropy, minmax"),
        ("calibration/typo/fold-quantized/table.fixed.json", "there is no calibrator 'typo', but entropy, minmax"),
        ("images/calibration-typo.npz", "there is no calibrator 'typo', but entropy, minmax"),
        ("../../typo/noise/nv_full/fp16/accuracy.json", "there is no model 'typo', but tiny"),
        ("../typo/nv_full/fp16/accuracy.json", "there is no case 'tiny/typo', but tiny/noise"),
    ],
)
def test_names_that_are_not_in_the_configuration(finished: Path, path: str, said: str) -> None:
    is_one_line(run(finished, "-n", os.path.normpath(f"results/tiny/noise/{path}")), said)


def test_a_mistake_in_the_configuration_is_one_line(finished: Path) -> None:
    result = run(finished, "-n", "--config", "shard=2")
    assert result.returncode == 1
    assert result.stderr.rstrip().splitlines()[-1].startswith("config: the configuration: unknown key 'shard'")
    assert "common.smk" not in result.stderr


def test_targets_that_the_sweep_has_not_are_said_once(finished: Path) -> None:
    result = run(finished, "-n", "--config", 'targets=["nv_small"]')
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr.count("variants[0]: no run on nv_full, which `targets` does not list") == 1


def test_a_checkout_in_a_folder_with_a_colon(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> None:
    """`PYTHONPATH` separates folders by colons, with no escape (Python's manual, "Command line and environment")."""
    checkout = new_checkout()
    (checkout / "config.yaml").write_text(yaml.safe_dump(tiny_config))
    moved = shutil.move(checkout, checkout.with_name("12:30"))
    result = run(moved, "-n")
    assert result.returncode != 0
    assert "cannot name a folder with a colon; move the checkout" in result.stdout + result.stderr
