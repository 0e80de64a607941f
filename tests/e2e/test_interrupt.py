"""A run that was killed goes on where it stopped, and ends with the same bytes."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.profiles import is_long
from tests.sweeps import MEASURED, run

pytestmark = pytest.mark.e2e


def artefacts(checkout: Path) -> dict[str, str]:
    """Digest of every file under results/ but logs, run times and the page that shows them."""
    results = checkout / "results"
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(results.rglob("*"))
        if path.is_file() and path.relative_to(results).parts[0] not in ("logs", "benchmarks")
        if path.name != "report.html"
    }


def drawn(name: str) -> bool:
    """Whether an artefact is a figure, or made behind them: the list of all artefacts."""
    return name.startswith("report/") or name == "manifest.json"


def measured(checkout: Path) -> dict[str, str]:
    """As `artefacts`, without what is drawn."""
    return {name: digest for name, digest in artefacts(checkout).items() if not drawn(name)}


TURNS = {
    "both": (signal.SIGKILL, signal.SIGTERM),
    "kill": (signal.SIGKILL,),
    "terminate": (signal.SIGTERM,),
}


@pytest.mark.parametrize("signals", TURNS)
def test_kill_and_start_again(
    finished_least: Path, new_checkout: Callable[..., Path], least_config: dict[str, Any], signals: str
) -> None:
    """Kill the whole process group once so many jobs have ended, in the middle of the next ones; again and again.

    By both signals in turns; in the long form by each alone as well.
    """
    if signals != "both" and not is_long():
        pytest.skip("long: pytest --hypothesis-profile long")
    checkout = new_checkout()
    (checkout / "config.yaml").write_text(yaml.safe_dump(least_config))
    for jobs, how in zip((1, 5, 9, 14), cycle(TURNS[signals]), strict=False):
        kill_after(checkout, jobs, how)
    again = run(checkout, *MEASURED)
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-4000:]
    assert measured(checkout) == measured(finished_least)


def kill_after(checkout: Path, jobs: int, how: signal.Signals) -> None:
    """Start the sweep, or go on with it, and kill it once `jobs` jobs of it have ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2"],
        cwd=checkout,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    benchmarks = checkout / "results" / "benchmarks"
    while len(list(benchmarks.rglob("*.tsv"))) < jobs and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it was killed"
    os.killpg(process.pid, how)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:  # As a supervisor does: first politely, then not.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)
