"""Disk full, a folder that cannot be written, a damaged file: a clear message, and the next run recovers."""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.test_interrupt import measured
from tests.profiles import is_long
from tests.sweeps import MEASURED, run, run_apart

pytestmark = pytest.mark.e2e


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mount a tmpfs on `folder` for a while; skip the test where that is not permitted."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mounting a tmpfs is not permitted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def checkout(new_checkout: Callable[..., Path], least_config: dict[str, Any]) -> Path:
    made = new_checkout()
    (made / "config.yaml").write_text(yaml.safe_dump(least_config))
    return made


@pytest.fixture
def copied(finished_least: Path, tmp_path: Path) -> Path:
    """A checkout in which everything is made, to do anything with."""
    return shutil.copytree(finished_least, tmp_path / "copy", symlinks=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount command")
def test_a_results_folder_that_cannot_be_written_and_a_full_disk(checkout: Path, finished_least: Path) -> None:
    """First mounted read-only, since root writes whatever the permissions say; then with too little room.

    120 KiB hold the first files and not all; what a full disk broke is made again once there is room.
    """
    results = checkout / "results"
    with mounted(results, "ro"):
        refused = run(checkout, *MEASURED)
        assert refused.returncode != 0
        assert "Read-only file system" in refused.stdout + refused.stderr
        assert "results" in refused.stdout + refused.stderr
    with mounted(results, "size=120k"):
        full = run_apart(checkout, *MEASURED)  # Whose jobs say it on the terminal, for their logs are full too.
        assert full.returncode != 0
        assert "No space left on device" in full.stdout + full.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(results)], check=True)
        again = run(checkout, *MEASURED)
        assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-4000:]
        assert measured(checkout) == measured(finished_least)


DAMAGED = {
    "tiny/noise/reference/1-of-1.npz": "score_reference",
    "tiny/noise/calibration/entropy/calibration.cache": "convert_cache",
    "tiny/noise/nv_small/int8-per-filter-entropy/accuracy.json": "summarize_sweep",
    "tiny/noise/comparisons.json": "summarize_sweep",
    "tiny/noise/nv_small/int8-per-filter-entropy/verdict.json": "summarize_sweep",
}
"""Files, and the rule whose job reads each."""


def test_damaged_intermediate_files(copied: Path, finished_least: Path) -> None:
    """Half of a file is gone: the job that reads it names the file; removed, as it says, all are made again.

    One file at a time is damaged, for one that reads two would only get to the first.
    """
    for damaged, reader in DAMAGED.items():
        path = copied / "results" / damaged
        whole, status = path.read_bytes(), path.stat()
        path.write_bytes(whole[: len(whole) // 2])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        broken = run(copied, "--forcerun", reader, "--until", reader)
        assert broken.returncode != 0
        assert str(path.relative_to(copied)) in broken.stdout + broken.stderr
        path.write_bytes(whole)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for damaged in DAMAGED:
        (copied / "results" / damaged).unlink()
    again = run(copied, *MEASURED)
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-4000:]
    assert measured(copied) == measured(finished_least)


DEFECT = """

def diagnose(examination: object) -> Verdict:
    raise ZeroDivisionError("a defect")
"""
"""Appended to the module that judges: it takes the place of the function that the module imports."""


def test_a_defect_of_verification_does_not_stop_the_sweep(copied: Path, finished_least: Path) -> None:
    """Every verdict is ``unknown`` and says why, the log has the traceback, and all else is as without the defect.

    The summary has them; figures and the page, which read the same files, are made again in the long form alone.
    """
    with (copied / "nvdla_quant" / "verification" / "verify.py").open("a") as module:
        module.write(DEFECT)
    result = run(copied, *(() if is_long() else MEASURED))
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    verdicts = sorted(copied.glob("results/tiny/noise/*/*/verdict.json"))
    assert len(verdicts) == (3 if is_long() else 1)
    for path in verdicts:
        found = json.loads(path.read_text())
        assert found["verdict"] == "unknown"
        assert "ZeroDivisionError: a defect" in json.dumps(found)
        log = copied / "results/logs/tiny/noise/verify_loadable" / path.parent.parent.name / f"{path.parent.name}.log"
        assert "Traceback (most recent call last)" in log.read_text()
    same = ("accuracy.json", "comparison.json", "compile.json")
    for path in (path for name in same for path in copied.glob(f"results/tiny/noise/*/*/{name}")):
        assert path.read_bytes() == (finished_least / path.relative_to(copied)).read_bytes()
    with (copied / "results/summary.tsv").open() as file:
        said = [row["verdict"] for row in csv.DictReader(file, delimiter="\t") if row["variant"] != "fp32"]
    assert said == ["unknown"] * len(verdicts)
    assert not is_long() or (copied / "results/report/report.html").is_file()
