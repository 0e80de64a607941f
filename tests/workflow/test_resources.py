"""What Snakemake makes of the functions: numbers for jobs whose input is there, and none before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.sweeps import memory_asked


def test_a_job_asks_by_the_size_of_its_input(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> None:
    checkout = new_checkout()
    before = memory_asked(checkout, tiny_config)
    assert {name for name, numbers in before.items() if all(map(str.isdecimal, numbers))} == {
        "check_support",
        "prepare_network",
        "select_calibration_images",
        "select_test_images",
    }
    assert before["run_loadable"] == before["calibrate"] == before["write_report"] == {"<TBD>"}
    with (checkout / "inputs" / "tiny.caffemodel").open("ab") as file:
        file.truncate(100_000_000)
    (more,), (less,) = memory_asked(checkout, tiny_config)["prepare_network"], before["prepare_network"]
    assert int(less) + 500 < int(more) < int(less) + 1000
